// SPDX-License-Identifier: MIT
// Feeds arbitrary bytes to what reads GGUF files: every tensor as a matrix and as the weight of a base, and the whole
// as an adapter. They load or throw mole::Error; an adapter that loads is written, and reads as the same.
//
//   clang++ -std=c++20 -Iinclude -fsanitize=fuzzer,address,undefined tests/fuzz/gguf_fuzz.cpp
//   any compiler: -DMOLE_FUZZ_REPLAY makes a program that runs its seeds and the files given to it
#include "mole/io/convert/loras_of.hpp"
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

std::string content_of(const std::filesystem::path& path) {
  const mole::MappedFile file(path);
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}
std::string file_of(const mole::GgufLora& lora, mole::GgufType type) {
  const std::filesystem::path path = empty_folder() / "x.gguf";
  mole::write_gguf_lora(path, lora, type);
  return content_of(path);
}
std::string model() {
  const std::filesystem::path path = empty_folder() / "x.gguf";
  mole::GgufWriter writer;
  writer.set("general.architecture", "llama");
  writer.set("general.alignment", std::uint32_t(32));
  using enum mole::GgufType;
  for (const mole::GgufType type : {f32, f16, bf16, q8_0})
    writer.add("blk." + std::to_string(int(type)) + ".attn_q.weight", mole::Matrix<float>(2, 32), type);
  writer.write(path);
  return content_of(path);
}

}  // namespace

std::vector<std::string> seeds() {
  const mole::Adapter<float> one{mole::Matrix<float>(2, 32), mole::Matrix<float>(2, 4), 2};
  const mole::GgufLora stacked{.architecture = "llama", .adapters = {{"blk.0.ffn_up_exps.weight", {one, one}}}},
      plain{.architecture = "llama", .adapters = {{"blk.0.attn_q.weight", {one}}, {"token_embd.weight", {one}}}};
  std::string four_bits = model();  // q8_0, of 34 bytes a block, as q4_0, of 18, whose number is 2
  for (std::size_t at = four_bits.find("blk.8"); at < four_bits.size() && at < four_bits.find("blk.8") + 60; ++at)
    if (four_bits[at] == 8) four_bits[at] = 2;
  return {file_of(stacked, mole::GgufType::f32), file_of(plain, mole::GgufType::f16),
          file_of(plain, mole::GgufType::q8_0), model(), four_bits};
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
