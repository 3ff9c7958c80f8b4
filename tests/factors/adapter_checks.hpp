// SPDX-License-Identifier: MIT
// What the tests of factors share: layers over them, and the LoRA that they are.
#pragma once

#include "mole/layer/check_gradients.hpp"
#include "mole/mole.hpp"
#include "mole/testing/expert_laws.hpp"
#include "mole/testing/factor_laws.hpp"
#include "support/layers.hpp"

namespace factor_checks {

using mole::Index;
using mole::Matrix;

constexpr Index in = 11, out = 13;

/// The factors with random numbers for all their parameters, so that nothing hides behind a 0.
template <class Factors>
Factors randomized(Factors factors, std::uint64_t seed = 9) {
  mole::Rng rng(seed);
  using Parameters = typename Factors::Parameters;
  Parameters::for_each_tensor([&](std::string_view, auto& tensor) { fill_uniform(tensor.view(), 1, rng); },
                              factors.parameters());
  return factors;
}

/// A routed layer of these experts.
template <class Factors, class Execution = mole::Simd<>>
auto layer_of(mole::LowRank<Factors> experts, Execution execution = {}) {
  using T = typename Factors::Scalar;
  mole::Rng rng(5);
  const Index count = experts.experts(), k = std::min<Index>(count, 2);
  return mole::MixtureLinear(mole::LinearRouter<T>({.in = in, .experts = count}, rng),
                             mole::Gate{mole::Softmax{}, mole::TopK{k}, mole::Renormalized{}}, std::move(experts),
                             mole::DenseBase(support::random_matrix<T>(out, in, 6)), std::move(execution));
}

/// The plain LoRA experts of the A and B that factors come to.
template <class Factors>
auto dense_experts(const mole::LowRank<Factors>& experts) {
  using T = typename Factors::Scalar;
  auto tables = experts.tables();
  return mole::LowRank(mole::DenseFactors<T>(experts.blocks(), {std::move(tables.a), std::move(tables.b)}),
                       std::vector<T>(experts.scale().begin(), experts.scale().end()));
}

/// The laws of factors and of experts, and the gradients of a whole layer: "" where all hold.
template <class Factors>
std::string broken(const mole::LowRank<Factors>& experts) {
  std::string text = mole::laws::broken_factor_law<mole::Reference>(experts.factors());
  if (text.empty()) text = mole::laws::broken_factor_law<mole::Simd<>>(experts.factors());
  if (!text.empty()) return text;
  auto layer = layer_of(experts);
  const mole::GradientReport report = mole::check_gradients(layer);
  if (report.worst > 1e-8) text = "the gradient of " + report.worst_tensor;
  return text;
}

/// How many numbers are trained.
template <class Parameters>
Index numbers_in(const Parameters& parameters) {
  Index numbers = 0;
  Parameters::for_each_tensor([&](std::string_view, const auto& tensor) { numbers += tensor.size(); }, parameters);
  return numbers;
}

/// Bytes of scratch for any call.
template <class Factors>
std::size_t scratch_bytes(const Factors& factors) {
  return mole::bytes_of([&](mole::Arena& arena) { return factors.scratch({}, arena); });
}

}  // namespace factor_checks
