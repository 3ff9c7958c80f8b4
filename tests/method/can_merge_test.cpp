// SPDX-License-Identifier: MIT
// Which presets can become one weight, and what the others say.
#include "method/method_checks.hpp"
#include "mole/surgery/merge.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

namespace {

constexpr const char *mergeable = "", *chooses = "chooses experts for each token", *weighs = "gates of its own";

template <class Layer>
void check(const char* name, const Layer& layer, const std::string& obstacle) {
  CAPTURE(name, merge_obstacle(layer));
  CHECK(can_merge(layer) == obstacle.empty());
  CHECK(merge_obstacle(layer).empty() == obstacle.empty());
  CHECK(merge_obstacle(layer).find(obstacle) != std::string::npos);
}

}  // namespace

TEST_CASE("Presets can be merged where every token has all experts with one weight", "[method]") {
  Rng rng(1);
  const auto across = support::random_matrix<double>(11, 13, 3);
  check("lora", lora({}, DenseBase{weight}, rng), mergeable);
  check("loha", loha({}, DenseBase{weight}, rng), mergeable);
  check("oft", oft({.block = 11}, weight, DenseBase{weight}, rng), mergeable);
  check("dora", dora({}, weight, DenseBase{weight}, rng), mergeable);
  check("randlora",
        randlora({},
                 std::make_shared<const DiagonalBases<double>>(
                     DiagonalBases<double>::Options{.rank = 4, .small_side = 11, .large_side = 13}),
                 DenseBase{weight}, rng),
        mergeable);
  check("lokr", lokr({}, DenseBase{weight}, rng), mergeable);
  check("vera", vera({}, FrozenPair<double>::random(4, 11, 13, rng), DenseBase{weight}, rng), mergeable);
  check("adalora", adalora({}, DenseBase{weight}, rng), mergeable);
  check("nola", nola({.bases = 4}, DenseBase{weight}, rng), mergeable);
  check("sora", sora({}, DenseBase{weight}, rng), mergeable);
  check("codyra", codyra({}, DenseBase{weight}, rng), mergeable);
  const auto pool = std::make_shared<const ShardPool<double>>(
      ShardPool<double>::Options{.in = 11, .out = 13, .layers = 1, .pool_rank = 2, .rank = 2, .shards = 1}, rng);
  check("mos", mos({}, pool, DenseBase{weight}, rng), mergeable);
  const auto bank =
      std::make_shared<const VectorBank<double>>(VectorBank<double>::Options{.vectors = 5, .length = 1}, rng);
  check("vblora", vblora({.rank = 3}, bank, DenseBase{weight}, rng), mergeable);

  check("mola", mola({}, DenseBase{weight}, rng), chooses);
  check("noisy_top_k", noisy_top_k({}, DenseBase{weight}, rng), chooses);
  check("goat", goat({}, DenseBase{weight}, rng), chooses);
  check("mola, all", mola({.experts = 4, .k = 4}, DenseBase{weight}, rng), weighs);
  check("loramoe", loramoe({}, DenseBase{weight}, rng), weighs);
  check("hydralora", loramoe({.shared_down = true}, DenseBase{weight}, rng), weighs);
  check("moelora", moelora({}, DenseBase{weight}, rng), weighs);
  check("llava_mole", llava_mole({}, DenseBase{weight}, rng), chooses);
  check("llava_mole, one expert", llava_mole({.experts = 1}, DenseBase{weight}, rng), mergeable);
  check("dynamic_moe", dynamic_moe({}, DenseBase{weight}, rng), chooses);
  check("dynamic_moe, p = 1", dynamic_moe({.p = 1}, DenseBase{weight}, rng), chooses);
  check("mole_threshold", mole_threshold({}, DenseBase{weight}, rng), chooses);
  check("dyn_mole", dyn_mole({}, DenseBase{weight}, rng), chooses);
  check("ada_mole", ada_mole({}, DenseBase{weight}, rng), chooses);
  check("ld_mole", ld_mole({}, DenseBase{weight}, rng), chooses);
  check("deepseek_moe", deepseek_moe({}, DenseBase{weight}, rng), chooses);
  check("deepseek_moe, all", deepseek_moe({.experts = 8, .k = 6}, DenseBase{weight}, rng), weighs);
  check("deepseek_v3", deepseek_v3({}, DenseBase{weight}, rng), chooses);
  check("switch_transformer", switch_transformer({}, DenseBase{weight}, rng), chooses);
  check("expert_choice", expert_choice({}, DenseBase{weight}, rng), chooses);
  check("expert_choice, all", expert_choice({.factor = 8}, DenseBase{weight}, rng), weighs);
  check("promoe", promoe({}, DenseBase{weight}, rng), "excludes experts");

  check("mixlora", mixlora({}, DenseBase{weight}, DenseBase{weight}, DenseBase{across}, rng), "not linear maps");
  check("mixtral", mixtral<double>({.in = 11, .hidden = 7}, rng), "not linear maps");
  check("mofme", mofme({}, DenseBase{weight}, rng), "not linear maps");
  check("compressed_experts", compressed_experts({}, DenseBase{weight}, rng), "not linear maps");
  const auto gates = std::make_shared<ModuleGates<double>>(ModuleGates<double>::Options{.layers = 1, .modules = 2});
  check("diffora", diffora({}, gates, DenseBase{weight}, rng), weighs);
  check("smora", smora({}, DenseBase{weight}, rng), chooses);
  check("smora, k = r", smora({.rank = 8, .k = 8}, DenseBase{weight}, rng), weighs);
  check("flylora", flylora({}, DenseBase{weight}, rng), chooses);
  check("flylora, k = r - 1", flylora({.rank = 8, .k = 7}, DenseBase{weight}, rng), chooses);
  check("flylora, k = r", flylora({.rank = 8, .k = 8}, DenseBase{weight}, rng), mergeable);
  check("moram", moram({.k = 8}, DenseBase{weight}, rng), chooses);
  check("moram, all", moram({}, DenseBase{weight}, rng), weighs);
  check("arrow", arrow({.k = 1}, mola({.experts = 2}, DenseBase{weight}, rng).experts(), DenseBase{weight}), chooses);
  check("poly", poly({}, DenseBase{weight}, rng), "comes from outside");
  check("mtl_lora", mtl_lora({}, DenseBase{weight}, rng), "comes from outside");
}
