// SPDX-License-Identifier: MIT
// Feeds files, described by text (described_files.hpp), to CheckpointReader, for a layer, an optimizer and a generator:
// they load, or throw mole::Error and have changed nothing.
//
//   clang++ -std=c++20 -Iinclude -fsanitize=fuzzer,address,undefined tests/fuzz/checkpoint_fuzz.cpp
//   any compiler: -DMOLE_FUZZ_REPLAY makes a program that runs its seeds and the files given to it
#include "mole/base/no_base.hpp"
#include "mole/io/checkpoint.hpp"
#include "mole/method/smora.hpp"
#include "mole/optim/adamw.hpp"

#include "described_files.hpp"
#include "replay.hpp"

namespace {

/// A layer with state, half way through its training.
struct Run {
  mole::Rng rng{1};
  decltype(mole::smora({.rank = 4, .k = 2}, mole::NoBase<float>(3, 4), rng)) layer =
      mole::smora({.rank = 4, .k = 2}, mole::NoBase<float>(3, 4), rng);
  decltype(layer.gradients()) gradients = layer.gradients();
  mole::AdamW<float> adamw{{}};

  auto walk() {
    return [this](auto&& f) { layer.for_each_tensor(f, gradients); };
  }
  std::vector<std::byte> bytes() {
    mole::CheckpointWriter writer;
    writer.add_layer("q", layer);
    writer.add_optimizer("adamw", adamw);
    writer.add_rng("rng", rng);
    writer.set_number("step", 3);
    return writer.bytes();
  }
  void read(const mole::CheckpointReader& reader) {
    reader.read_layer("q", layer);
    reader.read_optimizer("adamw", adamw, walk());
    reader.read_rng("rng", rng);
  }
};

}  // namespace

std::vector<std::string> seeds() {
  Run run;
  run.adamw.step(run.walk());
  return {description_of("x.safetensors", run.bytes())};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  attempt([&] {
    const DescribedFiles files({reinterpret_cast<const char*>(data), size});
    const mole::CheckpointReader reader(mole::SafetensorsReader::from_bytes(files.bytes("x.safetensors"), "fuzz"));
    attempt([&] { reader.number("step"); });
    Run run;
    const std::vector<std::byte> before = run.bytes();
    bool read = false;
    attempt([&] { reader.read_layer("q", run.layer), read = true; });
    must(read || run.bytes() == before, "a layer that is as it was");
    run.read(reader);
    const std::vector<std::byte> once = run.bytes();
    Run again;
    again.read(mole::CheckpointReader(mole::SafetensorsReader::from_bytes(once, "own")));
    must(again.bytes() == once, "the run that was written");
  });
  return 0;
}
