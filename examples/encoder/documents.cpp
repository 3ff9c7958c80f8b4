// SPDX-License-Identifier: MIT
#include "encoder/documents.hpp"

#include "encoder/document_sources.hpp"
#include "host/random.hpp"
#include "text/text_hash.hpp"

#include <algorithm>
#include <cstdint>
#include <set>
#include <utility>

namespace encoder {
namespace {

constexpr std::size_t least_held_out = 50;

/// Ordered by a hash of the document, so that a sample is spread over all, and without pairs that share a text: either
/// would be a right answer.
std::vector<TextPair> sample(std::vector<TextPair> pairs) {
  std::set<std::string> queries, answers;
  std::erase_if(pairs, [&](const TextPair& pair) {
    return pair.query.size() < 15 || pair.answer.size() < 60 || !queries.insert(pair.query).second ||
           !answers.insert(pair.answer).second;
  });
  std::stable_sort(pairs.begin(), pairs.end(), [](const TextPair& a, const TextPair& b) {
    return std::pair(text::text_hash(a.document), a.query) < std::pair(text::text_hash(b.document), b.query);
  });
  return pairs;
}

}  // namespace

std::vector<Domain> find_domains(std::size_t max_training) {
  const std::size_t max_held_out = std::max(least_held_out, max_training / 5);
  std::vector<Domain> domains;
  for (const DocumentSource& source : document_sources()) {
    Domain domain{.name = source.name, .query_is = source.query_is, .answer_is = source.answer_is};
    for (TextPair& pair : sample(source.find())) {
      const bool held_out = host::mix(text::text_hash(pair.document)) % 5 == 0;  // another function than the order
      std::vector<TextPair>& to = held_out ? domain.held_out : domain.training;
      if (to.size() < (held_out ? max_held_out : max_training)) to.push_back(std::move(pair));
    }
    if (domain.held_out.size() >= least_held_out) domains.push_back(std::move(domain));
  }
  return domains;
}

}  // namespace encoder
