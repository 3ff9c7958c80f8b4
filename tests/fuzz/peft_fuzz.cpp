// SPDX-License-Identifier: MIT
// Feeds arbitrary bytes to what reads adapters of peft: two bytes are the length of a configuration, which follows,
// then a safetensors file, which is also taken for the path of a module and for an index. They load or throw
// mole::Error.
//
//   clang++ -std=c++20 -Iinclude -fsanitize=fuzzer,address,undefined tests/fuzz/peft_fuzz.cpp
//   any compiler: -DMOLE_FUZZ_REPLAY makes a program that runs the files given to it
#include "mole/base/no_base.hpp"
#include "mole/io/peft/peft_config_json.hpp"
#include "mole/io/peft/peft_experts.hpp"
#include "mole/io/peft/peft_layers.hpp"
#include "mole/io/peft/read_peft.hpp"

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

void read_module(mole::PeftExperts<float>& experts, const std::string& path) {
  attempt([&] { experts.lora(path); });
  attempt([&] { experts.biased_lora(path); });
  attempt([&] { experts.embedding(path); });
  attempt([&] { experts.stacked_lora(path, "w"); });
  attempt([&] { experts.dora(path, {}); });
  attempt([&] { experts.adalora(path); });
  attempt([&] { experts.vera(path, 2); });
  attempt([&] { experts.randlora(path, 2, 3); });
  attempt([&] { experts.loha(path); });
  attempt([&] { experts.lokr(path); });
  attempt([&] { mole::PeftLayers<float>(experts.adapter()).layer(path, mole::NoBase<float>(2, 3)); });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const std::size_t length = std::min(size - 2, std::size_t(data[0]) + 256 * std::size_t(data[1]));
  const std::string_view config(reinterpret_cast<const char*>(data) + 2, length);
  const auto tensors = std::as_bytes(std::span(data, size)).subspan(2 + length);
  attempt([&] {
    const auto parsed = mole::PeftConfig::parse(config, "fuzz");
    parsed.scale_of({reinterpret_cast<const char*>(tensors.data()), std::min<std::size_t>(tensors.size(), 200)});
    mole::PeftConfig::parse(mole::json_of(parsed), "own");
  });
  for (const bool partial : {false, true})
    attempt([&] {
      mole::SafetensorsShards files(mole::SafetensorsReader::from_bytes(tensors, "fuzz"), "fuzz");
      mole::PeftExperts<float> experts(mole::read_peft(config, std::move(files), "fuzz", {.partial = partial}));
      for (const mole::PeftModule& module : experts.adapter().modules) read_module(experts, module.path);
    });
  return 0;
}
