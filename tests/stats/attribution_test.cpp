// SPDX-License-Identifier: MIT
#include "mole/stats/attribution.hpp"

#include "core/error_code.hpp"
#include "mole/base/no_base.hpp"
#include "mole/execution/through_eigen.hpp"
#include "mole/expert/biased_experts.hpp"
#include "mole/expert/compressed_experts.hpp"
#include "mole/layer/any_linear.hpp"
#include "mole/layer/experts_behind_base.hpp"
#include "mole/method/compressed_experts.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

using namespace mole;
using namespace mole::test;

namespace {

/// s_e g_e B_e (A_e x_n), in plain loops.   [O]
template <class Experts>
std::vector<double> contribution_of(const Experts& experts, View<const double> x, Index n, Index e, double gate) {
  std::vector<double> c(std::size_t(experts.out()));
  for (Index j = 0; j < experts.blocks().size(e); ++j) {
    double z = 0;
    for (Index i = 0; i < x.cols(); ++i) z += experts.parameters().lora_A(experts.blocks().down(e) + j, i) * x(n, i);
    for (Index o = 0; o < experts.out(); ++o)
      c[std::size_t(o)] +=
          experts.scale()[std::size_t(e)] * gate * z * experts.parameters().lora_B(experts.blocks().up(e) + j, o);
  }
  return c;
}

}  // namespace

TEMPLATE_TEST_CASE("Contributions of experts are s g B A x, and sum to the output without the base", "[stats]",
                   Reference, Simd<>, ThroughEigen) {
  for (const bool shared_down : {false, true}) {
    const auto layer =
        support::routed_layer<double>({.experts = 5, .shared_down = shared_down}, support::top_2(), TestType{});
    const auto x = support::random_matrix<double>(9, 11, 8);
    auto work = layer.workspace(9);
    Matrix<double> y(9, 13), base(9, 13), sum(9, 13);
    layer.forward(x, y, work);
    TestType{}.product_nt(View<const double>(x), layer.base().weight(), base.view());
    std::vector<int> calls(std::size_t(work.routing.pairs()));
    double worst = 0;
    for_each_contribution(layer, x, work.routing, [&](Index p, std::span<const double> c) {
      ++calls[std::size_t(p)];
      const Index n = work.routing.token(p);
      const auto expected = contribution_of(layer.experts(), x, n, work.routing.expert(p), work.routing.gate(p));
      for (Index o = 0; o < 13; ++o) {
        worst = std::max(worst, std::abs(c[std::size_t(o)] - expected[std::size_t(o)]));
        sum(n, o) += c[std::size_t(o)];
      }
    });
    CHECK(calls == std::vector<int>(18, 1));
    CHECK(worst < 1e-14);
    for (std::size_t k = 0; k < sum.elements().size(); ++k) sum.elements()[k] += base.elements()[k];
    CHECK(support::largest_difference(sum, y) < 1e-13);
  }
}

TEST_CASE("Shares of a token sum to 1, and norms are lengths", "[stats]") {
  const auto layer = support::routed_layer<double>({.experts = 4, .ranks = {1, 4, 2, 3}},
                                                   Gate{Softmax{}, TopP{.p = 0.8}, Renormalized{}});
  const auto x = support::random_matrix<double>(7, 11, 8);
  auto work = layer.workspace(7);
  Matrix<double> y(7, 13);
  layer.forward(x, y, work);
  const Attribution parts = attribution(layer, x, work.routing);
  REQUIRE(Index(parts.norm.size()) == work.routing.pairs());
  const Matrix<double> shares = Attribution::by_expert(work.routing, parts.share);
  const Matrix<double> norms = Attribution::by_expert(work.routing, parts.norm);
  for (Index n = 0; n < 7; ++n) {
    double sum = 0;
    for (Index e = 0; e < 4; ++e) sum += shares(n, e);
    CHECK(std::abs(sum - 1) < 1e-14);
  }
  for (Index p = 0; p < work.routing.pairs(); ++p) {
    const Index n = work.routing.token(p), e = work.routing.expert(p);
    double squares = 0;
    for (double c : contribution_of(layer.experts(), x, n, e, work.routing.gate(p))) squares += c * c;
    CHECK(std::abs(norms(n, e) - std::sqrt(squares)) < 1e-14);
    CHECK(shares(n, e) == parts.share[std::size_t(p)]);
  }
}

