// SPDX-License-Identifier: MIT
#include "mole/factors/shared_frozen.hpp"

#include "core/error_code.hpp"
#include "factors/adapter_checks.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace factor_checks;

namespace {

template <class T>
auto pair_of(Index ranks, Index widest_in = in, Index widest_out = out) {
  Rng rng(2);
  return FrozenPair<T>::random(ranks, widest_in, widest_out, rng);
}

template <class T>
auto shared(Index experts, std::shared_ptr<const FrozenPair<T>> pair) {
  Rng rng(1);
  LowRank<SharedFrozen<T>> made({.in = in, .out = out, .experts = experts, .pair = std::move(pair)}, rng);
  return made.with(randomized(made.factors()));
}

}  // namespace

TEST_CASE("SharedFrozen reads the first inputs and outputs of a wider pair, between two vectors", "[factors]") {
  const auto pair = pair_of<double>(4, in + 6, out + 3);
  const auto experts = shared<double>(3, pair);
  const auto& p = experts.parameters();
  for (Index e = 0; e < 3; ++e) {
    Matrix<double> delta(out, in);
    experts.add_delta(e, 0.5, delta.view());
    for (Index o = 0; o < out; ++o)
      for (Index i = 0; i < in; ++i) {
        double sum = 0;
        for (Index j = 0; j < 4; ++j)
          sum += p.lambda_b(e, o) * pair->b(j, o) * p.lambda_d(0, 4 * e + j) * pair->a(j, i);
        CHECK(std::abs(delta(o, i) - 0.5 * sum) < 1e-14);
      }
  }
}

TEST_CASE("SharedFrozen keeps the laws of factors, and has exact gradients", "[factors]") {
  for (Index experts : {1, 3})
    for (Index wider : {0, 5}) {
      CAPTURE(experts, wider);
      CHECK(broken(shared<double>(experts, pair_of<double>(4, in + wider, out + wider))) == "");
    }
}

TEST_CASE("SharedFrozen with vectors of ones is the LoRA of its pair, to the bit", "[factors]") {
  auto experts = shared<float>(1, pair_of<float>(4));
  fill(experts.parameters().lambda_d.view(), 1), fill(experts.parameters().lambda_b.view(), 1);
  const auto& pair = *experts.factors().pair();
  const LowRank plain(DenseFactors<float>(RankBlocks::uniform(1, 4), {pair.a, pair.b}), {1.0f});
  const auto x = support::random_matrix<float>(9, in, 3);
  CHECK(support::same_bits(support::output(layer_of(experts), x), support::output(layer_of(plain), x)));
}

TEST_CASE("Fresh SharedFrozen leave the base as it is; layers of one pair share its memory", "[factors]") {
  Rng rng(1);
  const auto pair = pair_of<float>(4);
  const SharedFrozen<float> one({.in = in, .out = out, .pair = pair}, rng), two({.in = 5, .out = 6, .pair = pair}, rng);
  CHECK(one.pair()->a.data() == two.pair()->a.data());
  for (float d : one.parameters().lambda_d.elements()) CHECK(d == 0.1f);
  CHECK(support::same_bits(one.parameters().lambda_b, Matrix<float>(1, out)));
  double most = 0;
  for (float a : pair->a.elements()) most = std::max(most, std::abs(double(a)));
  CHECK(most <= 1 / std::sqrt(double(in)));
  CHECK(most > 0.8 / std::sqrt(double(in)));
}

TEST_CASE("A state of SharedFrozen fits layers of the same pair alone", "[factors]") {
  auto experts = shared<float>(1, pair_of<float>(4));
  std::int64_t saved = 0;
  experts.factors().for_each_state([&](std::string_view, std::span<std::int64_t> print) { saved = print[0]; });
  const auto restore = [&](auto& factors) {
    factors.for_each_state([&](std::string_view, std::span<std::int64_t> print) { print[0] = saved; });
  };
  auto same = shared<float>(2, pair_of<float>(4));
  restore(same.factors());
  auto another = shared<float>(1, pair_of<float>(5));
  CHECK(test::code_of([&] { restore(another.factors()); }) == ErrorCode::option);
  auto numbers = *pair_of<float>(4);
  numbers.b(3, 2) += 1;
  auto changed = shared<float>(1, std::make_shared<const FrozenPair<float>>(std::move(numbers)));
  CHECK(test::code_of([&] { restore(changed.factors()); }) == ErrorCode::option);
}

TEST_CASE("SharedFrozen refuses no pair, one that is too narrow, and parameters that do not fit", "[factors]") {
  Rng rng;
  using Factors = SharedFrozen<double>;
  CHECK(test::code_of([&] { Factors({.in = 3, .out = 3}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { Factors({.in = 0, .out = 3, .pair = pair_of<double>(2)}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { Factors({.in = in + 1, .out = 3, .pair = pair_of<double>(2)}, rng); }) == ErrorCode::shape);
  CHECK(test::code_of([&] { Factors({.in = 3, .out = out + 1, .pair = pair_of<double>(2)}, rng); }) ==
        ErrorCode::shape);
  CHECK(test::code_of([&] { FrozenPair<double>::random(0, 1, 1, rng); }) == ErrorCode::option);
  Factors factors({.in = 3, .out = 4, .pair = pair_of<double>(2)}, rng);
  factors.parameters().lambda_b = Matrix<double>(1, out + 1);
  CHECK(test::code_of([&] { factors.check_sizes(); }) == ErrorCode::shape);
}

TEST_CASE("SharedFrozen have the numbers and the memory that they say", "[factors]") {
  Rng rng;
  const auto pair = FrozenPair<float>::random(256, 4096, 4096, rng);
  const SharedFrozen<float> factors({.in = 4096, .out = 4096, .pair = pair}, rng);
  CHECK(numbers_in(factors.parameters()) == 4'352);
  CHECK(scratch_bytes(factors) == 8u << 20);
  CHECK((pair->a.size() + pair->b.size()) * 4 == 8 << 20);
}
