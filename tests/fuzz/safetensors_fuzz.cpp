// SPDX-License-Identifier: MIT
// Feeds arbitrary bytes to SafetensorsReader, and to what reads recorded routings through it: they load or throw
// mole::Error.
//
//   clang++ -std=c++20 -Iinclude -fsanitize=fuzzer,address,undefined tests/fuzz/safetensors_fuzz.cpp
//   any compiler: -DMOLE_FUZZ_REPLAY makes a program that runs its seeds and the files given to it
#include "mole/io/routing_trace_file.hpp"
#include "mole/io/safetensors_reader.hpp"
#include "mole/stats/routing_trace.hpp"

#include "described_files.hpp"
#include "replay.hpp"

std::vector<std::string> seeds() {
  const DescribedFiles file("= x.safetensors\n: format pt\nF32 2 3 a\nBF16 4 b\nI64 2 c\nU8 d\nF64 1 2 3 e\nF16 0 f\n");
  const std::vector<std::int64_t> experts{3, 2}, tokens{2, 1}, chosen{2, 0, 1}, expert{2, 0, 1};
  const std::vector<float> weight{0.5f, 0.25f, 1};
  mole::SafetensorsWriter trace;
  trace.set_metadata("format", "mole.routing.1");
  for (const auto& [name, numbers] :
       {std::pair("experts", &experts), {"tokens", &tokens}, {"chosen", &chosen}, {"expert", &expert}})
    trace.add_integers(name, std::span<const std::int64_t>(*numbers));
  trace.add_vector("weight", std::span<const float>(weight));
  const std::vector<std::byte> bytes = trace.bytes();
  return {std::string(file.text("x.safetensors")), {reinterpret_cast<const char*>(bytes.data()), bytes.size()}};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
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
