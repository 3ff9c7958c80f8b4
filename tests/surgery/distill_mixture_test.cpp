// SPDX-License-Identifier: MIT
#include "mole/surgery/distill_mixture.hpp"

#include "core/error_code.hpp"
#include "mole/mole.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"
#include "support/tolerance.hpp"
#include "surgery/adapters.hpp"

using namespace mole;
using namespace mole::test;

namespace {

template <class Layer>
RoutingStats measured(const Layer& layer, const Matrix<typename Layer::Scalar>& x) {
  RoutingStats stats(layer.experts().experts());
  auto work = layer.workspace(x.rows());
  layer.route(x, work);
  stats.observe(work.routing);
  return stats;
}

/// sum_e (mass_e / tokens) s_e B_e^T A_e
template <class Layer>
Matrix<double> average_update(const Layer& layer, const RoutingStats& stats) {
  Matrix<double> update(layer.out(), layer.in());
  const auto adapters = adapters_of(layer.experts());
  for (std::size_t e = 0; e < adapters.size(); ++e)
    add_update(adapters[e], stats.mass()[e] / double(stats.tokens()), update);
  return update;
}

}  // namespace

TEMPLATE_TEST_CASE("A mixture distills to the load-weighted sum of its experts, as well as the rank allows",
                   "[surgery]", float, double) {
  using T = TestType;
  const auto layer = support::routed_layer<T>({.experts = 4, .ranks = {2, 1, 3, 2}}, support::top_2());
  const RoutingStats stats = measured(layer, support::random_matrix<T>(50, 11, 8));
  const Matrix<double> average = average_update(layer, stats);
  const Svd<double> exact = svd(average);
  const Matrix<T> held_out = support::random_matrix<T>(20, 11, 9);

  // What the experts add to unseen tokens, and what a single update does.
  const Matrix<T> y = support::output(layer, held_out), base_weight = [&] {
    Matrix<T> weight(13, 11);
    copy(View<const T>(layer.base().weight()), weight.view());
    return weight;
  }();
  const auto error_of = [&](const Matrix<double>& update) {
    double missing = 0, all = 0;
    for (Index n = 0; n < 20; ++n)
      for (Index o = 0; o < 13; ++o) {
        double of_experts = double(y(n, o)), found = 0;
        for (Index i = 0; i < 11; ++i) {
          of_experts -= double(base_weight(o, i)) * double(held_out(n, i));
          found += update(o, i) * double(held_out(n, i));
        }
        missing += (of_experts - found) * (of_experts - found);
        all += of_experts * of_experts;
      }
    return std::sqrt(missing / all);
  };

  for (const Index rank : {1, 3, 8, 12}) {
    const auto found = distill_mixture(layer, stats, {.rank = rank, .scale = 2}, held_out);
    CAPTURE(rank);
    CHECK(found.adapter.rank() == rank);
    CHECK(found.adapter.scale == 2);
    double rest = 0, all = 0;
    for (std::size_t j = 0; j < exact.s.size(); ++j) {
      all += exact.s[j] * exact.s[j];
      if (Index(j) >= rank) rest += exact.s[j] * exact.s[j];
    }
    CHECK(std::abs(found.error - std::sqrt(rest / all)) < Tolerance<T>::sum(8));
    CHECK(std::abs(relative_distance(update_of(found.adapter), average) - found.error) < 1e-12);
    REQUIRE(found.error_on_tokens.has_value());
    CHECK(std::abs(*found.error_on_tokens - error_of(update_of(found.adapter))) < Tolerance<T>::layer);
    CHECK(std::abs(*found.error_of_sum_on_tokens - error_of(average)) < Tolerance<T>::layer);
  }
}

TEST_CASE("A mixture that gives all tokens the same gates distills without any error", "[surgery]") {
  Rng rng(3);
  const auto layer = support::with_random_b(
      MixtureLinear(NoRouter<double>(3), Gate{Identity{}, All{}, Unit{}},
                    LowRank<DenseFactors<double>>({.in = 11, .out = 13, .experts = 3, .rank = 2, .alpha = 4}, rng),
                    DenseBase(support::random_matrix<double>(13, 11, 6))));
  const RoutingStats stats = measured(layer, support::random_matrix<double>(5, 11, 8));
  const auto found = distill_mixture(layer, stats, {.rank = 6}, support::random_matrix<double>(9, 11, 9));
  CHECK(found.error < 1e-14);
  CHECK(*found.error_on_tokens < 1e-13);
  CHECK(*found.error_of_sum_on_tokens < 1e-14);
}

TEST_CASE("Distillation draws from its seed alone, and needs no tokens", "[surgery]") {
  const auto layer = support::routed_layer<double>({.experts = 6, .rank = 3}, support::top_2());
  const RoutingStats stats = measured(layer, support::random_matrix<double>(50, 11, 8));
  const DistillOptions options{.rank = 3, .oversampling = 1, .power_iterations = 0, .seed = 4};
  const auto first = distill_mixture(layer, stats, options), second = distill_mixture(layer, stats, options);
  CHECK(support::same_bits(first.adapter.b, second.adapter.b));
  CHECK_FALSE(first.error_on_tokens.has_value());
  CHECK_FALSE(first.error_of_sum_on_tokens.has_value());
}

TEST_CASE("Stats of others, of nobody, and options out of range do not distill", "[surgery]") {
  const auto layer = support::routed_layer<double>({}, support::top_2());
  const RoutingStats stats = measured(layer, support::random_matrix<double>(5, 11, 8));
  CHECK(code_of([&] { distill_mixture(layer, RoutingStats(3), {}); }) == ErrorCode::shape);
  CHECK(text_of([&] { distill_mixture(layer, RoutingStats(4), {}); }) ==
        "distill_mixture: expected stats of at least 1 token, found 0");
  CHECK(code_of([&] { distill_mixture(layer, stats, {.rank = 0}); }) == ErrorCode::option);
  CHECK(code_of([&] { distill_mixture(layer, stats, {.scale = 0}); }) == ErrorCode::option);
  CHECK(code_of([&] { distill_mixture(layer, stats, {}, support::random_matrix<double>(5, 12, 8)); }) ==
        ErrorCode::shape);
}
