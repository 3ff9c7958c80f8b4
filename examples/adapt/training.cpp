// SPDX-License-Identifier: MIT
#include "adapt/training.hpp"

#include "adapt/interrupt.hpp"
#include "adapt/progress.hpp"
#include "mole/io/checkpoint.hpp"
#include "mole/optim/adamw.hpp"
#include "mole/optim/clip_norm.hpp"
#include "mole/optim/cosine_schedule.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numbers>

namespace adapt {
namespace {

constexpr mole::Index warmup_steps = 20;

/// Where a run stands: with the parameters, all that the next step depends on.
struct State {
  mole::AdamW<float> optimizer;
  std::vector<double> curve;
  std::vector<double> seconds;  // of each step of this process
};

void save(const Training& training, State& state) {
  mole::CheckpointWriter writer;
  writer.set_text("configuration", training.configuration);
  writer.set_number("step", state.curve.size());
  writer.set_number("seed", training.seed);
  writer.add_parameters("parameters", training.walk);
  writer.add_optimizer("optimizer", state.optimizer);
  writer.add_numbers("curve", state.curve);
  writer.write(training.file);
}

void load(const Training& training, State& state) {
  const mole::CheckpointReader reader(training.file);
  if (reader.text("configuration") != training.configuration)
    throw mole::Error(mole::ErrorCode::file, training.file.string() + ": expected a run of '" + training.configuration +
                                                 "', found one of '" + reader.text("configuration") + "'");
  reader.read_parameters("parameters", training.walk);
  reader.read_optimizer("optimizer", state.optimizer, training.walk);
  state.curve = reader.numbers("curve");
}

double take_step(host::Transformer<float>& model, const Batch& batch, const Training& training, State& state,
                 const mole::CosineSchedule& schedule) {
  const std::size_t step = state.curve.size();
  if (training.context != nullptr) training.context->batch = {.training = true, .seed = training.seed, .step = step};
  training.zero_gradients();
  const double loss = model.loss(batch.inputs, batch.targets);
  model.backward();
  mole::clip_norm(training.walk, 1.0);
  state.optimizer.set_learning_rate(schedule(mole::Index(step) + 1));
  state.optimizer.step(training.walk);
  return loss / std::numbers::ln2;
}

}  // namespace

double median_of(std::vector<double> numbers) {
  const auto middle = numbers.begin() + std::ptrdiff_t(numbers.size() / 2);
  std::nth_element(numbers.begin(), middle, numbers.end());
  return *middle;
}

TrainingResult train(host::Transformer<float>& model, const BatchSampler& sampler, const Training& training) {
  State state{.optimizer = mole::AdamW<float>({.learning_rate = training.peak_rate, .weight_decay = 0}),
              .curve = {},
              .seconds = {}};
  if (training.resume && std::filesystem::exists(training.file)) load(training, state);

  const mole::CosineSchedule schedule{.peak = training.peak_rate,
                                      .warmup_steps = std::min(warmup_steps, training.steps / 2),
                                      .total_steps = training.steps + 1};
  schedule.check();
  Progress progress(training.title, std::size_t(training.steps));
  progress.resume_at(state.curve.size());
  Batch batch;
  const bool from_file = std::ssize(state.curve) >= training.steps;
  while (std::ssize(state.curve) < training.steps) {
    sampler.draw(state.curve.size(), batch);
    const auto start = std::chrono::steady_clock::now();
    state.curve.push_back(take_step(model, batch, training, state, schedule));
    state.seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    progress.show(state.curve.size(), batch.inputs.size(), state.curve.back());
    if (interrupted() && std::ssize(state.curve) < training.steps) {
      save(training, state);
      throw Interrupted{};
    }
  }
  if (!from_file) save(training, state);
  if (training.context != nullptr) training.context->batch = {};
  const double speed = from_file ? 0 : double(sampler.tokens()) / median_of(state.seconds);
  return {.curve = std::move(state.curve), .tokens_per_second = speed, .from_file = from_file};
}

}  // namespace adapt
