// SPDX-License-Identifier: MIT

// The demo's host model: gradients, reproducibility, replaceable layers, freezing.

#include "host/transformer.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "support/catch.hpp"

namespace {

using host::Index;

constexpr host::TransformerOptions tiny{.layers = 2, .width = 8, .heads = 2, .hidden = 12, .context = 6};
constexpr Index sequences = 2;

std::vector<std::uint8_t> random_bytes(const host::TransformerOptions& options, std::uint64_t seed) {
  host::Random random(seed);
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(sequences * options.context));
  for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random() % 5 + (random() % 2) * 200);
  return bytes;
}

/// The initial weights are so small that attention is uniform and GELU linear; these are not.
template <class T>
void scatter(host::Transformer<T>& model) {
  host::Random random(11);
  model.walk_all([&](std::string_view name, T* value, T*, Index size) {
    const double deviation = name.find("gain") != std::string_view::npos ? 0.2 : 0.5;
    for (Index i = 0; i < size; ++i) value[i] += static_cast<T>(deviation * random.normal());
  });
}

/// Threads that take tasks in turn, so that the assignment differs from run to run.
host::Parallel threads(int count) {
  return [count](std::ptrdiff_t tasks, const std::function<void(std::ptrdiff_t)>& task) {
    std::atomic<std::ptrdiff_t> next = 0;
    std::vector<std::jthread> workers;
    for (int i = 0; i < count; ++i) {
      workers.emplace_back([&] {
        for (std::ptrdiff_t t = next++; t < tasks; t = next++) task(t);
      });
    }
  };
}

/// y = 2 f(x), and counts its calls.
class Doubled final : public host::Linear<double> {
 public:
  Doubled(std::unique_ptr<host::Linear<double>> inner, int& backwards, bool& d_x_wanted)
      : inner_(std::move(inner)), backwards_(backwards), d_x_wanted_(d_x_wanted) {}

  Index in() const override { return inner_->in(); }
  Index out() const override { return inner_->out(); }
  void forward(host::ConstView<double> x, host::View<double> y) override {
    inner_->forward(x, y);
    y *= 2.0;
  }
  void backward(host::ConstView<double> x, host::ConstView<double> d_y, host::View<double> d_x) override {
    ++backwards_;
    d_x_wanted_ = d_x.size() != 0;
    const host::Matrix<double> doubled = 2.0 * d_y;
    inner_->backward(x, host::view(doubled), d_x);
  }
  void visit(const std::string& prefix, const host::Visitor<double>& f) override { inner_->visit(prefix, f); }

 private:
  std::unique_ptr<host::Linear<double>> inner_;
  int& backwards_;
  bool& d_x_wanted_;
};

/// Loss above and below along what, of each tensor: every number alone; or all of them at once, each with a random
/// sign, so that an error of any one of them shows undiminished, for two losses a tensor.
enum class Along { each_number, random_signs };

struct Worst {
  std::string name;
  double error = 0;
  int tensors = 0;
  int moving = 0;  // tensors with a gradient that is not zero
  int wrong = 0;   // tensors that are further off than a right gradient may be
};

constexpr double tolerance = 1e-6;

