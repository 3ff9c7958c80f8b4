// SPDX-License-Identifier: MIT
#include "mole/base/transposed_base.hpp"

#include "core/error_code.hpp"
#include "mole/base/dense_base.hpp"
#include "mole/base/packed_base.hpp"
#include "mole/method/mola.hpp"
#include "mole/testing/base_laws.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

using namespace mole;

namespace {

/// W^T in memory of its own, with a gap between its rows.
template <class T>
struct WrongWayRound {
  explicit WrongWayRound(const Matrix<T>& w) : memory(w.cols(), w.rows() + 3) {
    for (Index o = 0; o < w.rows(); ++o)
      for (Index i = 0; i < w.cols(); ++i) memory(i, o) = w(o, i);
  }
  View<const T> view() const { return memory.view().middle_cols(0, memory.cols() - 3); }
  Matrix<T> memory;
};

}  // namespace

TEMPLATE_TEST_CASE("A base over a transposed weight is the map of the weight, with its laws", "[base]", float, double) {
  using T = TestType;
  struct Sizes {
    Index out, in;
  };
  for (const Sizes sizes : {Sizes{1, 1}, Sizes{7, 5}, Sizes{33, 64}}) {
    const Index out = sizes.out, in = sizes.in;
    const auto w = support::random_matrix<T>(out, in, 1), bias = support::random_matrix<T>(1, out, 2);
    const WrongWayRound<T> wrong(w);
    const TransposedBase<T> base(Transposed{wrong.view()}, bias.elements());
    CHECK(laws::broken_base_law(base) == "");
    CHECK(laws::broken_affine_base_law(base) == "");
    CHECK((base.weight().rows() == out && base.weight().cols() == in && base.weight()(out - 1, 0) == w(out - 1, 0)));

    Rng first(3), second(3);
    const auto expected =
        support::with_random_b(mola({.experts = 3, .rank = 2, .k = 2}, DenseBase(w, bias.elements()), first));
    const auto found = support::with_random_b(mola({.experts = 3, .rank = 2, .k = 2}, base, second));
    const auto x = support::random_matrix<T>(9, in, 4), d_y = support::random_matrix<T>(9, out, 5);
    const auto results = [&](const auto& layer) {
      Matrix<T> y(9, out), d_x(9, in);
      auto work = layer.workspace(9);
      auto gradients = layer.gradients();
      layer.forward(x, y, work);
      layer.backward(x, d_y, d_x, gradients, work);
      return std::pair(std::move(y), std::move(d_x));
    };
    const auto [y, d_x] = results(found);
    const auto [expected_y, expected_d_x] = results(expected);
    const double allowed = 40 * double(std::numeric_limits<T>::epsilon()) * double(in + out);
    for (Index n = 0; n < 9; ++n) {
      for (Index o = 0; o < out; ++o) CHECK(std::abs(double(y(n, o)) - double(expected_y(n, o))) <= allowed);
      for (Index i = 0; i < in; ++i) CHECK(std::abs(double(d_x(n, i)) - double(expected_d_x(n, i))) <= allowed);
    }
  }
}

TEST_CASE("A weight is packed from its transpose as from itself", "[base]") {
  const auto w = support::random_matrix<float>(37, 21, 1), bias = support::random_matrix<float>(1, 37, 2);
  const WrongWayRound<float> wrong(w);
  const auto x = support::random_matrix<float>(9, 21, 4), d_y = support::random_matrix<float>(9, 37, 5);
  const auto results = [&](const PackedBase<float>& base) {
    Rng rng(3);
    const auto layer = support::with_random_b(mola({.experts = 3, .rank = 2, .k = 2}, base, rng));
    Matrix<float> y(9, 37), d_x(9, 21);
    auto work = layer.workspace(9);
    auto gradients = layer.gradients();
    layer.forward(x, y, work);
    layer.backward(x, d_y, d_x, gradients, work);
    return std::pair(std::move(y), std::move(d_x));
  };
  for (bool backward : {true, false}) {
    const auto [y, d_x] = results(PackedBase<float>(Transposed{wrong.view()}, bias.elements(), {.backward = backward}));
    const auto [expected_y, expected_d_x] = results(PackedBase<float>(w, bias.elements(), {.backward = backward}));
    CHECK(support::same_bits(y, expected_y));
    CHECK(support::same_bits(d_x, expected_d_x));
  }
}

TEST_CASE("A bias of another size than the transposed weight's outputs is refused", "[base]") {
  const auto w = support::random_matrix<float>(4, 3, 1);  // [I x O]
  const std::vector<float> right(3), wrong(4);
  CHECK((TransposedBase{Transposed{w}, right}.out() == 3));
  CHECK(test::code_of([&] { TransposedBase{Transposed{w}, wrong}; }) == ErrorCode::shape);
  CHECK(test::code_of([&] { PackedBase<float>(Transposed{w}, wrong); }) == ErrorCode::shape);
}
