// SPDX-License-Identifier: MIT
#include "mole/factors/random_basis.hpp"

#include "core/error_code.hpp"
#include "factors/adapter_checks.hpp"
#include "mole/execution/thread_pool.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace factor_checks;

namespace {

template <class T>
auto random_sums(typename RandomBasis<T>::Options options) {
  Rng rng(1);
  options.in = in, options.out = out, options.alpha = 6;
  LowRank<RandomBasis<T>> made(options, rng);
  return made.with(randomized(made.factors()));
}

/// A and B of the experts, in memory.
template <class T>
auto tables(const LowRank<RandomBasis<T>>& experts) {
  return dense_experts(experts).parameters();
}

}  // namespace

TEST_CASE("RandomBasis keeps the laws of factors, and has exact gradients", "[factors]") {
  for (Index experts : {1, 3})
    for (NolaVariant variant : {NolaVariant::llm, NolaVariant::vit})
      for (bool keep : {false, true}) {
        CAPTURE(experts, int(variant), keep);
        CHECK(broken(random_sums<double>(
                  {.experts = experts, .rank = 2, .bases = 3, .bases_of_B = 4, .variant = variant, .keep = keep})) ==
              "");
      }
}

TEST_CASE("RandomBasis is linear in its coefficients, over an offset of A", "[factors]") {
  auto experts = random_sums<double>({.rank = 2, .bases = 3});
  auto& p = experts.parameters();
  const auto of = [&](std::initializer_list<double> a, std::initializer_list<double> b) {
    std::ranges::copy(a, p.coefficients_A.elements().begin()),
        std::ranges::copy(b, p.coefficients_B.elements().begin());
    return tables(experts);
  };
  const auto none = of({0, 0, 0}, {0, 0, 0}), one = of({1, 2, 3}, {2, 0, 1}), two = of({-4, 1, 0}, {1, 1, 1}),
             both = of({-3, 3, 3}, {3, 1, 2});
  double most = 0;
  for (double a : none.lora_A.elements()) most = std::max(most, std::abs(a));
  CHECK(most > 0.5 / std::sqrt(double(in)));  // the frozen offset, within its bound
  CHECK(most <= 1 / std::sqrt(double(in)));
  CHECK(support::same_bits(none.lora_B, Matrix<double>(2, out)));
  for (Index j = 0; j < 2; ++j) {
    for (Index i = 0; i < in; ++i)
      CHECK(std::abs(both.lora_A(j, i) - one.lora_A(j, i) - two.lora_A(j, i) + none.lora_A(j, i)) < 1e-14);
    for (Index o = 0; o < out; ++o) CHECK(std::abs(both.lora_B(j, o) - one.lora_B(j, o) - two.lora_B(j, o)) < 1e-14);
  }
}

TEST_CASE("The numbers of a basis are uniform within the bound of its variant, and of no other row or basis", "[factors]") {
  constexpr Index wide = 2000, rank = 4;
  for (NolaVariant variant : {NolaVariant::llm, NolaVariant::vit}) {
    Rng rng(3);
    LowRank<RandomBasis<double>> experts({.in = wide, .out = wide + 1, .rank = rank, .bases = 2, .variant = variant},
                                         rng);
    auto& p = experts.parameters();
    const auto matrix_of = [&](bool of_a, Index j) {
      p.coefficients_A.set_zero(), p.coefficients_B.set_zero();
      const auto offset = tables(experts);
      (of_a ? p.coefficients_A : p.coefficients_B)(0, j) = 1;
      auto tables_of_j = tables(experts);
      auto& found = of_a ? tables_of_j.lora_A : tables_of_j.lora_B;
      const auto& before = of_a ? offset.lora_A : offset.lora_B;
      for (std::size_t i = 0; i < found.elements().size(); ++i) found.elements()[i] -= before.elements()[i];
      return found;
    };
    const std::vector<Matrix<double>> all{matrix_of(true, 0), matrix_of(true, 1), matrix_of(false, 0),
                                          matrix_of(false, 1)};
    for (std::size_t m = 0; m < all.size(); ++m) {
      const double bound =
          variant == NolaVariant::llm ? 1 / std::sqrt(2.0) : 1 / std::sqrt(double(rank * (m < 2 ? wide : wide + 1)));
      double sum = 0, square = 0, most = 0, with_next = 0, with_other = 0, with_row = 0;
      const auto numbers = all[m].elements();
      const auto other = all[(m + 1) % all.size()].elements();
      for (std::size_t i = 0; i < 7000; ++i) {
        sum += numbers[i], square += numbers[i] * numbers[i], most = std::max(most, std::abs(numbers[i]));
        with_next += numbers[i] * numbers[i + 1], with_other += numbers[i] * other[i];
      }
      for (std::size_t i = 0; i < 5000; ++i) with_row += numbers[i] * numbers[i + numbers.size() / std::size_t(rank)];
      CHECK(most <= bound * (1 + 1e-12));
      CHECK(most > 0.999 * bound);
      CHECK(std::abs(sum / 7000) < 0.03 * bound);
      CHECK(std::abs(square / 7000 / (bound * bound) - 1.0 / 3) < 0.02);
      CHECK(std::abs(with_next / 7000 / (bound * bound)) < 0.02);
      CHECK(std::abs(with_other / 7000 / (bound * bound)) < 0.02);
      CHECK(std::abs(with_row / 5000 / (bound * bound)) < 0.02);
    }
  }
}

