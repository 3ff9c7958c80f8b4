// SPDX-License-Identifier: MIT
// Feeds folders, described by text (described_files.hpp), to what reads checkpoints in shards, writes them again, and
// merges an adapter of peft into them. What is written must have the tensors that were read.
//
//   clang++ -std=c++20 -Iinclude -fsanitize=fuzzer,address,undefined tests/fuzz/merge_fuzz.cpp
//   any compiler: -DMOLE_FUZZ_REPLAY makes a program that runs its seeds and the files given to it
#include "mole/io/peft/merge_peft.hpp"
#include "mole/io/peft/read_peft.hpp"
#include "mole/io/safetensors_weight.hpp"

#include "described_files.hpp"
#include "peft_seeds.hpp"
#include "replay.hpp"

namespace {

/// Of the same names and shapes; and of the same bytes, but for those that are `changed`.
void compare(const mole::SafetensorsShards& one, const mole::SafetensorsShards& other,
             const std::vector<std::string>& changed) {
  must(one.tensors().size() == other.tensors().size(), "as many tensors as were read");
  for (const auto& [name, reader] : one.tensors()) {
    const mole::SafetensorsEntry &a = reader->at(name), &b = other.at(name);
    must(a.shape == b.shape && a.dtype == b.dtype, "the shape that was read");
    must(std::ranges::find(changed, name) != changed.end() || std::ranges::equal(a.bytes, b.bytes),
         "the numbers that were read");
  }
}

const std::string index_file = R"(= model.safetensors.index.json
{"metadata": {"total_size": 96}, "weight_map": {"model.layers.0.q.weight": "a.safetensors", "model.layers.0.k.weight":
"b.safetensors", "model.layers.0.w.weight": "b.safetensors"}}
)",
                  a = R"(F32 4 3 model.layers.0.q.weight
F32 4 model.layers.0.q.bias
F32 4 3 model.layers.0.head.weight
U8 3 other
)",
                  b = R"(BF16 4 3 model.layers.0.k.weight
F32 3 4 model.layers.0.w.weight
F32 2 4 3 model.layers.0.e.w
)";

}  // namespace

std::vector<std::string> seeds() {
  std::vector<std::string> seeds = peft_seeds();
  for (std::string& seed : seeds)
    seed += &seed - seeds.data() < 8 ? index_file + "= a.safetensors\n" + a + "= b.safetensors\n" + b
                                     : "= model.safetensors\n" + a + b;
  return seeds;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const DescribedFiles files({reinterpret_cast<const char*>(data), size});
  attempt([&] {
    const std::filesystem::path folder = empty_folder();
    files.write(folder);
    const mole::SafetensorsShards host(folder);
    attempt([&] {
      for (const auto& [name, reader] : host.tensors())
        attempt([&, &name = name] { mole::read_safetensors_weight(host, name); });
      mole::rewrite_shards(host, folder / "same", [](const auto&) { return std::optional<std::vector<std::byte>>(); });
      compare(host, mole::SafetensorsShards(folder / "same"), {});
    });
    const mole::PeftAdapter adapter =
        mole::read_peft(files.text("adapter_config.json"), files.tensors("adapter_model.safetensors"), "fuzz");
    const auto changed = mole::merge_peft(adapter, host, folder / "merged", {.base_is_changed = true});
    compare(host, mole::SafetensorsShards(folder / "merged"), changed);
  });
  return 0;
}
