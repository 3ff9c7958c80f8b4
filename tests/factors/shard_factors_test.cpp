// SPDX-License-Identifier: MIT
// Tables, and the gradients that layers add to a pool; the golden files pin the order of shards.
#include "mole/factors/shard_factors.hpp"

#include "core/error_code.hpp"
#include "factors/adapter_checks.hpp"
#include "mole/testing/central_differences.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace factor_checks;

namespace {

constexpr Index pool_in = 12, pool_out = 8;

template <class T>
auto pool_of(typename ShardPool<T>::Options options) {
  Rng rng(3);
  options.in = pool_in, options.out = pool_out;
  auto pool = std::make_shared<ShardPool<T>>(options, rng);
  fill_uniform(pool->parameters().pool_B.view(), 1, rng);
  return pool;
}

/// A layer for every expert.
template <class T>
auto pooled_layer(std::shared_ptr<const ShardPool<T>> pool, Index layer, Index experts = 1) {
  Rng rng(std::uint64_t(layer) + 10);
  LowRank<ShardFactors<T>> shards({.pool = std::move(pool), .layer = layer, .experts = experts, .alpha = 6}, rng);
  return MixtureLinear(LinearRouter<T>({.in = pool_in, .experts = experts}, rng),
                       Gate{Softmax{}, TopK{std::min<Index>(2, experts)}, Raw{}}, std::move(shards),
                       DenseBase(support::random_matrix<T>(pool_out, pool_in, 6)), Simd<>{});
}

/// <y, d_y> of all layers, whose gradients are added to `pool_gradients` if there are any.
template <class Layers>
double value_of(const Layers& layers, ShardPool<double>::Parameters* pool_gradients = nullptr) {
  double value = 0;
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const auto& layer = layers[l];
    const auto x = support::random_matrix<double>(5, pool_in, 20 + l),
               d_y = support::random_matrix<double>(5, pool_out, 30);
    Matrix<double> y(5, pool_out);
    auto work = layer.workspace(5);
    layer.forward(x, y, work);
    for (std::size_t i = 0; i < y.elements().size(); ++i) value += y.elements()[i] * d_y.elements()[i];
    if (pool_gradients == nullptr) continue;
    auto gradients = layer.gradients();
    gradients.experts.pool = pool_gradients;
    layer.backward(x, d_y, {}, gradients, work);
  }
  return value;
}

}  // namespace

TEST_CASE("ShardFactors keep the laws of factors", "[factors]") {
  const auto pool = pool_of<double>({.layers = 3, .pool_rank = 2, .rank = 4, .private_rank = 1, .shards = 4});
  for (Index experts : {1, 3}) {
    const auto layer = pooled_layer<double>(pool, 0, experts);
    CHECK(laws::broken_factor_law<Reference>(layer.experts().factors()) == "");
    CHECK(laws::broken_factor_law<Simd<>>(layer.experts().factors()) == "");
  }
}

TEST_CASE("Layers of one pool add up its gradient, which is exact", "[factors]") {
  for (Index experts : {1, 2}) {
    const auto pool =
        pool_of<double>({.layers = 3 * experts, .pool_rank = 2, .rank = 4, .private_rank = 1, .shards = 4});
    std::vector<decltype(pooled_layer<double>(pool, 0))> layers;
    for (Index layer = 0; layer < 3; ++layer) layers.push_back(pooled_layer<double>(pool, layer * experts, experts));
    auto gradients = pool->gradients();
    value_of(layers, &gradients);
    const auto value = [&] { return value_of(layers); };
    CHECK(laws::gradient_error(pool->parameters().pool_A.elements(), gradients.pool_A.elements(), value) < 1e-8);
    CHECK(laws::gradient_error(pool->parameters().pool_B.elements(), gradients.pool_B.elements(), value) < 1e-8);

    ShardPool<double>::Parameters only_b{{}, pool->gradients().pool_B};
    value_of(layers, &only_b);
    CHECK(only_b.pool_A.empty());
    CHECK(support::same_bits(only_b.pool_B, gradients.pool_B));
  }
}

TEST_CASE("A pool of private ranks alone is a LoRA of its own in every layer, to the bit", "[factors]") {
  const auto pool = pool_of<float>({.layers = 2, .pool_rank = 3, .rank = 3, .private_rank = 3, .shards = 1});
  const auto x = support::random_matrix<float>(9, pool_in, 3);
  for (Index layer : {0, 1}) {
    const auto pooled = pooled_layer<float>(pool, layer);
    const auto own = [&](const Matrix<float>& table) {
      Matrix<float> rows(3, table.cols());
      copy(table.view().middle_rows(3 * layer, 3), rows.view());
      return rows;
    };
    const MixtureLinear plain(pooled.router(), pooled.gating(),
                              LowRank(DenseFactors<float>(RankBlocks::uniform(1, 3), {own(pool->parameters().pool_A),
                                                                                      own(pool->parameters().pool_B)}),
                                      {2.0f}),
                              pooled.base(), Simd<>{});
    CHECK(support::same_bits(support::output(pooled, x), support::output(plain, x)));
  }
}

