// SPDX-License-Identifier: MIT
#pragma once

// Loads real text as a few domains: from given paths, or from what the machine already has.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

#include "text/domain.hpp"
#include "text/text_families.hpp"
#include "text/text_source.hpp"

namespace text {

struct Corpus {
  std::vector<Domain> domains;     // the base's first
  std::vector<std::string> notes;  // what was passed over and why, one line each
};

struct CorpusOptions {
  DomainOptions domain{};
  std::size_t least_bytes = std::size_t{32} << 10;           // of text in a given path
  std::size_t others = 4;                                    // to find beside the base's domain, when no path is given
  std::size_t fewest_others = 3;                             // fewer found are an error
  std::size_t least_found_bytes = std::size_t{1} << 20;      // of text in a found language
  std::vector<std::filesystem::path> roots = usual_roots();  // where to look
};

/// Loads the domains in `paths`, or finds some if there are none.
///
/// Given: a file is a domain; so is a folder, unless sub-folders of it hold enough text: then each of those is one.
/// The first domain is the base's. Found: the base's domain is the C++ standard library's headers, the others are the
/// languages with most text below `options.roots`. How a domain is read, split and sampled: DomainReader.
/// Throws std::runtime_error with one line that names the path, what was expected and what is there.
Corpus load_corpus(const std::vector<std::filesystem::path>& paths, const CorpusOptions& options = {});

/// One line a domain, and what was passed over, on stdout.
void print_contents(const Corpus& corpus);

namespace detail {

/// One call of load_corpus.
class CorpusLoader {
 public:
  explicit CorpusLoader(const CorpusOptions& options) : options_(options), reader_(options.domain) {}

  Corpus given(const std::vector<std::filesystem::path>& paths);
  Corpus found();

 private:
  void add_path(const std::filesystem::path& path);
  void add_folder(const std::filesystem::path& folder);
  TextSource source_of(const std::filesystem::path& path);
  [[nodiscard]] std::vector<std::filesystem::path> sub_folders(const std::filesystem::path& folder) const;

  /// Reads a source; keeps it as a domain if it has enough text, otherwise leaves a note.
  bool keep(const TextSource& source, std::size_t least_bytes);

  const CorpusOptions& options_;
  DomainReader reader_;
  ScanLimit limit_;
  Corpus corpus_;
};

inline std::string in_bytes(std::size_t bytes) {
  const auto tenths = [](std::size_t n, std::size_t unit) {
    const std::size_t t = n * 10 / unit;
    return std::to_string(t / 10) + "." + std::to_string(t % 10);
  };
  if (bytes >= std::size_t{1} << 20) return tenths(bytes, std::size_t{1} << 20) + " MiB";
  return bytes >= 1024 ? tenths(bytes, 1024) + " KiB" : std::to_string(bytes) + " bytes";
}

inline bool CorpusLoader::keep(const TextSource& source, std::size_t least_bytes) {
  Domain domain = reader_.read(source);
  if (domain.text_bytes < least_bytes) {
    corpus_.notes.push_back(source.name + " (" + source.origin + "): " + in_bytes(domain.text_bytes) + " of text in " +
                            std::to_string(source.files.size()) + " files, expected at least " + in_bytes(least_bytes));
    return false;
  }
  const auto same_name = [&](const Domain& other) { return other.name == domain.name; };
  if (std::any_of(corpus_.domains.begin(), corpus_.domains.end(), same_name)) domain.name = domain.origin;
  corpus_.domains.push_back(std::move(domain));
  return true;
}

inline TextSource CorpusLoader::source_of(const std::filesystem::path& path) {
  // The name of "folder/" is empty.
  const std::filesystem::path named = path.has_filename() ? path : path.parent_path();
  TextSource source;
  source.name = named.filename().string();
  source.origin = path.string();
  source.root = path;
  if (source.name == "." || source.name == "..") source.name = std::filesystem::canonical(path).filename().string();
  if (!std::filesystem::is_directory(path)) {
    source.files = {path};
    return source;
  }
  scan(path, limit_, [&](const std::filesystem::directory_entry& entry) { source.files.push_back(entry.path()); });
  return source;
}

inline std::vector<std::filesystem::path> CorpusLoader::sub_folders(const std::filesystem::path& folder) const {
  std::vector<std::filesystem::path> folders;
  std::error_code error;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const bool passed_over = it->path().filename().string().starts_with('.') || it->is_symlink(error);
    if (!passed_over && it->is_directory(error)) folders.push_back(it->path());
  }
  std::sort(folders.begin(), folders.end());
  return folders;
}

inline void CorpusLoader::add_folder(const std::filesystem::path& folder) {
  const std::size_t before = corpus_.domains.size();
  for (const auto& sub_folder : sub_folders(folder)) keep(source_of(sub_folder), options_.least_bytes);
  if (corpus_.domains.size() > before) return;
  reader_ = DomainReader(options_.domain);  // forgets the sub-folders' files, which would now look like copies
  if (!keep(source_of(folder), options_.least_bytes)) throw std::runtime_error("corpus: " + corpus_.notes.back());
}

inline void CorpusLoader::add_path(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) {
    throw std::runtime_error("corpus: " + path.string() +
                             ": expected a text file or a folder of text files, found nothing");
  }
  if (std::filesystem::is_directory(path)) return add_folder(path);
  if (!keep(source_of(path), options_.least_bytes)) throw std::runtime_error("corpus: " + corpus_.notes.back());
}

