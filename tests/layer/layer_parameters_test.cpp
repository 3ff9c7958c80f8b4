// SPDX-License-Identifier: MIT
#include "mole/layer/layer_parameters.hpp"

#include "support/catch.hpp"
#include "support/layers.hpp"

using namespace mole;

TEST_CASE("A layer's tensors are named by role, and those that it does not have are passed over", "[layer]") {
  const auto names = [](auto layer) {
    std::vector<std::string> found;
    layer.for_each_tensor([&](std::string_view name, auto) { found.emplace_back(name); });
    return found;
  };
  using Names = std::vector<std::string>;
  CHECK(names(support::routed_layer<float>({.bias = true}, support::top_2())) ==
        Names{"router.weight", "router.bias", "experts.lora_A", "experts.lora_B", "base.weight"});
  Rng rng(1);
  const Matrix<float> weight(13, 11);
  CHECK(names(lora({}, DenseBase{weight}, rng)) == Names{"experts.lora_A", "experts.lora_B"});
}
