// SPDX-License-Identifier: MIT
// Adapter, WeightedAdapter, MergedAdapter: single LoRAs outside of a layer, as merging takes and returns them.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/matrix.hpp"

#include <cmath>
#include <concepts>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// One LoRA, owned: the update scale B^T A.
///
///   a [r x I], b [r x O], rank-major: row i of both is one rank
///
/// A layer of one, here as experts:
///     LowRank experts(DenseFactors<T>(RankBlocks::uniform(1, adapter.rank()), {adapter.a, adapter.b}),
///                     {T(adapter.scale)});
template <std::floating_point T>
struct Adapter {
  using Scalar = T;

  Matrix<T> a, b;
  double scale = 1;

  Index rank() const { return a.rows(); }
  Index in() const { return a.cols(); }
  Index out() const { return b.cols(); }
};

/// One LoRA, borrowed, and its weight among those that are merged.   a [r x I], b [r x O]
template <std::floating_point T>
struct WeightedAdapter {
  using Scalar = T;

  WeightedAdapter(View<const T> a_, View<const T> b_, double scale_, double weight_ = 1)
      : a(a_), b(b_), scale(scale_), weight(weight_) {}
  WeightedAdapter(const Adapter<T>& adapter, double weight_ = 1)
      : WeightedAdapter(adapter.a.view(), adapter.b.view(), adapter.scale, weight_) {}
  WeightedAdapter(Adapter<T>&&, double = 1) = delete;  // a temporary would not outlive its views

  Index rank() const { return a.rows(); }
  Index in() const { return a.cols(); }
  Index out() const { return b.cols(); }
  /// Of B^T A in the weighted sum.
  double factor() const { return weight * scale; }

  View<const T> a, b;
  double scale, weight;
};

/// What a merge returns.
template <std::floating_point T>
struct MergedAdapter {
  Adapter<T> adapter;
  /// ||merged update - sum_i w_i s_i B_i^T A_i|| over the norm of that sum (Frobenius), from the factors alone; 0 if
  /// both are 0, infinite if only the sum is.
  double error = 0;
};

namespace detail {

/// Throws unless `who` can merge them into an adapter of scale `scale`. Ranks may differ.
template <class T>
void check_adapters(std::string_view who, const std::vector<WeightedAdapter<T>>& adapters, double scale = 1) {
  require(!adapters.empty(), ErrorCode::option, who, ": expected at least 1 adapter, found 0");
  require(std::isfinite(scale) && scale != 0, ErrorCode::option, who, ": expected a scale other than 0, found ", scale);
  const std::string name(who);
  for (std::size_t i = 0; i < adapters.size(); ++i) {
    const auto& adapter = adapters[i];
    const std::string of_adapter = " of adapter " + std::to_string(i);
    require(std::isfinite(adapter.scale), ErrorCode::option, who, ": scale", of_adapter, ": expected a number, found ",
            adapter.scale);
    require(std::isfinite(adapter.weight), ErrorCode::option, who, ": weight", of_adapter,
            ": expected a number, found ", adapter.weight);
    require_equal(ErrorCode::shape, name + ": rows of B" + of_adapter + ", as many as of A", adapter.a.rows(),
                  adapter.b.rows());
    require_equal(ErrorCode::shape, name + ": inputs" + of_adapter, adapters[0].in(), adapter.in());
    require_equal(ErrorCode::shape, name + ": outputs" + of_adapter, adapters[0].out(), adapter.out());
    for (const auto& [factor_name, factor] : {std::pair("A", adapter.a), std::pair("B", adapter.b)})
      for (Index j = 0; j < factor.rows(); ++j)
        for (const T value : factor.row(j))
          require(std::isfinite(value), ErrorCode::option, who, ": expected finite numbers in ", factor_name,
                  of_adapter, ", found ", double(value), " in row ", j);
  }
}

}  // namespace detail

}  // namespace mole

#include "mole/core/macros_on.hpp"
