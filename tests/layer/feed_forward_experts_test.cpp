// SPDX-License-Identifier: MIT
#include "mole/layer/feed_forward_experts.hpp"

#include "core/error_code.hpp"
#include "mole/execution/thread_pool.hpp"
#include "mole/mole.hpp"
#include "mole/testing/expert_laws.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

#include <limits>

using namespace mole;

namespace {

constexpr Index block_in = 5, block_hidden = 9, block_out = 6, block_experts = 3;

template <class T>
LowRank<DenseFactors<T>> map_ranks(Index in, Index out, std::uint64_t seed, double dropout = 0) {
  Rng rng(seed);
  LowRank<DenseFactors<T>> experts({.in = in,
                                    .out = out,
                                    .experts = block_experts,
                                    .rank = 2,
                                    .alpha = 3,
                                    .dropout = {.rate = dropout, .stream = 1}},
                                   rng);
  fill_uniform(experts.parameters().lora_B.view(), 1, rng);
  return experts;
}

template <class T>
DenseBase<Matrix<T>> map_base(Index in, Index out, std::uint64_t seed, bool bias) {
  const auto numbers = support::random_matrix<T>(1, out, seed + 1);
  return DenseBase(support::random_matrix<T>(out, in, seed), bias ? BiasView<T>(numbers.elements()) : BiasView<T>());
}

template <class T, class Activation = SiLU>
auto block_of_ranks(Activation activation = {}, bool bias = true, double dropout = 0) {
  return FeedForwardExperts{
      ExpertProjection{map_ranks<T>(block_in, block_hidden, 1, dropout), map_base<T>(block_in, block_hidden, 11, bias)},
      ExpertProjection{map_ranks<T>(block_in, block_hidden, 2, dropout), map_base<T>(block_in, block_hidden, 21, bias)},
      ExpertProjection{map_ranks<T>(block_hidden, block_out, 3, dropout),
                       map_base<T>(block_hidden, block_out, 31, bias)},
      activation};
}

auto block_of_matrices() {
  Rng rng(4);
  const auto map = [&](Index in, Index out) {
    return ExpertProjection{MapExperts<DenseMaps<double>>({.in = in, .out = out, .experts = block_experts}, rng),
                            NoBase<double>(in, out)};
  };
  return FeedForwardExperts{map(block_in, block_hidden), map(block_in, block_hidden), map(block_hidden, block_out),
                            GELU{}};
}

/// Of two maps, without one that gates.
template <class T, class Activation = ReLU>
auto plain_block(Activation activation = {}, double dropout = 0) {
  return FeedForwardExperts{
      ExpertProjection{map_ranks<T>(block_in, block_hidden, 2, dropout), map_base<T>(block_in, block_hidden, 21, true)},
      ExpertProjection{map_ranks<T>(block_hidden, block_out, 3, dropout),
                       map_base<T>(block_hidden, block_out, 31, true)},
      activation};
}

/// The same of whole matrices with biases, of `experts` blocks.
auto plain_block_of_matrices(Index experts = block_experts, Index hidden = block_hidden) {
  Rng rng(4);
  const auto map = [&](Index in, Index out) {
    return ExpertProjection{
        MapExperts<DenseMaps<double>>({.in = in, .out = out, .experts = experts, .bias = true}, rng),
        NoBase<double>(in, out)};
  };
  auto up = map(block_in, hidden), down = map(hidden, block_out);
  return FeedForwardExperts{std::move(up), std::move(down), GELU{}};
}

template <class Experts, class Execution = Reference>
auto block_layer(Experts experts, Execution execution = {}) {
  using T = typename Experts::Scalar;
  Rng rng(5);
  return MixtureLinear(LinearRouter<T>({.in = block_in, .experts = block_experts}, rng), support::top_2(),
                       std::move(experts), NoBase<T>(block_in, block_out), std::move(execution));
}

/// (W + s B_e A_e) x + b, in long double.
std::vector<long double> mapped(const ExpertProjection<LowRank<DenseFactors<double>>, DenseBase<Matrix<double>>>& map,
                                Index expert, const std::vector<long double>& x) {
  Matrix<double> weight(map.base.out(), map.base.in());
  copy(map.base.weight(), weight.view());
  map.experts.add_delta(expert, 1, weight.view());
  std::vector<long double> y(std::size_t(weight.rows()));
  for (Index o = 0; o < weight.rows(); ++o) {
    y[std::size_t(o)] = map.base.bias() ? map.base.bias()(0, o) : 0;
    for (Index i = 0; i < weight.cols(); ++i) y[std::size_t(o)] += weight(o, i) * x[std::size_t(i)];
  }
  return y;
}

}  // namespace

