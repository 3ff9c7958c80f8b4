// SPDX-License-Identifier: MIT
// The gradients of the encoder are those of finite differences, of every adapter of every block; batches of other
// sequences, and threads, change no bit of an embedding.
#include "encoder/bert.hpp"

#include "mole/core/random.hpp"
#include "mole/io/safetensors_reader.hpp"
#include "mole/io/safetensors_writer.hpp"
#include "mole/layer/any_linear.hpp"
#include "mole/loss/negatives_ranking.hpp"
#include "mole/method/mola.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

namespace {

using mole::Index;

constexpr encoder::BertConfig config{.layers = 2, .width = 12, .heads = 3, .hidden = 20, .positions = 16};
constexpr Index words = 30;

int failures = 0;

void check(bool holds, const std::string& what) {
  if (holds) return;
  ++failures;
  std::printf("encoder_gradient: %s\n", what.c_str());
}

/// A checkpoint of random numbers.
mole::SafetensorsShards random_checkpoint() {
  mole::Rng rng(1);
  mole::SafetensorsWriter writer;
  std::vector<std::unique_ptr<mole::Matrix<float>>> kept;
  const auto add = [&](const std::string& name, Index rows, Index cols, double bound, float center = 0) {
    kept.push_back(std::make_unique<mole::Matrix<float>>(rows, cols));
    mole::fill_uniform(kept.back()->view(), bound, rng);
    for (float& element : kept.back()->elements()) element += center;
    writer.add(name, kept.back()->view());
  };
  const auto add_norm = [&](const std::string& name) {
    add(name + ".weight", 1, config.width, 0.3, 1);
    add(name + ".bias", 1, config.width, 0.3);
  };
  add("embeddings.word_embeddings.weight", words, config.width, 1);
  add("embeddings.position_embeddings.weight", config.positions, config.width, 1);
  add("embeddings.token_type_embeddings.weight", 2, config.width, 1);
  add_norm("embeddings.LayerNorm");
  for (Index i = 0; i < config.layers; ++i) {
    const std::string block = "encoder.layer." + std::to_string(i);
    for (encoder::Site site : encoder::sites) {
      const std::string name = block + "." + std::string(name_of(site));
      const Index in = site == encoder::Site::down ? config.hidden : config.width;
      const Index out = site == encoder::Site::up ? config.hidden : config.width;
      add(name + ".weight", out, in, 0.6);
      add(name + ".bias", 1, out, 0.3);
    }
    add_norm(block + ".attention.output.LayerNorm");
    add_norm(block + ".output.LayerNorm");
  }
  std::stringstream stream;
  writer.write(stream);
  return {mole::SafetensorsReader::from_stream(stream, "random"), "random"};
}

encoder::Bert<double> model(int threads) {
  return {encoder::BertWeights<double>(random_checkpoint()), config, encoder::Execution(mole::ThreadPool(threads))};
}

encoder::TokenBatch batch_of(std::vector<std::vector<int>> sequences) {
  encoder::TokenBatch batch;
  for (const auto& sequence : sequences) batch.add(sequence);
  return batch;
}

const std::vector<std::vector<int>> sequences{{3, 1, 4, 1, 5, 9, 2, 6}, {7}, {5, 3, 5, 8, 29, 7, 9}, {3, 2, 3, 8}};

/// Of one adapter a site, on all blocks or on the upper one alone.
void check_gradients(Index first_block) {
  encoder::Bert<double> bert = model(2);
  mole::Rng rng(2);
  std::vector<std::unique_ptr<mole::AnyLinear<double>>> adapters;
  for (Index block = first_block; block < config.layers; ++block)
    for (encoder::Site site : encoder::sites) {
      encoder::BertLinear<double>& linear = bert.linear(block, site);
      auto layer = mole::mola({.experts = 3, .rank = 2, .k = 2, .alpha = 4, .dropout = 0},
                              mole::DenseBase(linear.weight, linear.bias), rng);
      mole::fill_uniform(layer.experts().parameters().lora_B.view(), 0.5, rng);
      adapters.push_back(std::make_unique<mole::AnyLinear<double>>(std::move(layer), 64));
      mole::AnyLinear<double>& adapter = *adapters.back();
      linear.forward_instead = [&adapter](auto x, auto y) { adapter.forward(x, y); };
      linear.backward_instead = [&adapter](auto x, auto d_y, auto d_x) { adapter.backward(x, d_y, d_x); };
    }

  const encoder::TokenBatch batch = batch_of(sequences);
  mole::Matrix<double> embeddings(4, config.width), d_embeddings(4, config.width);
  const auto loss = [&](bool with_gradient) {
    bert.forward_for_backward(batch, embeddings.view());
    d_embeddings.set_zero();
    const auto e = embeddings.view();
    const auto d = with_gradient ? d_embeddings.view() : mole::View<double>();
    return mole::negatives_ranking<double>(e.top(2), e.middle_rows(2, 2), with_gradient ? d.top(2) : d,
                                           with_gradient ? d.middle_rows(2, 2) : d, {.temperature = 0.5});
  };
  for (const auto& adapter : adapters) adapter->zero_gradients();
  loss(true);
  bert.backward(batch, d_embeddings.view());

  for (std::size_t i = 0; i < adapters.size(); ++i)
    adapters[i]->for_each_tensor([&](std::string_view name, mole::View<double> parameter, mole::View<double> gradient) {
      double most = 0;
      for (Index r = 0; r < gradient.rows(); ++r)
        for (double element : gradient.row(r)) most = std::max(most, std::abs(element));
      const std::string who = "adapter " + std::to_string(i) + ", " + std::string(name);
      check(most > 1e-9, who + ": expected a gradient, found none");
      for (Index k = 0; k < parameter.size(); k += 5) {
        double& number = parameter(k / parameter.cols(), k % parameter.cols());
        const double kept = number, step = 1e-5;
        number = kept + step;
        const double above = loss(false);
        number = kept - step;
        const double below = loss(false);
        number = kept;
        const double expected = (above - below) / (2 * step);
        const double found = gradient(k / parameter.cols(), k % parameter.cols());
        check(std::abs(found - expected) < 1e-5 * most + 1e-9,
              who + ": expected " + std::to_string(expected) + ", found " + std::to_string(found));
      }
    });
}

void check_bits() {
  const auto embeddings_of = [](const std::vector<std::vector<int>>& some, int threads, bool keep) {
    encoder::Bert<double> bert = model(threads);
    const encoder::TokenBatch batch = batch_of(some);
    mole::Matrix<double> result(batch.sequences(), config.width);
    keep ? bert.forward_for_backward(batch, result.view()) : bert.forward(batch, result.view());
    return result;
  };
  const mole::Matrix<double> all = embeddings_of(sequences, 2, false);
  check(std::ranges::equal(all.elements(), embeddings_of(sequences, 1, true).elements()),
        "other bits on another number of threads");
  for (std::size_t s = 0; s < sequences.size(); ++s) {
    const mole::Matrix<double> alone = embeddings_of({sequences[s]}, 1, false);
    check(std::ranges::equal(alone.elements(), all.view().row(Index(s))), "other bits beside other sequences");
  }
}

}  // namespace

int main() {
  check_gradients(0);
  check_gradients(1);
  check_bits();
  return failures == 0 ? 0 : 1;
}
