// SPDX-License-Identifier: MIT
// Two layers, their optimizer and where the run was, in one file and back.
#include <mole/io/checkpoint.hpp>
#include <mole/mole.hpp>

#include <cstdio>
#include <filesystem>

int main() {
  const std::filesystem::path path = std::filesystem::temp_directory_path() / "mole-guide-io.safetensors";
  mole::Rng rng(1);
  mole::Matrix<float> weights(16, 16);
  fill_uniform(weights.view(), 1, rng);
  auto q = mole::mola({.experts = 4}, mole::DenseBase{weights}, rng), k = q;
  auto q_gradients = q.gradients(), k_gradients = k.gradients();
  mole::AdamW adamw;
  const auto walk = [&](auto&& f) {  // f("q.router.weight", parameter, gradient), ... "k.experts.lora_B"
    for_each_tensor_within("q", q, f, q_gradients);
    for_each_tensor_within("k", k, f, k_gradients);
  };
  adamw.step(walk);

  mole::CheckpointWriter writer;
  writer.add_parameters("parameters", walk);
  writer.add_optimizer("adamw", adamw);
  writer.add_state("q", q);  // scales, biases, frozen projections
  writer.add_state("k", k);
  writer.add_rng("rng", rng);
  writer.write(path);  // beside the file, then renamed: an old checkpoint is never half overwritten

  fill(q.router().parameters().weight.view(), 0);
  const mole::CheckpointReader reader(path);
  reader.read_parameters("parameters", walk);
  reader.read_optimizer("adamw", adamw, walk);
  reader.read_state("q", q);
  reader.read_state("k", k);
  reader.read_rng("rng", rng);
  std::filesystem::remove(path);
  const bool same = q.router().parameters().weight(0, 0) == k.router().parameters().weight(0, 0);
  std::printf("resumed after step %td, router %s\n", adamw.steps(), same ? "restored" : "lost");
  return same ? 0 : 1;
}
