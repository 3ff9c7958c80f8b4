// SPDX-License-Identifier: MIT
#include "mole/maps/off_by_one_modulation.hpp"

#include "mole/layer/check_gradients.hpp"
#include "mole/mole.hpp"
#include "mole/testing/expert_laws.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

using namespace mole;

namespace {

template <class T>
auto off_by_one(ModulationForm form, Index experts = 3) {
  Rng rng(1);
  return MapExperts<OffByOneModulation<T>>(
      {.features = 6, .experts = experts, .form = form, .rank = 2, .random = true, .alpha = 2}, rng);
}

}  // namespace

TEST_CASE("OffByOneModulation takes a GELU for the first expert, and the expert before for each other", "[maps]") {
  const auto u = support::random_matrix<double>(5, 6, 3);
  for (ModulationForm form : {ModulationForm::vector, ModulationForm::full}) {
    const auto maps = off_by_one<double>(form).maps();
    laws::Harness harness(maps, CallSize{.tokens = 5});
    Matrix<double> found(5, 6), expected(5, 6);
    maps.map(0, u, found.view(), harness.call());
    for (Index n = 0; n < 5; ++n)
      for (Index i = 0; i < 6; ++i)
        CHECK(std::abs(found(n, i) - u(n, i) * (1 + std::erf(u(n, i) / std::sqrt(2.0))) / 2) < 1e-15);
    for (Index e : {1, 2}) {
      maps.map(e, u, found.view(), harness.call());
      maps.modulation().map(e - 1, u, expected.view(), harness.call());
      CHECK(support::same_bits(found, expected));
    }
  }
}

TEST_CASE("OffByOneModulation keeps the laws of experts, and has exact gradients, none for the last expert", "[maps]") {
  for (ModulationForm form : {ModulationForm::diagonal, ModulationForm::full}) {
    CHECK(laws::broken_expert_law(off_by_one<float>(form)) == "");
    Rng rng(5);
    auto layer = MixtureLinear(LinearRouter<double>({.in = 6, .experts = 3}, rng), support::top_2(),
                               off_by_one<double>(form), DenseBase(support::random_matrix<double>(6, 6, 6)), Simd<>{});
    CHECK(check_gradients(layer).passed(1e-8));
    const auto x = support::random_matrix<double>(40, 6, 3);
    Matrix<double> y(40, 6);
    auto work = layer.workspace(40);
    auto gradients = layer.gradients();
    layer.forward(x, y, work);
    REQUIRE(work.routing.load(2) > 0);
    layer.backward(x, y, {}, gradients, work);
    for (double d : gradients.experts.scale_bias.view().row(2)) CHECK(d == 0);
    for (double d : gradients.experts.scale_bias.view().row(1)) CHECK(d != 0);
  }
}
