// SPDX-License-Identifier: MIT
// Feeds arbitrary bytes to what reads weights of bitsandbytes, as a safetensors file: every tensor is taken for a
// weight. They load or throw mole::Error.
//
//   clang++ -std=c++20 -Iinclude -fsanitize=fuzzer,address,undefined tests/fuzz/bitsandbytes_fuzz.cpp
//   any compiler: -DMOLE_FUZZ_REPLAY makes a program that runs the files given to it
#include "mole/io/bitsandbytes.hpp"

#include "replay.hpp"

#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const auto reader = mole::SafetensorsReader::from_bytes(std::as_bytes(std::span(data, size)), "fuzz");
    for (const mole::SafetensorsEntry& entry : reader.tensors()) {
      try {
        const mole::BitsandbytesWeight found = mole::read_bitsandbytes(reader, entry.name);
        std::visit(
            [&](const auto& weight) {
              if (weight.rows() > 0 && weight.cols() > 0) weight(weight.rows() - 1, weight.cols() - 1);
              mole::SafetensorsWriter writer;
              mole::add_bitsandbytes(writer, "weight", weight);
            },
            found.weight);
      } catch (const mole::Error&) {
      }
    }
  } catch (const mole::Error&) {
  }
  return 0;
}
