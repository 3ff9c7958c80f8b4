// SPDX-License-Identifier: MIT
// Feeds arbitrary bytes to what reads GGUF files: every tensor as a matrix and as the weight of a base, and the whole
// as an adapter. They load or throw mole::Error; an adapter that loads is written, and reads as the same.
//
//   clang++ -std=c++20 -Iinclude -fsanitize=fuzzer,address,undefined tests/fuzz/gguf_fuzz.cpp
//   any compiler: -DMOLE_FUZZ_REPLAY makes a program that runs its seeds and the files given to it
#include "mole/io/gguf/gguf_lora.hpp"
#include "mole/io/gguf/gguf_weight.hpp"

#include "described_files.hpp"
#include "replay.hpp"

#include <cmath>

namespace {

bool near(const mole::Matrix<float>& one, double scale, const mole::Matrix<float>& other, double scale_of_other) {
  return std::ranges::equal(one.elements(), other.elements(), [&](float a, float b) {
    const double x = scale * double(a), y = scale_of_other * double(b);
    return std::abs(x - y) <= 1e-5 * std::abs(x) + 1e-30 || !std::isfinite(x) || !std::isfinite(y);
  });
}

void write_again(const mole::GgufLora& lora, const mole::GgufHeads& heads) {
  const std::filesystem::path file = empty_folder() / "x.gguf";
  mole::write_gguf_lora(file, lora, mole::GgufType::f32, heads);
  const mole::GgufReader reader(file);
  const mole::GgufLora again = mole::read_gguf_lora(reader, heads);
  must(again.adapters.size() == lora.adapters.size() && again.architecture == lora.architecture, "all adapters");
  for (const auto& [name, adapters] : lora.adapters) {
    const auto& found = again.adapters.at(name);
    must(found.size() == adapters.size(), "all experts");
    for (std::size_t e = 0; e < found.size(); ++e)
      must(near(found[e].a, 1, adapters[e].a, 1) && near(found[e].b, found[e].scale, adapters[e].b, adapters[e].scale),
           "the adapter that was written");
  }
}

std::string file_of(const mole::GgufLora& lora, mole::GgufType type) {
  const std::filesystem::path path = empty_folder() / "x.gguf";
  mole::write_gguf_lora(path, lora, type);
  const mole::MappedFile file(path);
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

}  // namespace

std::vector<std::string> seeds() {
  const mole::Adapter<float> one{mole::Matrix<float>(2, 32), mole::Matrix<float>(2, 4), 2};
  const mole::GgufLora lora{.architecture = "llama",
                            .adapters = {{"blk.0.attn_q.weight", {one}}, {"blk.0.ffn_up_exps.weight", {one, one}}}};
  return {file_of(lora, mole::GgufType::f32), file_of(lora, mole::GgufType::f16), file_of(lora, mole::GgufType::q8_0)};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  attempt([&] {
    const auto reader = mole::GgufReader::from_bytes(std::as_bytes(std::span(data, size)), "fuzz");
    for (const mole::GgufEntry& entry : reader.tensors()) {
      attempt([&] { reader.matrix<float>(entry.name); });
      attempt([&] { mole::read_gguf_weight(reader, entry.name); });
    }
    for (const mole::Index heads : {0, 2})
      attempt([&] { write_again(mole::read_gguf_lora(reader, {.q = heads, .k = heads}), {.q = heads, .k = heads}); });
  });
  return 0;
}
