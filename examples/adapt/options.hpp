// SPDX-License-Identifier: MIT
// What the user asked for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

namespace adapt {

struct Options {
  std::vector<std::filesystem::path> paths;  // one domain each, the base's first; empty: found on the machine
  std::vector<std::string> methods;          // beside the default ones
  bool only = false;                         // and without those
  std::uint64_t seed = 1;
  int threads = 0;         // 0: as many as the machine runs at once
  long steps = 300;        // of each adapter
  std::size_t batch = 16;  // sequences of a step of an adapter
  long base_steps = 800;
  double learning_rate = 0;  // 0: each method's own
  int rounds = 15;           // forward passes of each model that its speed is the median of
  std::filesystem::path out = "adapt-out";
  std::filesystem::path cache;  // of the base; empty: beside the program
  bool resume = false;
};

/// What to print, and how to exit.
struct Exit {
  int code;
  std::string text;
};

/// Throws Exit: with code 0 for --help, 2 for anything it cannot take.
Options parse_options(int count, char** arguments);

}  // namespace adapt
