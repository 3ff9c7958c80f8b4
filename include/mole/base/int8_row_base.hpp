// SPDX-License-Identifier: MIT
// Int8RowBase: a frozen base of 8-bit weights with one scale per row, the format of LLM.int8.
#pragma once

#include "mole/base/int8_block_base.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// weight [O x I] as 8-bit integers, each row a block; see Int8BlockWeight. The largest magnitude of each row is kept
/// next to the scale, since files store it.
class Int8RowWeight {
 public:
  /// There are no options.
  struct Options {};

  explicit Int8RowWeight(View<const float> weight, Options = {}) : blocks_(weight, {.block = 0}) {
    for (Index o = 0; o < weight.rows(); ++o) scb_.push_back(detail::absmax_of(weight.row(o)));
  }

  /// Takes `weight` [rows x cols] and `SCB` [rows] of a file, bit for bit; weight_format 0, row-major.
  Int8RowWeight(Index rows, Index cols, std::vector<std::int8_t> codes, std::vector<float> scb)
      : blocks_(rows, cols, std::move(codes), scales_of(scb, rows, cols), {.block = 0}), scb_(std::move(scb)) {}

  /// The same of codes that are borrowed, without padding between rows: memory that stays, such as a mapped file's,
  /// must outlive the weight and its copies.
  Int8RowWeight(LastingView<const std::int8_t> codes, std::vector<float> scb)
      : blocks_(codes, scales_of(scb, codes.view().rows(), codes.view().cols()), {.block = 0}), scb_(std::move(scb)) {}

  /// The same of codes that lie in memory as [I x O], with a scale for each of the O: copies them, the usual way round.
  Int8RowWeight(Transposed<std::int8_t> codes, std::vector<float> scb)
      : Int8RowWeight(codes.rows(), codes.cols(), row_major(codes), std::move(scb)) {}

  Index rows() const { return blocks_.rows(); }
  Index cols() const { return blocks_.cols(); }
  Options options() const { return {}; }
  std::size_t bytes() const { return blocks_.bytes() + scb_.size() * sizeof(float); }
  std::span<const std::int8_t> codes() const { return blocks_.codes(); }
  std::span<const float> scb() const { return scb_; }

  float operator()(Index o, Index i) const { return blocks_(o, i); }
  void with_rows(auto f) const { blocks_.with_rows(f); }

 private:
  static std::vector<float> scales_of(std::span<const float> scb, Index rows, Index cols) {
    require_equal(ErrorCode::shape, "Int8RowBase: size of SCB", rows, Index(scb.size()));
    std::vector<float> scales;
    if (cols > 0)
      for (const float absmax : scb) scales.push_back(absmax / 127);
    return scales;
  }

  Int8BlockWeight blocks_;
  std::vector<float> scb_;
};

/// y = x W^T (+ b), W of 8-bit integers with one scale per row; see CodedBase and Int8RowWeight. Activations stay in
/// float, so outlier columns need no special treatment.
/// Source: Dettmers et al. 2022, arXiv:2208.07339; bitsandbytes 95f9af30, whose (q SCB) / 127 may differ from
/// q (SCB / 127) here by one rounding.
using Int8RowBase = CodedBase<Int8RowWeight>;

static_assert(TrainableBasePolicy<Int8RowBase>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
