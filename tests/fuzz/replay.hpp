// SPDX-License-Identifier: MIT
// What any compiler makes a program of with -DMOLE_FUZZ_REPLAY: it runs the files that are given to it.
#pragma once

#include "mole/io/mapped_file.hpp"

#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

#ifdef MOLE_FUZZ_REPLAY
int main(int count, char** paths) {
  for (int i = 1; i < count; ++i) {
    const mole::MappedFile file(paths[i]);
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(file.bytes().data()), file.bytes().size());
  }
}
#endif
