// SPDX-License-Identifier: MIT
#include "mole/surgery/subtract_general.hpp"

#include "core/error_code.hpp"
#include "mole/expert/low_rank.hpp"
#include "mole/factors/dense_factors.hpp"
#include "support/catch.hpp"
#include "surgery/adapters.hpp"

using namespace mole;
using namespace mole::test;

namespace {

LowRank<DenseFactors<double>> task_experts(Index rank, bool shared_down = false) {
  Rng rng(3);
  LowRank<DenseFactors<double>> experts(
      {.in = adapter_in, .out = adapter_out, .experts = 3, .rank = rank, .shared_down = shared_down}, rng);
  fill_uniform(experts.parameters().lora_B.view(), 1, rng);
  return experts;
}

}  // namespace

TEST_CASE("Every expert loses the mean A and the mean B of the general adapters", "[surgery]") {
  auto experts = task_experts(2);
  const auto before = experts.parameters();
  const auto general = random_adapters<double>({2, 2}, {1, 5});
  subtract_general(experts, general);
  for (Index j = 0; j < 6; ++j) {
    for (Index i = 0; i < adapter_in; ++i)
      CHECK(std::abs(experts.parameters().lora_A(j, i) -
                     (before.lora_A(j, i) - (general[0].a(j % 2, i) + general[1].a(j % 2, i)) / 2)) < 1e-15);
    for (Index o = 0; o < adapter_out; ++o)
      CHECK(std::abs(experts.parameters().lora_B(j, o) -
                     (before.lora_B(j, o) - (general[0].b(j % 2, o) + general[1].b(j % 2, o)) / 2)) < 1e-15);
  }
}

TEST_CASE("An expert that has learned only what is general is left with nothing", "[surgery]") {
  auto experts = task_experts(2);
  const auto general = random_adapters<double>({2}, {1});
  for (Index j = 0; j < 6; ++j) {
    std::ranges::copy(general[0].a.view().row(j % 2), experts.parameters().lora_A.view().row_data(j));
    std::ranges::copy(general[0].b.view().row(j % 2), experts.parameters().lora_B.view().row_data(j));
  }
  subtract_general(experts, general);
  for (double number : experts.parameters().lora_A.elements()) CHECK(number == 0);
  for (double number : experts.parameters().lora_B.elements()) CHECK(number == 0);
}

TEST_CASE("No general adapter, another rank and a shared A are refused, and nothing has changed", "[surgery]") {
  auto experts = task_experts(2);
  const auto before = experts.parameters();
  CHECK(code_of([&] { subtract_general(experts, {}); }) == ErrorCode::option);
  CHECK(code_of([&] { subtract_general(experts, random_adapters<double>({2, 3}, {1, 1})); }) == ErrorCode::shape);
  CHECK(code_of([&] { subtract_general(experts, random_adapters<double>({2}, {1}, 1, adapter_in + 1)); }) ==
        ErrorCode::shape);
  CHECK(support::same_bits(experts.parameters().lora_A, before.lora_A));
  CHECK(support::same_bits(experts.parameters().lora_B, before.lora_B));
  auto shared = task_experts(2, true);
  CHECK(code_of([&] { subtract_general(shared, random_adapters<double>({2}, {1})); }) == ErrorCode::option);
}
