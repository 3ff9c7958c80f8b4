// SPDX-License-Identifier: MIT
// Feeds files, described by text (described_files.hpp), to what reads layers. Layers load and compute, or throw
// mole::Error; one that loads is written, and reads as the same.
//
//   clang++ -std=c++20 -Iinclude -fsanitize=fuzzer,address,undefined tests/fuzz/layer_fuzz.cpp
//   any compiler: -DMOLE_FUZZ_REPLAY makes a program that runs its seeds and the files given to it
#include "mole/io/convert/loras_of.hpp"
#include "mole/io/layer/layer_file.hpp"
#include "mole/layer/expert_linear.hpp"
#include "mole/method/dyn_mole.hpp"
#include "mole/method/flylora.hpp"
#include "mole/method/lora.hpp"
#include "mole/method/loramoe.hpp"
#include "mole/method/mixlora.hpp"
#include "mole/method/mola.hpp"
#include "mole/method/smora.hpp"

#include "described_files.hpp"
#include "replay.hpp"

namespace {

const mole::Matrix<float> weight(3, 5);
const mole::Matrix<float> gate(4, 5), down(5, 4);  // of a block, whose up is as its gate
using Base = mole::DenseBase<mole::View<const float>>;

std::vector<std::byte> written(mole::AnyLinear<float>& layer) {
  mole::LayerWriter writer;
  writer.add<Base>("layer", layer);
  return writer.bytes();
}

void write_again(mole::AnyLinear<float>& layer) {
  const std::vector<std::byte> once = written(layer);
  mole::LayerReader reader(mole::SafetensorsReader::from_bytes(once, "own"));
  auto again = reader.read("layer", Base{weight}, {.max_tokens = 2});
  must(written(again) == once, "the layer that was written");
}

void read_all(std::span<const std::byte> bytes) try {
  mole::LayerReader reader(mole::SafetensorsReader::from_bytes(bytes, "fuzz"));
  const std::vector<std::string> names = reader.names();
  for (const std::string& name : names) {
    try {
      auto layer = reader.read(name, Base{weight}, {.max_tokens = 2, .other_base = true});
      mole::Matrix<float> x(2, 5), y(2, 3);
      layer.forward(x, y);
      write_again(layer);
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
  mole::loras_of(reader);
} catch (const mole::Error&) {
}

}  // namespace

std::vector<std::string> seeds() {
  mole::Rng rng(1);
  std::vector<std::string> seeds;
  const auto add = [&](auto layer) {
    mole::LayerWriter writer;
    writer.add("layer", layer);
    seeds.push_back(description_of("x.safetensors", writer.bytes()));
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
  add(mole::mixlora({.experts = 3, .rank = 2},
                    mole::Gate{mole::Softmax{}, mole::ExpertCapacity{mole::TopK{.k = 1}}, mole::Raw{}}, Base{gate},
                    Base{gate}, Base{down}, rng));
  return seeds;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const DescribedFiles files({reinterpret_cast<const char*>(data), size});
  read_all(files.bytes("x.safetensors"));
  return 0;
}
