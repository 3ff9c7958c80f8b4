// SPDX-License-Identifier: MIT
#pragma once

// Where the text of one domain may come from: a list of files that belong together.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace text {

struct TextSource {
  std::string name;
  std::string origin;          // for people: a folder, a file or what was searched
  std::filesystem::path root;  // what the files' hashed paths are relative to
  std::vector<std::filesystem::path> files;
  std::uint64_t bytes = 0;  // on disk, before anything is read or dropped

  /// Says of a text that it does not belong here, whatever its name; null: all do.
  bool (*excludes)(std::string_view text) = nullptr;
};

/// An end to a scan of folders that may turn out to be a whole network drive.
struct ScanLimit {
  std::size_t entries = 1'000'000;
  std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);

  [[nodiscard]] bool reached() const { return entries == 0 || std::chrono::steady_clock::now() > deadline; }
};

/// Calls f(entry) for every regular file below `folder`, at each level in the order of the names.
///
/// Symbolic links and hidden names are not followed, so there are no circles; unreadable folders are passed over.
/// Stops when the limit is reached, from which it takes off the entries it saw.
inline void scan(const std::filesystem::path& folder, ScanLimit& limit,
                 const std::function<void(const std::filesystem::directory_entry&)>& f) {
  std::error_code error;
  std::vector<std::filesystem::directory_entry> entries;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    if (limit.reached()) break;
    --limit.entries;
    entries.push_back(*it);
  }
  std::sort(entries.begin(), entries.end());
  for (const auto& entry : entries) {
    if (entry.path().filename().string().starts_with('.') || entry.is_symlink(error)) continue;
    if (entry.is_directory(error)) {
      scan(entry.path(), limit, f);
    } else if (entry.is_regular_file(error)) {
      f(entry);
    }
  }
}

}  // namespace text
