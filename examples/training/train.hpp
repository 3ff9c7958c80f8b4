// SPDX-License-Identifier: MIT
// train(): the training loop of the base and of every adapter.
#pragma once

#include "text/batch_sampler.hpp"
#include "training/adapter.hpp"
#include "training/model.hpp"

#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace training {

/// What a step found and read.
struct Step {
  double loss = 0;
  std::size_t tokens = 0;
};

/// What is to be trained.
struct Trainee {
  MethodLayers* layers = nullptr;  // null: parameters of no method
  std::function<void(const mole::AnyLinear<float>::Visitor& f)> for_each_tensor = {};
  /// The loss of the batch of step 0, 1, ..., whose gradients stand in the tensors afterwards.
  std::function<Step(mole::Index step)> compute = {};
};

/// How.
struct Training {
  std::string title = {};          // for the progress line
  std::string configuration = {};  // all that the result depends on
  std::uint64_t seed = 0;
  mole::Index steps = 0;
  double peak_rate = 0;
  std::vector<std::pair<std::string, std::string>> notes = {};  // names and texts that the file has besides
  std::filesystem::path file = {};  // the result, or the state of a stopped run; empty: neither is kept
  bool resume = false;
};

/// What came of it.
struct TrainingResult {
  std::vector<double> curve;     // loss of each step's batch
  double tokens_per_second = 0;  // by the median step; 0 when from_file
  bool from_file = false;        // finished by an earlier run
};

double median_of(std::vector<double> numbers);

/// Trains to the end and writes `file`; or, after Ctrl-C, writes the state so far and throws Interrupted.
///
/// AdamW, clip 1, cosine with 20 warm-up steps; the rest is the method's. With `resume`, a file of the same
/// configuration is gone on from, or, if it is finished, just loaded. The bits depend on configuration and seed alone.
/// Throws mole::Error for a file that does not fit.
TrainingResult train(const Trainee& trainee, const Training& training);

/// The same of a model of text: its adapter, which is attached to it, or, for null, its own parameters. The loss is in
/// bits per byte.
TrainingResult train(Model& model, Adapter* adapter, const text::BatchSampler& sampler, const Training& training);

}  // namespace training
