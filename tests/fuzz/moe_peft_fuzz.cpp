// SPDX-License-Identifier: MIT
// Feeds arbitrary bytes to what reads mixtures of MoE-PEFT: two bytes are the length of a configuration, which follows,
// then a safetensors file; and, as changes of three bytes (where, where, to what), to a folder that is whole. They load
// or throw mole::Error.
//
//   clang++ -std=c++20 -Iinclude -fsanitize=fuzzer,address,undefined tests/fuzz/moe_peft_fuzz.cpp
//   any compiler: -DMOLE_FUZZ_REPLAY makes a program that runs the files given to it
#include "mole/io/moe_peft/moe_peft_layers.hpp"
#include "mole/io/safetensors_writer.hpp"

#include "replay.hpp"

#include <algorithm>
#include <cstdint>

namespace {

void attempt(auto&& call) {
  try {
    call();
  } catch (const mole::Error&) {
  }
}

void read(std::string_view config, std::span<const std::byte> tensors) {
  attempt([&] {
    mole::SafetensorsShards files(mole::SafetensorsReader::from_bytes(tensors, "fuzz"), "fuzz");
    const mole::MoePeftLayers<float> layers(mole::read_moe_peft(config, std::move(files), "fuzz"));
    for (const auto& [path, module] : layers.adapter().modules) {
      attempt([&, &path = path] { layers.bank(path); });
      attempt([&, &path = path] { layers.router(path); });
    }
  });
}

/// MixLoRA of both forms of names.
const std::string whole_config =
    R"({"peft_type": "MIXLORA", "routing_strategy": "mixlora", "r": 1, "lora_alpha": 2, "lora_dropout": 0.1,
        "num_experts": 2, "top_k": 2, "expert_lora": {"r": 2}, "target_modules": ["q_proj", "up_proj", "gate_proj"]})";

std::vector<std::byte> whole_file() {
  mole::SafetensorsWriter writer;
  const mole::Matrix<float> numbers(3, 3);
  const auto add = [&](const std::string& name, mole::Index rows, mole::Index cols) {
    writer.add("mixlora.layers." + name + ".weight", numbers.view().top(rows).middle_cols(0, cols));
  };
  add("0.mlp.moe_gate", 2, 3);
  add("1.gate", 2, 3);
  add("0.self_attn.q_proj.lora_A", 1, 3);
  add("0.self_attn.q_proj.lora_B", 3, 1);
  for (const std::string path :
       {"0.mlp.up_proj.experts.0.", "0.mlp.up_proj.experts.1.", "1.experts.0.w1_proj.", "1.experts.1.w1_proj."}) {
    add(path + "lora_A", 2, 3);
    add(path + "lora_B", 3, 2);
  }
  const auto file = std::filesystem::temp_directory_path() / "mole_moe_peft_fuzz";
  writer.write(file);
  const mole::MappedFile mapped(file);
  return {mapped.bytes().begin(), mapped.bytes().end()};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::vector<std::byte> whole = whole_file();
  if (size < 2) return 0;
  const std::size_t length = std::min(size - 2, std::size_t(data[0]) + 256 * std::size_t(data[1]));
  read({reinterpret_cast<const char*>(data) + 2, length}, std::as_bytes(std::span(data, size)).subspan(2 + length));

  std::string config = whole_config;
  std::vector<std::byte> tensors = whole;
  for (std::size_t at = 0; at + 3 <= size; at += 3) {
    const std::size_t where = (data[at] + 256u * data[at + 1]) % (config.size() + tensors.size());
    if (where < config.size())
      config[where] = char(data[at + 2]);
    else
      tensors[where - config.size()] = std::byte(data[at + 2]);
  }
  read(config, tensors);
  return 0;
}
