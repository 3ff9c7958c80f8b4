// SPDX-License-Identifier: MIT
// Attribution: how much of a token's output is each expert's.
#pragma once

#include "mole/core/call.hpp"
#include "mole/core/matrix.hpp"
#include "mole/core/routing.hpp"
#include "mole/expert/expert_policy.hpp"

#include <algorithm>
#include <cmath>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

namespace detail {

template <class T>
void check_attribution(const View<const T>& x, const Routing<T>& routing, Index in, Index experts) {
  require(routing.finished(), ErrorCode::order, "attribution: expected a routing after finish(), found one before");
  require_equal(ErrorCode::shape, "attribution: columns of x", in, x.cols());
  require_equal(ErrorCode::shape, "attribution: tokens of the routing", x.rows(), routing.tokens());
  require_equal(ErrorCode::shape, "attribution: experts of the routing", experts, routing.experts());
}

/// Pair number `slot` of each token that has as many; of none, where it is negative.
template <class T>
Routing<T> pairs_in_slot(const Routing<T>& routing, Index slot) {
  Routing<T> one;
  one.start(routing.experts());
  for (Index n = 0; n < routing.tokens(); ++n) {
    if (const Index p = routing.first_pair(n) + slot; slot >= 0 && p < routing.first_pair(n + 1))
      one.push(routing.expert(p), routing.gate(p));
    one.end_token();
  }
  one.finish();
  return one;
}

/// What experts add under a routing, and, where a layer does not show its experts, the same for all routings besides.
template <class Layer>
class OutputOfExperts {
 public:
  using T = typename Layer::Scalar;

  OutputOfExperts(Layer& layer, View<const T> x, const Routing<T>& routing) : layer_(layer) {
    check_attribution(x, routing, layer.in(), routing.experts());
    require(layer.pairs_add_up(), ErrorCode::option,
            "attribution: expected experts whose pairs add up, found ones that act on each other");
  }
  void write(View<const T> x, const Routing<T>& routing, View<T> y, const Pass& pass) const {
    layer_.apply(x, routing, y, pass);
  }

 private:
  Layer& layer_;
};

template <class Layer>
requires requires(const Layer& layer) {
  layer.experts();
}
class OutputOfExperts<Layer> {
 public:
  using T = typename Layer::Scalar;
  using Experts = std::remove_cvref_t<decltype(std::declval<const Layer&>().experts())>;
  static_assert(pairs_add_up<Experts>,
                "mole: the pairs of these experts act on each other: no part of the output is one pair's");

  OutputOfExperts(const Layer& layer, View<const T> x, const Routing<T>& routing)
      : layer_((check_attribution(x, routing, layer.in(), Index(layer.experts().experts())), layer)),
        scratch_(layer.experts(), {.tokens = x.rows(), .pairs = x.rows(), .experts = layer.experts().experts()}) {}

  void write(View<const T> x, const Routing<T>& routing, View<T> y, const Pass& pass) const {
    fill(y, T(0));
    layer_.experts().forward(x, View<const T>(), routing, y, Call{layer_.execution(), pass, *scratch_});
  }

 private:
  const Layer& layer_;
  mutable OwnedScratch<Experts> scratch_;
};

}  // namespace detail

