// SPDX-License-Identifier: MIT
#include "mole/adapt/self_contrast.hpp"

#include "core/error_code.hpp"
#include "mole/testing/harness.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"
#include "support/seed.hpp"

#include <algorithm>
#include <limits>
#include <vector>

using namespace mole;
using Row = std::vector<double>;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

template <class T>
std::vector<T> contrasted(const std::vector<T>& strong, const std::vector<T>& weak,
                          const SelfContrastOptions& options = {}) {
  std::vector<T> result(strong.size(), T(77));
  self_contrast(strong, weak, std::span(result), options);
  return result;
}

template <class T>
std::ptrdiff_t argmax(const std::vector<T>& row) {
  return std::max_element(row.begin(), row.end()) - row.begin();
}

template <class T>
std::vector<T> random_logits(std::size_t size, Rng& rng) {
  std::vector<T> row(size);
  fill_uniform(View<T>(row, 1, Index(size)), 4, rng);
  return row;
}

/// What contrasting rows of these sizes throws.
std::optional<ErrorCode> code(std::size_t strong, std::size_t weak, std::size_t result,
                              const SelfContrastOptions& options = {}) {
  const std::vector<float> of_strong(strong), of_weak(weak);
  std::vector<float> to(result);
  return test::code_of([&] { self_contrast(of_strong, of_weak, std::span(to), options); });
}

}  // namespace

TEMPLATE_TEST_CASE("The contrast of four tokens is that of the formula, and another one is the best", "[adapt]", float,
                   double) {
  using T = TestType;
  const std::vector<T> strong{2, 1.5, 0, -3}, weak{2.5, 0.5, 1, -6};
  const std::vector<T> found = contrasted(strong, weak);
  CHECK(found == std::vector<T>{1.75, 2, -0.5, T(-infinity)});
  CHECK(argmax(strong) == 0);
  CHECK(argmax(found) == 1);
}

TEST_CASE("The cutoff is log(alpha) below the largest strong logit, itself included", "[adapt]") {
  // 2 + log(0.1) = -0.302585...
  const auto found = contrasted<double>({2, -0.302584, -0.302586}, {0, 0, 0});
  CHECK(std::abs(found[1] + 1.5 * 0.302584) < 1e-15);
  CHECK(found[2] == -infinity);
  // alpha = 1 keeps the largest alone, and its equals
  CHECK(contrasted<double>({1, 2, 2}, {0, 0, 1}, {.alpha = 1}) == Row{-infinity, 3, 2.5});
}

TEMPLATE_TEST_CASE("Without weight the contrast leaves the strong logits that are in", "[adapt]", float, double) {
  using T = TestType;
  test::TestRng rng;
  for (std::size_t size : {1u, 2u, 7u, 1000u}) {
    const auto strong = random_logits<T>(size, rng), weak = random_logits<T>(size, rng);
    const T largest = *std::max_element(strong.begin(), strong.end());
    for (double alpha : {0.01, 0.1, 1.0}) {
      const auto without = contrasted(strong, weak, {.alpha = alpha, .beta = 0});
      const auto of_equals = contrasted(strong, strong, {.alpha = alpha, .beta = 0.7});
      CAPTURE(size, alpha);
      CHECK(argmax(without) == argmax(strong));
      CHECK(without == of_equals);
      bool as_they_were = true;
      for (std::size_t i = 0; i < size; ++i) {
        const bool in = double(strong[i]) >= std::log(alpha) + double(largest);
        as_they_were &= without[i] == (in ? strong[i] : T(-infinity));
      }
      CHECK(as_they_were);
    }
  }
}

TEMPLATE_TEST_CASE("The contrast may be written over either row", "[adapt]", float, double) {
  using T = TestType;
  test::TestRng rng;
  const auto strong = random_logits<T>(33, rng), weak = random_logits<T>(33, rng);
  const auto apart = contrasted(strong, weak);
  auto over_strong = strong, over_weak = weak;
  self_contrast(over_strong, weak, std::span(over_strong));
  self_contrast(strong, over_weak, std::span(over_weak));
  CHECK(over_strong == apart);
  CHECK(over_weak == apart);
}

TEST_CASE("Equal passes keep the order of the strong logits, and the logits themselves", "[adapt]") {
  const std::vector<double> strong{2, 1.5, 0, 1.999, -3};
  std::vector<double> contrasted(5);
  for (double beta : {0.0, 0.5, 0.9}) {
    self_contrast<double>(strong, strong, contrasted, {.beta = beta});
    for (std::size_t i : {0u, 1u, 2u, 3u}) CHECK(contrasted[i] == strong[i]);
    CHECK(contrasted[4] == -std::numeric_limits<double>::infinity());
  }
}

