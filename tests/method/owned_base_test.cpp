// SPDX-License-Identifier: MIT
// A preset reads the sizes of its base, and takes the base: in that order by every compiler, or a base that owns its
// weight would have been moved from.
#include "mole/mole.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

using namespace mole;

namespace {

auto owned_base() {
  return DenseBase(support::random_matrix<float>(16, 24, 1));
}

void check_sizes_of(const auto& layer) {
  CHECK(layer.in() == 24);
  CHECK(layer.out() == 16);
}

}  // namespace

TEST_CASE("Every preset takes a base that owns its weight", "[method]") {
  Rng rng(1);
  check_sizes_of(ada_mole({}, owned_base(), rng));
  check_sizes_of(adalora({}, owned_base(), rng));
  check_sizes_of(codyra({}, owned_base(), rng));
  check_sizes_of(compressed_experts({}, owned_base(), rng));
  check_sizes_of(deepseek_moe({}, owned_base(), rng));
  check_sizes_of(dyn_mole({}, owned_base(), rng));
  check_sizes_of(dynamic_moe({}, owned_base(), rng));
  check_sizes_of(expert_choice({}, owned_base(), rng));
  check_sizes_of(flylora({}, owned_base(), rng));
  check_sizes_of(goat({}, owned_base(), rng));
  check_sizes_of(ld_mole({}, owned_base(), rng));
  check_sizes_of(llava_mole({}, owned_base(), rng));
  check_sizes_of(loha({}, owned_base(), rng));
  check_sizes_of(lokr({}, owned_base(), rng));
  check_sizes_of(lora({}, owned_base(), rng));
  check_sizes_of(loramoe({}, owned_base(), rng));
  check_sizes_of(moelora({}, owned_base(), rng));
  check_sizes_of(mola({}, owned_base(), rng));
  check_sizes_of(mole_threshold({}, owned_base(), rng));
  check_sizes_of(moram({}, owned_base(), rng));
  check_sizes_of(mtl_lora({}, owned_base(), rng));
  check_sizes_of(noisy_top_k({}, owned_base(), rng));
  check_sizes_of(nola({}, owned_base(), rng));
  check_sizes_of(poly({}, owned_base(), rng));
  check_sizes_of(promoe({}, owned_base(), rng));
  check_sizes_of(smora({}, owned_base(), rng));
  check_sizes_of(sora({}, owned_base(), rng));
  check_sizes_of(switch_transformer({}, owned_base(), rng));
}