inline Corpus CorpusLoader::given(const std::vector<std::filesystem::path>& paths) {
  for (const auto& path : paths) add_path(path);
  if (corpus_.domains.size() < 2) {
    throw std::runtime_error("corpus: " + paths.front().string() +
                             ": expected the base's domain and at least one more, found only one; give another path");
  }
  return std::move(corpus_);
}

inline Corpus CorpusLoader::found() {
  const TextFamilies families = find_families(options_.roots, options_.domain.most_file_bytes, limit_);
  if (!families.complete) corpus_.notes.push_back("the search for text ended early, at its limit of time or files");
  const bool base = keep(families.cpp, options_.least_found_bytes);
  for (const TextSource& family : families.others) {
    if (corpus_.domains.size() == base + options_.others || family.bytes < options_.least_found_bytes) break;
    keep(family, options_.least_found_bytes);
  }
  if (base && corpus_.domains.size() > options_.fewest_others) return std::move(corpus_);
  std::string roots;
  for (const auto& root : options_.roots) roots += " " + root.string();
  std::string domains;
  for (const Domain& domain : corpus_.domains) domains += (domains.empty() ? "" : ", ") + domain.name;
  throw std::runtime_error("corpus: below" + roots + ": expected the C++ standard headers and " +
                           std::to_string(options_.fewest_others) + " other languages of " +
                           in_bytes(options_.least_found_bytes) + " each, found " +
                           (domains.empty() ? "none" : domains) + "; give folders of text instead, the base's first");
}

}  // namespace detail

inline Corpus load_corpus(const std::vector<std::filesystem::path>& paths, const CorpusOptions& options) {
  detail::CorpusLoader loader(options);
  return paths.empty() ? loader.found() : loader.given(paths);
}

inline void print_contents(const Corpus& corpus) {
  for (const std::string& note : corpus.notes) std::printf("passed over: %s\n", note.c_str());
  for (std::size_t d = 0; d < corpus.domains.size(); ++d) {
    const Domain& domain = corpus.domains[d];
    std::printf("%-8s %-16s %6zu KiB to train on, %4zu KiB held out, %5zu files, %5zu near-copies dropped\n",
                d == 0 ? "base" : "adapt", domain.name.c_str(), domain.train.size() / 1024,
                domain.held_out.size() / 1024, domain.files, domain.duplicates);
  }
  std::fflush(stdout);
}

}  // namespace text
