// SPDX-License-Identifier: MIT
// Int8BlockBase: a frozen base of 8-bit weights with one scale per block.
#pragma once

#include "mole/base/coded_base.hpp"

#include <cstdint>

#include "mole/core/macros_off.hpp"

namespace mole {

/// How rows are divided into blocks.
struct Int8BlockOptions {
  Index block = 64;  ///< elements: a power of two, 32 ... 4096, or 0 for the whole row

  int shift() const { return block == 0 ? 62 : detail::shift_of_block("Int8BlockBase", block); }
};

/// weight [O x I] as 8-bit integers in blocks along each row; every row begins a new block, and its last may be short.
///
///   absmax = the largest magnitude of a block,   scale = absmax / 127
///   code = round(127 w / absmax), ties to even,   w ~ code * scale
///
/// A block of zeros has scale 0 and codes 0. Throws Error(option) for NaN and infinities, which would ruin their block.
class Int8BlockWeight {
 public:
  using Options = Int8BlockOptions;

  explicit Int8BlockWeight(View<const float> weight, Options options = {});

  /// Takes existing codes [rows x cols] and scales [rows x blocks per row], both row-major. Throws Error(shape) when
  /// sizes do not fit, Error(option) for scales that are not finite.
  Int8BlockWeight(Index rows, Index cols, std::vector<std::int8_t> codes, std::vector<float> scales,
                  Options options = {})
      : Int8BlockWeight(options, rows, cols, std::move(scales)) {
    require_equal(ErrorCode::shape, "Int8BlockBase: size of the codes", checked_product("Int8BlockBase", rows, cols),
                  Index(codes.size()));
    codes_ = std::move(codes);
  }

  /// The same of codes that are borrowed, without padding between rows: memory that stays, such as a mapped file's,
  /// must outlive the weight and its copies.
  Int8BlockWeight(LastingView<const std::int8_t> codes, std::vector<float> scales, Options options = {})
      : Int8BlockWeight(options, codes.view().rows(), codes.view().cols(), std::move(scales)) {
    if (rows_ > 1)
      require_equal(ErrorCode::shape, "Int8BlockBase: codes from one row to the next", cols_, codes.view().stride());
    borrowed_ = codes.view().data();
  }

  template <class... Rest>
  explicit Int8BlockWeight(Transposed<std::int8_t>, Rest&&...) : Int8BlockWeight(View<const float>()) {
    detail::refuse_transposed_codes<std::int8_t>();
  }

  Index rows() const { return rows_; }
  Index cols() const { return cols_; }
  Options options() const { return options_; }
  std::size_t bytes() const { return codes().size() + scales_.size() * sizeof(float); }
  std::span<const std::int8_t> codes() const { return {data(), std::size_t(rows_ * cols_)}; }
  std::span<const float> scales() const { return scales_; }

  float operator()(Index o, Index i) const {
    return float(data()[o * cols_ + i]) * scales_[std::size_t(o * blocks_per_row_ + (i >> shift_))];
  }
  void with_rows(auto f) const { f(kernel::Int8Rows{data(), scales_.data(), cols_, blocks_per_row_, shift_}); }

 private:
  /// Codes are to come.
  Int8BlockWeight(Options options, Index rows, Index cols, std::vector<float> scales)
      : scales_(std::move(scales)),
        rows_(rows),
        cols_(cols),
        blocks_per_row_(blocks(cols, options.shift())),
        options_(options),
        shift_(options.shift()) {
    require_equal(ErrorCode::shape, "Int8BlockBase: size of the scales",
                  checked_product("Int8BlockBase", rows, blocks_per_row_), Index(scales_.size()));
    detail::require_finite("Int8BlockBase", {scales_.data(), 1, Index(scales_.size())});
  }

  const std::int8_t* data() const { return borrowed_ ? borrowed_ : codes_.data(); }
  static Index blocks(Index cols, int shift) { return cols == 0 ? 0 : ((cols - 1) >> shift) + 1; }

  std::vector<std::int8_t> codes_;
  const std::int8_t* borrowed_ = nullptr;
  std::vector<float> scales_;
  Index rows_, cols_, blocks_per_row_;
  Options options_;
  int shift_;
};

namespace detail {
/// The largest magnitude of `numbers`.
inline float absmax_of(std::span<const float> numbers) {
  float absmax = 0;
  for (const float number : numbers) absmax = std::max(absmax, std::abs(number));
  return absmax;
}
}  // namespace detail

inline Int8BlockWeight::Int8BlockWeight(View<const float> weight, Options options)
    : rows_(weight.rows()),
      cols_(weight.cols()),
      blocks_per_row_(blocks(cols_, options.shift())),
      options_(options),
      shift_(options.shift()) {
  detail::require_finite("Int8BlockBase", weight);
  codes_.reserve(std::size_t(weight.size()));
  for (Index o = 0; o < rows_; ++o)
    for (Index b = 0; b < blocks_per_row_; ++b) {
      const Index begin = b << shift_, size = std::min(cols_ - begin, Index(1) << shift_);
      const std::span<const float> block = weight.row(o).subspan(std::size_t(begin), std::size_t(size));
      const float absmax = detail::absmax_of(block);
      scales_.push_back(absmax / 127);
      // In double, so that the quotient of the smallest numbers neither overflows nor vanishes.
      for (const float number : block)
        codes_.push_back(absmax == 0 ? std::int8_t(0)
                                     : std::int8_t(std::nearbyint(127.0 * double(number) / double(absmax))));
    }
}

/// y = x W^T (+ b), W of 8-bit integers in blocks; see CodedBase and Int8BlockWeight. 8.5 bits per weight with blocks
/// of 64; the error is at most half a scale.
using Int8BlockBase = CodedBase<Int8BlockWeight>;

static_assert(TrainableBasePolicy<Int8BlockBase>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
