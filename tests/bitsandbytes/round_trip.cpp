// SPDX-License-Identifier: MIT
// For round_trip.py: reads the weight NAME of FOLDER/model.safetensors, and writes what it is and what it makes of
// FOLDER/x.safetensors, and the weight again.
#include "mole/io/bitsandbytes.hpp"
#include "mole/io/safetensors_shards.hpp"
#include "mole/layer/expert_linear.hpp"
#include "mole/method/lora.hpp"

#include <cstdio>

int main(int count, char** arguments) try {
  if (count != 3) {
    std::fprintf(stderr, "round_trip: expected a folder and the name of a weight, found %d arguments\n", count - 1);
    return 2;
  }
  const std::filesystem::path folder = arguments[1];
  const std::string name = arguments[2];
  const mole::SafetensorsShards shards(folder);
  const mole::BitsandbytesWeight found = mole::read_bitsandbytes(shards, name);
  const auto x = mole::SafetensorsReader(folder / "x.safetensors").matrix<float>("x");
  mole::SafetensorsWriter out, written;
  std::visit(
      [&](const auto& weight) {
        mole::Rng rng(1);
        const mole::CodedBase base(weight);
        mole::Matrix<float> decoded(base.out(), base.in()), y(x.rows(), base.out());
        base.weight(decoded.view());
        const auto layer = mole::lora({.rank = 1}, base, rng);  // fresh: it gives what its base gives
        auto work = layer.workspace(x.rows());
        layer.forward(x, y, work);
        out.add("weight", decoded);
        out.add("y", y);
        if constexpr (requires { mole::add_bitsandbytes(written, name, weight, found.dtype); })
          mole::add_bitsandbytes(written, name, weight, found.dtype);
        else
          mole::add_bitsandbytes(written, name, weight);
      },
      found.weight);
  out.write(folder / "out.safetensors");
  written.write(folder / "written.safetensors");
} catch (const mole::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
