// SPDX-License-Identifier: MIT
// Choice, mixture and the gradients that layers add to a bank; the golden files pin the numbers.
#include "mole/factors/bank_mixture.hpp"

#include "core/error_code.hpp"
#include "factors/adapter_checks.hpp"
#include "mole/testing/central_differences.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace factor_checks;

namespace {

constexpr Index bank_in = 12, bank_out = 8;

template <class T>
auto bank_of(Index vectors, Index length = 4) {
  Rng rng(3);
  return std::make_shared<VectorBank<T>>(
      typename VectorBank<T>::Options{.vectors = vectors, .length = length, .bound = 1}, rng);
}

template <class T>
auto mixtures(std::shared_ptr<const VectorBank<T>> bank, Index k, Index experts = 1) {
  Rng rng(5);
  return LowRank<BankMixture<T>>({.in = bank_in,
                                  .out = bank_out,
                                  .experts = experts,
                                  .rank = 2,
                                  .k = k,
                                  .bank = std::move(bank),
                                  .deviation = 1,
                                  .alpha = 6},
                                 rng);
}

template <class T>
auto mixed_layer(const LowRank<BankMixture<T>>& experts) {
  Rng rng(7);
  const Index count = experts.experts();
  return MixtureLinear(LinearRouter<T>({.in = bank_in, .experts = count}, rng),
                       Gate{Softmax{}, TopK{std::min<Index>(2, count)}, Raw{}}, experts,
                       DenseBase(support::random_matrix<T>(bank_out, bank_in, 6)), Simd<>{});
}

/// A and B.
template <class T>
auto tables(const LowRank<BankMixture<T>>& experts) {
  return dense_experts(experts).parameters();
}

}  // namespace

TEST_CASE("A piece is the softmax over its k largest logits of the bank's vectors", "[factors]") {
  const auto bank = bank_of<double>(5);
  for (Index k : {1, 2, 5}) {
    const auto experts = mixtures<double>(bank, k);
    const auto a = tables(experts).lora_A;
    for (Index row = 0; row < 2; ++row)
      for (Index piece = 0; piece < 3; ++piece) {
        std::vector<std::pair<double, Index>> order;
        for (Index v = 0; v < 5; ++v) order.push_back({-experts.parameters().logits_A(3 * row + piece, v), v});
        std::ranges::sort(order);
        double sum = 0;
        for (Index j = 0; j < k; ++j) sum += std::exp(-order[std::size_t(j)].first);
        for (Index i = 0; i < 4; ++i) {
          double expected = 0;
          for (Index j = 0; j < k; ++j)
            expected += std::exp(-order[std::size_t(j)].first) / sum *
                        bank->parameters().vectors(order[std::size_t(j)].second, i);
          CHECK(std::abs(a(row, 4 * piece + i) - expected) < 1e-14);
        }
      }
  }
}

TEST_CASE("BankMixture keeps the laws of factors, and the gradients of its logits are exact", "[factors]") {
  for (Index experts : {1, 3})
    for (Index k : {1, 2, 5}) {
      CAPTURE(experts, k);
      const auto made = mixtures<double>(bank_of<double>(5), k, experts);
      CHECK(laws::broken_factor_law<Reference>(made.factors()) == "");
      CHECK(laws::broken_factor_law<Simd<>>(made.factors()) == "");
      auto layer = mixed_layer(made);
      CHECK(check_gradients(layer).worst < 1e-8);
    }
}

