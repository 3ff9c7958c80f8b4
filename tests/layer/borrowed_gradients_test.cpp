// SPDX-License-Identifier: MIT
// Gradients of what several layers share: the layers' gradients point to them, through any number of wrappers.
#include "core/error_code.hpp"
#include "mole/mole.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

using namespace mole;

namespace {

constexpr Index borrowing_in = 12, borrowing_out = 8;

auto shared_pool() {
  Rng rng(3);
  auto pool = std::make_shared<ShardPool<double>>(
      ShardPool<double>::Options{
          .in = borrowing_in, .out = borrowing_out, .layers = 2, .pool_rank = 2, .rank = 2, .shards = 4},
      rng);
  fill_uniform(pool->parameters().pool_B.view(), 1, rng);
  return pool;
}

auto shards_of(std::shared_ptr<const ShardPool<double>> pool) {
  Rng rng(4);
  return LowRank<ShardFactors<double>>({.pool = std::move(pool), .experts = 2}, rng);
}

template <class Experts>
auto borrowing_layer(Experts experts) {
  Rng rng(5);
  return MixtureLinear(LinearRouter<double>({.in = borrowing_in, .experts = 2}, rng), Gate{Softmax{}, All{}, Raw{}},
                       std::move(experts), DenseBase(support::random_matrix<double>(borrowing_out, borrowing_in, 6)),
                       Reference{});
}

/// A backward with gradients pointing to `wrong` is refused and writes nothing; then one with `right` is as good as if
/// nothing had happened. `point` sets where a layer's gradients point.
template <class Layer, class Shared>
void check_refusal(const Layer& layer, Shared wrong, const Shared& zero, auto point) {
  const auto x = support::random_matrix<double>(5, layer.in(), 1),
             d_y = support::random_matrix<double>(5, layer.out(), 2);
  auto work = layer.workspace(5), other = layer.workspace(5);
  Matrix<double> y(5, layer.out()), d_x(5, layer.in()), expected_d_x(5, layer.in());
  layer.forward(x, y, work);
  layer.forward(x, y, other);
  const auto none = layer.gradients();
  auto gradients = none, expected = none;

  point(gradients, &wrong);
  CHECK(test::code_of([&] { layer.backward(x, d_y, d_x.view(), gradients, work); }) == ErrorCode::shape);
  int tensors = 0;
  std::remove_cvref_t<decltype(gradients)>::for_each_tensor(
      [&](std::string_view name, const auto& found, const auto& zeros) {
        CAPTURE(name);
        CHECK(support::same_bits(found, zeros));
        ++tensors;
      },
      gradients, none);
  CHECK(tensors > 0);
  for (double d : d_x.elements()) CHECK(d == 0);

  Shared right = zero, expected_right = zero;
  point(gradients, &right);
  point(expected, &expected_right);
  layer.backward(x, d_y, d_x.view(), gradients, work);
  layer.backward(x, d_y, expected_d_x.view(), expected, other);
  CHECK(support::same_bits(d_x, expected_d_x));
  double largest = 0;
  Shared::for_each_tensor(
      [&](std::string_view, const auto& found, const auto& wanted) {
        CHECK(support::same_bits(found, wanted));
        for (double d : found.elements()) largest = std::max(largest, std::abs(d));
      },
      right, expected_right);
  CHECK(largest > 0);
}

}  // namespace

TEST_CASE("Gradients that point to some of another size are refused before anything is written", "[layer]") {
  const auto pool = shared_pool();
  const ShardPool<double>::Parameters wrong{Matrix<double>(3, 3), {}};
  const auto refused = [&](auto experts, auto of_shards) {
    check_refusal(borrowing_layer(std::move(experts)), wrong, pool->gradients(),
                  [&](auto& gradients, auto* shared) { of_shards(gradients.experts).pool = shared; });
  };
  refused(
      shards_of(pool), [](auto& g) -> auto& { return g; });
  refused(
      BiasedExperts(shards_of(pool)), [](auto& g) -> auto& { return g.experts; });
  refused(
      CompressedExperts(shards_of(pool), 1), [](auto& g) -> auto& { return g.experts; });
  refused(
      CompressedExperts(BiasedExperts(shards_of(pool)), 1), [](auto& g) -> auto& { return g.experts.experts; });
}

