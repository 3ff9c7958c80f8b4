// SPDX-License-Identifier: MIT
// WeightedBank: the experts of one task, and their weight when tasks are merged.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/view.hpp"

#include <cmath>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Experts, borrowed, and their weight.
template <class Experts>
struct WeightedBank {
  WeightedBank(const Experts& experts_, double weight_) : experts(&experts_), weight(weight_) {}
  WeightedBank(Experts&&, double) = delete;  // a temporary would not outlive the bank

  const Experts* experts;
  double weight;
};

namespace detail {

/// Ranks whose factors can be concatenated: LowRank<DenseFactors>, LowRank<SparseProjection>. A gate has to be folded
/// first.
template <class Experts>
concept AppendableBank = requires(const Experts& experts, std::remove_cvref_t<decltype(experts.factors())>& factors) {
  factors.append(experts.factors());
};

/// Throws unless `who` can merge such banks.
template <class Experts>
void check_banks(std::string_view who, const std::vector<WeightedBank<Experts>>& banks, double scale) {
  require(!banks.empty(), ErrorCode::option, who, ": expected at least 1 bank, found 0");
  require(std::isfinite(scale) && scale != 0, ErrorCode::option, who, ": expected a scale other than 0, found ", scale);
  const std::string name(who);
  for (std::size_t t = 0; t < banks.size(); ++t) {
    const std::string of_bank = " of bank " + std::to_string(t);
    require(std::isfinite(banks[t].weight), ErrorCode::option, who, ": weight", of_bank, ": expected a number, found ",
            banks[t].weight);
    require_equal(ErrorCode::shape, name + ": inputs" + of_bank, banks[0].experts->in(), banks[t].experts->in());
    require_equal(ErrorCode::shape, name + ": outputs" + of_bank, banks[0].experts->out(), banks[t].experts->out());
  }
}

/// Adds the bank's share of B for experts of scale `scale`: b += each row times the weight and the scale of its expert,
/// over `scale`.   b [ranks x O]
template <class Experts>
void add_weighted_b(const WeightedBank<Experts>& bank, double scale, View<typename Experts::Scalar> b) {
  using T = typename Experts::Scalar;
  const auto& blocks = bank.experts->blocks();
  for (Index e = 0; e < blocks.experts(); ++e) {
    const T factor = T(bank.weight * double(bank.experts->scale()[std::size_t(e)]) / scale);
    for (Index j = blocks.up(e); j < blocks.up(e) + blocks.size(e); ++j)
      for (Index o = 0; o < b.cols(); ++o) b(j, o) += factor * bank.experts->parameters().lora_B(j, o);
  }
}

}  // namespace detail

}  // namespace mole

#include "mole/core/macros_on.hpp"