/// Compares every gradient with central differences; errors relative to the largest of the tensor.
Worst check_gradients(host::Transformer<double>& model, Along along, double corruption = 0) {
  const auto inputs = random_bytes(model.options(), 1);
  const auto targets = random_bytes(model.options(), 2);
  model.zero_gradients();
  model.loss(inputs, targets);
  model.backward();
  Worst worst;
  host::Random random(13);
  model.for_each_tensor([&](std::string_view name, double* value, double* gradient, Index size) {
    gradient[0] += corruption;
    const std::vector<double> kept(value, value + size);
    const auto error_along = [&](Index first, Index count, double step) {
      std::vector<double> direction(static_cast<std::size_t>(count), 1.0);
      if (along == Along::random_signs)
        for (double& sign : direction) sign = random() % 2 == 0 ? 1 : -1;
      const auto loss_at = [&](double offset) {
        for (Index i = 0; i < count; ++i)
          value[first + i] =
              kept[static_cast<std::size_t>(first + i)] + offset * direction[static_cast<std::size_t>(i)];
        return model.loss(inputs, targets);
      };
      const double difference = (loss_at(step) - loss_at(-step)) / (2 * step);
      std::copy_n(kept.begin() + first, count, value + first);
      return std::abs(difference - std::inner_product(direction.begin(), direction.end(), gradient + first, 0.0));
    };
    double error = 0;
    if (along == Along::random_signs)
      error = error_along(0, size, 1e-5 / std::sqrt(static_cast<double>(size)));
    else
      for (Index i = 0; i < size; ++i) error = std::max(error, error_along(i, 1, 1e-5));
    double largest = 1e-4;
    for (Index i = 0; i < size; ++i) largest = std::max(largest, std::abs(gradient[i]));
    ++worst.tensors;
    worst.moving += largest > 1e-4;
    worst.wrong += error / largest >= tolerance;
    if (error / largest >= worst.error) {
      worst.error = error / largest;
      worst.name = name;
    }
  });
  return worst;
}

std::vector<float> train(const host::Parallel& parallel) {
  const host::TransformerOptions options{.layers = 2, .width = 96, .heads = 3, .hidden = 160, .context = 70};
  host::Transformer<float> model(options, 5, parallel);
  std::vector<float> all;
  for (std::uint64_t step = 0; step < 3; ++step) {
    model.zero_gradients();
    all.push_back(static_cast<float>(model.loss(random_bytes(options, step), random_bytes(options, step + 1))));
    model.backward();
    model.for_each_tensor([&](std::string_view, float* value, float* gradient, Index size) {
      for (Index i = 0; i < size; ++i) value[i] -= 0.1f * gradient[i];
    });
  }
  model.walk_all(
      [&](std::string_view, float* value, float*, Index size) { all.insert(all.end(), value, value + size); });
  return all;
}

}  // namespace

TEST_CASE("every gradient of the host model agrees with central differences", "[host]") {
  host::Transformer<double> model(tiny, 3);
  scatter(model);
  const Worst worst = check_gradients(model, Along::each_number);
  INFO(worst.name << ": " << worst.error);
  CHECK(worst.tensors == 4 + 2 * 6 + 2);
  CHECK(worst.moving == worst.tensors);
  CHECK(worst.error < tolerance);
}

TEST_CASE("the gradient check of the host model fails on a gradient with one wrong number", "[host]") {
  const Along along = GENERATE(Along::each_number, Along::random_signs);
  host::Transformer<double> model({.layers = 1, .width = 4, .heads = 2, .hidden = 4, .context = 2}, 3);
  scatter(model);
  CHECK(check_gradients(model, along).wrong == 0);
  const Worst worst = check_gradients(model, along, 1e-3);
  CHECK(worst.wrong == worst.tensors);
  CHECK(worst.error > 1e-4);
}

TEST_CASE("training gives the same bits on any number of threads", "[host]") {
  const std::vector<float> one = train(host::serial());
  CHECK(std::isfinite(one.back()));
  CHECK(train(threads(2)) == one);
  CHECK(train(threads(5)) == one);
}

TEST_CASE("a position sees no later byte and no other sequence", "[host]") {
  host::Transformer<double> model(tiny, 3);
  scatter(model);
  auto inputs = random_bytes(tiny, 1);
  const auto targets = random_bytes(tiny, 2);
  model.loss(inputs, targets);
  const std::vector<double> before(model.token_losses().begin(), model.token_losses().end());
  const std::size_t changed = static_cast<std::size_t>(tiny.context) + 3;  // the second sequence, fourth byte
  inputs[changed] = static_cast<std::uint8_t>(inputs[changed] + 1);
  model.loss(inputs, targets);
  for (std::size_t n = 0; n < before.size(); ++n) {
    const bool may_differ = n >= changed && n < 2 * static_cast<std::size_t>(tiny.context);
    CHECK((model.token_losses()[n] != before[n]) == may_differ);
  }
}

