// SPDX-License-Identifier: MIT
// What an expert holds that serves nobody reaches no result and no gradient, NaN neither: of every kind of factors and
// maps.
#include "mole/mole.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

using namespace mole;
using support::random_matrix;

namespace {

constexpr Index experts = 3, in = 8, out = 6;

/// y, d_x and all gradients of a step in which the last expert serves nobody.
template <class Layer>
std::vector<Matrix<double>> step(Layer& layer) {
  const auto x = random_matrix<double>(5, in, 1), d_y = random_matrix<double>(5, out, 2);
  const auto routing = Routing<double>::from_labels(std::vector<int>{0, 1, 0, 1, 0}, experts);
  Matrix<double> y(5, out), d_x(5, in);
  std::vector<double> d_gate(5);
  auto work = layer.workspace(5);
  auto gradients = layer.gradients();
  VectorBank<double>::Parameters of_bank{Matrix<double>(5, 2)};
  if constexpr (requires { gradients.experts.bank = &of_bank; }) gradients.experts.bank = &of_bank;
  layer.apply(x, routing, y, work);
  layer.apply_backward(x, routing, d_y, std::span<double>(d_gate), d_x, gradients, work);
  std::vector<Matrix<double>> results{y, d_x, of_bank.vectors};
  layer.for_each_tensor(
      [&](std::string_view, View<double>, View<double> gradient) {
        results.emplace_back(gradient.rows(), gradient.cols());
        copy(gradient, results.back().view());
      },
      gradients);
  return results;
}

/// Fills the last expert's part of all tensors but those that experts share.
template <class Layer>
void spoil(Layer& layer, double junk, const std::vector<std::string>& shared) {
  layer.for_each_tensor([&](std::string_view name, View<double> tensor) {
    for (const std::string& one : shared)
      if (name.ends_with(one)) return;
    const bool in_a_row = tensor.rows() == 1;
    const Index share = (in_a_row ? tensor.cols() : tensor.rows()) / experts;
    REQUIRE(share * experts == (in_a_row ? tensor.cols() : tensor.rows()));
    fill(in_a_row ? tensor.middle_cols(tensor.cols() - share, share) : tensor.middle_rows(tensor.rows() - share, share),
         junk);
  });
}

template <class Experts>
void check(Experts made, const std::vector<std::string>& shared = {}) {
  ExpertLinear layer(std::move(made), NoBase<double>(in, out), Simd<>{});
  Rng rng(9);
  layer.for_each_tensor([&](std::string_view, View<double> tensor) { fill_uniform(tensor, 0.5, rng); });
  const auto expected = step(layer);
  for (const double junk : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    spoil(layer, junk, shared);
    const auto found = step(layer);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      CAPTURE(junk, i);
      CHECK(support::same_bits(found[i], expected[i]));
    }
  }
}

}  // namespace

TEST_CASE("An expert that serves nobody may hold NaN: factors", "[expert]") {
  Rng rng(1);
  check(LowRank<DenseFactors<double>>({.in = in, .out = out, .experts = experts, .rank = 2}, rng));
  check(LowRank<HadamardFactors<double>>({.in = in, .out = out, .experts = experts, .rank = 2}, rng));
  check(LowRank<TripletFactors<double>>({.in = in, .out = out, .experts = experts, .rank = 2}, rng));
  for (bool diagonal : {false, true})
    check(LowRank<TaskFactors<double>>(
              {.in = in, .out = out, .experts = experts, .rank = 2, .up_matrices = 2, .diagonal = diagonal}, rng),
          {"lora_A", "lora_B"});
  const auto bank = std::make_shared<VectorBank<double>>(VectorBank<double>::Options{.vectors = 5, .length = 2}, rng);
  check(LowRank<BankMixture<double>>({.in = in, .out = out, .experts = experts, .rank = 2, .bank = bank}, rng));
}

TEST_CASE("An expert that serves nobody may hold NaN: maps", "[expert]") {
  Rng rng(1);
  const auto weight = random_matrix<double>(out, in, 6);
  check(MapExperts<KroneckerMaps<double>>({.in = in, .out = out, .experts = experts, .rank = 2}, rng));
  for (bool exact : {false, true})
    check(MapExperts<WeightDecomposition<double>>(
        {.in = in, .out = out, .experts = experts, .rank = 2, .weight = weight.view(), .exact_norm = exact}, rng));
  for (RotationForm form : {RotationForm::neumann, RotationForm::cayley})
    check(MapExperts<BlockRotation<double>>(
        {.in = in, .out = out, .experts = experts, .block = 4, .weight = weight.view(), .form = form}, rng));
}
