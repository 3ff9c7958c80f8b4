// SPDX-License-Identifier: MIT
// ReducedFloatWeight: a weight of 16-bit floats, owned or borrowed, the storage of Bf16Base and HalfBase.
#pragma once

#include "mole/base/coded_base.hpp"
#include "mole/core/lasting_view.hpp"

#include <cstdint>

#include "mole/core/macros_off.hpp"

namespace mole {

/// weight [O x I] rounded to the nearest number of `Format`, ties to even.
///
/// Format offers name, encode(float), decode(bits), and load<Arch>(codes) for one vector. Infinities and NaN are kept;
/// a finite number beyond the format's largest throws Error(option). What is encoded or taken is owned; a view of codes
/// is borrowed, and its memory, such as a mapped file, must outlive the weight and its copies.
template <class Format>
class ReducedFloatWeight {
 public:
  /// There are no options.
  struct Options {};

  explicit ReducedFloatWeight(View<const float> weight, Options = {}) : rows_(weight.rows()), cols_(weight.cols()) {
    owned_.reserve(std::size_t(weight.size()));
    for (Index o = 0; o < rows_; ++o)
      for (const float number : weight.row(o)) {
        owned_.push_back(Format::encode(number));
        require(!std::isfinite(number) || std::isfinite(Format::decode(owned_.back())), ErrorCode::option, Format::name,
                ": expected numbers that the format can hold, found ", number, " in row ", o);
      }
  }

  /// Takes existing codes [rows x cols], row-major.
  ReducedFloatWeight(Index rows, Index cols, std::vector<std::uint16_t> codes)
      : owned_(std::move(codes)), rows_(rows), cols_(cols) {
    require_equal(ErrorCode::shape, std::string(Format::name) + ": size of the codes",
                  checked_product(Format::name, rows, cols), Index(owned_.size()));
  }

  /// Takes codes that lie in memory as [I x O], as GPT-2's files have them: copies them, the usual way round.
  explicit ReducedFloatWeight(Transposed<std::uint16_t> codes)
      : owned_(row_major(codes)), rows_(codes.rows()), cols_(codes.cols()) {}

  /// Borrows codes [rows x cols] without padding between rows; throws Error(shape) if there is some.
  explicit ReducedFloatWeight(LastingView<const std::uint16_t> codes)
      : borrowed_(codes.view().data()), rows_(codes.view().rows()), cols_(codes.view().cols()) {
    if (rows_ > 1)
      require_equal(ErrorCode::shape, std::string(Format::name) + ": codes from one row to the next", cols_,
                    codes.view().stride());
  }

  Index rows() const { return rows_; }
  Index cols() const { return cols_; }
  Options options() const { return {}; }
  std::size_t bytes() const { return codes().size() * sizeof(std::uint16_t); }
  std::span<const std::uint16_t> codes() const { return {data(), std::size_t(rows_ * cols_)}; }

  float operator()(Index o, Index i) const { return Format::decode(data()[o * cols_ + i]); }
  void with_rows(auto f) const { f(kernel::ReducedFloatRows<Format>{data(), cols_}); }

 private:
  const std::uint16_t* data() const { return borrowed_ ? borrowed_ : owned_.data(); }

  std::vector<std::uint16_t> owned_;
  const std::uint16_t* borrowed_ = nullptr;
  Index rows_, cols_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
