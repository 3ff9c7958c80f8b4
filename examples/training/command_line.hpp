// SPDX-License-Identifier: MIT
// RunOptions, parse(): the command line that the programs of this folder share, and how they end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace training {

/// What every program understands.
struct RunOptions {
  std::vector<std::filesystem::path> paths;  // one domain each, the base's first; empty: found on the machine
  std::vector<std::string> methods;
  std::uint64_t seed = 1;
  int threads = 0;         // 0: as many as the machine runs at once
  long steps = 300;        // of a training of an adapter
  std::size_t batch = 16;  // sequences of a step of an adapter
  long base_steps = 800;
  std::size_t windows = 96;  // held-out windows of each domain
  double learning_rate = 0;  // 0: each method's own
  std::filesystem::path out;
  std::filesystem::path cache;  // of the base; empty: beside the program
};

/// A program's own options beside those.
struct Switch {
  std::string name, text;
  bool* value;
};
struct Count {
  std::string name, text;
  long* value;
  long least, most;
};

struct Program {
  std::string name;
  std::string about;    // first in the help
  std::string steps;    // what --steps counts
  std::string methods;  // what --method chooses
  std::vector<Switch> switches = {};
  std::vector<Count> counts = {};
};

/// What to print, and how to exit.
struct Exit {
  int code;
  std::string text;
};

/// Fills in `options`, whose values are the defaults. Throws Exit: with code 0 for --help, 2 for what it cannot take.
void parse(int count, char** arguments, const Program& program, RunOptions& options);

/// Runs `body`, which may throw Exit, Interrupted or any std::exception, and returns the exit code: 130 after Ctrl-C,
/// with `when_stopped` for a last line, and 2, with one line that says why, for what the program cannot take.
int run_program(const std::string& name, const std::string& when_stopped, const std::function<void()>& body);

}  // namespace training
