// SPDX-License-Identifier: MIT
// Feeds files, described by text (described_files.hpp), to what reads weights of bitsandbytes: every tensor is taken
// for a weight. They load or throw mole::Error; what loads is written, and reads as the same.
//
//   clang++ -std=c++20 -Iinclude -fsanitize=fuzzer,address,undefined tests/fuzz/bitsandbytes_fuzz.cpp
//   any compiler: -DMOLE_FUZZ_REPLAY makes a program that runs its seeds and the files given to it
#include "mole/io/bitsandbytes.hpp"

#include "described_files.hpp"
#include "replay.hpp"

#include <cstring>

namespace {

/// The file with the levels of its type in each quant_map, which no text would hit.
std::vector<std::byte> with_levels(std::span<const std::byte> bytes) {
  std::vector<std::byte> file(bytes.begin(), bytes.end());
  const auto reader = mole::SafetensorsReader::from_bytes(bytes, "fuzz");
  for (const mole::SafetensorsEntry& entry : reader.tensors()) {
    if (!entry.name.ends_with(".quant_map") || entry.bytes.size() != 64) continue;
    const std::string weight = entry.name.substr(0, entry.name.size() - 10);
    const bool nf4 = reader.has(weight + ".quant_state.bitsandbytes__nf4");
    const auto& levels = nf4 ? mole::Nf4Levels::levels : mole::Fp4Levels::levels;
    std::memcpy(file.data() + (entry.bytes.data() - bytes.data()), levels.data(), 64);
  }
  return file;
}

std::vector<std::byte> written(const mole::BitsandbytesWeight& found) {
  mole::SafetensorsWriter writer;
  std::visit(
      [&](const auto& weight) {
        if (weight.rows() > 0 && weight.cols() > 0) weight(weight.rows() - 1, weight.cols() - 1);
        if constexpr (requires { weight.scb(); })
          add_bitsandbytes(writer, "weight", weight);
        else
          add_bitsandbytes(writer, "weight", weight, found.dtype);
      },
      found.weight);
  return writer.bytes();
}

}  // namespace

std::vector<std::string> seeds() {
  const std::string head = "= x.safetensors\n", map = "F32 16 q.weight.quant_map\n",
                    state = "U8 1 q.weight.quant_state.bitsandbytes__",
                    json = R"("blocksize": 64, "dtype": "bfloat16", "shape": [24, 3])";
  return {head + "U8 36 1 q.weight\nF32 2 q.weight.absmax\n" + map + state + "nf4\n| {\"quant_type\": \"nf4\", " +
              json + "}\n",
          head + "BF16 18 q.weight\nU8 2 q.weight.absmax\nF32 1 q.weight.nested_absmax\n" +
              "F32 256 q.weight.nested_quant_map\n" + map + state + "fp4\n| {\"quant_type\": \"fp4\", " + json +
              ", \"nested_blocksize\": 256, \"nested_dtype\": \"float32\", \"nested_offset\": 0.1}\n",
          head + "I8 4 3 q.weight\nF32 4 q.SCB\nU8 q.weight_format\n"};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  attempt([&] {
    const DescribedFiles files({reinterpret_cast<const char*>(data), size});
    const std::vector<std::byte> file = with_levels(files.bytes("x.safetensors"));
    const auto reader = mole::SafetensorsReader::from_bytes(file, "fuzz");
    for (const mole::SafetensorsEntry& entry : reader.tensors())
      attempt([&] {
        const std::vector<std::byte> once = written(mole::read_bitsandbytes(reader, entry.name));
        const auto again = mole::SafetensorsReader::from_bytes(once, "own");
        must(once == written(mole::read_bitsandbytes(again, "weight")), "the weight that was written");
      });
  });
  return 0;
}
