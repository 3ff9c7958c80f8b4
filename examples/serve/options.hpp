// SPDX-License-Identifier: MIT
// Options: the command line of the program.
#pragma once

#include "serve/traffic.hpp"

#include <cstdint>
#include <filesystem>
#include <vector>

namespace serve {

struct Options {
  double seconds = 4;  // of each way and mix
  int rounds = 4;      // in which the ways take turns, as the speed of a machine drifts
  int adapters = 256;
  int rank = 16;  // of the largest adapter; they are unequal
  int width = 768;
  int layers = 2;
  int threads = 0;  // of a batch; 0: as many as the machine runs at once
  int clients = 3;
  int batch = 64;      // requests at most
  double rate = 0;     // requests a second; 0: of what MultiAdapterLinear can
  double swaps = 100;  // adapters replaced, added and removed a second
  std::vector<Mix> mixes;
  std::uint64_t seed = 1;
  std::filesystem::path out = "serve.html";
};

/// Throws training::Exit: with code 0 for --help, 2 for anything it cannot take.
Options parse_options(int count, char** arguments);

}  // namespace serve
