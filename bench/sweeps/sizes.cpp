// SPDX-License-Identifier: MIT
// How the cost of a layer grows with each of its sizes: experts E, chosen experts k, ranks r of an expert, ranks R of
// all experts, threads. One size grows, the others are those of "top-2 of 8" or of "rank-wise 8 of 64"; see
// bench/layers/layer_row.hpp for what is printed. FlyLoRA is measured next to a dense LoRA of as many ranks.
//
// All rows take more than an hour: choose with --benchmark_filter='sweep_E/.*/T:512/d:768'. 1024 experts of width 2048
// have 0.3 GB of parameters, and as much of gradients.
#include "bench/layers/layer_row.hpp"

#include <initializer_list>

namespace {

using bench::Index;
using bench::LayerCase;

/// Adds a row for each shape.
void add(const LayerCase& one, int threads = 1, bool backward = false,
         std::initializer_list<Index> tokens = {1, 16, 512}) {
  for (const Index d : {768, 2048})
    for (const Index count : tokens) bench::add_layer_row({one, count, d, threads, backward});
}

/// The cost of rank-wise experts depends on what is active, not on what exists: forward, and with backward.
void add_rank_wise(const LayerCase& one) {
  for (const bool backward : {false, true}) add(one, 1, backward, {1, 16, 64, 512, 2048});
}

void add_flylora_beside_lora() {
  LayerCase lora = bench::layer_case("lora");
  lora.name = "lora32";
  lora.rank = 32;
  LayerCase flylora = bench::layer_case("flylora");
  flylora.name = "flylora_beside_lora";
  for (const bool backward : {false, true})
    for (const Index d : {768, 2048, 4096})
      for (const Index tokens : {1, 2, 4, 8, 16, 64, 512, 2048})
        bench::add_layer_row({flylora, tokens, d, 1, backward, lora});
}

/// A layer case under another name, and with one size of its own.
LayerCase grown(std::string_view from, std::string_view name, Index LayerCase::*size, Index value) {
  LayerCase one = bench::layer_case(from);
  one.name = name;
  one.*size = value;
  return one;
}

[[maybe_unused]] const bool registered = [] {
  for (const bool backward : {false, true})
    for (const Index experts : {8, 16, 64, 256, 1024})
      add(grown("top2", "sweep_E", &LayerCase::experts, experts), 1, backward);
  for (const Index chosen : {1, 2, 4, 8}) add(grown("top2", "sweep_k", &LayerCase::chosen, chosen));
  for (const Index rank : {4, 8, 16, 64}) add(grown("top2", "sweep_r", &LayerCase::rank, rank));
  for (const Index ranks : {64, 256, 1024}) add_rank_wise(grown("rankwise", "sweep_R", &LayerCase::experts, ranks));
  for (const Index chosen : {1, 2, 4, 8, 16, 32, 64})
    add_rank_wise(grown("rankwise", "sweep_k_of_64", &LayerCase::chosen, chosen));
  add_flylora_beside_lora();
  for (const char* name : {"plain", "top2"})
    for (const int threads : {1, 2, 3, 4}) {
      LayerCase one = bench::layer_case(name);
      one.name = name == std::string_view("plain") ? "sweep_threads_plain" : "sweep_threads_top2";
      add(one, threads);
    }
  return true;
}();

}  // namespace
