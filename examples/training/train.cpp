// SPDX-License-Identifier: MIT
#include "training/train.hpp"

#include "mole/io/checkpoint.hpp"
#include "mole/optim/adamw.hpp"
#include "mole/optim/bilevel_turns.hpp"
#include "mole/optim/clip_norm.hpp"
#include "mole/optim/cosine_schedule.hpp"
#include "training/interrupt.hpp"
#include "training/progress.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numbers>

namespace training {
namespace {

constexpr mole::Index warmup_steps = 20;

/// One run, and where it stands.
class Run {
 public:
  Run(Model& model, const Training& training)
      : model_(model),
        training_(training),
        schedule_{.peak = training.peak_rate,
                  .warmup_steps = std::min(warmup_steps, training.steps / 2),
                  .total_steps = training.steps + 1},
        optimizer_({.learning_rate = training.peak_rate,
                    .beta2 = training.adapter != nullptr ? training.adapter->method().beta2 : 0.999,
                    .weight_decay = 0}),
        choosing_optimizer_(optimizer_) {
    schedule_.check();
  }

  mole::Index steps_taken() const { return std::ssize(curve_); }
  bool finished() const { return steps_taken() >= training_.steps; }
  std::vector<double>& curve() { return curve_; }

  void take_step(const text::Batch& batch);
  void save();
  void load();

 private:
  void for_each_tensor(const mole::AnyLinear<float>::Visitor& f) {
    if (training_.adapter != nullptr) return training_.adapter->for_each_tensor(f);
    model_.for_each_tensor([&](std::string_view name, float* value, float* gradient, host::Index size) {
      f(name, mole::View<float>(value, 1, size), mole::View<float>(gradient, 1, size));
    });
  }
  /// Those whose turn it is.
  void for_each_tensor(mole::Turn turn, const mole::AnyLinear<float>::Visitor& f) {
    for_each_tensor([&](std::string_view name, mole::View<float> parameter, mole::View<float> gradient) {
      const bool chooses = has_choice() && training_.adapter->method().chooses(name);
      if (chooses == (turn == mole::Turn::upper)) f(name, parameter, gradient);
    });
  }
  auto walk_of(mole::Turn turn) {
    return [this, turn](const mole::AnyLinear<float>::Visitor& f) { for_each_tensor(turn, f); };
  }
  bool has_choice() const { return training_.adapter != nullptr && training_.adapter->method().chooses; }

  Model& model_;
  const Training& training_;
  mole::CosineSchedule schedule_;
  mole::AdamW<float> optimizer_, choosing_optimizer_;
  std::vector<double> curve_;
};

void Run::take_step(const text::Batch& batch) {
  const mole::Index step = steps_taken();
  if (training_.adapter != nullptr)
    training_.adapter->start_training(batch, training_.seed, std::uint64_t(step));
  else
    model_.zero_gradients();
  const double loss = model_.loss(batch.inputs, batch.targets);
  model_.backward();
  const bool search = has_choice() && step < training_.steps / 2;
  const mole::Turn turn = search ? mole::BilevelTurns{}(step) : mole::Turn::lower;
  const auto walk_parameters = walk_of(turn);
  mole::clip_norm(walk_parameters, 1.0);
  mole::AdamW<float>& optimizer = turn == mole::Turn::lower ? optimizer_ : choosing_optimizer_;
  optimizer.set_learning_rate(schedule_(step + 1));
  optimizer.step(walk_parameters);
  if (training_.adapter != nullptr) training_.adapter->after_step(step, training_.steps);
  curve_.push_back(loss / std::numbers::ln2);
}

void Run::save() {
  if (training_.file.empty()) return;
  mole::CheckpointWriter writer;
  writer.set_text("configuration", training_.configuration);
  for (const auto& [name, text] : training_.notes) writer.set_text(name, text);
  writer.set_number("step", curve_.size());
  writer.set_number("seed", training_.seed);
  writer.add_parameters("parameters", [this](const mole::AnyLinear<float>::Visitor& f) { for_each_tensor(f); });
  if (training_.adapter != nullptr) writer.add_state("state", *training_.adapter);
  writer.add_optimizer("optimizer", optimizer_);
  if (has_choice()) writer.add_optimizer("choosing_optimizer", choosing_optimizer_);
  writer.add_numbers("curve", curve_);
  writer.write(training_.file);
}

void Run::load() {
  const auto walk_parameters = [this](const mole::AnyLinear<float>::Visitor& f) { for_each_tensor(f); };
  const mole::CheckpointReader reader(training_.file);
  if (reader.text("configuration") != training_.configuration)
    throw mole::Error(mole::ErrorCode::file, training_.file.string() + ": expected a run of '" +
                                                 training_.configuration + "', found one of '" +
                                                 reader.text("configuration") + "'");
  reader.read_parameters("parameters", walk_parameters);
  if (training_.adapter != nullptr) reader.read_state("state", *training_.adapter);
  reader.read_optimizer("optimizer", optimizer_, walk_of(mole::Turn::lower));
  if (has_choice()) reader.read_optimizer("choosing_optimizer", choosing_optimizer_, walk_of(mole::Turn::upper));
  curve_ = reader.numbers("curve");
}

}  // namespace

double median_of(std::vector<double> numbers) {
  const auto middle = numbers.begin() + std::ptrdiff_t(numbers.size() / 2);
  std::nth_element(numbers.begin(), middle, numbers.end());
  return *middle;
}

TrainingResult train(Model& model, const text::BatchSampler& sampler, const Training& training) {
  Run run(model, training);
  if (training.resume && std::filesystem::exists(training.file)) run.load();

  Progress progress(training.title, std::size_t(training.steps));
  progress.resume_at(run.curve().size());
  text::Batch batch;
  std::vector<double> seconds;  // of each step of this process
  const bool from_file = run.finished();
  while (!run.finished()) {
    sampler.draw(run.curve().size(), batch);
    const auto start = std::chrono::steady_clock::now();
    run.take_step(batch);
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    progress.show(run.curve().size(), batch.inputs.size(), run.curve().back());
    interrupt_after(long(run.curve().size()));
    if (interrupted() && !run.finished()) {
      run.save();
      throw Interrupted{};
    }
  }
  if (!from_file) run.save();
  const double speed = from_file ? 0 : double(sampler.tokens()) / median_of(seconds);
  return {.curve = std::move(run.curve()), .tokens_per_second = speed, .from_file = from_file};
}

}  // namespace training
