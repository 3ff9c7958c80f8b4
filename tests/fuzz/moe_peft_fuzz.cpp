// SPDX-License-Identifier: MIT
// Feeds folders of MoE-PEFT's, described by text (described_files.hpp), to what reads them: modules as layers and
// blocks that compute, and as files of layers. They load or throw mole::Error; what loads is written, and reads as the
// same.
//
//   clang++ -std=c++20 -Iinclude -fsanitize=fuzzer,address,undefined tests/fuzz/moe_peft_fuzz.cpp
//   any compiler: -DMOLE_FUZZ_REPLAY makes a program that runs its seeds and the files given to it
#include "mole/io/convert/write_mixture_layers.hpp"
#include "mole/io/moe_peft/moe_peft_config_json.hpp"
#include "mole/io/moe_peft/moe_peft_writer.hpp"

#include "described_files.hpp"
#include "replay.hpp"

namespace {

bool same(const std::optional<mole::PeftTensor>& a, const std::optional<mole::PeftTensor>& b) {
  return a.has_value() == b.has_value() &&
         (!a || (a->shape() == b->shape() &&
                 std::ranges::equal(a->matrix<float>().elements(), b->matrix<float>().elements())));
}
bool same(const mole::MoePeftPair& a, const mole::MoePeftPair& b) {
  return same(a.a, b.a) && same(a.b, b.b);
}

void write_again(const mole::MoePeftLayers<float>& layers, const std::filesystem::path& folder) {
  const mole::MoePeftAdapter& adapter = layers.adapter();
  mole::MoePeftWriter writer(adapter.config);
  for (const auto& [path, module] : adapter.modules) {
    const bool experts = module.single || !module.experts.empty();
    if (module.gate && experts)
      writer.add(path, layers.bank(path), layers.router(path));
    else if (experts)
      writer.add(path, layers.bank(path));
    else
      writer.add_router(path, layers.router(path));
  }
  writer.write(folder);
  const mole::MoePeftAdapter again = mole::read_moe_peft(folder);
  must(again.modules.size() == adapter.modules.size() && again.report.unused.empty(), "the modules that were written");
  for (const auto& [path, module] : adapter.modules) {
    const mole::MoePeftModule& other = again.at(path);
    must(same(module.gate, other.gate) && module.single.has_value() == other.single.has_value() &&
             (!module.single || same(*module.single, *other.single)) &&
             std::ranges::equal(module.experts, other.experts, [](const auto& a, const auto& b) { return same(a, b); }),
         "the module that was written");
  }
}

/// Modules of the seeds have 3 inputs and outputs.
void compute(const mole::MoePeftLayers<float>& layers, const std::string& path) {
  const mole::NoBase<float> base(3, 3);
  mole::Matrix<float> x(1, 3), y(1, 3);
  attempt([&] { layers.layer(path, base).forward(x, y); });
  attempt([&] { layers.block(path, base, base, base).forward(x, y); });
}

}  // namespace

std::vector<std::string> seeds() {
  const std::string sizes = R"("r": 1, "lora_alpha": 2, "lora_dropout": 0.1, "num_experts": 2, "top_k": 2,
"target_modules": ["q_proj", "up_proj", "gate_proj"])";
  const auto pair = [](const std::string& path, const char* rank) {
    return "F32 " + std::string(rank) + " 3 " + path + ".lora_A.weight\nF32 3 " + rank + " " + path +
           ".lora_B.weight\n";
  };
  const auto folder = [&](const std::string& type, const std::string& strategy, const std::string& tensors) {
    return "= adapter_config.json\n{\"peft_type\": \"" + type + "\", \"routing_strategy\": \"" + strategy + "\", " +
           sizes + "}\n= adapter_model.safetensors\n" + tensors;
  };
  std::vector<std::string> seeds;
  const std::string block = "mixlora.layers.0.mlp.";
  for (const char* const strategy : {"mixlora", "mixlora-dynamic", "mixlora-switch"})
    seeds.push_back(folder("MIXLORA", strategy,
                           "F32 2 3 " + block + "moe_gate.weight\n" + pair("mixlora.layers.0.self_attn.q_proj", "1") +
                               pair(block + "up_proj.experts.0", "1") + pair(block + "up_proj.experts.1", "1")));
  seeds.push_back(folder("MIXLORA", "mixtral",
                         "F32 2 3 mixlora.layers.1.gate.weight\n" + pair("mixlora.layers.1.experts.0.w1_proj", "1") +
                             pair("mixlora.layers.1.experts.1.w1_proj", "1")));
  for (const auto& [type, name] : {std::pair{"MOLA", "mola"}, {"LORAMOE", "loramoe"}, {"DYNMOLE", "dynmole"}}) {
    const std::string module = std::string(name) + ".layers.0.self_attn.q_proj.";
    seeds.push_back(folder(type, name,
                           "BF16 2 3 " + module + "moe_gate.weight\n" + pair(module + "experts.0", "1") +
                               pair(module + "experts.1", "1")));
  }
  return seeds;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const DescribedFiles files({reinterpret_cast<const char*>(data), size});
  attempt([&] {
    const auto config = mole::MoePeftConfig::parse(files.text("adapter_config.json"), "fuzz");
    const std::string text = mole::json_of(config);
    must(text == mole::json_of(mole::MoePeftConfig::parse(text, "own")), "the configuration that was written");
    const mole::MoePeftLayers<float> layers(
        mole::read_moe_peft(files.text("adapter_config.json"), files.tensors("adapter_model.safetensors"), "fuzz"));
    for (const auto& [path, module] : layers.adapter().modules) compute(layers, path);
    const std::filesystem::path folder = empty_folder();
    attempt([&] { write_again(layers, folder / "again"); });
    attempt([&] {
      write_mixture_layers(
          folder / "layers", layers.adapter(),
          [](const std::string&, mole::Index in, mole::Index out) { return mole::NoBase<float>(in, out); });
      mole::LayerReader reader(folder / "layers");
      must(!reader.names().empty(), "layers");
    });
  });
  return 0;
}
