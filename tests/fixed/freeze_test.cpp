// SPDX-License-Identifier: MIT
#include "mole/fixed/freeze.hpp"

#include "core/error_code.hpp"
#include "mole/mole.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

#include <limits>

using namespace mole;

namespace {

constexpr Index frozen_in = 12, frozen_out = 20;

template <class T>
auto frozen_base() {
  return DenseBase(support::random_matrix<T>(frozen_out, frozen_in, 3),
                   support::random_matrix<T>(1, frozen_out, 4).elements());
}

/// Both on random tokens, within the rounding that FixedLinear states.
template <class Fixed, class Layer>
void check_frozen(const Layer& layer) {
  using T = typename Fixed::Scalar;
  const Fixed fixed = freeze<Fixed>(layer);
  const auto x = support::random_matrix<T>(50, frozen_in, 5);
  const Matrix<T> expected = support::output(layer, x);
  const Fixed copy = fixed;
  for (Index n = 0; n < x.rows(); ++n) {
    std::array<T, std::size_t(frozen_out)> y;
    copy.forward(x.view().row_data(n), y.data());
    // Terms are below 1 in size, of experts below 1.5: alpha / rank times three numbers below 1 and their sums.
    const double most = double(frozen_in) * (1 + 3.0 * Fixed::rank * Fixed::chosen) + 1;
    const double allowed =
        (frozen_in + Fixed::chosen * Fixed::rank + 8) * double(std::numeric_limits<T>::epsilon()) * most;
    for (Index o = 0; o < frozen_out; ++o) {
      CAPTURE(n, o);
      REQUIRE(std::abs(double(y[std::size_t(o)]) - double(expected(n, o))) <= allowed);
    }
  }
}

}  // namespace

TEMPLATE_TEST_CASE("A frozen layer computes what the layer does", "[fixed]", float, double) {
  using T = TestType;
  Rng rng(1);
  check_frozen<FixedLinear<T, 12, 20, 3>>(support::with_random_b(lora({.rank = 3}, frozen_base<T>(), rng)));
  check_frozen<FixedLinear<T, 12, 20, 3, 4, 2>>(
      support::with_random_b(mola({.experts = 4, .rank = 3, .k = 2}, frozen_base<T>(), rng)));
  check_frozen<FixedLinear<T, 12, 20, 3, 3, 3>>(
      support::with_random_b(loramoe({.experts = 3, .rank = 3}, frozen_base<T>(), rng)));
  check_frozen<FixedLinear<T, 12, 20, 3, 3, 3>>(support::with_random_b(
      loramoe({.experts = 3, .rank = 3, .shared_down = true}, frozen_base<T>(), rng)));  // HydraLoRA
  check_frozen<FixedLinear<T, 12, 20, 2, 5>>(
      support::with_random_b(llava_mole({.experts = 5, .rank = 2}, frozen_base<T>(), rng)));
  check_frozen<FixedLinear<T, 12, 20, 5, 4, 2>>(support::routed_layer<T>(
      {.in = frozen_in, .out = frozen_out, .experts = 4, .bias = true, .ranks = {1, 5, 2, 4}}, support::top_2()));
  check_frozen<FixedLinear<T, 12, 20, 3, 4, 2>>(
      support::routed_layer<T>({.in = frozen_in, .out = frozen_out}, Gate{Softmax{}, TopK{.k = 2}, Raw{}}));
}

TEST_CASE("The numbers of any base are read", "[fixed]") {
  const auto weight = support::random_matrix<float>(frozen_out, frozen_in, 3);
  Rng rng(1);
  check_frozen<FixedLinear<float, 12, 20, 3>>(
      support::with_random_b(lora({.rank = 3}, PackedBase<float>(weight), rng)));
  check_frozen<FixedLinear<float, 12, 20, 3>>(support::with_random_b(lora({.rank = 3}, HalfBase(weight), rng)));
  check_frozen<FixedLinear<float, 12, 20, 3>>(support::with_random_b(lora({.rank = 3}, Int8RowBase(weight), rng)));
}

TEST_CASE("What a FixedLinear cannot hold is refused", "[fixed]") {
  Rng rng(1);
  const auto layer = mola({.experts = 4, .rank = 3, .k = 2}, frozen_base<float>(), rng);
  const auto code = [&]<class Fixed>(std::type_identity<Fixed>, const auto& of) {
    return test::code_of([&] { freeze<Fixed>(of); });
  };
  CHECK(code(std::type_identity<FixedLinear<float, 11, 20, 3, 4, 2>>(), layer) == ErrorCode::shape);
  CHECK(code(std::type_identity<FixedLinear<float, 12, 21, 3, 4, 2>>(), layer) == ErrorCode::shape);
  CHECK(code(std::type_identity<FixedLinear<float, 12, 20, 2, 4, 2>>(), layer) == ErrorCode::shape);
  CHECK(code(std::type_identity<FixedLinear<float, 12, 20, 3, 5, 2>>(), layer) == ErrorCode::shape);
  CHECK(code(std::type_identity<FixedLinear<float, 12, 20, 3, 4, 3>>(), layer) == ErrorCode::shape);
  const auto scaled =
      support::routed_layer<float>({.in = frozen_in, .out = frozen_out}, Gate{Softmax{}, TopK{2}, Renormalized{2}});
  CHECK(code(std::type_identity<FixedLinear<float, 12, 20, 3, 4, 2>>(), scaled) == ErrorCode::option);
}
