// SPDX-License-Identifier: MIT
#pragma once

// Finds files that are nearly copies of one already seen.

#include <array>
#include <cstdint>
#include <limits>
#include <span>
#include <unordered_map>
#include <vector>

#include "host/random.hpp"

namespace text {

/// Remembers a sketch of each text and says whether a further one repeats it.
///
/// A text is the set of its windows of 24 bytes. Two texts are near-duplicates when the Jaccard similarity of those
/// sets, estimated from 64 min-hashes, is at least 0.7. Candidates are found by 16 bands of four hashes: of pairs at
/// similarity 0.7 that finds 99 %, and no pair is ever compared with all others.
/// Source: Broder 1997, doi:10.1109/SEQUEN.1997.666900; one permutation in bins, Li, Owen and Zhang 2012,
/// arXiv:1208.1259.
class NearDuplicates {
 public:
  /// Whether `text` repeats an earlier one; if not, it is remembered.
  bool seen(std::span<const std::uint8_t> text);

 private:
  static constexpr std::size_t window = 24;
  static constexpr std::size_t bins = 64;
  static constexpr std::size_t band = 4;
  static constexpr double threshold = 0.7;
  static constexpr std::uint32_t empty = std::numeric_limits<std::uint32_t>::max();
  using Sketch = std::array<std::uint32_t, bins>;

  static Sketch sketch(std::span<const std::uint8_t> text);
  static double similarity(const Sketch& a, const Sketch& b);
  static std::uint64_t band_key(const Sketch& s, std::size_t first);

  std::vector<Sketch> sketches_;
  std::unordered_map<std::uint64_t, std::vector<std::size_t>> bands_;
};

inline bool NearDuplicates::seen(std::span<const std::uint8_t> text) {
  const Sketch s = sketch(text);
  for (std::size_t first = 0; first < bins; first += band) {
    const auto candidates = bands_.find(band_key(s, first));
    if (candidates == bands_.end()) continue;
    for (const std::size_t i : candidates->second) {
      if (similarity(s, sketches_[i]) >= threshold) return true;
    }
  }
  for (std::size_t first = 0; first < bins; first += band) bands_[band_key(s, first)].push_back(sketches_.size());
  sketches_.push_back(s);
  return false;
}

/// The smallest hash in each of 64 bins, by a rolling polynomial hash of the windows. A text shorter than one is one.
inline NearDuplicates::Sketch NearDuplicates::sketch(std::span<const std::uint8_t> text) {
  constexpr std::uint64_t base = 0x9e3779b97f4a7c15u;
  std::uint64_t leaving = 1;  // base^window
  for (std::size_t i = 0; i < window; ++i) leaving *= base;
  Sketch s;
  s.fill(empty);
  std::uint64_t rolling = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    rolling = rolling * base + text[i] + 1u;
    if (i >= window) rolling -= leaving * (text[i - window] + 1u);
    if (i + 1 < window && i + 1 < text.size()) continue;
    const std::uint64_t hash = host::mix(rolling);
    std::uint32_t& least = s[hash >> 58];
    least = std::min(least, static_cast<std::uint32_t>(hash));
  }
  return s;
}

inline double NearDuplicates::similarity(const Sketch& a, const Sketch& b) {
  std::size_t either = 0;
  std::size_t equal = 0;
  for (std::size_t i = 0; i < bins; ++i) {
    either += a[i] != empty || b[i] != empty;
    equal += a[i] != empty && a[i] == b[i];
  }
  return either == 0 ? 0.0 : static_cast<double>(equal) / static_cast<double>(either);
}

inline std::uint64_t NearDuplicates::band_key(const Sketch& s, std::size_t first) {
  std::uint64_t key = first;
  for (std::size_t i = first; i < first + band; ++i) key = host::mix(key ^ s[i]);
  return key;
}

}  // namespace text