TEST_CASE("the mean loss is the mean of the token losses, and does not depend on what was reserved", "[host]") {
  host::Transformer<double> model(tiny, 3);
  scatter(model);
  const auto inputs = random_bytes(tiny, 1);
  const auto targets = random_bytes(tiny, 2);
  const double loss = model.loss(inputs, targets);
  double total = 0;
  for (const double token : model.token_losses()) total += token;
  CHECK(std::abs(loss - total / static_cast<double>(targets.size())) < 1e-12);
  model.reserve(2 * sequences);
  CHECK(model.loss(inputs, targets) == loss);
}

TEST_CASE("an untrained model knows nothing: eight bits per byte", "[host]") {
  host::Transformer<float> model(tiny, 3);
  const double bits = host::bits_per_byte(model.loss(random_bytes(tiny, 1), random_bytes(tiny, 2)));
  CHECK(std::abs(bits - 8) < 0.05);
}

TEST_CASE("a linear layer can be replaced at every place, and gradients pass through", "[host]") {
  for (const host::Place place : host::places) {
    host::Transformer<double> model(tiny, 3);
    scatter(model);
    const double before = model.loss(random_bytes(tiny, 1), random_bytes(tiny, 2));
    int backwards = 0;
    bool d_x_wanted = false;
    auto& layer = model.linear(1, place);
    layer = std::make_unique<Doubled>(std::move(layer), backwards, d_x_wanted);
    CHECK(model.loss(random_bytes(tiny, 1), random_bytes(tiny, 2)) != before);
    const Worst worst = check_gradients(model, Along::random_signs);
    INFO(host::name(place) << " " << worst.name << ": " << worst.error);
    CHECK(worst.error < tolerance);
    CHECK(worst.moving == worst.tensors);
    CHECK(backwards == 1);
    CHECK(d_x_wanted);
  }
}

TEST_CASE("a frozen model computes no weight gradients and stops at its lowest replaced layer", "[host]") {
  host::Transformer<double> model(tiny, 3);
  scatter(model);
  model.freeze();
  int seen = 0;
  model.for_each_tensor([&](std::string_view, double*, double*, Index) { ++seen; });
  CHECK(seen == 0);
  int all = 0;
  model.walk_all([&](std::string_view, double*, double* gradient, Index) {
    ++all;
    CHECK(gradient == nullptr);
  });
  CHECK(all == 18);

  int upper = 0;
  int lower = 0;
  bool upper_wanted = false;
  bool lower_wanted = false;
  auto& top = model.linear(1, host::Place::qkv);
  top = std::make_unique<Doubled>(std::move(top), upper, upper_wanted);
  model.loss(random_bytes(tiny, 1), random_bytes(tiny, 2));
  model.backward();
  CHECK(upper == 1);
  CHECK_FALSE(upper_wanted);

  auto& bottom = model.linear(0, host::Place::qkv);
  bottom = std::make_unique<Doubled>(std::move(bottom), lower, lower_wanted);
  model.loss(random_bytes(tiny, 1), random_bytes(tiny, 2));
  model.backward();
  CHECK(upper == 2);
  CHECK(upper_wanted);
  CHECK(lower == 1);
  CHECK_FALSE(lower_wanted);
}

TEST_CASE("parameters have distinct names in a fixed order", "[host]") {
  host::Transformer<float> model(tiny, 3);
  std::vector<std::string> names;
  model.walk_all([&](std::string_view name, float*, float*, Index) { names.emplace_back(name); });
  CHECK(names.front() == "embedding.0");
  CHECK(names[4] == "blocks.0.attention_norm.gain");
  CHECK(names[6] == "blocks.0.qkv.weight");
  CHECK(names.back() == "head.weight");
}

TEST_CASE("impossible sizes are refused", "[host]") {
  CHECK_THROWS_AS(host::Transformer<float>({.width = 10, .heads = 4}), std::invalid_argument);
  host::Transformer<float> model(tiny, 3);
  const std::array<std::uint8_t, 7> seven{};
  CHECK_THROWS_AS(model.loss(seven, seven), std::invalid_argument);
}
