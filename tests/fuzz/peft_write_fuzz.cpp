// SPDX-License-Identifier: MIT
// Feeds folders of peft's, described by text (described_files.hpp), to what converts them: what PeftWriter writes of
// one that was read must read back as the same numbers, and plain LoRAs and mixtures become files of layers that read.
//
//   clang++ -std=c++20 -Iinclude -fsanitize=fuzzer,address,undefined tests/fuzz/peft_write_fuzz.cpp
//   any compiler: -DMOLE_FUZZ_REPLAY makes a program that runs its seeds and the files given to it
#include "mole/io/convert/loras_of.hpp"
#include "mole/io/convert/write_loras.hpp"
#include "mole/io/convert/write_mixture_layers.hpp"
#include "mole/io/peft/read_peft.hpp"

#include "described_files.hpp"
#include "peft_seeds.hpp"
#include "replay.hpp"

namespace {

bool same(const mole::PeftTensor& a, const mole::PeftTensor& b) {
  return a.shape() == b.shape() && std::ranges::equal(a.matrix<float>().elements(), b.matrix<float>().elements());
}
bool same(const mole::PeftTensors& a, const mole::PeftTensors& b) {
  return std::ranges::equal(a, b, [](const auto& one, const auto& other) {
    return one.first == other.first && same(one.second, other.second);
  });
}

void write_again(const mole::PeftAdapter& adapter, const std::filesystem::path& folder) {
  static const mole::Matrix<float> weight(4, 3);
  mole::PeftExperts<float> experts(adapter);
  mole::PeftWriter writer({.dropout = adapter.config.dropout, .fan_in_fan_out = adapter.config.fan_in_fan_out});
  for (const mole::PeftModule& module : adapter.modules) {
    if (module.stacked)
      writer.add_stacked(module.path, "w", experts.stacked_lora(module.path, "w"));
    else if (module.has("lora_embedding_A"))
      writer.add_embedding(module.path, experts.embedding(module.path));
    else
      experts.visit(module.path, 3, 4, weight.view(), [&](const auto& found) { writer.add(module.path, found); });
  }
  for (const auto& [name, tensor] : adapter.replaced) writer.replace(name, tensor);
  writer.write(folder);
  const mole::PeftAdapter again = mole::read_peft(folder);
  must(again.modules.size() == adapter.modules.size() && again.report.missing.empty() && again.report.unused.empty(),
       "the modules that were written");
  for (std::size_t m = 0; m < again.modules.size(); ++m) {
    const mole::PeftModule &one = adapter.modules[m], &other = again.modules[m];
    must(one.path == other.path && one.stacked == other.stacked && float(one.scale) == float(other.scale) &&
             same(one.tensors, other.tensors),
         "the module that was written");
  }
  must(same(adapter.shared, again.shared) && same(adapter.replaced, again.replaced), "all tensors that were written");
}

const auto no_base = [](const std::string&, mole::Index in, mole::Index out) { return mole::NoBase<float>(in, out); };

void convert(const mole::PeftAdapter& adapter, const std::filesystem::path& folder) {
  const mole::PlainLoras loras = loras_of(adapter, {.base_is_changed = true});
  attempt([&] {
    write_lora_layers(folder / "layers", loras, no_base);
    mole::LayerReader reader(folder / "layers");
    const mole::PlainLoras again = mole::loras_of(reader);
    must(std::ranges::equal(loras.modules, again.modules,
                            [](const auto& one, const auto& other) {
                              return one.first == other.first && float(one.second.scale) == float(other.second.scale) &&
                                     std::ranges::equal(one.second.a.elements(), other.second.a.elements()) &&
                                     std::ranges::equal(one.second.b.elements(), other.second.b.elements());
                            }),
         "the LoRAs that were written");
  });
  attempt([&] { write_gguf_lora(folder / "gguf", gguf_lora(loras, "qwen2"), mole::GgufType::f16); });
}

}  // namespace

std::vector<std::string> seeds() {
  return peft_seeds();
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const DescribedFiles files({reinterpret_cast<const char*>(data), size});
  attempt([&] {
    const mole::PeftAdapter adapter =
        mole::read_peft(files.text("adapter_config.json"), files.tensors("adapter_model.safetensors"), "fuzz");
    const std::filesystem::path folder = empty_folder();
    if (is_mixture(adapter.config.kind)) {
      write_mixture_layers(folder / "layers", adapter, no_base);
      mole::LayerReader(folder / "layers").read(adapter.modules.front().path, mole::NoBase<float>(3, 4));
      return;
    }
    attempt([&] { write_again(adapter, folder / "again"); });
    attempt([&] { convert(adapter, folder); });
  });
  return 0;
}
