// SPDX-License-Identifier: MIT
#include "mole/method/mofme.hpp"

#include "core/error_code.hpp"
#include "method/method_checks.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

namespace {

constexpr ModulationForm mofme_forms[] = {ModulationForm::vector, ModulationForm::diagonal, ModulationForm::low_rank,
                                          ModulationForm::full};

template <class Layer>
void randomize(Layer& layer) {
  Rng rng(7);
  layer.for_each_tensor([&](std::string_view, View<double> tensor) { fill_uniform(tensor, 1, rng); });
}

Matrix<double> base_of_tokens() {
  Matrix<double> u(tokens.rows(), weight.rows());
  for (Index n = 0; n < u.rows(); ++n)
    for (Index o = 0; o < u.cols(); ++o) {
      u(n, o) = bias(0, o);
      for (Index i = 0; i < weight.cols(); ++i) u(n, o) += weight(o, i) * tokens(n, i);
    }
  return u;
}

}  // namespace

TEST_CASE("mofme weighs the modulations of the best by their shares, or by their probabilities", "[method]") {
  Rng rng(1);
  const auto check = [&](auto layer, bool renormalized, bool residual) {
    randomize(layer);
    const auto u = base_of_tokens();
    const auto& router = layer.router().parameters();
    const auto& p = layer.experts().behind().parameters();
    const auto y = support::output(layer, tokens);
    double worst = 0;
    for (Index n = 0; n < tokens.rows(); ++n) {
      double probability[4], sum = 0, chosen = 0;
      for (Index e = 0; e < 4; ++e) {
        double logit = router.bias(0, e);
        for (Index i = 0; i < 11; ++i) logit += router.weight(e, i) * tokens(n, i);
        sum += probability[e] = std::exp(logit);
      }
      std::array<Index, 4> order{0, 1, 2, 3};
      std::ranges::sort(order, [&](Index a, Index b) { return probability[a] > probability[b]; });
      for (Index j = 0; j < 2; ++j) chosen += probability[order[std::size_t(j)]] / sum;
      for (Index o = 0; o < 13; ++o) {
        double expected = residual ? u(n, o) : 0;
        for (Index j = 0; j < 2; ++j) {
          const Index e = order[std::size_t(j)];
          double scale = p.scale_bias(e, o), shift = p.shift_bias(e, o);
          for (Index i = 0; i < 13; ++i)
            scale += p.scale_weight(e * 13 + o, i) * u(n, i), shift += p.shift_weight(e * 13 + o, i) * u(n, i);
          expected += probability[e] / sum / (renormalized ? chosen : 1) * (scale * u(n, o) + shift);
        }
        worst = std::max(worst, std::abs(y(n, o) - expected));
      }
    }
    CHECK(worst < 1e-11);
  };
  const DenseBase base(weight, bias);
  check(mofme({.experts = 4}, base, rng), true, false);
  check(mofme({.experts = 4, .residual = true}, base, rng), true, true);
  check(mofme<MofmeGates::raw>({.experts = 4}, base, rng), false, false);
}

TEST_CASE("mofme has exact gradients in every form, with and without the features themselves", "[method]") {
  Rng rng(1);
  const auto small = support::random_matrix<double>(6, 5, 1);
  const auto check = [](auto layer) {
    randomize(layer);
    CHECK(check_gradients(layer, {.tokens = 5}).passed(1e-8));
  };
  for (ModulationForm form : mofme_forms)
    for (bool residual : {false, true})
      check(
          mofme({.experts = 3, .form = form, .rank = 2, .residual = residual}, DenseBase(Matrix<double>(small)), rng));
  check(mofme<MofmeGates::renormalized, MofmeLoop::as_published>({.experts = 3}, DenseBase(small), rng));
  check(mofme<MofmeGates::raw>({.experts = 3, .k = 0}, DenseBase(small), rng));
}

TEST_CASE("A fresh mofme is its base: up to rounding as published, to the bit with the features themselves",
          "[method]") {
  Rng generator;
  const LowRank<DenseFactors<double>> nothing({.in = 11, .out = 13, .rank = 1, .alpha = 1}, generator);  // B = 0
  const auto u = support::output(
      MixtureLinear(NoRouter<double>(1), Gate{Identity{}, All{}, Unit{}}, nothing, DenseBase(weight, bias)), tokens);
  for (ModulationForm form : mofme_forms)
    for (Index k : {0, 1, 2}) {
      Rng rng(1);
      CHECK(support::largest_difference(
                support::output(mofme({.k = k, .form = form}, DenseBase(weight, bias), rng), tokens), u) < 1e-14);
      const auto kept = mofme({.k = k, .form = form, .residual = true}, DenseBase(weight, bias), rng);
      CHECK(support::same_bits(support::output(kept, tokens), u));
      const auto random = mofme({.k = k, .form = form, .random = true}, DenseBase(weight, bias), rng);
      CHECK(support::largest_difference(support::output(random, tokens), u) > 1e-3);
    }
}

TEST_CASE("mofme refuses more chosen experts than there are", "[method]") {
  Rng rng;
  CHECK(test::code_of([&] { mofme({.experts = 2, .k = 3}, DenseBase(weight), rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { mofme({.experts = 0}, DenseBase(weight), rng); }) == ErrorCode::option);
}
