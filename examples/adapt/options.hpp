// SPDX-License-Identifier: MIT
// Options: the command line of the program.
#pragma once

#include "training/command_line.hpp"

namespace adapt {

struct Options : training::RunOptions {
  bool only = false;  // without the default methods
  long rounds = 15;   // forward passes of each model that its speed is the median of
  bool resume = false;
};

/// Throws training::Exit: with code 0 for --help, 2 for anything it cannot take.
Options parse_options(int count, char** arguments);

}  // namespace adapt
