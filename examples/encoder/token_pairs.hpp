// SPDX-License-Identifier: MIT
// TokenPairs: the pairs of the domains as tokens, and batches of them.
#pragma once

#include "encoder/documents.hpp"
#include "encoder/token_batch.hpp"
#include "encoder/word_piece.hpp"
#include "host/random.hpp"

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace encoder {

struct TokenPair {
  std::vector<int> query, answer;
};

struct TokenDomain {
  std::vector<TokenPair> training, held_out;
};

inline TokenDomain tokens_of(const Domain& domain, const WordPiece& tokenizer, std::size_t max_tokens) {
  TokenDomain result;
  const auto encode = [&](const std::vector<TextPair>& from, std::vector<TokenPair>& to) {
    for (const TextPair& pair : from)
      to.push_back({tokenizer.encode(pair.query, max_tokens), tokenizer.encode(pair.answer, max_tokens)});
  };
  encode(domain.training, result.training);
  encode(domain.held_out, result.held_out);
  return result;
}

/// Queries of pairs, then their answers in the same order; `domains` has the domain of each sequence.
struct PairBatch {
  TokenBatch tokens;
  std::vector<int> domains;

  void add(const std::vector<std::pair<const TokenPair*, int>>& pairs) {
    for (const auto& [pair, domain] : pairs) tokens.add(pair->query), domains.push_back(domain);
    for (const auto& [pair, domain] : pairs) tokens.add(pair->answer), domains.push_back(domain);
  }
  /// Of each token.
  std::vector<int> labels() const {
    std::vector<int> result;
    for (mole::Index s = 0; s < tokens.sequences(); ++s)
      result.insert(result.end(), std::size_t(tokens.length(s)), domains[std::size_t(s)]);
    return result;
  }
};

/// The batch of step 0, 1, ...: `pairs` of each of the first `trained` domains in turn, drawn by seed and step alone.
inline PairBatch draw(std::span<const TokenDomain> domains, std::size_t trained, std::size_t pairs, std::uint64_t seed,
                      std::uint64_t step) {
  std::vector<std::pair<const TokenPair*, int>> drawn;
  for (std::size_t i = 0; i < pairs; ++i) {
    const std::size_t domain = i % trained;
    const std::vector<TokenPair>& from = domains[domain].training;
    const std::uint64_t number = host::mix(host::mix(seed * 0x10001 + step) + i);
    drawn.emplace_back(&from[number % from.size()], int(domain));
  }
  PairBatch batch;
  batch.add(drawn);
  return batch;
}

}  // namespace encoder
