// SPDX-License-Identifier: MIT
#include "encoder/document_sources.hpp"

#include "text/text_source.hpp"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <optional>
#include <sstream>
#include <utility>

namespace encoder {
namespace {

constexpr std::size_t longest_answer = 800;  // characters: more than an encoder reads

std::vector<std::string> lines_of(std::string_view text) {
  std::vector<std::string> lines;
  std::istringstream stream{std::string(text)};
  for (std::string line; std::getline(stream, line);) lines.push_back(std::move(line));
  return lines;
}

std::string trimmed(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first == text.npos) return {};
  return std::string(text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1));
}

void append_word(std::string& text, std::string_view words) {
  if (words.empty()) return;
  if (!text.empty()) text += ' ';
  text += words;
}

/// Up to the first period that ends a sentence.
std::size_t end_of_sentence(std::string_view text) {
  for (std::size_t i = 0; i < text.size(); ++i)
    if (text[i] == '.' && (i + 1 == text.size() || text[i + 1] == ' ')) return i + 1;
  return text.size();
}

/// Of a file, compressed by gzip or not; empty if it cannot be read.
std::string contents_of(const std::filesystem::path& path) {
  constexpr std::size_t most = 4'000'000;
  std::string result;
  const gzFile file = gzopen(path.c_str(), "rb");
  if (file == nullptr) return result;
  std::array<char, 1 << 16> part;
  for (int count = 0; result.size() < most && (count = gzread(file, part.data(), unsigned(part.size()))) > 0;)
    result.append(part.data(), std::size_t(count));
  gzclose(file);
  return result;
}

/// The pairs of all files below the first of `folders` that has files accepted by `accepts`.
template <class Accepts, class PairsOf>
std::vector<TextPair> pairs_below(const std::vector<std::filesystem::path>& folders, Accepts accepts,
                                  PairsOf pairs_of) {
  std::vector<TextPair> result;
  for (const std::filesystem::path& folder : folders) {
    text::ScanLimit limit{.entries = 200'000};
    text::scan(folder, limit, [&](const std::filesystem::directory_entry& entry) {
      if (!accepts(entry.path()) || result.size() > 20'000) return;
      std::vector<TextPair> found =
          pairs_of(contents_of(entry.path()), std::filesystem::relative(entry.path(), folder).string());
      result.insert(result.end(), std::move_iterator(found.begin()), std::move_iterator(found.end()));
    });
    if (!result.empty()) break;
  }
  return result;
}

/// Folders below `root` whose names begin with `start`.
std::vector<std::filesystem::path> folders_like(const std::filesystem::path& root, std::string_view start) {
  std::vector<std::filesystem::path> result;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(root, ignored))
    if (entry.path().filename().string().starts_with(start) && entry.is_directory(ignored))
      result.push_back(entry.path());
  std::sort(result.begin(), result.end());
  return result;
}

/// A line of troff as plain text: without font changes, escapes and the name of a macro.
std::string plain(std::string_view line) {
  if (line.starts_with('.') || line.starts_with('\'')) {
    constexpr std::array<std::string_view, 8> with_text{".B ", ".I ", ".BR ", ".RB ", ".IR ", ".BI ", ".RI ", ".IB "};
    const auto macro = std::find_if(with_text.begin(), with_text.end(), [&](auto m) { return line.starts_with(m); });
    if (macro == with_text.end()) return {};
    line.remove_prefix(macro->size());
  }
  std::string result;
  for (std::size_t i = 0; i < line.size(); ++i) {
    if (line[i] != '\\' || i + 1 == line.size()) {
      if (line[i] != '"') result += line[i];
      continue;
    }
    switch (const char escape = line[++i]) {
      case 'f':  // \fB, \f(CW or \f[B]
        if (i + 1 < line.size()) {
          const char font = line[++i];
          if (font == '(') i += 2;
          if (font == '[') i = std::min(line.find(']', i), line.size());
        }
        break;
      case '(':
        if (line.substr(i + 1, 2) == "aq") result += '\'';
        i += 2;
        break;
      case 'e':
        result += '\\';
        break;
      case '"':
        return trimmed(result);
      case '&':
      case ':':
      case '|':
        break;
      default:
        result += escape;
    }
  }
  return trimmed(result);
}

}  // namespace

std::vector<TextPair> pairs_of_packages(std::string_view status) {
  std::vector<TextPair> pairs;
  TextPair pair;
  bool describes = false;
  for (const std::string& line : lines_of(status)) {
    if (line.starts_with("Package: ")) pair = {.document = line.substr(9)};
    if (line.starts_with("Description: ")) {
      pair.query = line.substr(13);
      describes = true;
    } else if (describes && line.starts_with(" ")) {
      const std::string words = trimmed(line);
      if (words != "." && pair.answer.size() < longest_answer) append_word(pair.answer, words);
    } else if (describes) {
      pairs.push_back(pair);
      describes = false;
    }
  }
  if (describes) pairs.push_back(pair);
  return pairs;
}

