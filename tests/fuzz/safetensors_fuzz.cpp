// SPDX-License-Identifier: MIT
// Feeds arbitrary bytes to SafetensorsReader, and to what reads recorded routings through it: they load or throw
// mole::Error.
//
//   clang++ -std=c++20 -Iinclude -fsanitize=fuzzer,address,undefined tests/fuzz/safetensors_fuzz.cpp
//   any compiler: -DMOLE_FUZZ_REPLAY makes a program that runs the files given to it
#include "mole/io/routing_trace_file.hpp"
#include "mole/io/safetensors_reader.hpp"
#include "mole/stats/routing_trace.hpp"

#include "replay.hpp"

#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto attempt = [](auto&& call) {
    try {
      call();
    } catch (const mole::Error&) {
    }
  };
  attempt([&] {
    const auto reader = mole::SafetensorsReader::from_bytes(std::as_bytes(std::span(data, size)), "fuzz");
    for (const mole::SafetensorsReader::Entry& entry : reader.tensors()) {
      attempt([&] { reader.matrix<float>(entry.name); });
      attempt([&] { reader.matrix<double>(entry.name); });
      attempt([&] { reader.integers(entry.name); });
      attempt([&] { reader.view<float>(entry.name); });
      attempt([&] { reader.view<std::int64_t>(entry.name); });
    }
    attempt([&] { mole::read_routing_trace<mole::RoutingTrace<float>>(reader, "fuzz"); });
  });
  return 0;
}
