// SPDX-License-Identifier: MIT
// An adapter that peft saved becomes part of a checkpoint, and a file that llama.cpp loads; a weight of the checkpoint,
// in half precision, becomes a base without a copy.
#include <mole/io/convert/loras_of.hpp>
#include <mole/io/convert/write_loras.hpp>
#include <mole/io/encode_floats.hpp>
#include <mole/io/peft/merge_peft.hpp>
#include <mole/io/peft/read_peft.hpp>
#include <mole/io/safetensors_weight.hpp>
#include <mole/mole.hpp>

#include <cstdio>
#include <filesystem>

int main() {
  const std::filesystem::path folder = std::filesystem::temp_directory_path() / "mole-guide-convert";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder / "host");
  const std::string q = "model.layers.0.self_attn.q_proj";
  mole::Rng rng(1);
  mole::Matrix<float> weights(32, 64);
  fill_uniform(weights.view(), 1, rng);
  {  // what somebody downloaded, and what somebody trained
    mole::SafetensorsWriter host;
    host.add_bytes(q + ".weight", mole::Dtype::f16, {32, 64}, encode_floats(weights.view(), mole::Dtype::f16));
    host.write(folder / "host" / "model.safetensors");
    auto trained = mole::lora({.rank = 4}, mole::DenseBase{weights}, rng);
    fill_uniform(trained.experts().parameters().lora_B.view(), 1, rng);
    mole::PeftWriter adapter;
    adapter.add(q, trained.experts());
    adapter.write(folder / "adapter");
  }

  const mole::PeftAdapter adapter = mole::read_peft(folder / "adapter");
  const mole::SafetensorsShards host(folder / "host");
  merge_peft(adapter, host, folder / "merged");  // the host's files, with W + scale B A for W

  const mole::PlainLoras loras = mole::loras_of(adapter);
  write_gguf_lora(folder / "adapter.gguf", gguf_lora(loras, "llama"), mole::GgufType::f32, {.q = 4, .k = 2});

  auto weight = std::get<mole::ReducedFloatWeight<mole::Half>>(read_safetensors_weight(host, q + ".weight"));
  auto layer = mole::mola({.experts = 4, .rank = 2}, mole::CodedBase(weight), rng);  // on the file's own bytes

  const mole::SafetensorsShards merged(folder / "merged");
  std::printf("W(0, 0): %.3f, merged %.3f\n", double(layer.base().code()(0, 0)),
              double(merged.matrix<float>(q + ".weight")(0, 0)));
  std::filesystem::remove_all(folder);
}
