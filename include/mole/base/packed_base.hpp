// SPDX-License-Identifier: MIT
// PackedBase: a frozen linear layer whose weight is packed once, when it is made.
#pragma once

#include "mole/base/base_policy.hpp"
#include "mole/core/bias_view.hpp"
#include "mole/core/error.hpp"
#include "mole/core/lasting_view.hpp"
#include "mole/core/matrix.hpp"
#include "mole/core/transposed.hpp"

#include <memory>
#include <memory_resource>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// y = x W^T (+ b), with W in panels.
///
///   weight [O x I], bias of O numbers or none, x [N x I], y [N x O]
///
/// A product with a plain weight packs it in every call; a frozen weight needs that only once. Takes bytes_for() of
/// memory, which is that of the weight, rounded up to whole panels of 128 bytes: once for forward, and once more for
/// d_x, transposed, unless `.backward` is false. Then d_x is computed from the panels of forward, which are transposed
/// in every call: half the memory, but slower for few tokens. The host may free its own weight afterwards.
///
/// Copies share the panels, so layers and threads may. Throws Error(shape) when the bias does not fit the weight.
template <class T>
class PackedBase {
 public:
  using Scalar = T;

  struct Options {
    bool backward = true;  ///< pack for d_x too
    std::pmr::memory_resource* memory = std::pmr::get_default_resource();
  };

  template <detail::TransposedMatrix M, class... Rest>
  explicit PackedBase(const M&, Rest&&...) {
    detail::refuse_transposed_weight<M>();
  }
  explicit PackedBase(View<const T> weight) : PackedBase(weight, {}, Options{}) {}
  PackedBase(View<const T> weight, const Options& options) : PackedBase(weight, {}, options) {}
  PackedBase(View<const T> weight, BiasView<T> bias, const Options& options = {})
      : in_(weight.cols()), out_(weight.rows()) {
    pack(bias, [&](Packed& packed) {
      packed.forward = WeightPanels<T>::of(weight, options.memory);
      if (options.backward) packed.backward = WeightPanels<T>::of_transposed(weight, options.memory);
    });
  }
  /// Of a weight that lies in memory as [I x O]: PackedBase{Transposed{weight}, bias}. The same panels.
  explicit PackedBase(Transposed<T> weight, BiasView<T> bias = {}, const Options& options = {})
      : in_(weight.cols()), out_(weight.rows()) {
    pack(bias, [&](Packed& packed) {
      packed.forward = WeightPanels<T>::of_transposed(weight.memory(), options.memory);
      if (options.backward) packed.backward = WeightPanels<T>::of(weight.memory(), options.memory);
    });
  }

  static std::size_t bytes_for(Index in, Index out, bool backward = true) {
    return WeightPanels<T>::bytes_for(out, in) + (backward ? WeightPanels<T>::bytes_for(in, out) : 0);
  }

  Index in() const { return in_; }
  Index out() const { return out_; }
  LinearWeights<T> weights() const {
    const auto& bias = packed_->bias;
    return {.panels = packed_->forward.view(),
            .transposed_panels = packed_->backward.view(),
            .bias = bias.empty() ? View<const T>() : View<const T>(bias.data(), 1, out_)};
  }

  void forward(View<const T> x, View<T> y, auto call) const { call.execution.linear(x, weights(), y); }

  /// d_x += d_y W
  void backward(View<const T>, View<const T> d_y, View<T> d_x, NoParameters&, auto call) const {
    if (d_x) call.execution.linear_backward(d_y, weights(), d_x);
  }

 private:
  struct Packed {
    WeightPanels<T> forward, backward;
    std::vector<T> bias;
  };

  void pack(BiasView<T> bias, auto panels) {
    if (!bias.empty()) require_equal(ErrorCode::shape, "PackedBase: size of the bias", out_, bias.size());
    auto packed = std::make_shared<Packed>();
    panels(*packed);
    packed->bias.assign(bias.row().data(), bias.row().data() + bias.size());
    packed_ = std::move(packed);
  }

  Index in_, out_;
  std::shared_ptr<const Packed> packed_;
};

template <class T, class... Rest>
PackedBase(View<T>, const Rest&...) -> PackedBase<std::remove_const_t<T>>;
template <ColumnMajorMatrix M, class... Rest>  // for the words of View, which does not take it
PackedBase(const M&, const Rest&...)->PackedBase<std::remove_cvref_t<decltype(*std::declval<const M&>().data())>>;
template <RowMajorMatrix M, class... Rest>
PackedBase(const M&, const Rest&...) -> PackedBase<std::remove_cvref_t<decltype(*std::declval<const M&>().data())>>;
template <class T, class... Rest>
PackedBase(const Matrix<T>&, const Rest&...) -> PackedBase<T>;

static_assert(TrainableBasePolicy<PackedBase<float>> && LinearBasePolicy<PackedBase<float>>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
