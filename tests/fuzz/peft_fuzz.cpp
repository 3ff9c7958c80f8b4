// SPDX-License-Identifier: MIT
// Feeds folders of peft's, described by text (described_files.hpp), to what reads them: every module as its experts and
// as a layer that computes. They load or throw mole::Error. The configuration alone is read, written and read again.
//
//   clang++ -std=c++20 -Iinclude -fsanitize=fuzzer,address,undefined tests/fuzz/peft_fuzz.cpp
//   any compiler: -DMOLE_FUZZ_REPLAY makes a program that runs its seeds and the files given to it
#include "mole/io/peft/peft_config_json.hpp"
#include "mole/io/peft/peft_layers.hpp"
#include "mole/io/peft/read_peft.hpp"

#include "described_files.hpp"
#include "peft_seeds.hpp"
#include "replay.hpp"

namespace {

void read_module(mole::PeftExperts<float>& experts, const std::string& path) {
  attempt([&] { experts.lora(path); });
  attempt([&] { experts.biased_lora(path); });
  attempt([&] { experts.embedding(path); });
  attempt([&] { experts.stacked_lora(path, "w"); });
  attempt([&] { experts.dora(path, {}); });
  attempt([&] { experts.adalora(path); });
  attempt([&] { experts.vera(path, 3); });
  attempt([&] { experts.randlora(path, 3, 4); });
  attempt([&] { experts.loha(path); });
  attempt([&] { experts.lokr(path); });
}

/// Layers of the seeds have 3 inputs and 4 outputs.
void compute(const mole::PeftAdapter& adapter, const std::string& path) {
  static const mole::Matrix<float> weight(4, 3);
  mole::PeftLayers<float> layers(adapter, {.max_tokens = 2, .bases_are_changed = true});
  auto layer = layers.layer(path, mole::DenseBase<mole::View<const float>>{weight});
  mole::Matrix<float> x(2, 3), y(2, 4);
  layer.forward(x, y);
}

/// What is written must be what was read.
void write_again(std::string_view text, const std::string& module) {
  const auto config = mole::PeftConfig::parse(text, "fuzz");
  const auto again = mole::PeftConfig::parse(mole::json_of(config), "own");
  must(config.rank_of(module) == again.rank_of(module), "the same rank");
  must(config.scale_of(module) == again.scale_of(module) || !(config.scale_of(module) == config.scale_of(module)),
       "the same scale");
  must(config.dropout == again.dropout && config.target_modules == again.target_modules, "the same configuration");
  must(mole::json_of(config) == mole::json_of(again), "the same text");
}

}  // namespace

std::vector<std::string> seeds() {
  return peft_seeds();
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const DescribedFiles folder({reinterpret_cast<const char*>(data), size});
  const std::string_view config = folder.text("adapter_config.json");
  attempt([&] { write_again(config, "model.layers.0.q"); });
  bool whole = false;
  const auto read = [&](bool partial) {
    mole::PeftExperts<float> experts(
        mole::read_peft(config, folder.tensors("adapter_model.safetensors"), "fuzz", {.partial = partial}));
    whole = true;
    experts.adapter().report.text();
    for (const mole::PeftModule& module : experts.adapter().modules) {
      read_module(experts, module.path);
      attempt([&] { compute(experts.adapter(), module.path); });
    }
  };
  attempt([&] { read(false); });
  if (!whole) attempt([&] { read(true); });
  return 0;
}