TEST_CASE("A mixture of feed-forward blocks is the gated sum of whole blocks", "[layer]") {
  const auto layer = block_layer(block_of_ranks<double>());
  for (Index tokens : {0, 1, 9}) {
    const auto x = support::random_matrix<double>(tokens, block_in, 2);
    Matrix<double> y(tokens, block_out);
    auto work = layer.workspace(tokens);
    layer.forward(x, y, work);
    for (Index n = 0; n < tokens; ++n) {
      const std::vector<long double> row(x.view().row(n).begin(), x.view().row(n).end());
      std::vector<long double> expected(std::size_t(block_out), 0);
      for (Index p = work.routing.first_pair(n); p < work.routing.first_pair(n + 1); ++p) {
        const Index e = work.routing.expert(p);
        auto h = mapped(layer.experts().gate(), e, row);
        const auto u = mapped(layer.experts().up(), e, row);
        for (std::size_t i = 0; i < h.size(); ++i) h[i] = h[i] / (1 + std::exp(-h[i])) * u[i];
        const auto out = mapped(layer.experts().down(), e, h);
        for (std::size_t o = 0; o < out.size(); ++o) expected[o] += work.routing.gate(p) * out[o];
      }
      for (Index o = 0; o < block_out; ++o) CHECK(std::abs(double(y(n, o) - expected[std::size_t(o)])) < 1e-12);
    }
  }
}

TEST_CASE("A block without a gate map is down of the activation of up", "[layer]") {
  const auto layer = block_layer(plain_block<double>());
  const auto x = support::random_matrix<double>(9, block_in, 2);
  Matrix<double> y(9, block_out);
  auto work = layer.workspace(9);
  layer.forward(x, y, work);
  for (Index n = 0; n < 9; ++n) {
    const std::vector<long double> row(x.view().row(n).begin(), x.view().row(n).end());
    std::vector<long double> expected(std::size_t(block_out), 0);
    for (Index p = work.routing.first_pair(n); p < work.routing.first_pair(n + 1); ++p) {
      const Index e = work.routing.expert(p);
      auto h = mapped(layer.experts().up(), e, row);
      for (long double& unit : h) unit = std::max(unit, 0.0L);
      const auto out = mapped(layer.experts().down(), e, h);
      for (std::size_t o = 0; o < out.size(); ++o) expected[o] += work.routing.gate(p) * out[o];
    }
    for (Index o = 0; o < block_out; ++o) CHECK(std::abs(double(y(n, o) - expected[std::size_t(o)])) < 1e-12);
  }
  std::vector<std::string> names;
  auto copied = layer;
  copied.for_each_tensor([&](std::string_view name, View<double>) { names.emplace_back(name); });
  std::vector<std::string> found{"router.weight"};
  for (const char* map : {"up", "down"})
    for (const char* tensor : {"experts.lora_A", "experts.lora_B", "base.weight", "base.bias"})
      found.push_back(std::string("experts.") + map + "." + tensor);
  CHECK(names == found);
}

TEST_CASE("Blocks without a gate map keep the laws of experts, and have exact gradients", "[layer][expert]") {
  CHECK(laws::broken_expert_law(plain_block<float>()) == "");
  CHECK(laws::broken_expert_law(plain_block_of_matrices()) == "");
  const auto exact = [](auto layer, const Pass& pass = {}) {
    return check_gradients(layer, {.pass = pass}).passed(1e-7);
  };
  CHECK(exact(block_layer(plain_block<double>())));
  CHECK(exact(block_layer(plain_block<double>(GELU{}), Simd<>{})));
  CHECK(exact(block_layer(plain_block_of_matrices(), Simd<>{})));
  CHECK(exact(block_layer(plain_block<double>(SiLU{}, 0.3)), {.training = true, .seed = 3}));
}