TEST_CASE("Bases have the same bits kept or made anew, by any number of threads, in any layer of the seed",
          "[factors]") {
  constexpr Index wide = 1100;  // three tiles
  const auto made = [&]<class Execution>(bool keep, Execution execution) {
    Rng rng(3);
    LowRank<RandomBasis<float>> experts(
        {.in = wide, .out = wide, .experts = 2, .rank = 3, .bases = 4, .seed = 77, .keep = keep, .alpha = 6}, rng);
    const auto random = experts.with(randomized(experts.factors()));
    auto layer = MixtureLinear(NoRouter<float>(2), Gate{Identity{}, All{}, Unit{}}, random, NoBase<float>(wide, wide),
                               execution);
    const auto x = support::random_matrix<float>(5, wide, 3);
    Matrix<float> y(5, wide), d_x(5, wide);
    auto work = layer.workspace(5);
    auto gradients = layer.gradients();
    layer.forward(x, y, work);
    layer.backward(x, x, d_x, gradients, work);
    return std::vector<Matrix<float>>{y, d_x, gradients.experts.coefficients_A, gradients.experts.coefficients_B};
  };
  const auto expected = made(false, Simd<>{});
  const ThreadPool pool(3);
  const auto same = [&](const std::vector<Matrix<float>>& found) {
    for (std::size_t i = 0; i < expected.size(); ++i) CHECK(support::same_bits(found[i], expected[i]));
  };
  same(made(true, Simd<>{}));
  same(made(false, Simd(pool)));
  same(made(true, Simd(pool)));
}

TEST_CASE("RandomBasis of one given basis, unmixed, is the LoRA of that basis, to the bit", "[factors]") {
  const auto a = support::random_matrix<float>(2, in, 1), b = support::random_matrix<float>(2, out, 2);
  RandomBasis<float>::Bases bases{Matrix<float>(1, 2 * in), Matrix<float>(1, 2 * out), {}, {}};
  std::ranges::copy(a.elements(), bases.a.elements().begin());
  std::ranges::copy(b.elements(), bases.b.elements().begin());
  LowRank experts(RandomBasis<float>({.in = in, .out = out, .rank = 2}, std::move(bases)), {1.5f});
  fill(experts.parameters().coefficients_A.view(), 1), fill(experts.parameters().coefficients_B.view(), 1);
  const LowRank plain(DenseFactors<float>(RankBlocks::uniform(1, 2), {a, b}), {1.5f});
  const auto x = support::random_matrix<float>(9, in, 3);
  CHECK(support::same_bits(support::output(layer_of(experts), x), support::output(layer_of(plain), x)));
}

TEST_CASE("A fresh RandomBasis leaves the base as it is, and only beta gets a gradient", "[factors]") {
  Rng rng(1);
  auto layer = nola({.rank = 2, .bases = 5}, DenseBase(support::random_matrix<float>(out, in, 6)), rng);
  const auto x = support::random_matrix<float>(9, in, 3);
  Matrix<float> y(9, out), of_base(9, out), d_x(9, in);
  auto work = layer.workspace(9);
  auto gradients = layer.gradients();
  layer.forward(x, y, work);
  Simd<>{}.linear(x.view(), LinearWeights<float>{.weight = layer.base().weight()}, of_base.view());
  CHECK(support::same_bits(y, of_base));
  layer.backward(x, y, d_x, gradients, work);
  CHECK(support::same_bits(gradients.experts.coefficients_A, Matrix<float>(1, 5)));
  for (float beta : gradients.experts.coefficients_B.elements()) CHECK(beta != 0);

  const RandomBasis<double> vit({.in = in, .out = out, .bases = 5, .bases_of_B = 4, .variant = NolaVariant::vit}, rng);
  for (double c : vit.parameters().coefficients_A.elements()) CHECK(c == 0.2);
  for (double c : vit.parameters().coefficients_B.elements()) CHECK(c == 0.25);
}

