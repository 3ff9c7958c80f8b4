// SPDX-License-Identifier: MIT
// DenseBase: a linear layer of 32- or 64-bit weights, owned or borrowed from the host.
#pragma once

#include "mole/base/base_policy.hpp"
#include "mole/core/bias_view.hpp"
#include "mole/core/error.hpp"
#include "mole/core/lasting_view.hpp"
#include "mole/core/linear_parameters.hpp"

#include <algorithm>
#include <concepts>
#include <span>
#include <type_traits>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// y = x W^T (+ b).
///
///   weight [O x I], bias [1 x O] or none, x [N x I], y [N x O]
///
/// Storage decides who owns the weights. DenseBase{view}, DenseBase{eigen_matrix} and DenseBase{matrix} borrow the
/// host's memory, which must outlive the layer; nothing is copied, and the base is frozen. DenseBase{std::move(matrix)}
/// owns a mole::Matrix, has parameters, and can be trained. Throws Error(shape) when the bias does not fit the weight.
template <class Storage>
class DenseBase {
  static constexpr bool owning = std::is_same_v<Storage, Matrix<typename Storage::Scalar>>;

 public:
  using Scalar = typename Storage::Scalar;
  using T = Scalar;
  using Parameters = std::conditional_t<owning, LinearParameters<T>, NoParameters>;

  explicit DenseBase(View<const T> weight, BiasView<T> bias = {}) requires(!owning) : linear_{weight, bias.row()} {
    check_sizes();
  }
  /// What would be gone before the layer is used.
  template <class M, class... Bias>
  requires(!owning && detail::OwningTemporary<M>) explicit DenseBase(M&& weight, Bias&&...) = delete;
  template <class B>
  requires(!owning && detail::OwningTemporary<B>) DenseBase(View<const T> weight, B&& bias)
  = delete;
  template <detail::TransposedMatrix M, class... Bias>
  requires(!owning) explicit DenseBase(const M&, Bias&&...) { detail::refuse_transposed_weight<M>(); }
  explicit DenseBase(Matrix<T> weight, BiasView<T> bias = {}) requires owning : linear_{std::move(weight), {}} {
    if (!bias.empty()) linear_.bias = Matrix<T>(1, bias.size());
    std::ranges::copy(std::span(bias.row().data(), std::size_t(bias.size())), linear_.bias.elements().begin());
    check_sizes();
  }

  void check_sizes() const {
    if (bias()) require_equal(ErrorCode::shape, "DenseBase: size of the bias", out(), bias().size());
  }

  Index in() const { return weight().cols(); }
  Index out() const { return weight().rows(); }
  View<const T> weight() const { return view(linear_.weight); }
  View<const T> bias() const { return view(linear_.bias); }
  LinearWeights<T> weights() const { return {.weight = weight(), .bias = bias()}; }
  Parameters& parameters() requires owning { return linear_; }
  const Parameters& parameters() const requires owning { return linear_; }

  void forward(View<const T> x, View<T> y, auto call) const { call.execution.linear(x, weights(), y); }

  /// d_x += d_y W;  for an owned weight also weight += d_y^T x and bias += sum over tokens of d_y in `gradients`
  void backward(View<const T> x, View<const T> d_y, View<T> d_x, Parameters& gradients, auto call) const {
    if (d_x) call.execution.linear_backward(d_y, weights(), d_x);
    if constexpr (owning) gradients.add_gradients(x, d_y, call.execution);
  }

 private:
  struct Borrowed {
    Storage weight, bias;
  };
  static View<const T> view(const Storage& storage) {
    if constexpr (owning)
      return storage.view();
    else
      return storage;
  }

  std::conditional_t<owning, LinearParameters<T>, Borrowed> linear_;
};

template <class T, class... Bias>
DenseBase(View<T>, Bias&&...) -> DenseBase<View<const std::remove_const_t<T>>>;
template <class T, class... Bias>
DenseBase(const Matrix<T>&, Bias&&...) -> DenseBase<View<const T>>;
template <class T, class... Bias>
DenseBase(Matrix<T>&&, Bias&&...) -> DenseBase<Matrix<T>>;
template <ColumnMajorMatrix M, class... Bias>  // for the words of View, which does not take it
DenseBase(const M&, Bias&&...)->DenseBase<View<const std::remove_cvref_t<decltype(*std::declval<const M&>().data())>>>;
template <RowMajorMatrix M, class... Bias>
DenseBase(const M&, Bias&&...)
    -> DenseBase<View<const std::remove_cvref_t<decltype(*std::declval<const M&>().data())>>>;

static_assert(TrainableBasePolicy<DenseBase<View<const float>>> && TrainableBasePolicy<DenseBase<Matrix<float>>>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