TEST_CASE("The parts of a block, its hidden units dealt out, add up to the block, biases too", "[layer]") {
  const auto whole = plain_block_of_matrices(1, 8);
  for (const Index parts : {1, 2, 4}) {
    auto split = plain_block_of_matrices(parts, 8 / parts);
    const auto& up = whole.up().experts.parameters();
    const auto& down = whole.down().experts.parameters();
    auto& up_parts = split.up().experts.parameters();
    auto& down_parts = split.down().experts.parameters();
    for (Index unit = 0; unit < 8; ++unit) {
      const Index part = unit / (8 / parts), own = unit % (8 / parts);
      std::ranges::copy(up.weight.view().row(unit), up_parts.weight.view().row(unit).begin());
      up_parts.bias(part, own) = up.bias(0, unit);
      for (Index o = 0; o < block_out; ++o) down_parts.weight(part * block_out + o, own) = down.weight(o, unit);
    }
    for (Index part = 0; part < parts; ++part)
      for (Index o = 0; o < block_out; ++o) down_parts.bias(part, o) = down.bias(0, o) / double(parts);

    // Equal rows of the router: the parts tie, and each has a share of 1 / parts, times parts.
    Rng rng(5);
    const auto layer_of = [&](auto experts) {
      LinearRouter<double> router({.in = block_in, .experts = experts.experts()}, rng);
      for (Index e = 1; e < experts.experts(); ++e)
        std::ranges::copy(router.parameters().weight.view().row(0), router.parameters().weight.view().row_data(e));
      const auto count = experts.experts();
      return MixtureLinear(router, Gate{Softmax{}, TopK{count}, Renormalized{double(count)}}, std::move(experts),
                           NoBase<double>(block_in, block_out), Reference{});
    };
    const auto x = support::random_matrix<double>(9, block_in, 2);
    CHECK(support::largest_difference(support::output(layer_of(whole), x), support::output(layer_of(split), x)) <
          1e-13);
  }
}

TEST_CASE("Feed-forward blocks keep the laws of experts", "[layer][expert]") {
  CHECK(laws::broken_expert_law(block_of_ranks<double>()) == "");
  CHECK(laws::broken_expert_law(block_of_ranks<float>(GELU{.approximate = true}, false)) == "");
  CHECK(laws::broken_expert_law(block_of_matrices()) == "");
}

TEST_CASE("Feed-forward blocks have exact gradients, with each activation, kind of expert, and a trained base",
          "[layer]") {
  const auto exact = [](auto layer) { return check_gradients(layer).passed(1e-7); };
  CHECK(exact(block_layer(block_of_ranks<double>())));
  CHECK(exact(block_layer(block_of_ranks<double>(GELU{}), Simd<>{})));
  CHECK(exact(block_layer(block_of_ranks<double>(GELU{.approximate = true}, false))));
  CHECK(exact(block_layer(block_of_ranks<double>(ReLU{}))));
  CHECK(exact(block_layer(block_of_matrices(), Simd<>{})));
  auto dropping = block_layer(block_of_ranks<double>(SiLU{}, true, 0.3));
  CHECK(check_gradients(dropping, {.pass = {.training = true, .seed = 3}}).passed(1e-7));
}

TEST_CASE("Tensors of feed-forward blocks are named by their map", "[layer]") {
  auto layer = block_layer(block_of_ranks<double>(SiLU{}, false));
  std::vector<std::string> names;
  layer.for_each_tensor([&](std::string_view name, View<double>) { names.emplace_back(name); });
  std::vector<std::string> expected{"router.weight"};
  for (const char* map : {"gate", "up", "down"})
    for (const char* tensor : {"experts.lora_A", "experts.lora_B", "base.weight"})
      expected.push_back(std::string("experts.") + map + "." + tensor);
  CHECK(names == expected);
}

TEST_CASE("Feed-forward blocks compute the same under every execution, and the same bits on any number of threads",
          "[layer]") {
  const auto x = support::random_matrix<double>(33, block_in, 2),
             d_y = support::random_matrix<double>(33, block_out, 3);
  const auto results = [&](auto execution) {
    const auto layer = block_layer(block_of_ranks<double>(), execution);
    auto work = layer.workspace(33);
    auto gradients = layer.gradients();
    std::vector<Matrix<double>> all{Matrix<double>(33, block_out), Matrix<double>(33, block_in)};
    layer.forward(x, all[0], work);
    layer.backward(x, d_y, all[1], gradients, work);
    decltype(gradients)::for_each_tensor([&](std::string_view, auto& tensor) { all.push_back(tensor); }, gradients);
    return all;
  };
  const auto reference = results(Reference{}), simd = results(Simd<>{}), threaded = results(Simd(ThreadPool(3)));
  for (std::size_t i = 0; i < reference.size(); ++i) {
    CHECK(support::same_bits(simd[i], threaded[i]));
    for (Index j = 0; j < reference[i].size(); ++j)
      CHECK(std::abs(reference[i].elements()[std::size_t(j)] - simd[i].elements()[std::size_t(j)]) < 1e-11);
  }
}

