// SPDX-License-Identifier: MIT
// Options: the command line of the program.
#pragma once

#include <filesystem>
#include <vector>

namespace route {

struct Options {
  std::filesystem::path adapter;             // that `adapt` wrote
  std::vector<std::filesystem::path> paths;  // one domain each; empty: found on the machine
  std::filesystem::path base;                // empty: where the adapter's file says
  std::filesystem::path out = "route.html";
  std::size_t windows = 16;  // of a domain, to count in
  int threads = 0;           // 0: as many as the machine runs at once
};

/// Throws training::Exit: with code 0 for --help, 2 for anything it cannot take.
Options parse_options(int count, char** arguments);

}  // namespace route
