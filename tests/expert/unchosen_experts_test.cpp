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

constexpr Index three = 3, wide = 8, narrow = 6;  // experts, inputs, outputs

/// y, d_x and all gradients of a step in which the last expert serves nobody.
template <class Layer>
std::vector<Matrix<double>> step_of_two_experts(Layer& layer) {
  const auto x = random_matrix<double>(5, wide, 1), d_y = random_matrix<double>(5, narrow, 2);
  const auto routing = Routing<double>::from_labels(std::vector<int>{0, 1, 0, 1, 0}, three);
  Matrix<double> y(5, narrow), d_x(5, wide);
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
void spoil_last_expert(Layer& layer, double junk, const std::vector<std::string>& shared) {
  layer.for_each_tensor([&](std::string_view name, View<double> tensor) {
    for (const std::string& one : shared)
      if (name.ends_with(one)) return;
    const bool in_a_row = tensor.rows() == 1;
    const Index share = (in_a_row ? tensor.cols() : tensor.rows()) / three;
    REQUIRE(share * three == (in_a_row ? tensor.cols() : tensor.rows()));
    fill(in_a_row ? tensor.middle_cols(tensor.cols() - share, share) : tensor.middle_rows(tensor.rows() - share, share),
         junk);
  });
}

template <class Experts>
void check_unchosen(Experts made, const std::vector<std::string>& shared = {}) {
  ExpertLinear layer(std::move(made), NoBase<double>(wide, narrow), Simd<>{});
  Rng rng(9);
  layer.for_each_tensor([&](std::string_view, View<double> tensor) { fill_uniform(tensor, 0.5, rng); });
  const auto expected = step_of_two_experts(layer);
  for (const double junk : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    spoil_last_expert(layer, junk, shared);
    const auto found = step_of_two_experts(layer);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      CAPTURE(junk, i);
      CHECK(support::same_bits(found[i], expected[i]));
    }
  }
}

}  // namespace

TEST_CASE("An expert that serves nobody may hold NaN: factors", "[expert]") {
  Rng rng(1);
  check_unchosen(LowRank<DenseFactors<double>>({.in = wide, .out = narrow, .experts = three, .rank = 2}, rng));
  check_unchosen(LowRank<HadamardFactors<double>>({.in = wide, .out = narrow, .experts = three, .rank = 2}, rng));
  check_unchosen(LowRank<TripletFactors<double>>({.in = wide, .out = narrow, .experts = three, .rank = 2}, rng));
  for (bool diagonal : {false, true})
    check_unchosen(
        LowRank<TaskFactors<double>>(
            {.in = wide, .out = narrow, .experts = three, .rank = 2, .up_matrices = 2, .diagonal = diagonal}, rng),
        {"lora_A", "lora_B"});
  const auto bank = std::make_shared<VectorBank<double>>(VectorBank<double>::Options{.vectors = 5, .length = 2}, rng);
  check_unchosen(
      LowRank<BankMixture<double>>({.in = wide, .out = narrow, .experts = three, .rank = 2, .bank = bank}, rng));
}

TEST_CASE("An expert that serves nobody may hold NaN: maps", "[expert]") {
  Rng rng(1);
  const auto weight = random_matrix<double>(narrow, wide, 6);
  check_unchosen(MapExperts<KroneckerMaps<double>>({.in = wide, .out = narrow, .experts = three, .rank = 2}, rng));
  for (bool exact : {false, true})
    check_unchosen(MapExperts<WeightDecomposition<double>>(
        {.in = wide, .out = narrow, .experts = three, .rank = 2, .weight = weight.view(), .exact_norm = exact}, rng));
  for (RotationForm form : {RotationForm::neumann, RotationForm::cayley})
    check_unchosen(MapExperts<BlockRotation<double>>(
        {.in = wide, .out = narrow, .experts = three, .block = 4, .weight = weight.view(), .form = form}, rng));
}

TEST_CASE("An expert that serves nobody may hold NaN: matrices, normalized ones with their moments, and whole blocks",
          "[expert]") {
  Rng rng(1);
  const auto dense = [&](Index from, Index to) {
    return MapExperts<DenseMaps<double>>({.in = from, .out = to, .experts = three, .bias = true}, rng);
  };
  check_unchosen(dense(wide, narrow));
  check_unchosen(BiasedExperts(dense(wide, narrow)));
  MapExperts<NormalizedMaps<DenseMaps<double>>> normalized(
      {.maps = {.in = wide, .out = narrow, .experts = three, .bias = true}}, rng);
  fill(normalized.maps().running().mean().middle_rows(2, 1), std::numeric_limits<double>::quiet_NaN());
  fill(normalized.maps().running().variance().middle_rows(2, 1), std::numeric_limits<double>::quiet_NaN());
  check_unchosen(normalized);
  const auto ranks = [&](Index from, Index to) {
    return LowRank<DenseFactors<double>>({.in = from, .out = to, .experts = three, .rank = 2}, rng);
  };
  check_unchosen(SummedExperts(dense(wide, narrow), ranks(wide, narrow)));
  check_unchosen(MergedExperts<DenseFactors<double>>({.in = wide, .out = narrow, .experts = three, .rank = 2}, rng));
  const auto map = [](auto experts) {
    const Index from = experts.in(), to = experts.out();
    return ExpertProjection{std::move(experts), NoBase<double>(from, to)};
  };
  const auto gate = map(dense(wide, 4)), up = map(dense(wide, 4)), down = map(dense(4, narrow));
  check_unchosen(FeedForwardExperts{gate, up, down});
  check_unchosen(FeedForwardExperts{up, down, GELU{}});
  const auto thin_gate = map(ranks(wide, 4)), thin_up = map(ranks(wide, 4)), thin_down = map(ranks(4, narrow));
  check_unchosen(FeedForwardExperts{thin_gate, thin_up, thin_down});
}