TEST_CASE("A token that no block serves adds nothing, and its NaN reaches no gradient, that of a trained base either",
          "[layer]") {
  const auto layer = block_layer(block_of_ranks<double>());
  auto x = support::random_matrix<double>(4, block_in, 2);
  const auto d_y = support::random_matrix<double>(4, block_out, 3);
  for (double& value : x.view().row(1)) value = std::numeric_limits<double>::quiet_NaN();
  const std::uint8_t routed[] = {1, 0, 1, 1};
  auto work = layer.workspace(4);
  auto gradients = layer.gradients();
  Matrix<double> y(4, block_out), d_x(4, block_in);
  layer.forward(x, y, work, {.routed = routed});
  layer.backward(x, d_y, d_x, gradients, work);
  for (double value : y.view().row(1)) CHECK(value == 0);
  const auto finite = [](auto& tensor) {
    return std::ranges::all_of(tensor.elements(), [](double value) { return std::isfinite(value); });
  };
  CHECK((finite(y) && finite(d_x)));
  decltype(gradients)::for_each_tensor([&](std::string_view, auto& tensor) { CHECK(finite(tensor)); }, gradients);
}

TEST_CASE("Blocks of equal experts and gates that sum to 1 are one block, whoever serves", "[layer]") {
  auto experts = block_of_ranks<double>();
  for (auto* map : {&experts.gate(), &experts.up(), &experts.down()}) map->experts.parameters().lora_B.set_zero();
  const auto layer = block_layer(experts);
  const auto x = support::random_matrix<double>(6, block_in, 2);
  const auto y = support::output(layer, x);
  const std::vector<int> first(6, 0), last(6, block_experts - 1);
  for (const auto& forced : {first, last}) {
    const auto alone = support::output(layer, x, {.forced = forced});
    for (Index i = 0; i < y.size(); ++i)
      CHECK(std::abs(y.elements()[std::size_t(i)] - alone.elements()[std::size_t(i)]) < 1e-12);
  }
}

TEST_CASE("Without a d_x, a trained base of a block still gets its gradient", "[layer]") {
  const auto layer = block_layer(block_of_ranks<double>());
  const auto x = support::random_matrix<double>(6, block_in, 2), d_y = support::random_matrix<double>(6, block_out, 3);
  const auto backward = [&](bool wants_d_x) {
    auto work = layer.workspace(6);
    auto gradients = layer.gradients();
    Matrix<double> y(6, block_out), d_x(6, block_in);
    layer.forward(x, y, work);
    layer.backward(x, d_y, wants_d_x ? d_x.view() : View<double>(), gradients, work);
    return gradients;
  };
  const auto with = backward(true), without = backward(false);
  CHECK(support::same_bits(with.experts.gate.base.weight, without.experts.gate.base.weight));
  CHECK(support::same_bits(with.experts.up.base.bias, without.experts.up.base.bias));
  CHECK(support::same_bits(with.experts.up.experts.lora_A, without.experts.up.experts.lora_A));
}

TEST_CASE("Maps of a block draw dropout masks of their own", "[layer]") {
  // Equal maps gate and up, and a down that sums: relu(g) g is never below 0, unless g and u have seen other masks.
  const ExpertProjection same{map_ranks<double>(block_in, block_hidden, 1, 0.5),
                              DenseBase(Matrix<double>(block_hidden, block_in))};
  Matrix<double> ones(block_out, block_hidden);
  fill(ones.view(), 1.0);
  auto down = map_ranks<double>(block_hidden, block_out, 3);
  down.parameters().lora_B.set_zero();
  const auto layer =
      block_layer(FeedForwardExperts{same, same, ExpertProjection{down, DenseBase(std::move(ones))}, ReLU{}});
  const auto x = support::random_matrix<double>(20, block_in, 2);
  const auto below_zero = [&](const Pass& pass) {
    const auto y = support::output(layer, x, pass);
    return std::ranges::any_of(y.elements(), [](double value) { return value < 0; });
  };
  CHECK_FALSE(below_zero({}));
  CHECK(below_zero({.training = true}));
}

TEST_CASE("Maps of a block that do not fit each other are refused", "[layer]") {
  const auto map = [](Index in, Index out) {
    return ExpertProjection{map_ranks<double>(in, out, 1), map_base<double>(in, out, 2, false)};
  };
  CHECK(test::code_of([&] { FeedForwardExperts{map(5, 9), map(5, 8), map(9, 6)}; }) == ErrorCode::shape);
  CHECK(test::code_of([&] { FeedForwardExperts{map(5, 9), map(4, 9), map(9, 6)}; }) == ErrorCode::shape);
  CHECK(test::code_of([&] { FeedForwardExperts{map(5, 9), map(5, 9), map(8, 6)}; }) == ErrorCode::shape);
  CHECK(test::code_of([&] { FeedForwardExperts{map(5, 9), map(8, 6)}; }) == ErrorCode::shape);
  const ExpertProjection unfit{map_ranks<double>(5, 9, 1), map_base<double>(5, 8, 2, false)};
  CHECK(test::code_of([&] { FeedForwardExperts{unfit, unfit, map(8, 6)}; }) == ErrorCode::shape);
}
