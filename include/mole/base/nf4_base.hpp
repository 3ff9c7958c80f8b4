// SPDX-License-Identifier: MIT
// Nf4Base: a frozen base of 4-bit NormalFloat weights, the base of QLoRA.
#pragma once

#include "mole/base/coded_base.hpp"

#include <array>
#include <cstdint>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The block size of Nf4Base, and whether its absmax is quantized too.
struct Nf4Options {
  Index block = 64;               ///< elements: a power of two, 32 ... 4096
  bool double_quantized = false;  ///< absmax in 8 bits: 4.127 bits per weight instead of 4.5
};

/// What bitsandbytes stores for a 4-bit weight [rows x cols], with its names.
struct Nf4Parts {
  Index rows = 0, cols = 0, block = 64;
  std::vector<std::uint8_t> weight = {};  ///< [(rows cols + 1) / 2], the first element of a byte in its high nibble
  std::vector<float> absmax = {};         ///< [blocks], empty when nested

  std::vector<std::uint8_t> nested_codes = {};  ///< [blocks]: `absmax` of a file whose absmax is nested
  std::vector<float> nested_absmax = {};        ///< [blocks / 256, rounded up]
  std::vector<float> nested_quant_map = {};     ///< [256]
  float nested_offset = 0;
};

/// weight [O x I] as NF4, flattened row-major into blocks that may cross rows; the last block may be short.
///
///   absmax = the largest magnitude of a block,   code = the level nearest to w / absmax, ties to the lower,
///   w ~ level[code] * absmax
///
/// Double quantization: absmax_b ~ map[q_b] * nested_absmax[b / 256] + offset, with the mean as the offset.
/// Decoded one by one in operator(); in vectors by kernel::load_nf4 (vector_conversions.hpp, vector_avx2.hpp,
/// vector_avx512.hpp), which kernel::Nf4Rows calls, or, if blocks cross rows, one by one in kernel::FlatNf4Rows.
/// Throws Error(option) for NaN and infinities, which would ruin their block.
/// Source: QLoRA (Dettmers et al. 2023, arXiv:2305.14314); bitsandbytes 95f9af30, functional.py. FP4 is not read.
class Nf4Weight {
 public:
  using Options = Nf4Options;

  explicit Nf4Weight(View<const float> weight, Options options = {});

  /// Takes the contents of a file, bit for bit. Throws Error(shape) when the parts do not fit each other, Error(option)
  /// for scales that are not finite.
  explicit Nf4Weight(Nf4Parts parts);

  Index rows() const { return parts_.rows; }
  Index cols() const { return parts_.cols; }
  Options options() const { return {.block = parts_.block, .double_quantized = nested()}; }
  bool nested() const { return !parts_.nested_codes.empty(); }
  const Nf4Parts& parts() const { return parts_; }
  std::size_t bytes() const {
    return parts_.weight.size() + parts_.nested_codes.size() +
           sizeof(float) * (parts_.absmax.size() + parts_.nested_absmax.size() + parts_.nested_quant_map.size());
  }

  /// The absmax of block b, decoded if nested.
  float absmax(Index b) const { return nested() ? nested_maxima()(b) : plain_maxima()(b); }
  float operator()(Index o, Index i) const {
    const Index at = o * parts_.cols + i;
    const unsigned byte = parts_.weight[std::size_t(at / 2)];
    return kernel::nf4_levels[at % 2 == 0 ? byte >> 4 : byte & 15u] * absmax(at >> shift_);
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
      f(kernel::Nf4Rows<Maxima>{parts_.weight.data(), maxima, parts_.cols, shift_});
    else
      f(kernel::FlatNf4Rows<Maxima>{parts_.weight.data(), maxima, parts_.cols, shift_});
  }
  void nest();

  Nf4Parts parts_;
  int shift_;
};

namespace detail {
/// The number of midpoints between levels that lie strictly below x.
/// Source: bitsandbytes 95f9af30, csrc/kernels.cu, dQuantizeNF4.
inline std::uint8_t nf4_code(float x) {
  constexpr std::array<float, 15> midpoints{
      -0.8480964004993439f,  -0.6106329262256622f,   -0.4599952697753906f, -0.33967943489551544f, -0.23460740596055984f,
      -0.13791173323988914f, -0.045525018125772476f, 0.03979014977812767f, 0.1202552504837513f,   0.2035212516784668f,
      0.2920137718319893f,   0.3893125355243683f,    0.5016634166240692f,  0.6427869200706482f,   0.8614784181118011f};
  return std::uint8_t(std::lower_bound(midpoints.begin(), midpoints.end(), x) - midpoints.begin());
}

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

inline Nf4Weight::Nf4Weight(View<const float> weight, Options options)
    : parts_{.rows = weight.rows(), .cols = weight.cols(), .block = options.block},
      shift_(detail::shift_of_block("Nf4Base", options.block)) {
  detail::require_finite("Nf4Base", weight);
  const Index size = weight.size();
  parts_.weight.assign(std::size_t((size + 1) / 2), 0x77);  // 7 is zero, also in the nibble after an odd last element
  const auto element = [&](Index at) { return weight(at / parts_.cols, at % parts_.cols); };
  for (Index begin = 0; begin < size; begin += parts_.block) {
    const Index end = std::min(size, begin + parts_.block);
    float absmax = 0;
    for (Index at = begin; at < end; ++at) absmax = std::max(absmax, std::abs(element(at)));
    parts_.absmax.push_back(absmax);
    if (absmax == 0) continue;
    for (Index at = begin; at < end; ++at) {
      std::uint8_t& byte = parts_.weight[std::size_t(at / 2)];
      const unsigned code = detail::nf4_code(element(at) / absmax);
      byte = std::uint8_t(at % 2 == 0 ? code << 4 | (byte & 0x0fu) : (byte & 0xf0u) | code);
    }
  }
  if (options.double_quantized) nest();
}

inline Nf4Weight::Nf4Weight(Nf4Parts parts)
    : parts_(std::move(parts)), shift_(detail::shift_of_block("Nf4Base", parts_.block)) {
  const auto require_size = [](const char* what, Index expected, std::size_t found) {
    require_equal(ErrorCode::shape, std::string("Nf4Base: size of ") + what, expected, Index(found));
  };
  require_size("weight, in bytes",
               checked_product("Nf4Base", parts_.rows, parts_.cols) / 2 + parts_.rows * parts_.cols % 2,
               parts_.weight.size());
  require_size("absmax", nested() ? 0 : blocks(), parts_.absmax.size());
  if (nested()) require_size("nested_codes", blocks(), parts_.nested_codes.size());
  require_size("nested_absmax", nested() ? (blocks() + 255) / 256 : 0, parts_.nested_absmax.size());
  require_size("nested_quant_map", nested() ? 256 : 0, parts_.nested_quant_map.size());
  for (const std::vector<float>* scales : {&parts_.absmax, &parts_.nested_absmax, &parts_.nested_quant_map})
    detail::require_finite("Nf4Base", {scales->data(), 1, Index(scales->size())});
  detail::require_finite("Nf4Base", {&parts_.nested_offset, 1, 1});
}

/// Quantizes absmax.
inline void Nf4Weight::nest() {
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

/// y = x W^T (+ b), W of NF4; see CodedBase and Nf4Weight. 4.5 bits per weight with blocks of 64, 4.127 doubly
/// quantized; the error is at most 0.152 absmax. Fastest if I is a multiple of the block.
using Nf4Base = CodedBase<Nf4Weight>;

static_assert(TrainableBasePolicy<Nf4Base>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
