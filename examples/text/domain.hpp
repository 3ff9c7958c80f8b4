// SPDX-License-Identifier: MIT
#pragma once

// The text of one domain, and how it is read from files.

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "text/near_duplicates.hpp"
#include "text/text_file.hpp"
#include "text/text_hash.hpp"
#include "text/text_source.hpp"

namespace text {

/// Files follow each other in `train` and `held_out`, each ended by a NUL byte, which no text contains.
struct Domain {
  std::string name;
  std::string origin;
  std::vector<std::uint8_t> train;
  std::vector<std::uint8_t> held_out;
  std::size_t text_bytes = 0;      // of the files taken, without what ends them
  std::size_t files = 0;           // taken, for both
  std::size_t held_out_files = 0;  // 0 when there were too few files, and pieces were held out instead
  std::size_t duplicates = 0;      // dropped as near-copies
  std::size_t not_text = 0;
  std::size_t unreadable = 0;
};

struct DomainOptions {
  std::size_t most_bytes = std::size_t{4} << 20;         // taken of a domain
  std::size_t most_file_bytes = std::size_t{512} << 10;  // taken of a file, its head, unless it is the only one
  std::size_t held_out_every = 10;                       // one file in so many is held out
};

/// Reads domains one after the other and drops near-copies within and across them.
///
/// Of a source with more text than `most_bytes` a sample of the files is taken. The sample and the held-out files are
/// chosen by a hash of each file's path below the source's root, so they stay when other files come or go. Where that
/// leaves less than a quarter of the intended share held out, as with a single file, four pieces of the text are held
/// out instead.
class DomainReader {
 public:
  explicit DomainReader(const DomainOptions& options = {}) : options_(options) {}

  Domain read(const TextSource& source);

 private:
  struct Document {
    std::filesystem::path path;
    std::uint64_t hash;
    std::vector<std::uint8_t> text;
  };

  static std::vector<Document> list(const TextSource& source);
  bool take(const TextSource& source, std::size_t most_bytes, Document& document, Domain& domain);
  void split_by_file(const std::vector<Document>& documents, Domain& domain) const;
  void split_by_piece(const std::vector<Document>& documents, Domain& domain) const;

  DomainOptions options_;
  NearDuplicates duplicates_;
};

inline Domain DomainReader::read(const TextSource& source) {
  Domain domain;
  domain.name = source.name;
  domain.origin = source.origin;
  std::vector<Document> documents = list(source);
  const std::size_t most_of_file = documents.size() == 1 ? options_.most_bytes : options_.most_file_bytes;
  std::size_t room = options_.most_bytes;
  std::erase_if(documents, [&](Document& document) {
    if (room == 0 || !take(source, std::min(room, most_of_file), document, domain)) return true;
    room -= document.text.size();
    domain.text_bytes += document.text.size();
    return false;
  });
  domain.files = documents.size();
  std::sort(documents.begin(), documents.end(), [](const Document& a, const Document& b) { return a.path < b.path; });
  split_by_file(documents, domain);
  const std::size_t all = domain.train.size() + domain.held_out.size();
  if (domain.held_out.size() * 4 * options_.held_out_every < all || domain.train.size() * 2 < all) {
    split_by_piece(documents, domain);
  }
  return domain;
}

/// FNV-1a, scattered.
inline std::vector<DomainReader::Document> DomainReader::list(const TextSource& source) {
  std::vector<Document> documents;
  for (const auto& path : source.files) {
    documents.push_back({path, text_hash(path.lexically_relative(source.root).generic_string()), {}});
  }
  std::sort(documents.begin(), documents.end(),
            [](const Document& a, const Document& b) { return std::tie(a.hash, a.path) < std::tie(b.hash, b.path); });
  return documents;
}

inline bool DomainReader::take(const TextSource& source, std::size_t most_bytes, Document& document, Domain& domain) {
  const ReadResult result = read_text(document.path, most_bytes, document.text);
  if (result == ReadResult::unreadable) {
    ++domain.unreadable;
    return false;
  }
  const std::string_view text(reinterpret_cast<const char*>(document.text.data()), document.text.size());
  if (result == ReadResult::not_text || (source.excludes && source.excludes(text))) {
    ++domain.not_text;
    return false;
  }
  const bool copy = duplicates_.seen(document.text);
  domain.duplicates += copy;
  return !copy;
}

inline void DomainReader::split_by_file(const std::vector<Document>& documents, Domain& domain) const {
  for (const Document& document : documents) {
    // Another function of the hash than its order: the sample takes the files with the lowest.
    const bool held_out = host::mix(document.hash) % options_.held_out_every == 0;
    auto& part = held_out ? domain.held_out : domain.train;
    part.insert(part.end(), document.text.begin(), document.text.end());
    part.push_back(0);
    domain.held_out_files += held_out;
  }
}

inline void DomainReader::split_by_piece(const std::vector<Document>& documents, Domain& domain) const {
  std::vector<std::uint8_t> all;
  for (const Document& document : documents) {
    all.insert(all.end(), document.text.begin(), document.text.end());
    all.push_back(0);
  }
  domain.train.clear();
  domain.held_out.clear();
  domain.held_out_files = 0;
  const std::size_t size = 1 + all.size() / (4 * options_.held_out_every);
  const std::span<const std::uint8_t> text(all);
  for (std::size_t i = 0; i * size < text.size(); ++i) {
    const auto piece = text.subspan(i * size, std::min(size, text.size() - i * size));
    auto& part = i % options_.held_out_every == options_.held_out_every / 2 ? domain.held_out : domain.train;
    part.insert(part.end(), piece.begin(), piece.end());
    if (part.back() != 0) part.push_back(0);
  }
}

}  // namespace text
