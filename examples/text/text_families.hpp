// SPDX-License-Identifier: MIT
#pragma once

// Finds the text that a developer's machine already has, sorted by language.

#include <array>
#include <map>
#include <string_view>

#include "text/text_source.hpp"

namespace text {

struct TextFamilies {
  TextSource cpp;                  // the headers of the C++ standard library; empty if there are none
  std::vector<TextSource> others;  // one per language, the one with most bytes on disk first
  bool complete = true;            // false if the limit ended the search
};

/// Where packages put text on Unix-like systems; those that do not exist hold nothing.
inline std::vector<std::filesystem::path> usual_roots() {
  return {"/usr/include",
          "/usr/share",
          "/usr/lib",
          "/usr/local",
          "/opt/homebrew",
          "/opt/local",
          "/Library/Developer/CommandLineTools"};
}

namespace detail {

/// The language that a file name's extension stands for; empty if none is known.
inline std::string_view family_of(std::string_view extension) {
  struct Entry {
    std::string_view extension, family;
  };
  static constexpr std::array<Entry, 40> table{{
      {".cmake", "CMake"},   {".css", "CSS"},  {".el", "Emacs Lisp"},  {".f90", "Fortran"},   {".go", "Go"},
      {".h", "C headers"},   {".htm", "HTML"}, {".html", "HTML"},      {".java", "Java"},     {".js", "JavaScript"},
      {".jl", "Julia"},      {".lua", "Lua"},  {".m4", "M4"},          {".md", "text"},       {".mjs", "JavaScript"},
      {".ml", "OCaml"},      {".php", "PHP"},  {".pl", "Perl"},        {".pm", "Perl"},       {".pod", "Perl"},
      {".py", "Python"},     {".r", "R"},      {".rb", "Ruby"},        {".rs", "Rust"},       {".rst", "text"},
      {".scm", "Scheme"},    {".scss", "CSS"}, {".sh", "shell"},       {".bash", "shell"},    {".zsh", "shell"},
      {".sql", "SQL"},       {".sty", "TeX"},  {".tcl", "Tcl"},        {".tex", "TeX"},       {".cls", "TeX"},
      {".ts", "TypeScript"}, {".txt", "text"}, {".vim", "Vim script"}, {".ps", "PostScript"}, {".hs", "Haskell"},
  }};
  for (const Entry& entry : table) {
    if (entry.extension == extension) return entry.family;
  }
  return {};
}

/// Whether a header belongs to a C++ standard library: libstdc++ and libc++ both live below `include/.../c++/`.
inline bool is_standard_cpp(const std::filesystem::path& path) {
  const std::string text = path.generic_string();
  const std::size_t include = text.find("/include/");
  return include != std::string::npos && text.find("/c++/", include) != std::string::npos;
}

inline bool is_header_extension(std::string_view extension) {
  return extension.empty() || extension == ".h" || extension == ".hpp" || extension == ".tcc" || extension == ".ipp";
}

/// Minified or generated: lines far longer than a screen, or a quarter of it digits.
inline bool reads_like_data(std::string_view text) {
  const auto count = [text](auto f) { return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), f)); };
  const std::size_t lines = 1 + count([](char c) { return c == '\n'; });
  const std::size_t digits = count([](char c) { return c >= '0' && c <= '9'; });
  return text.size() > 300 * lines || 4 * digits > text.size();
}

/// Many a C++ library names its headers `.h`; these words tell.
inline bool reads_like_cpp(std::string_view text) {
  return text.find("namespace ") != text.npos || text.find("template") != text.npos || text.find("class ") != text.npos;
}

inline bool is_no_c_header(std::string_view text) {
  return reads_like_data(text) || reads_like_cpp(text);
}

}  // namespace detail

/// Lists, without reading, the files of known languages below `roots` that have between 256 and `max_file_bytes` bytes:
/// smaller ones say nothing, larger ones are nearly all generated tables.
inline TextFamilies find_families(const std::vector<std::filesystem::path>& roots, std::uint64_t max_file_bytes,
                                  ScanLimit limit = {}) {
  TextFamilies found;
  found.cpp.name = "C++ headers";
  found.cpp.root = "/";
  std::map<std::string_view, TextSource> families;
  for (const auto& root : roots) {
    scan(root, limit, [&](const std::filesystem::directory_entry& entry) {
      const std::string extension = entry.path().extension().string();
      const bool cpp = detail::is_header_extension(extension) && detail::is_standard_cpp(entry.path());
      const std::string_view family = detail::family_of(extension);
      if (!cpp && family.empty()) return;
      std::error_code error;
      const std::uint64_t size = entry.file_size(error);
      if (error || size < 256 || size > max_file_bytes) return;
      TextSource& source = cpp ? found.cpp : families[family];
      source.files.push_back(entry.path());
      source.bytes += size;
      if (source.origin.find(root.string()) == std::string::npos) {
        source.origin += (source.origin.empty() ? "" : ", ") + root.string();
      }
    });
  }
  found.complete = !limit.reached();
  for (auto& [name, source] : families) {
    source.name = name;
    source.root = "/";
    source.excludes = name == "C headers" ? detail::is_no_c_header : detail::reads_like_data;
    found.others.push_back(std::move(source));
  }
  std::stable_sort(found.others.begin(), found.others.end(),
                   [](const TextSource& a, const TextSource& b) { return a.bytes > b.bytes; });
  return found;
}

}  // namespace text