TEST_CASE("-infinity in the strong row is never in", "[adapt]") {
  CHECK(contrasted<double>({0, -infinity, -infinity}, {1, 1, -infinity}) == Row{-0.5, -infinity, -infinity});
  const std::vector<double> none(3, -infinity);
  CHECK(contrasted<double>(none, {1, -infinity, not_a_number}) == none);
  CHECK(contrasted(none, none, {.alpha = 1, .beta = 0}) == none);
  CHECK(contrasted<double>({}, {}).empty());
}

TEST_CASE("An infinite logit leaves the strong one as it is", "[adapt]") {
  for (double beta : {0.0, 0.5})
    for (double masked : {-infinity, infinity})
      CHECK(contrasted<double>({1, 0.5, -9}, {1, masked, masked}, {.beta = beta}) == Row{1, 0.5, -infinity});
  CHECK(contrasted<double>({infinity, 1}, {infinity, 1}) == Row{infinity, -infinity});
  CHECK(contrasted<double>({infinity, 1}, {3, 1}, {.beta = 0}) == Row{infinity, -infinity});
}

TEST_CASE("NaN is seen where it matters, and has a part in no other number", "[adapt]") {
  const auto of_strong = contrasted<double>({not_a_number, 2, 1}, {0, 1, 1});
  CHECK(std::isnan(of_strong[0]));
  CHECK(of_strong[1] == 2.5);
  CHECK(of_strong[2] == 1);
  CHECK(contrasted<double>({3, not_a_number, 0}, {3, 1, 0})[2] == -infinity);  // 3 is still the largest
  const auto of_weak = contrasted<double>({1, 2, -9}, {not_a_number, 1, not_a_number});
  CHECK(std::isnan(of_weak[0]));
  CHECK(of_weak[1] == 2.5);
  CHECK(of_weak[2] == -infinity);
  for (double number : contrasted<double>({not_a_number, not_a_number}, {0, infinity})) CHECK(std::isnan(number));
}

TEST_CASE("Rows of different sizes and options out of range are refused", "[adapt]") {
  CHECK(code(3, 3, 3) == std::nullopt);
  CHECK(code(3, 2, 3) == ErrorCode::shape);
  CHECK(code(3, 3, 4) == ErrorCode::shape);
  for (double alpha : {0.0, -0.1, 1.001, not_a_number}) CHECK(code(3, 3, 3, {.alpha = alpha}) == ErrorCode::option);
  for (double beta : {-0.1, infinity, not_a_number}) CHECK(code(3, 3, 3, {.beta = beta}) == ErrorCode::option);
  CHECK(code(0, 0, 0, {.beta = -1}) == ErrorCode::option);
  CHECK(code(3, 3, 3, {.alpha = 1, .beta = 0}) == std::nullopt);
}

TEST_CASE("One layer makes a strong and a weak pass by two routings of the same logits", "[adapt]") {
  const auto layer = support::routed_layer<double>({}, support::top_2());
  const Index tokens = 6;
  const auto x = support::random_matrix<double>(tokens, 11, 8);
  Matrix<double> strong(tokens, 13), weak(tokens, 13), contrast(tokens, 13);
  auto work = layer.workspace(tokens);
  layer.route(x, work);
  const Routing<double> of_strong = work.routing;
  layer.apply(x, work.routing, strong, work);

  const Gate second_best{Softmax{}, NthBest{}, Renormalized{}};
  laws::Harness<std::remove_const_t<decltype(second_best)>> harness(second_best, tokens);
  auto call = harness.call();
  second_best.choose(static_cast<Trace<double>&>(work), call);
  layer.apply(x, work.routing, weak, work);
  REQUIRE(work.routing.pairs() == tokens);
  for (Index n = 0; n < tokens; ++n) {
    CHECK(work.routing.expert(n) == of_strong.experts_of(n)[1]);
    CHECK(work.routing.gate(n) == 1);
  }

  CHECK(support::same_bits(strong, support::output(layer, x)));
  Index out = 0;
  for (Index n = 0; n < tokens; ++n) {
    self_contrast(strong.view().row(n), weak.view().row(n), contrast.view().row(n), {.alpha = 0.5, .beta = 0.25});
    const auto row = strong.view().row(n);
    const double least = std::log(0.5) + *std::max_element(row.begin(), row.end());
    for (Index i = 0; i < 13; ++i) {
      CHECK(strong(n, i) != weak(n, i));
      if (strong(n, i) >= least) {
        CHECK(std::abs(contrast(n, i) - (1.25 * strong(n, i) - 0.25 * weak(n, i))) < 1e-14);
      } else {
        CHECK(contrast(n, i) == -infinity);
        ++out;
      }
    }
  }
  CHECK(out > 0);
  CHECK(out < tokens * 12);  // somebody beside the best is in
  CHECK(support::same_bits(strong, support::output(layer, x)));
}
