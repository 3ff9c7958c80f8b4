// SPDX-License-Identifier: MIT
// WordPiece: the tokenizer of BERT.
#pragma once

#include <array>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace encoder {

/// A text becomes words, at spaces, punctuation and ideographs, in lower case and without accents if the model has it
/// so. A word becomes the longest piece of the vocabulary that it begins with, then the longest that continues it, and
/// so on; or [UNK], if that ends early or the word has more than 100 characters.
///
/// Source: Devlin et al. 2018, arXiv:1810.04805; the tokens are those of transformers' tokenizer.
class WordPiece {
 public:
  /// `vocabulary`: pieces in the order of their numbers, with [CLS], [SEP] and [UNK].
  /// Throws std::runtime_error, naming `source`, if one of these is not there.
  WordPiece(std::vector<std::string> vocabulary, bool lower, const std::string& source);

  /// Of `folder`/tokenizer.json, or else vocab.txt. Throws std::runtime_error for another kind of tokenizer.
  static WordPiece read(const std::filesystem::path& folder);

  /// [CLS], the first tokens of `text`, [SEP]: at most `max_tokens` together, and at least the two. What stands in the
  /// text as [CLS], [SEP], [UNK], [PAD] or [MASK] is that token.
  std::vector<int> encode(std::string_view text, std::size_t max_tokens) const;

  std::size_t size() const { return numbers_.size(); }

 private:
  static constexpr std::size_t longest_word = 100;
  static constexpr std::array<std::string_view, 5> special{"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};

  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };

  int number_of(std::string_view piece) const;  // -1: none
  void add_text(std::string_view text, std::vector<int>& tokens) const;
  void add_word(std::u32string_view word, std::vector<int>& tokens) const;

  std::unordered_map<std::string, int, Hash, std::equal_to<>> numbers_;
  bool lower_;
  int unknown_ = 0, first_ = 0, last_ = 0;
};

}  // namespace encoder
