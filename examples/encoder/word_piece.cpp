// SPDX-License-Identifier: MIT
#include "encoder/word_piece.hpp"

#include "encoder/code_points.hpp"
#include "encoder/json_file.hpp"

#include <algorithm>
#include <fstream>
#include <stdexcept>
#include <utility>

namespace encoder {

WordPiece::WordPiece(std::vector<std::string> vocabulary, bool lower, const std::string& source) : lower_(lower) {
  for (std::size_t i = 0; i < vocabulary.size(); ++i) numbers_.try_emplace(std::move(vocabulary[i]), int(i));
  const auto required = [&](std::string_view piece) {
    const int number = number_of(piece);
    if (number < 0)
      throw std::runtime_error(source + ": expected a piece '" + std::string(piece) + "', found none among " +
                               std::to_string(numbers_.size()));
    return number;
  };
  unknown_ = required("[UNK]"), first_ = required("[CLS]"), last_ = required("[SEP]");
}

WordPiece WordPiece::read(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "tokenizer.json", lines = folder / "vocab.txt";
  std::vector<std::string> vocabulary;
  if (!std::filesystem::exists(path) && std::filesystem::exists(lines)) {
    std::ifstream stream(lines);
    for (std::string line; std::getline(stream, line);) vocabulary.push_back(line);
    const bool configured = std::filesystem::exists(folder / "tokenizer_config.json");
    const bool lower = !configured || JsonFile(folder / "tokenizer_config.json").tree().value("do_lower_case", true);
    return {std::move(vocabulary), lower, lines.string()};
  }
  const JsonFile file(path);
  const auto text_at = [&](const char* pointer) {
    const nlohmann::json::json_pointer place(pointer);
    return file.tree().contains(place) && file.tree().at(place).is_string() ? file.tree().at(place).get<std::string>()
                                                                            : std::string("none");
  };
  for (const auto& [pointer, kind] : {std::pair{"/model/type", "WordPiece"},
                                      {"/normalizer/type", "BertNormalizer"},
                                      {"/pre_tokenizer/type", "BertPreTokenizer"}})
    if (text_at(pointer) != kind) file.fail(std::string(pointer) + " of '" + kind + "'", text_at(pointer));
  const nlohmann::json& pieces = file.tree().at("model").at("vocab");
  vocabulary.resize(pieces.size());
  for (const auto& [piece, number] : pieces.items()) {
    if (!number.is_number_unsigned() || number.get<std::size_t>() >= vocabulary.size())
      file.fail("numbers of pieces below " + std::to_string(vocabulary.size()), number.dump() + " for '" + piece + "'");
    vocabulary[number.get<std::size_t>()] = piece;
  }
  const nlohmann::json& normalizer = file.tree().at("normalizer");
  const bool lower = normalizer.value("lowercase", true);
  const auto accents = normalizer.find("strip_accents");
  if (accents != normalizer.end() && accents->is_boolean() && accents->get<bool>() != lower)
    file.fail("strip_accents as lowercase", accents->dump());
  return {std::move(vocabulary), lower, path.string()};
}

int WordPiece::number_of(std::string_view piece) const {
  const auto found = numbers_.find(piece);
  return found == numbers_.end() ? -1 : found->second;
}

std::vector<int> WordPiece::encode(std::string_view text, std::size_t max_tokens) const {
  std::vector<int> tokens{first_};
  while (!text.empty()) {
    std::size_t at = text.size();
    std::string_view next;
    for (std::string_view piece : special)
      if (const std::size_t place = text.find(piece); place < at) at = place, next = piece;
    add_text(text.substr(0, at), tokens);
    if (!next.empty()) tokens.push_back(std::max(number_of(next), 0));
    text.remove_prefix(at + next.size());
  }
  tokens.resize(std::min(tokens.size(), std::max<std::size_t>(max_tokens, 2) - 1));
  tokens.push_back(last_);
  return tokens;
}

void WordPiece::add_text(std::string_view text, std::vector<int>& tokens) const {
  std::u32string points;
  for (const char32_t point : code_points(text)) {
    if (point == 0 || point == U'\uFFFD' || is_control(point)) continue;
    if (is_ideograph(point))
      points += {U' ', point, U' '};
    else
      points += is_space(point) ? U' ' : point;
  }
  if (lower_) points = lower_without_accents(points);

  std::u32string word;
  const auto end_word = [&] {
    if (!word.empty()) add_word(word, tokens);
    word.clear();
  };
  for (const char32_t point : points) {
    if (is_space(point)) {
      end_word();
    } else if (is_punctuation(point)) {
      end_word();
      add_word({&point, 1}, tokens);
    } else {
      word += point;
    }
  }
  end_word();
}

void WordPiece::add_word(std::u32string_view word, std::vector<int>& tokens) const {
  const std::size_t before = tokens.size();
  const auto unknown = [&] {
    tokens.resize(before);
    tokens.push_back(unknown_);
  };
  if (word.size() > longest_word) return unknown();
  for (std::size_t begin = 0; begin < word.size();) {
    std::string piece = begin > 0 ? "##" : "";
    int longest = -1;
    std::size_t end_of_longest = begin;
    for (std::size_t end = begin; end < word.size(); ++end) {
      append_utf8(word[end], piece);
      if (const int number = number_of(piece); number >= 0) longest = number, end_of_longest = end + 1;
    }
    if (longest < 0) return unknown();
    tokens.push_back(longest);
    begin = end_of_longest;
  }
}

}  // namespace encoder
