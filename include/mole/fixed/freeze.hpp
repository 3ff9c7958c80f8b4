// SPDX-License-Identifier: MIT
// freeze(): a FixedLinear of a trained layer.
#pragma once

#include "mole/base/base_policy.hpp"
#include "mole/core/error.hpp"
#include "mole/expert/low_rank.hpp"
#include "mole/factors/dense_factors.hpp"
#include "mole/fixed/fixed_linear.hpp"
#include "mole/gating/gate.hpp"
#include "mole/gating/score/identity.hpp"
#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/all.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/weigh/raw.hpp"
#include "mole/gating/weigh/renormalized.hpp"
#include "mole/gating/weigh/unit.hpp"
#include "mole/layer/mixture_linear.hpp"
#include "mole/router/linear_router.hpp"
#include "mole/router/no_router.hpp"

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "mole/core/macros_off.hpp"

namespace mole {

namespace detail {
/// What FixedLinear has of a gating: how many experts it chooses, and how it weighs them.
struct FrozenGate {
  Index k;
  FixedGate gate;
};

inline FrozenGate frozen_gate(const Gate<Identity, All, Unit>&, Index experts) {
  return {experts, FixedGate::unit};
}
inline FrozenGate frozen_gate(const Gate<Softmax, All, Raw>& gate, Index experts) {
  require(gate.weigh.scale == 1 && gate.weigh.offset == 0, ErrorCode::option,
          "freeze: expected Raw without scale and offset, found ", gate.weigh.scale, " and ", gate.weigh.offset);
  return {experts, FixedGate::renormalized};
}
inline FrozenGate frozen_gate(const Gate<Softmax, TopK, Renormalized>& gate, Index) {
  require(gate.weigh.sum == 1, ErrorCode::option, "freeze: expected Renormalized to a sum of 1, found ",
          gate.weigh.sum);
  return {gate.select.k, FixedGate::renormalized};
}
inline FrozenGate frozen_gate(const Gate<Softmax, TopK, Raw>& gate, Index) {
  require(gate.weigh.scale == 1 && gate.weigh.offset == 0, ErrorCode::option,
          "freeze: expected Raw without scale and offset, found ", gate.weigh.scale, " and ", gate.weigh.offset);
  return {gate.select.k, FixedGate::raw};
}
inline FrozenGate frozen_gate(const Gate<Softmax, TopK, Unit>& gate, Index) {
  return {gate.select.k, FixedGate::unit};
}

template <class Gating>
concept FreezableGating = requires(const Gating& gating) {
  frozen_gate(gating, Index());
};

template <class T>
void freeze_router(const NoRouter<T>&, auto&) {}
template <class T>
void freeze_router(const LinearRouter<T>& router, auto& numbers) {
  const auto& [weight, bias] = router.parameters();
  for (Index e = 0; e < weight.rows(); ++e) {
    for (Index i = 0; i < weight.cols(); ++i) numbers.router[std::size_t(i)][std::size_t(e)] = weight(e, i);
    if (!bias.empty()) numbers.router_bias[std::size_t(e)] = bias(0, e);
  }
}
}  // namespace detail

/// The numbers of a layer in a type of fixed sizes, with which it computes the same up to rounding:
///
///     const auto fixed = freeze<FixedLinear<float, 16, 16, 4, 4, 2>>(layer);  // In, Out, Rank, Experts, K
///
/// Takes LoRA experts over any base whose numbers can be read, behind a linear router and the gate of `lora`, `mola`,
/// `loramoe` or `llava_mole`. Experts of fewer ranks than Rank are filled up with zeros. Dropout is left out.
/// Throws Error(shape) for other sizes, Error(option) for an option that FixedLinear does not have.
template <class Fixed, class Router, class Gating, class T, class Base, class Execution>
Fixed freeze(const MixtureLinear<Router, Gating, LowRank<DenseFactors<T>>, Base, Execution>& layer) {
  static_assert(std::is_same_v<typename Fixed::Scalar, T>, "mole: freeze: a layer and a FixedLinear of one scalar");
  static_assert(detail::FreezableGating<Gating>,
                "mole: freeze: expected the gate of lora, mola, loramoe or llava_mole; FixedLinear has no other");
  const auto& experts = layer.experts();
  require_equal(ErrorCode::shape, "freeze: inputs of the layer", Index(Fixed::inputs), layer.in());
  require_equal(ErrorCode::shape, "freeze: outputs of the layer", Index(Fixed::outputs), layer.out());
  require_equal(ErrorCode::shape, "freeze: experts of the layer", Index(Fixed::experts), experts.experts());
  require(layer.gating().shared() == 0, ErrorCode::option, "freeze: expected no shared experts, found ",
          layer.gating().shared());
  const detail::FrozenGate gate = detail::frozen_gate(layer.gating(), experts.experts());
  require_equal(ErrorCode::shape, "freeze: experts chosen for a token", Index(Fixed::chosen), gate.k);

  Fixed fixed;
  auto& numbers = fixed.numbers;
  numbers.gate = gate.gate;
  const auto read_base = [&](const auto& element) {
    for (Index o = 0; o < layer.out(); ++o)
      for (Index i = 0; i < layer.in(); ++i) numbers.weight[std::size_t(i)][std::size_t(o)] = T(element(o, i));
  };
  if constexpr (LinearBasePolicy<Base>) {
    const auto weights = layer.base().weights();
    read_base(weights);
    if (weights.bias) std::ranges::copy(weights.bias.row(0), numbers.bias.begin());
  } else {
    read_base(layer.base().code());
    std::ranges::copy(layer.base().bias(), numbers.bias.begin());
  }
  detail::freeze_router(layer.router(), numbers);

  const auto& [a, b] = experts.parameters();
  for (Index e = 0; e < experts.experts(); ++e) {
    const RankBlocks& blocks = experts.blocks();
    require(blocks.size(e) <= Index(Fixed::rank), ErrorCode::shape, "freeze: expected experts of up to ", Fixed::rank,
            " ranks, found ", blocks.size(e));
    auto& down = numbers.down[std::size_t(e)];
    auto& up = numbers.up[std::size_t(e)];
    for (Index r = 0; r < blocks.size(e); ++r) {
      for (Index i = 0; i < layer.in(); ++i) down[std::size_t(i)][std::size_t(r)] = a(blocks.down(e) + r, i);
      for (Index o = 0; o < layer.out(); ++o)
        up[std::size_t(r)][std::size_t(o)] = experts.scale()[std::size_t(e)] * b(blocks.up(e) + r, o);
    }
  }
  return fixed;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