TEST_CASE("Experts behind a base refuse gradients of what they share, too", "[layer]") {
  const auto pool = shared_pool();
  Rng rng(5);
  const MixtureLinear layer(
      LinearRouter<double>({.in = 5, .experts = 2}, rng), Gate{Softmax{}, All{}, Raw{}},
      ExpertsBehindBase(DenseBase(support::random_matrix<double>(borrowing_in, 5, 6)), BiasedExperts(shards_of(pool))),
      NoBase<double>(5, borrowing_out), Reference{});
  check_refusal(layer, ShardPool<double>::Parameters{{}, Matrix<double>(3, 3)}, pool->gradients(),
                [](auto& gradients, auto* shared) { gradients.experts.experts.experts.pool = shared; });
}

TEST_CASE("Vector banks and module gates refuse theirs", "[layer]") {
  Rng rng(7);
  const auto bank = std::make_shared<VectorBank<double>>(VectorBank<double>::Options{.vectors = 5, .length = 4}, rng);
  LowRank<BankMixture<double>> mixtures(
      {.in = borrowing_in, .out = borrowing_out, .experts = 2, .rank = 2, .bank = bank}, rng);
  check_refusal(borrowing_layer(std::move(mixtures)), VectorBank<double>::Parameters{Matrix<double>(3, 3)},
                bank->gradients(), [](auto& gradients, auto* shared) { gradients.experts.bank = shared; });

  const auto gates = std::make_shared<ModuleGates<double>>(ModuleGates<double>::Options{.layers = 2, .modules = 3});
  LowRank<DenseFactors<double>> lora({.in = borrowing_in, .out = borrowing_out, .rank = 2}, rng);
  fill_uniform(lora.parameters().lora_B.view(), 1, rng);
  const auto gated = [&](auto router, auto gate, auto experts) {
    return MixtureLinear(std::move(router), gate, std::move(experts),
                         DenseBase(support::random_matrix<double>(borrowing_out, borrowing_in, 6)), Reference{});
  };
  const ModuleGates<double>::Parameters wrong{Matrix<double>(3, 2)};
  check_refusal(gated(ModuleRouter<double>(gates, 0, 1), Gate{Identity{}, All{}, Raw{}}, lora), wrong,
                gates->gradients(), [](auto& gradients, auto* shared) { gradients.router.gates = shared; });

  LowRank<DenseFactors<double>> two({.in = borrowing_in, .out = borrowing_out, .experts = 2, .rank = 2}, rng);
  fill_uniform(two.parameters().lora_B.view(), 1, rng);
  check_refusal(gated(JoinedRouter(ModuleRouter<double>(gates, 0, 1), ModuleRouter<double>(gates, 1, 1)),
                      Gate{Identity{}, All{}, Raw{}}, two),
                wrong, gates->gradients(),
                [](auto& gradients, auto* shared) { gradients.router.second.gates = shared; });
}

TEST_CASE("What routers share is looked at in every call, behind a wrapper, too", "[layer]") {
  const auto gates = std::make_shared<ModuleGates<double>>(ModuleGates<double>::Options{.layers = 2, .modules = 3});
  Rng rng(7);
  const auto refused = [&](auto router) {
    const Index experts = router.outputs();
    LowRank<DenseFactors<double>> lora({.in = borrowing_in, .out = borrowing_out, .experts = experts, .rank = 2}, rng);
    const MixtureLinear layer(std::move(router), Gate{Identity{}, All{}, Raw{}}, std::move(lora),
                              DenseBase(support::random_matrix<double>(borrowing_out, borrowing_in, 6)), Reference{});
    const auto x = support::random_matrix<double>(5, borrowing_in, 1);
    Matrix<double> y(5, borrowing_out);
    auto work = layer.workspace(5);
    layer.forward(x, y, work);
    gates->parameters().alpha = Matrix<double>(1, 1);
    CHECK(test::code_of([&] { layer.forward(x, y, work); }) == ErrorCode::shape);
    gates->parameters().alpha = Matrix<double>(2, 3);
    CHECK_NOTHROW(layer.forward(x, y, work));
  };
  const ModuleRouter<double> shared(gates, 0, 1);
  refused(shared);
  refused(JoinedRouter(shared, shared));
  refused(JoinedRouter(LinearRouter<double>({.in = borrowing_in, .experts = 1}, rng), shared));
  refused(JoinedRouter(JoinedRouter(shared, shared), shared));
}
