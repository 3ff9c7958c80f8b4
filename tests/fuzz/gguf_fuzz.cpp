// SPDX-License-Identifier: MIT
// Feeds arbitrary bytes to what reads GGUF files: every tensor as a matrix and as the weight of a base, and the whole
// as an adapter. They load or throw mole::Error.
//
//   clang++ -std=c++20 -Iinclude -fsanitize=fuzzer,address,undefined tests/fuzz/gguf_fuzz.cpp
//   any compiler: -DMOLE_FUZZ_REPLAY makes a program that runs the files given to it
#include "mole/io/gguf/gguf_lora.hpp"
#include "mole/io/gguf/gguf_weight.hpp"

#include "replay.hpp"

#include <cstdint>

namespace {

void attempt(auto&& call) {
  try {
    call();
  } catch (const mole::Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  attempt([&] {
    const auto reader = mole::GgufReader::from_bytes(std::as_bytes(std::span(data, size)), "fuzz");
    for (const mole::GgufEntry& entry : reader.tensors()) {
      attempt([&] { reader.matrix<float>(entry.name); });
      attempt([&] { mole::read_gguf_weight(reader, entry.name); });
    }
    for (const mole::Index heads : {0, 2}) attempt([&] { mole::read_gguf_lora(reader, {.q = heads, .k = heads}); });
  });
  return 0;
}
