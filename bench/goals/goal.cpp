// SPDX-License-Identifier: MIT
#include "bench/goals/goal.hpp"

namespace bench {

const std::vector<Goal>& goals() {
  constexpr Bound least = Bound::at_least, most = Bound::at_most;
  static const std::vector<Goal> table{
      {"plain, of FMA peak", least, share_of_flops, "plain", 64, {0.94, 0.94, 0.95}},
      {"plain, of FMA peak", least, share_of_flops, "plain", 512, {0.94, 0.94, 0.95}},
      {"plain, of FMA peak", least, share_of_flops, "plain", 2048, {0.94, 0.94, 0.95}},
      {"plain, of roofline", least, share_of_roofline, "plain", 8, {0.95, 0.95, 0.85}},
      {"plain, of roofline", least, share_of_roofline, "plain", 16, {0.95, 0.95, 0.90}},
      {"plain, of bandwidth", least, share_of_bandwidth, "plain", 1, {0.85, 0.90, 0.90}},
      {"top-2 / plain", most, over_plain, "top2", 512, {1.12, 1.05, 1.03}},
      {"top-2 / plain", most, over_plain, "top2", 2048, {1.12, 1.05, 1.03}},
      {"dense 8 / plain", most, over_plain, "dense8", 512, {1.38, 1.15, 1.08}},
      {"rank-wise 8 of 64 / plain", most, over_plain, "rankwise", 512, {1.14, 1.06, 1.03}},
      {"FlyLoRA / plain", most, over_plain, "flylora", 512, {1.05, 1.03, 1.01}},
      {"top-p / plain", most, over_plain, "topp", 512, {1.20, 1.08, 1.04}},
      {"top-2 forward + backward / 2 plain", most, both_ways_over_plain, "top2", 512, {1.18, 1.08, 1.05}},
      {"bf16, times as fast as f32", least, times_faster_than_f32, "bf16", 1, {0, 1.9, 1.9}},
      {"int8 rows, times as fast as f32", least, times_faster_than_f32, "int8_row", 1, {0, 3.5, 3.5}},
      {"int8 blocks, times as fast as f32", least, times_faster_than_f32, "int8_block", 1, {0, 3.5, 3.5}},
      {"nf4, times as fast as f32", least, times_faster_than_f32, "nf4", 1, {0, 5, 5}},
      {"E 1024 / E 8, k = 2, routing apart", most, growth_with_experts, "top2", 1, {1.05, 1.05, 0}},
      {"E 1024 / E 8, k = 2, routing apart", most, growth_with_experts, "top2", 512, {1.05, 1.05, 0}},
      {"R 1024 / R 64, k = 8, routing apart", most, growth_with_ranks, "rankwise", 1, {1.05, 1.05, 0}},
      {"R 1024 / R 64, k = 8, routing apart", most, growth_with_ranks, "rankwise", 512, {1.05, 1.05, 0}},
      {"plain, 2 threads, times as fast", least, two_threads_over_one, "plain", 16, {1.9, 1.9, 1.9}},
      {"plain, 2 threads, times as fast", least, two_threads_over_one, "plain", 512, {1.9, 1.9, 1.9}},
      {"top-2, 2 threads, times as fast", least, two_threads_over_one, "top2", 16, {1.9, 1.9, 1.9}},
      {"top-2, 2 threads, times as fast", least, two_threads_over_one, "top2", 512, {1.9, 1.9, 1.9}},
      {"top-2, 5 threads, speed of 2", least, five_threads_over_two, "top2", 16, {0.8, 0.8, 0.8}},
      {"top-2, 5 threads, speed of 2", least, five_threads_over_two, "top2", 512, {0.8, 0.8, 0.8}},
  };
  return table;
}

}  // namespace bench
