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
  Run(const Trainee& trainee, const Training& training)
      : trainee_(trainee),
        training_(training),
        schedule_{.peak = training.peak_rate,
                  .warmup_steps = std::min(warmup_steps, training.steps / 2),
                  .total_steps = training.steps + 1},
        optimizer_({.learning_rate = training.peak_rate,
                    .beta2 = trainee.layers != nullptr ? trainee.layers->method().beta2 : 0.999,
                    .weight_decay = 0}),
        choosing_optimizer_(optimizer_) {
    schedule_.check();
  }

  mole::Index steps_taken() const { return std::ssize(curve_); }
  bool finished() const { return steps_taken() >= training_.steps; }
  std::vector<double>& curve() { return curve_; }
  std::size_t tokens() const { return last_.tokens; }  // of the last step

  void take_step();
  void save();
  void load();

 private:
  /// Those whose turn it is.
  void for_each_tensor(mole::Turn turn, const mole::AnyLinear<float>::Visitor& f) {
    trainee_.for_each_tensor([&](std::string_view name, mole::View<float> parameter, mole::View<float> gradient) {
      const bool chooses = has_choice() && trainee_.layers->method().chooses(name);
      if (chooses == (turn == mole::Turn::upper)) f(name, parameter, gradient);
    });
  }
  auto walk_of(mole::Turn turn) {
    return [this, turn](const mole::AnyLinear<float>::Visitor& f) { for_each_tensor(turn, f); };
  }
  bool has_choice() const { return trainee_.layers != nullptr && trainee_.layers->method().chooses; }

  const Trainee& trainee_;
  const Training& training_;
  mole::CosineSchedule schedule_;
  mole::AdamW<float> optimizer_, choosing_optimizer_;
  std::vector<double> curve_;
  Step last_;
};

void Run::take_step() {
  const mole::Index step = steps_taken();
  last_ = trainee_.compute(step);
  const bool search = has_choice() && step < training_.steps / 2;
  const mole::Turn turn = search ? mole::BilevelTurns{}(step) : mole::Turn::lower;
  const auto walk_parameters = walk_of(turn);
  mole::clip_norm(walk_parameters, 1.0);
  mole::AdamW<float>& optimizer = turn == mole::Turn::lower ? optimizer_ : choosing_optimizer_;
  optimizer.set_learning_rate(schedule_(step + 1));
  optimizer.step(walk_parameters);
  if (trainee_.layers != nullptr) trainee_.layers->after_step(step, training_.steps);
  curve_.push_back(last_.loss);
}

void Run::save() {
  if (training_.file.empty()) return;
  mole::CheckpointWriter writer;
  writer.set_text("configuration", training_.configuration);
  for (const auto& [name, text] : training_.notes) writer.set_text(name, text);
  writer.set_number("step", curve_.size());
  writer.set_number("seed", training_.seed);
  writer.add_parameters("parameters", trainee_.for_each_tensor);
  if (trainee_.layers != nullptr) writer.add_state("state", *trainee_.layers);
  writer.add_optimizer("optimizer", optimizer_);
  if (has_choice()) writer.add_optimizer("choosing_optimizer", choosing_optimizer_);
  writer.add_numbers("curve", curve_);
  writer.write(training_.file);
}

void Run::load() {
  const mole::CheckpointReader reader(training_.file);
  if (reader.text("configuration") != training_.configuration)
    throw mole::Error(mole::ErrorCode::file, training_.file.string() + ": expected a run of '" +
                                                 training_.configuration + "', found one of '" +
                                                 reader.text("configuration") + "'");
  reader.read_parameters("parameters", trainee_.for_each_tensor);
  if (trainee_.layers != nullptr) reader.read_state("state", *trainee_.layers);
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

TrainingResult train(const Trainee& trainee, const Training& training) {
  Run run(trainee, training);
  if (training.resume && std::filesystem::exists(training.file)) run.load();

  Progress progress(training.title, std::size_t(training.steps));
  progress.resume_at(run.curve().size());
  std::vector<double> speeds;  // of each step of this process, in tokens a second
  const bool from_file = run.finished();
  while (!run.finished()) {
    const auto start = std::chrono::steady_clock::now();
    run.take_step();
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    speeds.push_back(double(run.tokens()) / taken.count());
    progress.show(run.curve().size(), run.tokens(), run.curve().back());
    interrupt_after(long(run.curve().size()));
    if (interrupted() && !run.finished()) {
      run.save();
      throw Interrupted{};
    }
  }
  if (!from_file) run.save();
  const double speed = from_file ? 0 : median_of(speeds);
  return {.curve = std::move(run.curve()), .tokens_per_second = speed, .from_file = from_file};
}

TrainingResult train(Model& model, Adapter* adapter, const text::BatchSampler& sampler, const Training& training) {
  text::Batch batch;
  Trainee trainee{.layers = adapter};
  if (adapter != nullptr)
    trainee.for_each_tensor = [adapter](const auto& f) { adapter->for_each_tensor(f); };
  else
    trainee.for_each_tensor = [&model](const auto& f) {
      model.for_each_tensor([&](std::string_view name, float* value, float* gradient, host::Index size) {
        f(name, mole::View<float>(value, 1, size), mole::View<float>(gradient, 1, size));
      });
    };
  trainee.compute = [&](mole::Index step) -> Step {
    sampler.draw(std::size_t(step), batch);
    if (adapter != nullptr)
      adapter->start_training(batch, training.seed, std::uint64_t(step));
    else
      model.zero_gradients();
    const double loss = model.loss(batch.inputs, batch.targets);
    model.backward();
    return {loss / std::numbers::ln2, batch.inputs.size()};
  };
  return train(trainee, training);
}

}  // namespace training
