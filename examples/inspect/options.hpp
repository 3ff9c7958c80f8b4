// SPDX-License-Identifier: MIT
// Options: the command line of the program.
#pragma once

#include "mole/io/dtype.hpp"
#include "mole/io/gguf/gguf_lora.hpp"

#include <filesystem>
#include <optional>
#include <string>

namespace inspect {

struct Options {
  std::filesystem::path path;
  bool json = false;
  std::string to;  // a format: peft, gguf or mole; empty: describe
  std::filesystem::path out;
  std::filesystem::path merge_into;  // a checkpoint
  bool base_is_changed = false;
  std::filesystem::path base;            // a checkpoint, for fingerprints of layers
  mole::Dtype dtype = mole::Dtype::f32;  // of what is written
  std::string architecture = "llama";    // of a GGUF file that is written
  std::optional<mole::GgufHeads> heads;  // of a GGUF file that is read or written
};

/// Throws training::Exit: with code 0 for --help, 2 for anything it cannot take.
Options parse_options(int count, char** arguments);

}  // namespace inspect
