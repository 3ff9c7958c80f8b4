// SPDX-License-Identifier: MIT
// Which presets can become one weight, and what the others say.
#include "method/method_checks.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

namespace {

constexpr const char *mergeable = "", *chooses = "chooses experts for each token", *weighs = "weights of its own";

template <class Layer>
void check(const char* name, const Layer& layer, const std::string& obstacle) {
  CAPTURE(name, layer.merge_obstacle());
  CHECK(layer.can_merge() == obstacle.empty());
  CHECK(layer.merge_obstacle().empty() == obstacle.empty());
  CHECK(layer.merge_obstacle().find(obstacle) != std::string::npos);
}

}  // namespace

TEST_CASE("Presets can be merged where every token has all experts with one weight", "[method]") {
  Rng rng(1);
  using T = double;
  const Index in = 11, out = 13;
  check("lora", lora<T>({.in = in, .out = out}, weight, rng), mergeable);
  check("sora", sora<T>({.in = in, .out = out}, weight, rng), mergeable);
  check("codyra", codyra<T>({.in = in, .out = out}, weight, rng), mergeable);

  check("mola", mola<T>({.in = in, .out = out}, weight, rng), chooses);
  check("mola, all", mola<T>({.in = in, .out = out, .experts = 4, .k = 4}, weight, rng), weighs);
  check("loramoe", loramoe<T>({.in = in, .out = out}, weight, rng), weighs);
  check("hydralora", loramoe<T>({.in = in, .out = out, .shared_down = true}, weight, rng), weighs);
  check("llava_mole", llava_mole<T>({.in = in, .out = out}, weight, rng), chooses);
  check("llava_mole, one expert", llava_mole<T>({.in = in, .out = out, .experts = 1}, weight, rng), mergeable);
  check("dynamic_moe", dynamic_moe<T>({.in = in, .out = out}, weight, rng), chooses);
  check("dynamic_moe, p = 1", dynamic_moe<T>({.in = in, .out = out, .p = 1}, weight, rng), chooses);
  check("mole_threshold", mole_threshold<T>({.in = in, .out = out}, weight, rng), chooses);
  check("dyn_mole", dyn_mole<T>({.in = in, .out = out}, weight, rng), chooses);
  check("ada_mole", ada_mole<T>({.in = in, .out = out}, weight, rng), chooses);
  check("ld_mole", ld_mole<T>({.in = in, .out = out}, weight, rng), chooses);
  check("deepseek_moe", deepseek_moe<T>({.in = in, .out = out}, weight, rng), chooses);
  check("deepseek_moe, all", deepseek_moe<T>({.in = in, .out = out, .experts = 8, .k = 6}, weight, rng), weighs);
  check("deepseek_v3", deepseek_v3<T>({.in = in, .out = out}, weight, rng), chooses);

  check("smora", smora<T>({.in = in, .out = out}, weight, rng), chooses);
  check("smora, k = r", smora<T>({.in = in, .out = out, .rank = 8, .k = 8}, weight, rng), weighs);
  check("flylora", flylora<T>({.in = in, .out = out}, weight, rng), chooses);
  check("flylora, k = r - 1", flylora<T>({.in = in, .out = out, .rank = 8, .k = 7}, weight, rng), chooses);
  check("flylora, k = r", flylora<T>({.in = in, .out = out, .rank = 8, .k = 8}, weight, rng), mergeable);
  check("moram", moram<T>({.in = in, .out = out, .k = 8}, weight, rng), chooses);
  check("moram, all", moram<T>({.in = in, .out = out}, weight, rng), weighs);
}