TEST_CASE("One expert has all of its token, two that cancel have nothing, and no expert is no pair", "[stats]") {
  auto layer = support::routed_layer<double>({.experts = 3, .rank = 2}, support::top_2());
  auto& parameters = layer.experts().parameters();
  for (Index j = 0; j < 2; ++j) {  // expert 1 is expert 0
    std::copy_n(parameters.lora_A.view().row_data(j), 11, parameters.lora_A.view().row_data(j + 2));
    std::copy_n(parameters.lora_B.view().row_data(j), 13, parameters.lora_B.view().row_data(j + 2));
  }
  Routing<double> routing;
  routing.start(3);
  routing.push(2, 0.7);
  routing.end_token();
  routing.end_token();
  routing.push(0, 0.5), routing.push(1, -0.5);
  routing.end_token();
  routing.push(0, 3), routing.push(1, -1);
  routing.end_token();
  routing.finish();
  const Attribution parts = attribution(layer, support::random_matrix<double>(4, 11, 8), routing);
  REQUIRE(parts.share.size() == 5);
  CHECK(std::abs(parts.share[0] - 1) < 1e-15);
  CHECK(parts.share[1] == 0);
  CHECK(parts.share[2] == 0);
  CHECK(parts.norm[1] == parts.norm[2]);
  CHECK(parts.norm[1] > 0);
  CHECK(std::abs(parts.share[3] - 1.5) < 1e-14);
  CHECK(std::abs(parts.share[4] + 0.5) < 1e-14);
}

TEST_CASE("Experts that are no ranks are attributed, too, and dropout is that of the pass", "[stats]") {
  Rng rng(3);
  const auto kronecker =
      support::with_random_b(lokr({.rank = 2}, DenseBase(support::random_matrix<double>(12, 8, 6)), rng, Reference{}));
  const auto x8 = support::random_matrix<double>(5, 8, 9);
  auto kronecker_work = kronecker.workspace(5);
  Matrix<double> kronecker_y(5, 12);
  kronecker.forward(x8, kronecker_y, kronecker_work);
  for (double share : attribution(kronecker, x8, kronecker_work.routing).share) CHECK(std::abs(share - 1) < 1e-15);

  const auto dropping = support::routed_layer<double>({.dropout = 0.5}, support::top_2());
  const auto x = support::random_matrix<double>(6, 11, 8);
  const Pass pass{.training = true, .seed = 5};
  auto work = dropping.workspace(6);
  Matrix<double> y(6, 13), base(6, 13);
  dropping.forward(x, y, work, pass);
  Reference{}.product_nt(View<const double>(x), dropping.base().weight(), base.view());
  Matrix<double> sum = base;
  for_each_contribution(
      dropping, x, work.routing,
      [&](Index p, std::span<const double> c) {
        for (Index o = 0; o < 13; ++o) sum(work.routing.token(p), o) += c[std::size_t(o)];
      },
      pass);
  CHECK(support::largest_difference(sum, y) < 1e-13);
}

TEST_CASE("Ranks chosen by their own answer, of a streamed A, are attributed as their layer computes them", "[stats]") {
  Rng rng(3);
  const auto layer = support::with_random_b(MixtureLinear(
      LatentRouter<double>(6), Gate{Magnitude{}, TopK{.k = 3}, Unit{}},
      LowRank<SparseProjection<double>>({.in = 11, .out = 13, .experts = 6, .nonzeros = 4, .alpha = 2}, rng),
      NoBase<double>(11, 13)));
  const auto x = support::random_matrix<double>(5, 11, 8);
  auto work = layer.workspace(5);
  Matrix<double> y(5, 13), sum(5, 13);
  layer.forward(x, y, work);
  for_each_contribution(layer, x, work.routing, [&](Index p, std::span<const double> c) {
    for (Index o = 0; o < 13; ++o) sum(work.routing.token(p), o) += c[std::size_t(o)];
  });
  CHECK(support::largest_difference(sum, y) < 1e-14);
}

TEST_CASE("A routing that does not fit is not attributed; no tokens have no parts", "[stats]") {
  const auto layer = support::routed_layer<double>({}, support::top_2());
  const auto x = support::random_matrix<double>(2, 11, 8);
  Routing<double> routing;
  routing.start(4);
  CHECK(code_of([&] { attribution(layer, x, routing); }) == ErrorCode::order);
  routing.finish();
  CHECK(code_of([&] { attribution(layer, x, routing); }) == ErrorCode::shape);
  CHECK(attribution(layer, Matrix<double>(0, 11), routing).norm.empty());
  routing.start(3);
  routing.finish();
  CHECK(code_of([&] { attribution(layer, Matrix<double>(0, 11), routing); }) == ErrorCode::shape);
  CHECK(code_of([&] { Attribution::by_expert(routing, {1}); }) == ErrorCode::shape);
}

