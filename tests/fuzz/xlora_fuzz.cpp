// SPDX-License-Identifier: MIT
// Feeds arbitrary bytes to what reads X-LoRA: two bytes are the length of a configuration, which follows, then a
// safetensors file of the classifier; and, as changes of three bytes (where, where, to what), to both of a whole
// folder. They load or throw mole::Error.
//
//   clang++ -std=c++20 -Iinclude -fsanitize=fuzzer,address,undefined tests/fuzz/xlora_fuzz.cpp
//   any compiler: -DMOLE_FUZZ_REPLAY makes a program that runs the files given to it
#include "mole/io/safetensors_writer.hpp"
#include "mole/io/xlora/xlora_layers.hpp"

#include "replay.hpp"

#include <algorithm>
#include <cstdint>

namespace {

const std::string whole_config =
    R"({"adapters": {"a": "a", "b": "b"}, "hidden_size": 3, "xlora_depth": 2, "layerwise_scalings": true,
        "enable_softmax": true, "enable_softmax_topk": false, "top_k_lora": 2, "scaling_pass_value": null})";

std::vector<std::byte> written(const mole::SafetensorsWriter& writer) {
  const auto file = std::filesystem::temp_directory_path() / "mole_xlora_fuzz";
  writer.write(file);
  const mole::MappedFile mapped(file);
  return {mapped.bytes().begin(), mapped.bytes().end()};
}
std::vector<std::byte> whole_classifier() {
  mole::SafetensorsWriter writer;
  const mole::Matrix<float> numbers(4, 4);
  writer.add("inner.0.weight", numbers.view().middle_cols(0, 3));
  writer.add_vector("inner.0.bias", numbers.view().row(0));
  writer.add("last.weight", numbers.view());
  return written(writer);
}
std::vector<mole::PeftAdapter> two_adapters() {
  static const std::vector<std::byte> bytes = [] {
    mole::SafetensorsWriter writer;
    const mole::Matrix<float> numbers(2, 2);
    writer.add("base_model.model.q.lora_A.weight", numbers.view());
    writer.add("base_model.model.q.lora_B.weight", numbers.view());
    return written(writer);
  }();
  static const mole::PeftAdapter adapter = mole::read_peft(
      R"({"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q"]})",
      mole::SafetensorsShards(mole::SafetensorsReader::from_bytes(bytes, "adapter"), "adapter"), "adapter");
  return {adapter, adapter};
}

void read(std::string_view config, std::span<const std::byte> classifier) try {
  mole::SafetensorsShards files(mole::SafetensorsReader::from_bytes(classifier, "fuzz"), "fuzz");
  const mole::XloraAdapter adapter = mole::read_xlora(config, std::move(files), two_adapters(), "fuzz");
  mole::xlora_bank<float>(adapter, "q");
  mole::xlora_routing<float>(adapter);
} catch (const mole::Error&) {
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::vector<std::byte> whole = whole_classifier();
  if (size < 2) return 0;
  const std::size_t length = std::min(size - 2, std::size_t(data[0]) + 256 * std::size_t(data[1]));
  read({reinterpret_cast<const char*>(data) + 2, length}, std::as_bytes(std::span(data, size)).subspan(2 + length));

  std::string config = whole_config;
  std::vector<std::byte> classifier = whole;
  for (std::size_t at = 0; at + 3 <= size; at += 3) {
    const std::size_t where = (data[at] + 256u * data[at + 1]) % (config.size() + classifier.size());
    if (where < config.size())
      config[where] = char(data[at + 2]);
    else
      classifier[where - config.size()] = std::byte(data[at + 2]);
  }
  read(config, classifier);
  return 0;
}
