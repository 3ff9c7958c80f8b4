// SPDX-License-Identifier: MIT
// A server's program: two layers, adapters that come and go, requests that keep the version that they began with.
#include <mole/io/peft/peft_experts.hpp>
#include <mole/io/peft/peft_writer.hpp>
#include <mole/io/peft/read_peft.hpp>
#include <mole/mole.hpp>

#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

namespace {

const std::vector<std::string> paths{"model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj"};

/// A folder as peft saves it: the part of each site, in the order of the table; none where the folder has none.
mole::ServedAdapter<float> load(const std::filesystem::path& folder) {
  const mole::PeftExperts<float> files(mole::read_peft(folder));
  std::vector<mole::Adapter<float>> sites;
  for (const std::string& path : paths)
    sites.push_back(files.adapter().has(path) ? adapters_of(files.lora(path)).front() : mole::Adapter<float>{});
  return mole::ServedAdapter<float>(std::move(sites));
}

/// What somebody trained.
void write(const std::filesystem::path& folder, mole::Index rank, const mole::Matrix<float>& weights, mole::Rng& rng) {
  auto trained = mole::lora({.rank = rank}, mole::DenseBase{weights}, rng);
  fill_uniform(trained.experts().parameters().lora_B.view(), 1, rng);
  mole::PeftWriter writer;
  writer.add(paths[0], trained.experts());
  writer.write(folder);
}

}  // namespace

int main() {
  const std::filesystem::path folder = std::filesystem::temp_directory_path() / "mole-guide-serve";
  std::filesystem::remove_all(folder);
  mole::Rng rng(1);
  mole::Matrix<float> weights(16, 16), x(4, 16), q(4, 16), v(4, 16);
  fill_uniform(weights.view(), 1, rng);
  fill_uniform(x.view(), 1, rng);
  write(folder / "seven", 2, weights, rng);
  write(folder / "eight", 5, weights, rng);

  mole::AdapterTable<float> table({.sites = {{16, 16}, {16, 16}}, .max_adapters = 256, .max_rank = 64});
  const mole::MultiAdapterLinear q_layer(mole::PackedBase{weights}, 0), v_layer(mole::PackedBase{weights}, 1);
  auto q_work = q_layer.workspace(4), v_work = v_layer.workspace(4);  // of each thread that calls

  table.add(7, load(folder / "seven"));  // from any thread, while others call
  table.add(8, load(folder / "eight"));

  mole::AdapterBatch<float> batch(4);
  const std::vector<int> ids{7, 8, -1, 7};  // of each row; -1 is the base alone
  batch.begin(table, ids);                  // this generation, for all layers of the call
  q_layer.forward(x, batch, q, q_work);
  table.remove(8);  // somebody, meanwhile
  v_layer.forward(x, batch, v, v_work);
  batch.end();
  std::printf("row 1 still had adapter 8: %.4f, not %.4f\n", double(q(1, 0)), double(v(1, 0)));

  try {
    batch.begin(table, ids);
  } catch (const mole::Error& error) {
    std::printf("code %d: %s\n", int(error.code()), error.what());
  }
  std::filesystem::remove_all(folder);
}
