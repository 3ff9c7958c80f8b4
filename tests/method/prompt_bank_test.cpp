// SPDX-License-Identifier: MIT
#include "mole/method/prompt_bank.hpp"

#include "method/method_checks.hpp"
#include "support/catch.hpp"

#include <algorithm>
#include <functional>

using namespace mole;

namespace {

auto bank_of(Index entries, Index k, double temperature = 1) {
  Rng rng(2);
  return prompt_bank<double>(
      {.in = 7, .entries = entries, .prompt = 10, .k = k, .temperature = temperature, .deviation = 0.5}, rng,
      Reference{});
}

double cosine(std::span<const double> a, std::span<const double> b) {
  double product = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < a.size(); ++i) product += a[i] * b[i], aa += a[i] * a[i], bb += b[i] * b[i];
  return product / std::sqrt(aa * bb);
}

}  // namespace

TEST_CASE("prompt_bank mixes the prompts of the nearest keys by a softmax of all cosines", "[method]") {
  const auto x = support::random_matrix<double>(9, 7, 4);
  for (const Index k : {0, 2}) {
    const auto layer = bank_of(5, k, 0.3);
    const auto keys = layer.router().parameters().prototypes.view();
    const Matrix<double> y = support::output(layer, x);
    for (Index n = 0; n < 9; ++n) {
      std::vector<double> gates(5);
      double sum = 0;
      for (Index j = 0; j < 5; ++j) sum += gates[std::size_t(j)] = std::exp(cosine(x.view().row(n), keys.row(j)) / 0.3);
      std::vector<double> sorted = gates;
      std::ranges::sort(sorted, std::greater());
      for (Index o = 0; o < 10; ++o) {
        double expected = 0;
        for (Index j = 0; j < 5; ++j)
          if (k == 0 || gates[std::size_t(j)] >= sorted[1])
            expected += gates[std::size_t(j)] / sum * layer.experts().bias()(j, o);
        CHECK(std::abs(y(n, o) - expected) < 1e-13);
      }
    }
  }
}

TEST_CASE("A bank of one entry returns its prompt, and one of which all are chosen is soft", "[method]") {
  const auto x = support::random_matrix<double>(3, 7, 4);
  const auto one = bank_of(1, 0);
  const Matrix<double> y = support::output(one, x);
  for (Index n = 0; n < 3; ++n)
    for (Index o = 0; o < 10; ++o) CHECK(std::abs(y(n, o) - one.experts().bias()(0, o)) < 1e-15);
  CHECK(support::largest_difference(support::output(bank_of(4, 4), x), support::output(bank_of(4, 0), x)) == 0);
}

TEST_CASE("Keys, prompts and queries have the right gradients, and lengths of keys none", "[method]") {
  auto layer = bank_of(5, 2);
  const GradientReport report = check_gradients(layer);
  INFO(report.worst_tensor);
  CHECK(report.worst < 1e-7);
  const auto x = support::random_matrix<double>(3, 7, 4), before = support::output(layer, x);
  for (double& number : layer.router().parameters().prototypes.elements()) number *= 8;
  CHECK(support::largest_difference(support::output(layer, x), before) < 1e-14);
  Rng rng(1);
  CHECK_THROWS_AS((prompt_bank<double>({.in = 7, .entries = 0, .prompt = 3}, rng)), Error);
  CHECK_THROWS_AS((prompt_bank<double>({.in = 7, .prompt = 0}, rng)), Error);
}
