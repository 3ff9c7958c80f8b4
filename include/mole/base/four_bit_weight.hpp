// SPDX-License-Identifier: MIT
// FourBitWeight: weights of four bits, indices into 16 levels, with a scale for each block.
#pragma once

#include "mole/base/coded_base.hpp"

#include <array>
#include <cstdint>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The block size of a FourBitWeight, and whether its absmax is quantized too.
struct FourBitOptions {
  Index block = 64;               ///< elements: a power of two, 32 ... 4096
  bool double_quantized = false;  ///< absmax in 8 bits: 4.127 bits per weight instead of 4.5
};

/// What bitsandbytes stores for a 4-bit weight [rows x cols], with its names.
struct FourBitParts {
  Index rows = 0, cols = 0, block = 64;
  std::vector<std::uint8_t> weight = {};  ///< [(rows cols + 1) / 2], the first element of a byte in its high nibble
  std::vector<float> absmax = {};         ///< [blocks], empty when nested

  std::vector<std::uint8_t> nested_codes = {};  ///< [blocks]: `absmax` of a file whose absmax is nested
  std::vector<float> nested_absmax = {};        ///< [blocks / 256, rounded up]
  std::vector<float> nested_quant_map = {};     ///< [256]
  float nested_offset = 0;
};

/// weight [O x I] in four bits, flattened row-major into blocks that may cross rows; the last block may be short.
///
///   absmax = the largest magnitude of a block,   code = the level nearest to w / absmax, ties to the lower,
///   w ~ level[code] * absmax
///
/// Double quantization: absmax_b ~ map[q_b] * nested_absmax[b / 256] + offset, with the mean as the offset.
/// `Levels` has the 16 `levels`, in the order of their codes, code(x), the code of the nearest, and the `name` of the
/// base in messages. With `signed_scale`, "absmax" is minus the number of the largest magnitude, for levels of which -1
/// is one and 1 is not.
/// Decoded one by one in operator(); in vectors by kernel::load_four_bits (vector_conversions.hpp, vector_avx2.hpp,
/// vector_avx512.hpp), which kernel::FourBitRows calls, or, if blocks cross rows, one by one in
/// kernel::FlatFourBitRows. Throws Error(option) for NaN and infinities, which would ruin their block.
/// Source: QLoRA (Dettmers et al. 2023, arXiv:2305.14314); bitsandbytes 95f9af30, functional.py.
template <class Levels>
class FourBitWeight {
 public:
  using Options = FourBitOptions;

  explicit FourBitWeight(View<const float> weight, Options options = {});

  /// Takes the contents of a file, bit for bit. Throws Error(shape) when the parts do not fit each other, Error(option)
  /// for scales that are not finite.
  explicit FourBitWeight(FourBitParts parts);

  Index rows() const { return parts_.rows; }
  Index cols() const { return parts_.cols; }
  Options options() const { return {.block = parts_.block, .double_quantized = nested()}; }
  bool nested() const { return !parts_.nested_codes.empty(); }
  const FourBitParts& parts() const { return parts_; }
  std::size_t bytes() const {
    return parts_.weight.size() + parts_.nested_codes.size() +
           sizeof(float) * (parts_.absmax.size() + parts_.nested_absmax.size() + parts_.nested_quant_map.size());
  }

  /// The absmax of block b, decoded if nested.
  float absmax(Index b) const { return nested() ? nested_maxima()(b) : plain_maxima()(b); }
  float operator()(Index o, Index i) const {
    const Index at = o * parts_.cols + i;
    const unsigned byte = parts_.weight[std::size_t(at / 2)];
    return Levels::levels[at % 2 == 0 ? byte >> 4 : byte & 15u] * absmax(at >> shift_);
  }
  void with_rows(auto f) const { nested() ? with_rows_of(nested_maxima(), f) : with_rows_of(plain_maxima(), f); }

 private:
  Index blocks() const { return ((parts_.rows * parts_.cols - 1) >> shift_) + 1; }
  kernel::PlainMaxima plain_maxima() const { return {parts_.absmax.data()}; }
  kernel::NestedMaxima nested_maxima() const {
    return {parts_.nested_codes.data(), parts_.nested_quant_map.data(), parts_.nested_absmax.data(),
            parts_.nested_offset};
  }
  template <class Maxima>
  void with_rows_of(Maxima maxima, auto& f) const {
    if (parts_.cols % parts_.block == 0)
      f(kernel::FourBitRows<Maxima>{parts_.weight.data(), Levels::levels.data(), maxima, parts_.cols, shift_});
    else
      f(kernel::FlatFourBitRows<Maxima>{parts_.weight.data(), Levels::levels.data(), maxima, parts_.cols, shift_});
  }
  void nest();

  FourBitParts parts_;
  int shift_;
};

