// SPDX-License-Identifier: MIT
// convert_for_round_trip(): an adapter merged into its host, and through the format of llama.cpp.
#pragma once

#include "mole/io/convert/loras_of.hpp"
#include "mole/io/convert/write_loras.hpp"
#include "mole/io/peft/merge_peft.hpp"
#include "mole/io/peft/read_peft.hpp"

#include <cstdio>
#include <cstdlib>
#include <string>

///   --merge ADAPTER HOST OUT    the host's files with the adapter in their weights
///   --gguf ADAPTER OUT Q K      a GGUF file, for a model of that many heads of q and k, and again an adapter: OUT.peft
inline int convert_for_round_trip(int count, char** arguments) {
  using namespace mole;
  const PeftAdapter adapter = read_peft(arguments[1]);
  if (std::string(arguments[0]) == "--merge" && count == 4) {
    std::printf("%zu\n", merge_peft(adapter, SafetensorsShards(arguments[2]), arguments[3]).size());
    return 0;
  }
  if (count != 5) return std::fprintf(stderr, "round_trip: expected --merge or --gguf and their paths\n"), 2;
  const GgufHeads heads{.q = std::atol(arguments[3]), .k = std::atol(arguments[4])};
  const std::filesystem::path out = arguments[2];
  write_gguf_lora(out, gguf_lora(loras_of(adapter, {.base_is_changed = true}), "llama"), GgufType::f32, heads);
  write_peft(out.string() + ".peft", loras_of(read_gguf_lora(GgufReader(out), heads)));
  return 0;
}
