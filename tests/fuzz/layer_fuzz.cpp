// SPDX-License-Identifier: MIT
// Feeds arbitrary bytes to what reads layers: as a whole file, and as changes of a file of each preset (its number,
// then three bytes for each change: where, where, to what). Layers load and compute, or throw mole::Error.
//
//   clang++ -std=c++20 -Iinclude -fsanitize=fuzzer,address,undefined tests/fuzz/layer_fuzz.cpp
//   any compiler: -DMOLE_FUZZ_REPLAY makes a program that runs the files given to it
#include "mole/io/layer/layer_file.hpp"
#include "mole/layer/expert_linear.hpp"
#include "mole/method/dyn_mole.hpp"
#include "mole/method/flylora.hpp"
#include "mole/method/lora.hpp"
#include "mole/method/loramoe.hpp"
#include "mole/method/mixlora.hpp"
#include "mole/method/mola.hpp"
#include "mole/method/smora.hpp"

#include "replay.hpp"

#include <cstdint>

namespace {

const mole::Matrix<float> weight(3, 5);
const mole::Matrix<float> gate(4, 5), down(5, 4);  // of a block, whose up is as its gate
using Base = mole::DenseBase<mole::View<const float>>;

std::vector<std::vector<std::byte>> files_of_presets() {
  mole::Rng rng(1);
  std::vector<std::vector<std::byte>> files;
  const auto add = [&](auto layer) {
    const auto path = std::filesystem::temp_directory_path() / ("mole_layer_fuzz_" + std::to_string(rng()));
    mole::write_layer(path, layer);
    const mole::MappedFile file(path);
    files.emplace_back(file.bytes().begin(), file.bytes().end());
    std::filesystem::remove(path);
  };
  add(mole::lora({.rank = 2}, Base{weight}, rng));
  add(mole::mola({.experts = 3, .rank = 2}, Base{weight}, rng));
  add(mole::loramoe({.experts = 3, .rank = 2, .shared_down = true}, Base{weight}, rng));
  add(mole::dyn_mole({.experts = 3, .rank = 2}, Base{weight}, rng));
  add(mole::smora({.rank = 4, .k = 2, .rank_partition = 2}, Base{weight}, rng));
  add(mole::flylora({.rank = 4, .k = 2}, Base{weight}, rng));
  add(mole::ExpertLinear{mole::LowRank<mole::DenseFactors<float>>({.in = 5, .out = 3, .experts = 3, .rank = 2}, rng),
                         Base{weight}});
  add(mole::mixlora({.experts = 3, .rank = 2}, Base{gate}, Base{gate}, Base{down}, rng));
  return files;
}

void read_all(std::span<const std::byte> bytes) try {
  mole::LayerReader reader(mole::SafetensorsReader::from_bytes(bytes, "fuzz"));
  const std::vector<std::string> names = reader.names();
  for (const std::string& name : names) {
    try {
      auto layer = reader.read(name, Base{weight}, {.max_tokens = 2, .other_base = true});
      mole::Matrix<float> x(2, 5), y(2, 3);
      layer.forward(x, y);
    } catch (const mole::Error&) {
    }
    try {
      auto block = reader.read_block(name, Base{gate}, Base{gate}, Base{down}, {.max_tokens = 2, .other_base = true});
      mole::Matrix<float> x(2, 5), y(2, 5);
      block.forward(x, y);
    } catch (const mole::Error&) {
    }
  }
  reader.report();
} catch (const mole::Error&) {
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::vector<std::vector<std::byte>> files = files_of_presets();
  read_all(std::as_bytes(std::span(data, size)));
  if (size == 0) return 0;
  std::vector<std::byte> changed = files[data[0] % files.size()];
  for (std::size_t at = 1; at + 3 <= size; at += 3)
    changed[(data[at] + 256u * data[at + 1]) % changed.size()] = std::byte(data[at + 2]);
  read_all(changed);
  return 0;
}