namespace detail {
/// The signed dynamic 8-bit map: 2^i midpoints of [0.1, 1] times 10^(i - 6), i = 0 ... 6, both signs, with 0 and 1.
/// Source: Dettmers et al. 2021, arXiv:2110.02861; bitsandbytes 95f9af30, create_dynamic_map.
inline std::vector<float> dynamic_map() {
  std::vector<float> map{0.0f, 1.0f};
  double power = 1e-6;
  for (int i = 0; i < 7; ++i, power *= 10)
    for (int j = 0, n = 1 << i; j < n; ++j) {
      map.push_back(float(power * (0.1 + 0.9 * (j + 0.5) / n)));
      map.push_back(-map.back());
    }
  std::sort(map.begin(), map.end());
  return map;
}

/// The index of the element of a sorted `map` that is nearest to x; ties go to the lower index.
inline std::uint8_t nearest_index(std::span<const float> map, float x) {
  const auto above = std::lower_bound(map.begin(), map.end(), x);
  if (above == map.begin()) return 0;
  if (above == map.end()) return std::uint8_t(map.size() - 1);
  const bool lower = double(x) - double(above[-1]) <= double(*above) - double(x);
  return std::uint8_t(above - map.begin() - (lower ? 1 : 0));
}
}  // namespace detail

template <class Levels>
FourBitWeight<Levels>::FourBitWeight(View<const float> weight, Options options)
    : parts_{.rows = weight.rows(), .cols = weight.cols(), .block = options.block},
      shift_(detail::shift_of_block(Levels::name, options.block)) {
  detail::require_finite(Levels::name, weight);
  const Index size = weight.size();
  // Zeros, also in the nibble after an odd last element.
  parts_.weight.assign(std::size_t((size + 1) / 2), std::uint8_t(Levels::code(0) * 0x11));
  const auto element = [&](Index at) { return weight(at / parts_.cols, at % parts_.cols); };
  for (Index begin = 0; begin < size; begin += parts_.block) {
    const Index end = std::min(size, begin + parts_.block);
    float largest = 0;
    for (Index at = begin; at < end; ++at)
      if (std::abs(element(at)) > std::abs(largest)) largest = element(at);
    const float absmax = Levels::signed_scale ? -largest : std::abs(largest);
    parts_.absmax.push_back(absmax);
    if (absmax == 0) continue;
    for (Index at = begin; at < end; ++at) {
      std::uint8_t& byte = parts_.weight[std::size_t(at / 2)];
      const unsigned code = Levels::code(element(at) / absmax);
      byte = std::uint8_t(at % 2 == 0 ? code << 4 | (byte & 0x0fu) : (byte & 0xf0u) | code);
    }
  }
  if (options.double_quantized) nest();
}

template <class Levels>
FourBitWeight<Levels>::FourBitWeight(FourBitParts parts)
    : parts_(std::move(parts)), shift_(detail::shift_of_block(Levels::name, parts_.block)) {
  const auto require_size = [](const char* what, Index expected, std::size_t found) {
    require_equal(ErrorCode::shape, std::string(Levels::name) + ": size of " + what, expected, Index(found));
  };
  require_size("weight, in bytes",
               checked_product(Levels::name, parts_.rows, parts_.cols) / 2 + parts_.rows * parts_.cols % 2,
               parts_.weight.size());
  require_size("absmax", nested() ? 0 : blocks(), parts_.absmax.size());
  if (nested()) require_size("nested_codes", blocks(), parts_.nested_codes.size());
  require_size("nested_absmax", nested() ? (blocks() + 255) / 256 : 0, parts_.nested_absmax.size());
  require_size("nested_quant_map", nested() ? 256 : 0, parts_.nested_quant_map.size());
  for (const std::vector<float>* scales : {&parts_.absmax, &parts_.nested_absmax, &parts_.nested_quant_map})
    detail::require_finite(Levels::name, {scales->data(), 1, Index(scales->size())});
  detail::require_finite(Levels::name, {&parts_.nested_offset, 1, 1});
}

/// Quantizes absmax.
template <class Levels>
void FourBitWeight<Levels>::nest() {
  if (parts_.absmax.empty()) return;
  double sum = 0;
  for (float absmax : parts_.absmax) sum += double(absmax);
  parts_.nested_offset = float(sum / double(parts_.absmax.size()));
  parts_.nested_quant_map = detail::dynamic_map();
  for (std::size_t begin = 0; begin < parts_.absmax.size(); begin += 256) {
    const std::size_t end = std::min(parts_.absmax.size(), begin + 256);
    float largest = 0;
    for (std::size_t b = begin; b < end; ++b)
      largest = std::max(largest, std::abs(parts_.absmax[b] - parts_.nested_offset));
    parts_.nested_absmax.push_back(largest);
    for (std::size_t b = begin; b < end; ++b)
      parts_.nested_codes.push_back(detail::nearest_index(
          parts_.nested_quant_map, largest == 0 ? 0.0f : (parts_.absmax[b] - parts_.nested_offset) / largest));
  }
  parts_.absmax = {};
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
