// SPDX-License-Identifier: MIT
// Q8Base: a frozen base of 8-bit weights whose scales lie between them, as ggml has them.
#pragma once

#include "mole/base/coded_base.hpp"
#include "mole/core/reduced_floats.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "mole/core/macros_off.hpp"

namespace mole {

/// weight [O x I], I a multiple of 32, in blocks of 32 elements of a row: a scale of 16 bits, then 32 codes of 8 bits.
///
///   absmax = the largest magnitude of a block,   scale = absmax / 127, in binary16
///   code = round(127 w / absmax), ties away from 0,   w ~ code * scale
///
/// What is encoded is owned; blocks in memory that stays, such as a mapped file, may be borrowed, and must then outlive
/// the weight and its copies.
/// Throws Error(option) for NaN, infinities and numbers beyond 8.3e6, whose scale binary16 does not hold.
/// Source: ggml, Q8_0, ggml-quants.c, quantize_row_q8_0_ref, to the bit.
class Q8Weight {
 public:
  /// There are no options.
  struct Options {};
  static constexpr Index block = kernel::Q8Rows::block, block_bytes = kernel::Q8Rows::block_bytes;

  explicit Q8Weight(View<const float> weight, Options = {}) : rows_(weight.rows()), cols_(weight.cols()) {
    require_whole_blocks();
    owned_.reserve(bytes());
    for (Index o = 0; o < rows_; ++o)
      for (Index i = 0; i < cols_; i += block) append_block(weight.row(o).subspan(std::size_t(i), std::size_t(block)));
  }

  /// Borrows the blocks of a file, bit for bit. Throws Error(shape) when sizes do not fit, Error(option) for scales
  /// that are not finite.
  Q8Weight(Index rows, Index cols, std::span<const std::byte> blocks)
      : borrowed_(blocks.data()), rows_(rows), cols_(cols) {
    require_whole_blocks();
    require_equal(ErrorCode::shape, "Q8Base: bytes of the blocks",
                  checked_product("Q8Base", checked_product("Q8Base", rows, cols / block), block_bytes),
                  Index(blocks.size()));
    // Block by block: rows without elements may be as many as a file says.
    for (Index i = 0, end = Index(blocks.size()) / block_bytes * block; i < end; i += block)
      require(std::isfinite(scale(0, i)), ErrorCode::option, "Q8Base: expected finite scales, found ", scale(0, i),
              " at (", i / cols, ", ", i % cols, ")");
  }

  Index rows() const { return rows_; }
  Index cols() const { return cols_; }
  Options options() const { return {}; }
  std::size_t bytes() const { return std::size_t(rows_ * (cols_ / block) * block_bytes); }
  std::span<const std::byte> blocks() const { return {data(), bytes()}; }

  float scale(Index o, Index i) const {
    std::uint16_t bits;
    std::memcpy(&bits, block_of(o, i), sizeof bits);
    return from_float16(bits);
  }
  float operator()(Index o, Index i) const {
    return scale(o, i) * float(std::int8_t(block_of(o, i)[sizeof(std::uint16_t) + std::size_t(i % block)]));
  }
  void with_rows(auto f) const { f(kernel::Q8Rows{reinterpret_cast<const std::int8_t*>(data()), cols_}); }

 private:
  const std::byte* data() const { return borrowed_ ? borrowed_ : owned_.data(); }
  const std::byte* block_of(Index o, Index i) const { return data() + (o * (cols_ / block) + i / block) * block_bytes; }

  void require_whole_blocks() const {
    require(cols_ % block == 0, ErrorCode::shape, "Q8Base: expected rows of whole blocks of ", block, ", found ", cols_,
            " elements");
  }

  void append_block(std::span<const float> numbers) {
    float absmax = 0;
    for (const float number : numbers) absmax = std::max(absmax, std::isfinite(number) ? std::abs(number) : INFINITY);
    const float scale = absmax / 127;
    require(scale < 65520, ErrorCode::option, "Q8Base: expected numbers of magnitude up to 8.3e6, found ", absmax);
    const float inverse = scale > 1e-38f ? 1 / scale : 0;  // of smaller ones there is none
    const std::uint16_t bits = to_float16(scale);          // codes are by the scale before it is rounded
    for (const int shift : {0, 8}) owned_.push_back(std::byte(bits >> shift & 255));
    for (const float number : numbers) owned_.push_back(std::byte(std::int8_t(std::round(number * inverse))));
  }

  std::vector<std::byte> owned_;
  const std::byte* borrowed_ = nullptr;
  Index rows_, cols_;
};

/// y = x W^T (+ b), W of 8-bit integers in blocks of 32; see CodedBase and Q8Weight. 8.5 bits per weight; the error is
/// at most half a scale.
using Q8Base = CodedBase<Q8Weight>;

static_assert(TrainableBasePolicy<Q8Base>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