TEST_CASE("The state of a RandomBasis is its seed, kept or not", "[factors]") {
  for (bool keep : {false, true}) {
    auto one = random_sums<float>({.rank = 2, .bases = 3, .keep = keep});
    Rng rng(99);
    LowRank<RandomBasis<float>> two({.in = in, .out = out, .rank = 2, .bases = 3, .keep = keep, .alpha = 6}, rng);
    two.parameters() = one.parameters();
    CHECK(two.factors().seed() != one.factors().seed());
    CHECK_FALSE(support::same_bits(tables(one).lora_A, tables(two).lora_A));
    std::int64_t saved = 0;
    one.factors().for_each_state([&](std::string_view, std::span<std::int64_t> seed) { saved = seed[0]; });
    two.factors().for_each_state([&](std::string_view, std::span<std::int64_t> seed) { seed[0] = saved; });
    CHECK(support::same_bits(tables(one).lora_A, tables(two).lora_A));
    CHECK(support::same_bits(tables(one).lora_B, tables(two).lora_B));
  }
}

TEST_CASE("RandomBasis refuses sizes that are none, and bases that do not fit", "[factors]") {
  Rng rng;
  using Factors = RandomBasis<double>;
  CHECK(test::code_of([&] { Factors({.in = 0, .out = 3}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { Factors({.in = 3, .out = 3, .rank = 0}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { Factors({.in = 3, .out = 3, .bases = 0}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { Factors({.in = 3, .out = 3, .bases_of_B = 0}, rng); }) == ErrorCode::option);
  const auto given = [](Index of_a, Index of_b, Index offset) {
    Factors({.in = 3, .out = 4, .rank = 2},
            {Matrix<double>(5, of_a), Matrix<double>(6, of_b), Matrix<double>(2, offset), {}});
  };
  CHECK_FALSE(test::code_of([&] { given(6, 8, 3); }));
  CHECK(test::code_of([&] { given(7, 8, 3); }) == ErrorCode::shape);
  CHECK(test::code_of([&] { given(6, 7, 3); }) == ErrorCode::shape);
  CHECK(test::code_of([&] { given(6, 8, 4); }) == ErrorCode::shape);
  for (const Factors::Options& none :
       {Factors::Options{.in = 0, .out = 4, .rank = 2}, {.in = 3, .out = 0, .rank = 2}, {.in = 3, .out = 4, .rank = 0}})
    CHECK(test::code_of([&] {
            Factors(none, {Matrix<double>(5, none.rank * none.in), Matrix<double>(6, none.rank * none.out), {}, {}});
          }) == ErrorCode::option);
  CHECK(test::code_of([&] {
          Factors({.in = 3, .out = 4, .rank = 2}, {Matrix<double>(0, 6), Matrix<double>(6, 8), {}, {}});
        }) == ErrorCode::option);
  Factors factors({.in = 3, .out = 4, .rank = 2, .bases = 5}, rng);
  factors.parameters().coefficients_B = Matrix<double>(1, 6);
  CHECK(test::code_of([&] { factors.check_sizes(); }) == ErrorCode::shape);
}

TEST_CASE("Of given bases, too, coefficients start as their variant says, and again after reset()", "[factors]") {
  Rng rng(4);
  const auto start = [&](NolaVariant variant, double of_a, double of_b) {
    RandomBasis<double> factors({.in = 3, .out = 4, .rank = 2, .variant = variant},
                                {Matrix<double>(5, 6), Matrix<double>(8, 8), {}, {}});
    for (int time = 0; time < 2; ++time) {
      for (double c : factors.parameters().coefficients_A.elements()) CHECK(c == of_a);
      for (double c : factors.parameters().coefficients_B.elements()) CHECK(c == of_b);
      fill(factors.parameters().coefficients_A.view(), 9.0);
      factors.reset(rng);
    }
  };
  start(NolaVariant::vit, 1.0 / 5, 1.0 / 8);
  start(NolaVariant::llm, 0, 0);
}

TEST_CASE("RandomBasis has the numbers and the memory that it says", "[factors]") {
  Rng rng;
  const RandomBasis<float> factors({.in = 4096, .out = 4096, .rank = 8, .bases = 512}, rng);
  CHECK(numbers_in(factors.parameters()) == 1'024);
  CHECK(scratch_bytes(factors) == 512u << 10);
}

TEST_CASE("Neighboring seeds share no basis", "[factors]") {
  Rng rng(1);
  const auto of_seed = [&](std::uint64_t seed) {
    RandomBasis<double> factors({.in = 6, .out = 6, .rank = 2, .bases = 1, .variant = NolaVariant::vit, .seed = seed},
                                rng);
    return LowRank<RandomBasis<double>>(factors, {1}).tables();
  };
  for (std::uint64_t seed : {0u, 1u, 2u})
    for (std::uint64_t other : {0u, 1u, 2u})
      CHECK(support::largest_difference(of_seed(seed).b, of_seed(other).a) > 1e-3);
}
