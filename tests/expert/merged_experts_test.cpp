// SPDX-License-Identifier: MIT
#include "mole/expert/merged_experts.hpp"

#include "core/error_code.hpp"
#include "mole/mole.hpp"
#include "mole/testing/expert_laws.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

using namespace mole;

namespace {

constexpr Index merged_in = 7, merged_out = 5, merged_count = 4, merged_rank = 3;

template <class T>
MergedExperts<DenseFactors<T>> merged_experts(Index experts = merged_count, double dropout = 0) {
  Rng rng(1);
  MergedExperts<DenseFactors<T>> merged({.in = merged_in,
                                         .out = merged_out,
                                         .experts = experts,
                                         .rank = merged_rank,
                                         .alpha = 6,
                                         .dropout = {.rate = dropout, .stream = 1}},
                                        rng);
  fill_uniform(merged.parameters().lora_B.view(), 1, rng);
  return merged;
}

/// A router for each token, or one for each sequence.
template <class Router, class Gating, class Execution = Reference>
auto merging_layer(Router router, Gating gating, double dropout = 0, Execution execution = {}) {
  return MixtureLinear(std::move(router), gating, merged_experts<double>(merged_count, dropout),
                       DenseBase(support::random_matrix<double>(merged_out, merged_in, 3)), std::move(execution));
}

LinearRouter<double> merging_router() {
  Rng rng(4);
  return {{.in = merged_in, .experts = merged_count, .bias = true}, rng};
}

/// W x + s (sum g B)^T (sum g A) x, in long double, from averages that are formed.
template <class Layer>
double difference_from_averages(const Layer& layer, const Matrix<double>& x, const Pass& pass) {
  auto work = layer.workspace(x.rows());
  Matrix<double> y(x.rows(), merged_out);
  layer.forward(x, y, work, pass);
  const auto& p = layer.experts().parameters();
  double worst = 0;
  for (Index n = 0; n < x.rows(); ++n) {
    long double a[merged_rank][merged_in] = {}, b[merged_rank][merged_out] = {};
    for (Index q = work.routing.first_pair(n); q < work.routing.first_pair(n + 1); ++q)
      for (Index j = 0; j < merged_rank; ++j) {
        const Index row = work.routing.expert(q) * merged_rank + j;
        for (Index i = 0; i < merged_in; ++i) a[j][i] += (long double)(work.routing.gate(q)) * p.lora_A(row, i);
        for (Index o = 0; o < merged_out; ++o) b[j][o] += (long double)(work.routing.gate(q)) * p.lora_B(row, o);
      }
    for (Index o = 0; o < merged_out; ++o) {
      long double expected = 0;
      for (Index i = 0; i < merged_in; ++i) {
        expected += (long double)(layer.base().weight()(o, i)) * x(n, i);
        for (Index j = 0; j < merged_rank; ++j) expected += 2 * b[j][o] * a[j][i] * x(n, i);
      }
      worst = std::max(worst, std::abs(double(y(n, o) - expected)));
    }
  }
  return worst;
}

}  // namespace

static_assert(TrainableExpertPolicy<MergedExperts<DenseFactors<float>>>);
static_assert(!pairs_add_up<MergedExperts<DenseFactors<float>>>);

TEST_CASE("Merged experts are one expert of averaged parameters", "[expert]") {
  const auto x = support::random_matrix<double>(9, merged_in, 2);
  CHECK(difference_from_averages(merging_layer(merging_router(), Gate{Softmax{}, All{}, Raw{}}), x, {}) < 1e-13);
  CHECK(difference_from_averages(merging_layer(merging_router(), support::top_2(), 0, Simd<>{}), x, {}) < 1e-13);
}

TEMPLATE_TEST_CASE("Merged experts keep the laws of experts", "[expert]", float, double) {
  CHECK(laws::broken_expert_law(merged_experts<TestType>()) == "");
  CHECK(laws::broken_expert_law(merged_experts<TestType>(1)) == "");
}

TEST_CASE("Merged experts have exact gradients, of gates for tokens and for sequences", "[expert]") {
  auto of_tokens = merging_layer(merging_router(), Gate{Softmax{}, All{}, Raw{}});
  CHECK(check_gradients(of_tokens).passed(1e-7));
  auto sparse = merging_layer(merging_router(), support::top_2(), 0.3, Simd<>{});
  CHECK(check_gradients(sparse, {.pass = {.training = true}}).passed(1e-7));
  const std::vector<Index> starts{0, 3};
  auto smear = merging_layer(PooledRouter(merging_router()), Gate{Softmax{}, All{}, Raw{}});
  CHECK(check_gradients(smear, {.pass = {.sequence_begin = starts}}).passed(1e-7));
}

TEST_CASE("SMEAR: all tokens of a sequence meet one expert, which is a plain LoRA of averages", "[expert]") {
  const auto layer = merging_layer(PooledRouter(merging_router()), Gate{Softmax{}, All{}, Raw{}});
  const auto x = support::random_matrix<double>(8, merged_in, 2);
  const std::vector<Index> starts{0, 5};
  CHECK(difference_from_averages(layer, x, {.sequence_begin = starts}) < 1e-13);
  auto work = layer.workspace(8);
  layer.route(x, work, {.sequence_begin = starts});
  for (Index n = 1; n < 8; ++n) {
    const bool same = std::ranges::equal(work.routing.gates_of(n), work.routing.gates_of(n - 1));
    CHECK(same == (n != 5));
  }
}

TEST_CASE("One merged expert with a gate of 1 is LoRA", "[expert]") {
  const auto merged = merged_experts<double>(1);
  const DenseBase base(support::random_matrix<double>(merged_out, merged_in, 3));
  const Gate one{Identity{}, All{}, Unit{}};
  const auto x = support::random_matrix<double>(9, merged_in, 2);
  const MixtureLinear soft(NoRouter<double>(1), one, merged, base, Reference{});
  const MixtureLinear plain(NoRouter<double>(1), one, LowRank(merged.factors(), std::vector<double>{merged.scale()}),
                            base, Reference{});
  CHECK(support::largest_difference(support::output(soft, x), support::output(plain, x)) < 1e-14);
}

TEST_CASE("Experts of unequal ranks cannot be merged", "[expert]") {
  Rng rng;
  const auto merge = [&](const DenseFactors<double>::Options& options) {
    return test::code_of([&] { MergedExperts<DenseFactors<double>>(options, rng); });
  };
  CHECK(merge({.in = 4, .out = 3, .experts = 2, .ranks = {2, 1}}) == ErrorCode::shape);
  CHECK(merge({.in = 4, .out = 3, .experts = 2, .rank = 2, .shared_down = true}) == ErrorCode::shape);
}