TEST_CASE("Contributions that are no numbers have no share, rather than one of 0", "[stats]") {
  auto layer = support::routed_layer<double>({}, support::top_2());
  auto x = support::random_matrix<double>(2, 11, 8);
  auto work = layer.workspace(2);
  layer.route(x, work);
  x(0, 3) = std::numeric_limits<double>::quiet_NaN();
  const Attribution parts = attribution(layer, x, work.routing);
  for (Index p = 0; p < work.routing.pairs(); ++p)
    CHECK(std::isnan(parts.share[std::size_t(p)]) == (work.routing.token(p) == 0));
}

TEST_CASE("What experts leave without any pair is nobody's", "[stats]") {
  Rng rng(1);
  const Matrix<double> weight = support::random_matrix<double>(11, 11, 6);
  using Behind = ExpertsBehindBase<DenseBase<View<const double>>, LowRank<DenseFactors<double>>>;
  LowRank<DenseFactors<double>> experts({.in = 11, .out = 11, .experts = 4, .rank = 2}, rng);
  fill_uniform(experts.parameters().lora_B.view(), 1, rng);
  const MixtureLinear layer(LinearRouter<double>({.in = 11, .experts = 4}, rng), support::top_2(),
                            Behind(DenseBase{weight.view()}, experts, true), NoBase<double>(11, 11));
  const auto x = support::random_matrix<double>(9, 11, 8);
  auto work = layer.workspace(9);
  Matrix<double> y(9, 11), sum(9, 11);
  layer.forward(x, y, work);
  Reference{}.product_nt(View<const double>(x), weight.view(), sum.view());
  for_each_contribution(layer, x, work.routing, [&](Index p, std::span<const double> c) {
    for (Index o = 0; o < 11; ++o) sum(work.routing.token(p), o) += c[std::size_t(o)];
  });
  CHECK(support::largest_difference(sum, y) < 1e-13);
}

using Plain = LowRank<DenseFactors<double>>;
static_assert(pairs_add_up<Plain> && pairs_add_up<BiasedExperts<Plain>>);
static_assert(!pairs_add_up<CompressedExperts<Plain>> && !pairs_add_up<BiasedExperts<CompressedExperts<Plain>>>);
static_assert(!pairs_add_up<ExpertsBehindBase<NoBase<double>, CompressedExperts<Plain>>>);

TEST_CASE("A layer behind AnyLinear has the attribution of the layer inside, but for the rounding of its base",
          "[stats]") {
  const auto layer = support::routed_layer<double>({.experts = 5}, Gate{Softmax{}, TopP{.p = 0.8}, Renormalized{}});
  const auto x = support::random_matrix<double>(9, 11, 8);
  AnyLinear<double> any(layer, 9);
  Matrix<double> y(9, 13);
  any.forward(x, y);
  const Attribution parts = attribution(any, x, any.trace().routing);
  const Attribution expected = attribution(layer, x, any.trace().routing);
  REQUIRE(parts.norm.size() == std::size_t(any.trace().routing.pairs()));
  for (std::size_t p = 0; p < parts.norm.size(); ++p) {
    CHECK(std::abs(parts.norm[p] - expected.norm[p]) < 1e-13);
    CHECK(std::abs(parts.share[p] - expected.share[p]) < 1e-12);
  }
  CHECK(code_of([&] { any.backward(x, y, {}); }) == ErrorCode::order);
  CHECK(code_of([&] { attribution(any, x.view().top(8), any.trace().routing); }) == ErrorCode::shape);

  Rng rng(1);
  AnyLinear<float> coupled(compressed_experts({.experts = 4, .main = 1, .auxiliary = 1}, NoBase<float>(3, 3), rng), 2);
  const auto x3 = support::random_matrix<float>(2, 3, 1);
  Matrix<float> y3(2, 3);
  coupled.forward(x3, y3);
  CHECK_FALSE(coupled.pairs_add_up());
  CHECK(any.pairs_add_up());
  CHECK(code_of([&] { attribution(coupled, x3, coupled.trace().routing); }) == ErrorCode::option);
}