TEST_CASE("Layers of one bank add up its gradient, which is exact", "[factors]") {
  const auto bank = bank_of<double>(5);
  const std::vector layers{mixed_layer(mixtures<double>(bank, 2)), mixed_layer(mixtures<double>(bank, 3))};
  const auto x = support::random_matrix<double>(5, bank_in, 3), d_y = support::random_matrix<double>(5, bank_out, 4);
  auto gradients = bank->gradients();
  const auto value = [&] {
    double sum = 0;
    for (const auto& layer : layers) {
      const auto y = support::output(layer, x);
      for (std::size_t i = 0; i < y.elements().size(); ++i) sum += y.elements()[i] * d_y.elements()[i];
    }
    return sum;
  };
  for (const auto& layer : layers) {
    Matrix<double> y(5, bank_out);
    auto work = layer.workspace(5);
    layer.forward(x, y, work);
    auto of_layer = layer.gradients({.experts = false});
    of_layer.experts.bank = &gradients;
    layer.backward(x, d_y, {}, of_layer, work);
    CHECK(of_layer.experts.logits_A.empty());  // frozen, though the bank is not
  }
  CHECK(laws::gradient_error(bank->parameters().vectors.elements(), gradients.vectors.elements(), value) < 1e-8);
}

TEST_CASE("Of equal logits the first are chosen, NaN last, and one choice is the vector itself", "[factors]") {
  const auto bank = bank_of<float>(4);
  auto experts = mixtures<float>(bank, 1);
  auto& logits = experts.parameters().logits_A;
  const auto chosen_vector = [&](std::initializer_list<float> numbers) {
    std::ranges::copy(numbers, logits.view().row(0).begin());
    const auto a = tables(experts).lora_A;
    for (Index v = 0; v < 4; ++v)
      if (std::equal(a.data(), a.data() + 4, bank->parameters().vectors.view().row_data(v))) return v;
    return Index(-1);
  };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  CHECK(chosen_vector({1, 2, 2, 2}) == 1);
  CHECK(chosen_vector({nan, 1, 0, 3}) == 3);
  CHECK(chosen_vector({-5, nan, nan, -6}) == 0);
}

TEST_CASE("BankMixture refuses banks, options and gradients that do not fit", "[factors]") {
  Rng rng;
  const auto bank = bank_of<double>(5);
  const auto code = [&](BankMixture<double>::Options options) {
    return test::code_of([&] { BankMixture<double>(options, rng); });
  };
  CHECK(code({.in = 12, .out = 8}) == ErrorCode::option);
  CHECK_FALSE(code({.in = 12, .out = 8, .bank = bank}));
  CHECK(code({.in = 12, .out = 9, .bank = bank}) == ErrorCode::option);
  CHECK(code({.in = 0, .out = 8, .bank = bank}) == ErrorCode::option);
  CHECK(code({.in = 12, .out = 8, .k = 0, .bank = bank}) == ErrorCode::option);
  CHECK(code({.in = 12, .out = 8, .k = 6, .bank = bank}) == ErrorCode::option);
  CHECK(code({.in = 12, .out = 8, .bank = bank, .deviation = std::nan("")}) == ErrorCode::option);

  auto layer = mixed_layer(mixtures<double>(bank, 2));
  auto work = layer.workspace(5);
  const auto x = support::random_matrix<double>(5, bank_in, 3);
  Matrix<double> y(5, bank_out);
  layer.forward(x, y, work);
  auto gradients = layer.gradients();
  VectorBank<double>::Parameters wrong{Matrix<double>(3, 3)};
  gradients.experts.bank = &wrong;
  CHECK(test::code_of([&] { layer.backward(x, y, {}, gradients, work); }) == ErrorCode::shape);
  bank->parameters().vectors = Matrix<double>(5, 3);
  CHECK(test::code_of([&] { layer.experts().factors().check_sizes(); }) == ErrorCode::shape);
}

TEST_CASE("A bank has the numbers and BankMixture the memory that they say", "[factors]") {
  Rng rng;
  const auto bank = std::make_shared<VectorBank<float>>(VectorBank<float>::Options{}, rng);
  const BankMixture<float> factors({.in = 4096, .out = 4096, .bank = bank}, rng);
  CHECK(numbers_in(bank->parameters()) == 65'536);
  CHECK(numbers_in(factors.parameters()) == 32'768);
  CHECK(scratch_bytes(factors) == (256u << 10) + 4 * 512);
}
