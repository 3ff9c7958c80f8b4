// SPDX-License-Identifier: MIT
#include "mole/method/mofme_uar.hpp"

#include "method/method_checks.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

TEST_CASE("In evaluation mofme_uar is mofme, in both forms", "[method]") {
  const auto check = [](const auto& layer, double tolerance) {
    Rng rng(1);
    auto plain = mofme({.experts = 4, .random = true}, DenseBase(weight, bias), rng);
    plain.router().parameters() = layer.router().parameters();
    plain.experts() = layer.experts();
    CHECK(support::largest_difference(support::output(layer, tokens), support::output(plain, tokens)) <= tolerance);
    CHECK(support::largest_difference(support::output(layer, tokens, {.training = true}),
                                      support::output(plain, tokens, {.training = true})) > 1e-4);
  };
  Rng rng(2);
  const MofmeUarOptions options{.mofme = {.experts = 4, .random = true}};
  check(mofme_uar(options, DenseBase(weight, bias), rng), 0);
  check(mofme_uar<Calibration::literal>(options, DenseBase(weight, bias), rng), 1e-14);
}

TEST_CASE("A fresh mofme_uar is its base in training, if whitened; literal weights lose the experts' mean",
          "[method]") {
  Rng rng(2);
  const auto sum_of_gates = [](const auto& layer) {
    auto work = layer.workspace(tokens.rows());
    layer.route(tokens, work, {.training = true});
    double most = 0;
    for (Index n = 0; n < tokens.rows(); ++n) {
      double sum = 0;
      for (double gate : std::as_const(work.routing).gates_of(n)) sum += gate;
      most = std::max(most, std::abs(sum - 1));
    }
    return most;
  };
  CHECK(sum_of_gates(mofme_uar({}, DenseBase(weight), rng)) < 1e-14);
  CHECK(sum_of_gates(mofme_uar<Calibration::literal>({}, DenseBase(weight), rng)) > 0.9);
}

TEST_CASE("mofme_uar has exact gradients through all that its router draws", "[method]") {
  Rng rng(2);
  auto layer =
      mofme_uar({.mofme = {.experts = 3, .form = ModulationForm::vector}, .dropout = 0.3, .full_gradient = true},
                DenseBase(Matrix<double>(support::random_matrix<double>(6, 5, 1))), rng);
  Rng random(7);
  layer.for_each_tensor([&](std::string_view, View<double> tensor) { fill_uniform(tensor, 1, random); });
  CHECK(check_gradients(layer, {.tokens = 5, .pass = {.training = true, .seed = 2}}).passed(1e-8));
}