TEST_CASE("The state of ShardFactors is their tables; rows that the pool does not have are refused", "[factors]") {
  const auto pool = pool_of<float>({.layers = 3, .pool_rank = 2, .rank = 4, .private_rank = 1, .shards = 4});
  Rng rng(1);
  ShardFactors<float> one({.pool = pool, .experts = 2}, rng), two({.pool = pool, .experts = 2}, rng);
  CHECK(one.tables()[0].a != two.tables()[0].a);
  std::vector<std::vector<std::int32_t>> saved;
  one.for_each_state(
      [&](std::string_view, std::span<std::int32_t> rows) { saved.emplace_back(rows.begin(), rows.end()); });
  std::size_t part = 0;
  two.for_each_state(
      [&](std::string_view, std::span<std::int32_t> rows) { std::ranges::copy(saved[part++], rows.begin()); });
  for (std::size_t e : {0u, 1u}) {
    CHECK(one.tables()[e].a == two.tables()[e].a);
    CHECK(one.tables()[e].b == two.tables()[e].b);
  }
  const auto before = two.tables()[1].b;
  CHECK(test::code_of([&] {
          two.for_each_state([&](std::string_view, std::span<std::int32_t> rows) { rows[3] = 24; });
        }) == ErrorCode::option);
  CHECK(two.tables()[1].b == before);
}

TEST_CASE("A fresh pool leaves the base as it is", "[factors]") {
  Rng rng(1);
  const auto pool = std::make_shared<ShardPool<float>>(
      ShardPool<float>::Options{.in = pool_in, .out = pool_out, .layers = 2, .rank = 15}, rng);
  const auto layer = mos({.dropout = 0}, pool, DenseBase(support::random_matrix<float>(pool_out, pool_in, 6)), rng);
  Matrix<float> delta(pool_out, pool_in);
  layer.experts().add_delta(0, 1, delta.view());
  CHECK(support::same_bits(delta, Matrix<float>(pool_out, pool_in)));
  CHECK(layer.experts().scale()[0] == 16.0f / 15);
  double most = 0;
  for (float a : pool->parameters().pool_A.elements()) most = std::max(most, std::abs(double(a)));
  CHECK(most <= 1 / std::sqrt(double(pool_in)));
  CHECK(most > 0.9 / std::sqrt(double(pool_in)));
}

TEST_CASE("ShardFactors refuse pools, tables and gradients that do not fit", "[factors]") {
  const auto pool = pool_of<double>({.layers = 2, .pool_rank = 2, .rank = 3, .shards = 4});
  Rng rng;
  CHECK(test::code_of([&] { ShardFactors<double>({}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { ShardFactors<double>({.pool = pool, .layer = 2}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { ShardFactors<double>({.pool = pool, .layer = 1, .experts = 2}, rng); }) ==
        ErrorCode::option);
  CHECK(test::code_of([&] { ShardFactors<double>(pool, {{{0, 1}, {0, 1}}}); }) == ErrorCode::shape);

  auto layer = pooled_layer<double>(pool, 0);
  auto work = layer.workspace(5);
  const auto x = support::random_matrix<double>(5, pool_in, 3);
  Matrix<double> y(5, pool_out);
  layer.forward(x, y, work);
  auto gradients = layer.gradients();
  ShardPool<double>::Parameters wrong{Matrix<double>(3, 3), {}};
  gradients.experts.pool = &wrong;
  CHECK(test::code_of([&] { layer.backward(x, y, {}, gradients, work); }) == ErrorCode::shape);
  pool->parameters().pool_A = Matrix<double>(16, 4);
  CHECK(test::code_of([&] { layer.experts().factors().check_sizes(); }) == ErrorCode::shape);
}

TEST_CASE("A pool has the numbers and ShardFactors the memory that they say", "[factors]") {
  Rng rng;
  const auto pool = std::make_shared<ShardPool<float>>(
      ShardPool<float>::Options{.in = 4096, .out = 4096, .layers = 32, .pool_rank = 8, .rank = 16}, rng);
  CHECK(numbers_in(pool->parameters()) == 2'097'152);
  CHECK(scratch_bytes(ShardFactors<float>({.pool = pool}, rng)) == 1u << 20);
}
