// SPDX-License-Identifier: MIT
#pragma once

// Windows of bytes to train and to evaluate on, each a function of its number alone.

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "host/random.hpp"
#include "text/domain.hpp"

namespace text {

/// S sequences of `context` bytes one after the other; targets are the inputs one byte on.
struct Batch {
  std::vector<std::uint8_t> inputs;   // [S * context]
  std::vector<std::uint8_t> targets;  // [S * context]
  std::vector<std::size_t> domains;   // [S], of each sequence

  [[nodiscard]] std::size_t sequences() const { return domains.size(); }

  /// Appends the window of context + 1 bytes at `first` of `text`.
  void append(const std::vector<std::uint8_t>& text, std::size_t first, std::size_t context, std::size_t domain) {
    const auto begin = text.begin() + static_cast<std::ptrdiff_t>(first);
    const auto length = static_cast<std::ptrdiff_t>(context);
    inputs.insert(inputs.end(), begin, begin + length);
    targets.insert(targets.end(), begin + 1, begin + length + 1);
    domains.push_back(domain);
  }
};

struct BatchOptions {
  std::vector<std::size_t> domains{};  // which of the corpus to draw from
  std::size_t sequences = 8;
  std::size_t context = 128;
  std::uint64_t seed = 0;
};

/// Draws batches from the training text. The domains take turns, so that all have the same share.
///
/// There is no state: a batch is a function of (seed, step), so a run that resumes at a step sees what it would have
/// seen.
class BatchSampler {
 public:
  /// `corpus_domains` must outlive the sampler. Throws std::invalid_argument if a domain has no window of context + 1
  /// bytes.
  BatchSampler(const std::vector<Domain>& corpus_domains, BatchOptions options)
      : corpus_(corpus_domains), options_(std::move(options)) {
    if (options_.domains.empty()) throw std::invalid_argument("batch sampler: expected at least one domain");
    for (const std::size_t d : options_.domains) {
      if (corpus_.at(d).train.size() <= options_.context) {
        throw std::invalid_argument("batch sampler: " + corpus_[d].name + " is shorter than one window");
      }
    }
  }

  /// Bytes of a batch.
  [[nodiscard]] std::size_t tokens() const { return options_.sequences * options_.context; }

  /// Fills `batch`, whose memory is used again.
  void draw(std::uint64_t step, Batch& batch) const {
    batch.inputs.clear();
    batch.targets.clear();
    batch.domains.clear();
    for (std::size_t i = 0; i < options_.sequences; ++i) {
      const std::uint64_t number = step * options_.sequences + i;
      const std::size_t domain = options_.domains[number % options_.domains.size()];
      const std::vector<std::uint8_t>& text = corpus_[domain].train;
      const std::uint64_t chance = host::mix(host::mix(options_.seed + 1) + number * 0x9e3779b97f4a7c15u);
      batch.append(text, chance % (text.size() - options_.context), options_.context, domain);
    }
  }

 private:
  const std::vector<Domain>& corpus_;
  BatchOptions options_;
};

/// Up to `most` windows of the held-out text of one domain, evenly spread and without overlap: always the same.
inline Batch evaluation_windows(const std::vector<Domain>& corpus_domains, std::size_t domain, std::size_t most,
                                std::size_t context) {
  const std::vector<std::uint8_t>& text = corpus_domains.at(domain).held_out;
  Batch batch;
  const std::size_t available = text.empty() ? 0 : (text.size() - 1) / context;
  const std::size_t windows = std::min(most, available);
  for (std::size_t i = 0; i < windows; ++i) batch.append(text, i * available / windows * context, context, domain);
  return batch;
}

}  // namespace text
