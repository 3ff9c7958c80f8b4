// SPDX-License-Identifier: MIT
// A layer of LoRA experts on weights as they lie in a GGUF file and in a state dict of bitsandbytes.
#include <mole/io/bitsandbytes.hpp>
#include <mole/io/gguf/gguf_lora.hpp>
#include <mole/io/gguf/gguf_weight.hpp>
#include <mole/io/safetensors_shards.hpp>
#include <mole/mole.hpp>

#include <cstdio>
#include <filesystem>

int main() {
  const std::filesystem::path folder = std::filesystem::temp_directory_path() / "mole-guide-stored-bases";
  std::filesystem::create_directories(folder);
  const std::string q = "model.layers.0.self_attn.q_proj.weight", gguf_q = "blk.0.attn_q.weight";
  mole::Rng rng(1);
  mole::Matrix<float> weights(32, 64), x(4, 64), y(4, 32);
  fill_uniform(weights.view(), 1, rng);
  fill_uniform(x.view(), 1, rng);
  {  // what somebody downloaded
    mole::GgufWriter model;
    model.add(gguf_q, weights, mole::GgufType::q8_0);
    model.write(folder / "model.gguf");
    mole::SafetensorsWriter state;
    add_bitsandbytes(state, q, mole::Nf4Weight(weights, {.double_quantized = true}));
    state.write(folder / "model.safetensors");
  }

  const mole::GgufReader model(folder / "model.gguf");
  auto stored = std::get<mole::Q8Weight>(mole::read_gguf_weight(model, gguf_q));  // the file's own bytes
  auto layer = mole::mola({.experts = 4, .rank = 2, .k = 2}, mole::CodedBase(std::move(stored)), rng);

  const mole::SafetensorsShards shards(folder);  // or of model-00001-of-00003.safetensors ... with their index
  auto weight = std::get<mole::Nf4Weight>(mole::read_bitsandbytes(shards, q).weight);
  auto qlora = mole::lora({.rank = 8}, mole::CodedBase(std::move(weight)), rng);

  mole::GgufLora adapter{.architecture = "llama"};  // an expert for llama.cpp: --lora expert.gguf
  adapter.adapters[gguf_q] = {adapters_of(layer.experts())[2]};
  write_gguf_lora(folder / "expert.gguf", adapter, mole::GgufType::f16);

  auto work = layer.workspace(4);
  layer.forward(x, y, work);
  std::printf("Q8_0: %.3f\n", double(y(0, 0)));
  auto qlora_work = qlora.workspace(4);
  qlora.forward(x, y, qlora_work);
  std::printf("NF4: %.3f\n", double(y(0, 0)));
  std::filesystem::remove_all(folder);
}
