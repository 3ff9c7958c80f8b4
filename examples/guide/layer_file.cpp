// SPDX-License-Identifier: MIT
// Two layers of different methods go into one file, and come back without a word about their types.
#include <mole/io/layer/layer_file.hpp>
#include <mole/mole.hpp>

#include <cstdio>
#include <filesystem>

int main() {
  const std::filesystem::path path = std::filesystem::temp_directory_path() / "mole-guide-layers.safetensors";
  mole::Rng rng(1);
  mole::Matrix<float> weights(16, 16), others(16, 16), x(4, 16), y(4, 16);
  fill_uniform(weights.view(), 1, rng);
  fill_uniform(others.view(), 1, rng);
  fill_uniform(x.view(), 1, rng);
  auto q = mole::mola({.experts = 4, .rank = 2, .k = 2}, mole::DenseBase{weights}, rng);
  auto v = mole::smora({.rank = 16, .k = 4}, mole::DenseBase{weights}, rng);

  mole::LayerWriter writer;
  writer.add("model.layers.0.self_attn.q_proj", q);
  writer.add("model.layers.0.self_attn.v_proj", v);
  writer.write(path);

  mole::LayerReader reader(path);
  for (const std::string& name : reader.names()) {
    mole::AnyLinear<float> layer = reader.read(name, mole::DenseBase{weights}, {.max_tokens = 4});
    layer.forward(x, y);
    std::printf("%s: %td experts for each token\n", name.c_str(), layer.trace().routing.pairs() / 4);
  }
  try {
    reader.read(reader.names()[0], mole::DenseBase{others});
  } catch (const mole::Error& error) {  // trained on another weight: refused, unless other_base is set
    std::printf("%s\n", error.what());
  }
  std::filesystem::remove(path);
}
