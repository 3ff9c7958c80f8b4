// SPDX-License-Identifier: MIT
// Feeds folders of X-LoRA, described by text (described_files.hpp), to what reads them, with two adapters. They load or
// throw mole::Error; what loads is written in both layouts, and reads as the same.
//
//   clang++ -std=c++20 -Iinclude -fsanitize=fuzzer,address,undefined tests/fuzz/xlora_fuzz.cpp
//   any compiler: -DMOLE_FUZZ_REPLAY makes a program that runs its seeds and the files given to it
#include "mole/io/xlora/write_xlora.hpp"
#include "mole/io/xlora/xlora_layers.hpp"

#include "described_files.hpp"
#include "replay.hpp"

namespace {

std::vector<mole::PeftAdapter> two_adapters() {
  static const DescribedFiles files(
      "= a.safetensors\nF32 2 2 base_model.model.q.lora_A.weight\nF32 2 2 base_model.model.q.lora_B.weight\n");
  static const mole::PeftAdapter adapter =
      mole::read_peft(R"({"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q"]})",
                      files.tensors("a.safetensors"), "adapter");
  return {adapter, adapter};
}

void write_again(const mole::XloraAdapter& adapter, mole::XloraLayout layout) {
  const std::filesystem::path folder = empty_folder() / "again";
  mole::XloraConfig config = adapter.config;
  if (config.adapters.empty()) config.adapters = {"a", "b"};
  mole::write_xlora(folder, config, mole::xlora_classifier<float>(adapter), {.layout = layout});
  const mole::XloraAdapter again = mole::read_xlora(folder, two_adapters());
  must(again.classifier.size() == adapter.classifier.size() && again.layers == adapter.layers &&
           again.config.k == adapter.config.k && again.config.temperature == adapter.config.temperature,
       "the configuration that was written");
  for (std::size_t l = 0; l < again.classifier.size(); ++l)
    must(std::ranges::equal(again.classifier[l].weight.matrix<float>().elements(),
                            adapter.classifier[l].weight.matrix<float>().elements()),
         "the classifier that was written");
}

}  // namespace

std::vector<std::string> seeds() {
  const std::string config = R"("adapters": {"a": "a", "b": "b"}, "hidden_size": 3, "xlora_depth": 2,
"layerwise_scalings": true, "enable_softmax": true, "enable_softmax_topk": false, "top_k_lora": 2,
"scaling_pass_value": null})";
  const std::string peft = "base_model.internal_xlora_classifier.layers.";
  return {"= config.json\n{" + config + "\n= classifier.safetensors\nF32 4 3 inner.0.weight\nF32 4 inner.0.bias\n" +
              "F32 4 4 last.weight\n",
          "= config.json\n{\"peft_type\": \"XLORA\", " + config + "\n= classifier.safetensors\nF32 4 3 " + peft +
              "0.weight\nF32 4 " + peft + "0.bias\nF32 4 4 " + peft + "3.weight\nF32 4 " + peft + "3.bias\n"};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const DescribedFiles files({reinterpret_cast<const char*>(data), size});
  attempt([&] {
    const mole::XloraAdapter adapter =
        mole::read_xlora(files.text("config.json"), files.tensors("classifier.safetensors"), two_adapters(), "fuzz");
    mole::xlora_bank<float>(adapter, "q");
    mole::xlora_routing<float>(adapter);
    for (const auto layout : {mole::XloraLayout::official, mole::XloraLayout::peft})
      attempt([&] { write_again(adapter, layout); });
  });
  return 0;
}
