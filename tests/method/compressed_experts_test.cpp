// SPDX-License-Identifier: MIT
#include "mole/method/compressed_experts.hpp"

#include "core/error_code.hpp"
#include "method/method_checks.hpp"
#include "support/catch.hpp"

#include <functional>

using namespace mole;
using namespace method_checks;

TEST_CASE("A fresh compressed_experts is the mixture of its main experts alone", "[method]") {
  Rng rng(1), same(1);
  const auto layer =
      support::with_random_b(compressed_experts({.experts = 6, .main = 2, .auxiliary = 3}, DenseBase{weight}, rng));
  auto fresh = compressed_experts({.experts = 6, .main = 2, .auxiliary = 3}, DenseBase{weight}, same);
  fresh.experts().main_experts() = layer.experts().main_experts();
  const MixtureLinear main{fresh.router(), Gate{Softmax{}, TopK{2}, Raw{}}, layer.experts().main_experts(),
                           DenseBase{weight}};
  CHECK(support::same_bits(support::output(fresh, tokens), support::output(main, tokens)));
  CHECK(support::largest_difference(support::output(layer, tokens), support::output(main, tokens)) > 1e-3);
}

TEST_CASE("Gates of compressed_experts are probabilities, or shares of all chosen; the main ones get no more",
          "[method]") {
  Rng rng(1);
  const auto main_sum = [](const auto& layer) {
    auto work = layer.workspace(tokens.rows());
    layer.route(tokens, work);
    double most = 0;
    for (Index n = 0; n < tokens.rows(); ++n) {
      const auto gates = std::as_const(work.routing).gates_of(n);
      CHECK(gates.size() == 4);
      CHECK(std::ranges::is_sorted(gates, std::greater()));
      double all = 0;
      for (double gate : gates) all += gate;
      most = std::max(most, all);
    }
    return most;
  };
  CHECK(main_sum(compressed_experts({}, DenseBase{weight}, rng)) < 0.99);
  CHECK(std::abs(main_sum(compressed_experts<CompressedGates::renormalized>({}, DenseBase{weight}, rng)) - 1) < 1e-14);
}

TEST_CASE("compressed_experts has exact gradients, and refuses more experts than there are", "[method]") {
  Rng rng(1);
  CHECK(gradient_error(compressed_experts({.experts = 5, .rank = 2, .dropout = 0.2}, DenseBase{weight}, rng)) < 1e-8);
  CHECK(gradient_error(compressed_experts<CompressedGates::renormalized>({.experts = 5, .rank = 2}, DenseBase{weight},
                                                                         rng)) < 1e-8);
  CHECK(test::code_of([&] { compressed_experts({.experts = 3}, DenseBase{weight}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { compressed_experts({.main = 0}, DenseBase{weight}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { compressed_experts({.auxiliary = -1}, DenseBase{weight}, rng); }) == ErrorCode::option);
}
