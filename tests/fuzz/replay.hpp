// SPDX-License-Identifier: MIT
// What all targets share: attempt(), must(), the corpus that each begins with, and what any compiler makes a program of
// with -DMOLE_FUZZ_REPLAY: it runs that corpus and the files that are given to it.
#pragma once

#include "mole/core/error.hpp"
#include "mole/io/mapped_file.hpp"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

/// Inputs to begin with, of each target.
std::vector<std::string> seeds();

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

/// Bad input is an Error, and nothing else.
void attempt(auto&& call) {
  try {
    call();
  } catch (const mole::Error&) {
  }
}
inline void must(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "expected %s\n", what);
  std::abort();
}

#ifdef MOLE_FUZZ_REPLAY
int main(int count, char** paths) {
  for (const std::string& seed : seeds())
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(seed.data()), seed.size());
  for (int i = 1; i < count; ++i) {
    const mole::MappedFile file(paths[i]);
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(file.bytes().data()), file.bytes().size());
  }
}
#else
/// Puts them into the folder of the command line, before libFuzzer looks there.
extern "C" int LLVMFuzzerInitialize(int* count, char*** arguments) {
  int number = 0;
  for (int i = 1; i < *count && number == 0; ++i)
    if (const std::filesystem::path folder = (*arguments)[i]; std::filesystem::is_directory(folder))
      for (const std::string& seed : seeds())
        std::ofstream(folder / ("seed" + std::to_string(number++)), std::ios::binary) << seed;
  return 0;
}
#endif