std::vector<TextPair> pairs_of_python(std::string_view code, const std::string& document) {
  constexpr std::string_view quotes = "\"\"\"";
  std::vector<TextPair> pairs;
  const std::vector<std::string> lines = lines_of(code);
  const auto indent_of = [](const std::string& line) { return std::min(line.find_first_not_of(' '), line.size()); };
  for (std::size_t i = 0; i < lines.size(); ++i) {
    std::string head = trimmed(lines[i]);
    if (!head.starts_with("def ") && !head.starts_with("class ")) continue;
    std::size_t body = i;
    while (body < lines.size() && !trimmed(lines[body]).ends_with(':'))
      if (++body < lines.size()) append_word(head, trimmed(lines[body]));
    if (++body >= lines.size() || !trimmed(lines[body]).starts_with(quotes)) continue;
    const std::string first = trimmed(lines[body]).substr(quotes.size());
    const bool one_line = first.find(quotes) != first.npos;
    std::string query = first.substr(0, first.find(quotes));
    if (trimmed(query).empty() && !one_line && body + 1 < lines.size()) query = lines[body + 1];
    std::size_t end = body;
    if (!one_line) do
        ++end;
      while (end < lines.size() && lines[end].find(quotes) == std::string::npos);
    TextPair pair{.query = trimmed(query), .answer = head, .document = document};
    for (std::size_t l = end + 1; l < lines.size() && pair.answer.size() < longest_answer; ++l) {
      const std::string words = trimmed(lines[l]);
      if (!words.empty() && indent_of(lines[l]) <= indent_of(lines[i])) break;
      append_word(pair.answer, words);
    }
    pairs.push_back(std::move(pair));
  }
  return pairs;
}

std::vector<TextPair> pairs_of_manual_page(std::string_view page, const std::string& document) {
  std::string section, name, description;
  for (const std::string& line : lines_of(page)) {
    if (line.starts_with(".SH")) {
      section = trimmed(line.substr(3));
      std::erase(section, '"');
    } else if (section == "NAME") {
      append_word(name, plain(line));
    } else if (section == "DESCRIPTION" && description.size() < longest_answer) {
      append_word(description, plain(line));
    }
  }
  const std::size_t dash = name.find(" - ");
  if (dash == name.npos || description.empty()) return {};
  return {{.query = trimmed(name.substr(dash + 3)), .answer = description, .document = document}};
}

std::vector<TextPair> pairs_of_help_page(std::string_view page, const std::string& document) {
  std::string text;
  for (const std::string& line : lines_of(page)) {
    const std::string words = trimmed(line);
    const bool markup = words.starts_with("..") || words.starts_with(":") || words.starts_with("|");
    const bool rule = !words.empty() && words.find_first_not_of("-=^\"~*#.") == words.npos;
    if (rule) text.clear();  // what came before was a title
    if (!markup && !rule && text.size() < 2 * longest_answer) append_word(text, words);
    if (text.size() > longest_answer) break;
  }
  const std::size_t end = end_of_sentence(text);
  return {{.query = text.substr(0, end), .answer = trimmed(std::string_view(text).substr(end)), .document = document}};
}

std::vector<DocumentSource> document_sources() {
  const auto has_extension = [](std::string_view extension) {
    return [extension](const std::filesystem::path& path) { return path.extension() == extension; };
  };
  const auto is_manual_page = [](const std::filesystem::path& path) {
    const std::string name = path.filename().string();
    return name.ends_with(".1") || name.ends_with(".1.gz");
  };
  return {{.name = "packages",
           .query_is = "first line of a package's description",
           .answer_is = "the rest of it",
           .find = [] { return pairs_of_packages(contents_of("/var/lib/dpkg/status")); }},
          {.name = "python",
           .query_is = "first line of a docstring",
           .answer_is = "code of the function or class",
           .find =
               [=] {
                 std::vector<std::filesystem::path> folders = folders_like("/usr/lib", "python3.");
                 for (const auto& local : folders_like("/usr/local/lib", "python3.")) folders.push_back(local);
                 return pairs_below(folders, has_extension(".py"), pairs_of_python);
               }},
          {.name = "manual",
           .query_is = "NAME of a manual page",
           .answer_is = "its DESCRIPTION",
           .find =
               [=] {
                 return pairs_below({"/usr/share/man/man1", "/usr/local/share/man/man1"}, is_manual_page,
                                    pairs_of_manual_page);
               }},
          {.name = "cmake",
           .query_is = "first sentence of a page of CMake's help",
           .answer_is = "what follows",
           .find = [=] {
             return pairs_below(folders_like("/usr/share", "cmake"), has_extension(".rst"), pairs_of_help_page);
           }}};
}

}  // namespace encoder
