// SPDX-License-Identifier: MIT
// check_coded_base(): the checks of every base in reduced storage, whatever its code.
#pragma once

#include "core/error_code.hpp"
#include "mole/base/coded_base.hpp"
#include "mole/execution/simd.hpp"
#include "mole/execution/thread_pool.hpp"
#include "mole/testing/base_laws.hpp"
#include "support/catch.hpp"
#include "support/guarded_matrix.hpp"
#include "support/layer_results.hpp"
#include "support/random_matrix.hpp"
#include "support/seed.hpp"
#include "support/tolerance.hpp"

#include <cmath>
#include <set>
#include <vector>

namespace mole::test {

/// Around the edges of vectors, of blocks, and of pairs of vectors.
inline std::vector<Index> coded_sizes() {
  constexpr Index step = kernel::step_of<kernel::DefaultArchitecture, float>;
  return {1, 3, step - 1, step, step + 1, 63, 64, 65, 100, 129, 200};
}
inline Index rounded_up(Index size, Index multiple) {
  return (size + multiple - 1) / multiple * multiple;
}
/// Every tile of tokens, and both sides of many_tokens.
inline const std::vector<Index> coded_tokens{0, 1, 2, 3, 5, 8, 17, 70, 101};

template <class Base>
Matrix<float> decoded(const Base& base) {
  Matrix<float> weight(base.out(), base.in());
  base.weight(weight.view());
  return weight;
}

template <class Base, class Execution>
void forward(const Base& base, const Execution& execution, View<const float> x, View<float> y) {
  Pass pass;
  ScratchOf<Base> scratch;
  Call<Execution, ScratchOf<Base>> call{execution, pass, scratch};
  base.forward(x, y, call);
}

template <class Base, class Execution>
void backward(const Base& base, const Execution& execution, View<const float> d_y, View<float> d_x) {
  Pass pass;
  ScratchOf<Base> scratch;
  Call<Execution, ScratchOf<Base>> call{execution, pass, scratch};
  NoParameters none;
  base.backward(View<const float>{}, d_y, d_x, none, call);
}

/// y and d_x of one size against plain loops over the decoded weight, on views with strides and off alignment.
template <class Base, class Execution>
void products_equal_plain_loops(const Base& base, const Execution& execution, Index tokens, Rng& rng) {
  const Matrix<float> w = decoded(base);
  const auto x = random_input<float>(tokens, base.in(), rng, {.padding = 3, .before = 1}),
             d_y = random_input<float>(tokens, base.out(), rng, {.padding = 1, .before = 1});
  auto y = random_output<float>(tokens, base.out(), rng, {.padding = 2, .before = 1, .after = 1}),
       d_x = random_output<float>(tokens, base.in(), rng, {.padding = 1, .before = 3, .after = 1});
  Matrix<double> plain_y(tokens, base.out()), plain_d_x(tokens, base.in());
  for (Index n = 0; n < tokens; ++n) {
    for (Index i = 0; i < base.in(); ++i) plain_d_x(n, i) = double(d_x(n, i));
    for (Index o = 0; o < base.out(); ++o) {
      if (!base.bias().empty()) plain_y(n, o) = double(base.bias()[std::size_t(o)]);
      for (Index i = 0; i < base.in(); ++i) {
        plain_y(n, o) += double(x(n, i)) * double(w(o, i));
        plain_d_x(n, i) += double(d_y(n, o)) * double(w(o, i));
      }
    }
  }
  forward(base, execution, x.view(), y.view());
  backward(base, execution, d_y.view(), d_x.view());
  CAPTURE(base.in(), base.out(), tokens);
  CHECK(difference(y.view(), plain_y.view()) <= Tolerance<float>::sum(base.in() + 1));
  CHECK(difference(d_x.view(), plain_d_x.view()) <= Tolerance<float>::sum(base.out() + 1));
  CHECK(y.intact());
  CHECK(d_x.intact());
}

/// `make(weight, bias)` over all sizes, vectorized, and over some in plain loops and with one element a vector. Rows
/// have a multiple of `multiple` elements.
template <class Make>
void all_products_equal_plain_loops(Make make, Index multiple) {
  TestRng rng;
  std::set<Index> inputs;
  for (Index in : coded_sizes()) inputs.insert(rounded_up(in, multiple));
  for (Index in : inputs)
    for (Index out : coded_sizes()) {
      const auto weight = random_input<float>(out, in, rng, {.padding = 2, .before = 1});
      const auto bias = random_input<float>(1, out, rng);
      const auto base = make(weight.view(), in % 2 == 0 ? bias.view() : View<const float>{});
      for (Index tokens : coded_tokens) products_equal_plain_loops(base, Simd<>{}, tokens, rng);
      if (in > 65 || out > 65) continue;
      products_equal_plain_loops(base, Reference{}, 3, rng);
      for (Index tokens : coded_tokens) products_equal_plain_loops(base, Simd<kernel::Scalar>{}, tokens, rng);
    }
}

/// Large enough for several tasks: the bits are those of one thread, and below many_tokens those of one token alone.
template <class Make>
void same_bits_however_it_is_cut(Make make) {
  TestRng rng;
  const auto weight = random_input<float>(517, 320, rng), bias = random_input<float>(1, 517, rng);
  const auto base = make(weight.view(), bias.view());
  for (Index tokens : {1, 7, 40, 130}) {
    const auto x = random_input<float>(tokens, 320, rng), d_y = random_input<float>(tokens, 517, rng);
    GuardedMatrix<float> y(tokens, 517, 0), d_x(tokens, 320, 0);
    forward(base, Simd<>{}, x.view(), y.view());
    backward(base, Simd<>{}, d_y.view(), d_x.view());
    CAPTURE(tokens);
    for (int threads : {1, 2, 5}) {
      const Simd execution{ThreadPool(threads)};
      GuardedMatrix<float> other_y(tokens, 517, 0), other_d_x(tokens, 320, 0);
      forward(base, execution, x.view(), other_y.view());
      backward(base, execution, d_y.view(), other_d_x.view());
      CAPTURE(threads);
      CHECK(support::same_bits(y.view(), other_y.view()));
      CHECK(support::same_bits(d_x.view(), other_d_x.view()));
    }
    GuardedMatrix<float> alone_y(tokens, 517, 0), alone_d_x(tokens, 320, 0);
    for (Index n = 0; n < tokens; ++n) {
      forward(base, Simd<>{}, x.view().middle_rows(n, 1), alone_y.view().middle_rows(n, 1));
      backward(base, Simd<>{}, d_y.view().middle_rows(n, 1), alone_d_x.view().middle_rows(n, 1));
    }
    if (tokens < kernel::CodedProducts<kernel::DefaultArchitecture>::many_tokens)
      CHECK(support::same_bits(y.view(), alone_y.view()));
    CHECK(support::same_bits(d_x.view(), alone_d_x.view()));
  }
}

/// y, d_x and the experts' gradients of a layer over `base` and of one over its decoded weight.
template <class Base, class Execution>
void layer_equals_dense_layer(const Base& base, const Execution& execution) {
  const Matrix<float> weight = decoded(base);
  const LayerResults found = layer_results(base, execution), expected = dense_layer_results(weight, execution);
  const auto largest = [](const Matrix<float>& m) {
    float most = 0;
    for (float element : m.elements()) most = std::max(most, std::abs(element));
    return double(most);
  };
  CHECK(support::largest_difference(found.y, expected.y) <= Tolerance<float>::layer * largest(expected.y));
  CHECK(support::largest_difference(found.d_x, expected.d_x) <= Tolerance<float>::layer * largest(expected.d_x));
  CHECK(support::largest_difference(found.d_a, expected.d_a) <= Tolerance<float>::layer * largest(expected.d_a));
  CHECK(largest(expected.d_x) > 0);
}

/// Refused unless allowed; then the codes of the sum, with the options from before.
template <class Base>
void merges_only_when_the_loss_is_allowed(Base base) {
  const Matrix<float> before = decoded(base);
  const auto options = base.code().options();
  const auto delta = support::random_matrix<float>(base.out(), base.in(), 21);
  const auto merge = [&](auto... loss) {
    try {
      base.merge(delta.view(), loss...);
    } catch (const Error& error) {
      return error.code() == ErrorCode::not_mergeable;
    }
    return false;
  };
  CHECK(merge());
  CHECK(merge(LossyMerge::refused));
  CHECK(support::same_bits(decoded(base), before));
  CHECK_FALSE(merge(LossyMerge::allowed));
  Matrix<float> sum = before;
  for (std::size_t k = 0; k < sum.elements().size(); ++k) sum.elements()[k] += delta.elements()[k];
  const Base coded(sum.view(), {}, options);
  CHECK(support::same_bits(decoded(base), decoded(coded)));
  CHECK_FALSE(support::same_bits(decoded(base), before));
  CHECK_THROWS_AS(base.merge(Matrix<float>(base.out() + 1, base.in()), LossyMerge::allowed), Error);
}

/// From memory of [I x O], with a gap between its rows: the codes of the weight the usual way round.
template <class Base>
void transposed_memory_has_the_same_codes(View<const float> weight, View<const float> bias,
                                          typename Base::Options options) {
  Matrix<float> memory(weight.cols(), weight.rows() + 3);
  for (Index o = 0; o < weight.rows(); ++o)
    for (Index i = 0; i < weight.cols(); ++i) memory(i, o) = weight(o, i);
  const Transposed<float> wrong_way_round(View<const float>(memory).middle_cols(0, weight.rows()));
  const Base base(wrong_way_round, bias, options), usual(weight, bias, options);
  CHECK(support::same_bits(decoded(base), decoded(usual)));
  CHECK(base.bytes() == usual.bytes());
  CHECK(laws::broken_affine_base_law(base) == "");
  CHECK_THROWS_AS(Base(wrong_way_round, Matrix<float>(1, weight.rows() - 1), options), Error);
}

/// All of the above, and the laws of bases; of one whose rows have a multiple of `multiple` elements.
template <class Base>
void check_coded_base(typename Base::Options options = {}, Index multiple = 1) {
  const auto make = [&](View<const float> weight, View<const float> bias) { return Base(weight, bias, options); };
  const Index cols = rounded_up(70, multiple);
  const auto weight = support::random_matrix<float>(9, cols, 1), bias = support::random_matrix<float>(1, 9, 2);
  CHECK(laws::broken_base_law(make(weight.view(), bias.view())) == "");
  CHECK(laws::broken_affine_base_law(make(weight.view(), bias.view())) == "");
  transposed_memory_has_the_same_codes<Base>(weight, bias, options);
  all_products_equal_plain_loops(make, multiple);
  same_bits_however_it_is_cut(make);
  for (Index in : {64, 100}) {
    const auto base = make(support::random_matrix<float>(33, rounded_up(in, multiple), 3), {});
    layer_equals_dense_layer(base, Simd<>{});
    layer_equals_dense_layer(base, Simd<kernel::Scalar>{});
    layer_equals_dense_layer(base, Reference{});
  }
  const Base biased = make(weight.view(), bias.view());
  merges_only_when_the_loss_is_allowed(biased);
  const Matrix<float> d_y(3, 9);
  backward(biased, Simd<>{}, d_y.view(), View<float>{});  // not wanted
  CHECK(biased.bytes() == make(weight.view(), {}).bytes() + 9 * sizeof(float));
  Matrix<float> narrow(9, cols - 1), tall(10, cols);
  CHECK_THROWS_AS(biased.weight(narrow.view()), Error);
  CHECK_THROWS_AS(biased.weight(tall.view()), Error);
  CHECK_THROWS_AS(make(weight.view(), Matrix<float>(1, 8)), Error);
  CHECK_THROWS_AS(make(weight.view(), Matrix<float>(3, 3)), Error);
  const auto empty = make(View<const float>(weight.data(), 0, rounded_up(5, multiple)), {});
  CHECK(empty.out() == 0);
  TestRng rng;
  products_equal_plain_loops(make(View<const float>(weight.data(), 4, 0), {}), Simd<>{}, 3, rng);
}

}  // namespace mole::test
