// SPDX-License-Identifier: MIT
// Options: the command line of the program.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace encoder {

struct Options {
  std::filesystem::path model;
  std::filesystem::path adapter;  // a folder of peft, for searching and embedding
  std::vector<std::string> methods;
  std::string query;            // answer this, and train nothing
  std::filesystem::path lines;  // embed these, and train nothing
  std::filesystem::path out = "encoder-out";
  std::uint64_t seed = 1;
  int threads = 0;  // 0: as many as the machine runs at once
  long steps = 60;
  long pairs = 24;        // of a step
  long tokens = 48;       // of a text
  long documents = 1500;  // of a domain, to train on
  double temperature = 0.05;
  double learning_rate = 0;  // 0: each method's
  bool resume = false;
};

/// Throws training::Exit: with code 0 for --help, 2 for what it cannot take.
Options parse_options(int count, char** arguments);

}  // namespace encoder