/// Calls f(pair, c) with what each pair of token and expert adds to the token's output:   c = s_e g_e B_e (A_e x)   [O]
///
///   x [N x I], a routing of N tokens   ->   f(pair, std::span<const T>) once for each pair
///
/// The sum over the pairs of a token is the layer's output minus what it would be without experts, to the rounding. For
/// experts of any kind whose pairs add up (CompressedExperts do not, and do not compile), computed by the layer's own
/// execution, in one pass more than the most experts of a token; `pass` as in the forward that is explained. Throws
/// Error(shape) for another routing, Error(order) for an unfinished one.  Allocates.
///
/// An AnyLinear is attributed by its apply(), base and all, and the base's output taken off again, whose rounding
/// stays; it needs a forward before its next backward. Throws Error(option) unless its pairs_add_up().
template <class Layer, class F>
void for_each_contribution(Layer& layer, View<const typename Layer::Scalar> x,
                           const Routing<typename Layer::Scalar>& routing, F&& f, const Pass& pass = {}) {
  using T = typename Layer::Scalar;
  const detail::OutputOfExperts<Layer> experts(layer, x, routing);
  Index slots = 0;
  for (Index n = 0; n < routing.tokens(); ++n)
    slots = std::max(slots, routing.first_pair(n + 1) - routing.first_pair(n));
  Matrix<T> y(x.rows(), layer.out()), without(x.rows(), layer.out());
  for (Index slot = -1; slot < slots; ++slot) {
    const Routing<T> one = detail::pairs_in_slot(routing, slot);
    experts.write(x, one, y.view(), pass);
    if (slot < 0) {
      without = y;
      continue;
    }
    for (std::size_t i = 0; i < y.elements().size(); ++i) y.elements()[i] -= without.elements()[i];
    for (Index p = 0; p < one.pairs(); ++p)
      f(routing.first_pair(one.token(p)) + slot, std::span<const T>(y.view().row(one.token(p))));
  }
}

/// The parts of experts in the outputs of tokens, one number for each pair of the routing.
struct Attribution {
  std::vector<double> norm;   ///< [pairs] ||c||, the length of what the pair adds
  std::vector<double> share;  ///< [pairs] <c, sum of c> / ||sum of c||^2: those of a token sum to 1; 0 if the sum is 0,
                              ///< NaN if it is none

  /// Numbers of pairs as a matrix; 0 where an expert does not serve a token.   [N x E]
  template <class T>
  static Matrix<double> by_expert(const Routing<T>& routing, const std::vector<double>& per_pair) {
    require_equal(ErrorCode::shape, "Attribution: numbers, one of each pair", routing.pairs(), Index(per_pair.size()));
    Matrix<double> dense(routing.tokens(), routing.experts());
    for (Index p = 0; p < routing.pairs(); ++p) dense(routing.token(p), routing.expert(p)) = per_pair[std::size_t(p)];
    return dense;
  }
};

/// What each expert adds to each token, from the contributions themselves, not from gates or gradients.
///
///     layer.forward(x, y, work);
///     const Attribution parts = attribution(layer, x, work.routing);
///
/// A gate says how much a token trusts an expert; an expert whose B is small may add nothing under a large gate. Shares
/// are what each expert adds along the sum of all: negative for one that works against the others.
/// Arguments and errors of for_each_contribution(), which it calls twice.
template <class Layer>
Attribution attribution(Layer& layer, View<const typename Layer::Scalar> x,
                        const Routing<typename Layer::Scalar>& routing, const Pass& pass = {}) {
  using T = typename Layer::Scalar;
  Attribution parts{std::vector<double>(std::size_t(routing.pairs())), {}};
  Matrix<double> sum(x.rows(), layer.out());
  for_each_contribution(
      layer, x, routing,
      [&](Index pair, std::span<const T> c) {
        double squares = 0;
        for (std::size_t o = 0; o < c.size(); ++o) {
          squares += double(c[o]) * double(c[o]);
          sum(routing.token(pair), Index(o)) += double(c[o]);
        }
        parts.norm[std::size_t(pair)] = std::sqrt(squares);
      },
      pass);
  parts.share.resize(parts.norm.size());
  for_each_contribution(
      layer, x, routing,
      [&](Index pair, std::span<const T> c) {
        const std::span<const double> of_token = sum.view().row(routing.token(pair));
        double along = 0, squares = 0;
        for (std::size_t o = 0; o < c.size(); ++o) {
          along += double(c[o]) * of_token[o];
          squares += of_token[o] * of_token[o];
        }
        parts.share[std::size_t(pair)] = squares == 0 ? 0 : along / squares;  // NaN stays
      },
      pass);
  return parts;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
