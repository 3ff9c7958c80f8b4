// SPDX-License-Identifier: MIT
// ReducedFloatWeight: a weight of 16-bit floats, the storage of Bf16Base and HalfBase.
#pragma once

#include "mole/base/coded_base.hpp"

#include <cstdint>

#include "mole/core/macros_off.hpp"

namespace mole {

/// weight [O x I] rounded to the nearest number of `Format`, ties to even.
///
/// Format offers name, encode(float), decode(bits), and load<Arch>(codes) for one vector. Infinities and NaN are kept;
/// a finite number beyond the format's largest throws Error(option).
template <class Format>
class ReducedFloatWeight {
 public:
  /// There are no options.
  struct Options {};

  explicit ReducedFloatWeight(View<const float> weight, Options = {}) : rows_(weight.rows()), cols_(weight.cols()) {
    codes_.reserve(std::size_t(weight.size()));
    for (Index o = 0; o < rows_; ++o)
      for (const float number : weight.row(o)) {
        codes_.push_back(Format::encode(number));
        require(!std::isfinite(number) || std::isfinite(Format::decode(codes_.back())), ErrorCode::option, Format::name,
                ": expected numbers that the format can hold, found ", number, " in row ", o);
      }
  }

  /// Takes existing codes [rows x cols], row-major.
  ReducedFloatWeight(Index rows, Index cols, std::vector<std::uint16_t> codes)
      : codes_(std::move(codes)), rows_(rows), cols_(cols) {
    require_equal(ErrorCode::shape, std::string(Format::name) + ": size of the codes",
                  checked_product(Format::name, rows, cols), Index(codes_.size()));
  }

  Index rows() const { return rows_; }
  Index cols() const { return cols_; }
  Options options() const { return {}; }
  std::size_t bytes() const { return codes_.size() * sizeof(std::uint16_t); }
  std::span<const std::uint16_t> codes() const { return codes_; }

  float operator()(Index o, Index i) const { return Format::decode(codes_[std::size_t(o * cols_ + i)]); }
  void with_rows(auto f) const { f(kernel::ReducedFloatRows<Format>{codes_.data(), cols_}); }

 private:
  std::vector<std::uint16_t> codes_;
  Index rows_, cols_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
