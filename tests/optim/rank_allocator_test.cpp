// SPDX-License-Identifier: MIT
// What the golden files do not say; they pin the averages, the budget and which triplets go.
#include "mole/optim/rank_allocator.hpp"

#include "core/error_code.hpp"
#include "mole/factors/triplet_factors.hpp"
#include "mole/testing/random_matrix.hpp"
#include "support/catch.hpp"

#include <map>

using namespace mole;

namespace {

using Triplets = TripletFactors<float>::Parameters;
using Allocator = RankAllocator<Triplets>;

Triplets triplets(Index ranks, std::uint64_t seed) {
  return {laws::random_matrix<float>(ranks, 5, seed), laws::random_matrix<float>(ranks, 6, seed + 1),
          laws::random_matrix<float>(1, ranks, seed + 2)};
}

Index zeros(const Triplets& p) {
  return std::ranges::count(p.lora_E.elements(), 0.0f);
}

struct Training {
  Triplets one = triplets(4, 1), two = triplets(3, 11);
  const Triplets d_one = triplets(4, 21), d_two = triplets(3, 31);

  std::vector<const Triplets*> sizes() const { return {&one, &two}; }
  Allocator::Allocation step(Allocator& allocator) {
    const std::vector<Allocator::Layer> layers{{&one, &d_one}, {&two, &d_two}};
    return allocator.step(layers);
  }
};

}  // namespace

TEST_CASE("A RankAllocator leaves all triplets in its warmup, and the target at the end, over all layers", "[optim]") {
  Training run;
  Allocator allocator({.target = 2, .steps = 20, .warmup = 3, .settling = 4, .interval = 2}, run.sizes());
  Index before = 7;
  for (Index t = 1; t <= 20; ++t) {
    const auto allocation = run.step(allocator);
    CAPTURE(t);
    CHECK(allocation.budget <= before);
    CHECK(allocation.set == (t > 16 || (t > 3 && t % 2 == 0)));
    if (t <= 3) CHECK(zeros(run.one) + zeros(run.two) == 0);
    if (t > 16) CHECK(zeros(run.one) + zeros(run.two) == 5);
    before = allocation.budget;
  }
  CHECK(before == 2);
  CHECK(allocator.steps_taken() == 20);
}

TEST_CASE("The target is reached whatever the interval, and with no steps to settle in", "[optim]") {
  for (Index settling : {0, 1, 4})
    for (Index interval : {1, 3, 7, 100}) {
      CAPTURE(settling, interval);
      Training run;
      Allocator allocator({.target = 2, .steps = 20, .warmup = 3, .settling = settling, .interval = interval},
                          run.sizes());
      for (Index t = 1; t <= 20; ++t) {
        const auto allocation = run.step(allocator);
        if (t <= 20 - settling && t < 20) continue;
        CAPTURE(t);
        CHECK(allocation.budget == 2);
        CHECK(allocation.set);
        CHECK(zeros(run.one) + zeros(run.two) == 5);
      }
    }
}

TEST_CASE("A target of all triplets sets none to 0, though the release asks for the 0th smallest", "[optim]") {
  Training run;
  Allocator allocator({.target = 7, .steps = 5}, run.sizes());
  for (int t = 0; t < 5; ++t) run.step(allocator);
  CHECK(zeros(run.one) + zeros(run.two) == 0);
}

TEST_CASE("A restored RankAllocator goes on as one that never stopped", "[optim]") {
  const Allocator::Options options{.target = 2, .steps = 12, .warmup = 2, .settling = 2};
  Training whole, first;
  Allocator never(options, whole.sizes()), stopped(options, first.sizes()), restored(options, first.sizes());
  std::map<std::string, std::vector<double>> saved;
  for (int t = 0; t < 12; ++t) whole.step(never);
  for (int t = 0; t < 7; ++t) first.step(stopped);
  stopped.for_each_state([&](std::string_view name, auto numbers) {
    saved[std::string(name)] = {numbers.begin(), numbers.end()};
  });
  CHECK(saved.size() == 13);
  restored.for_each_state([&]<class U>(std::string_view name, std::span<U> numbers) {
    std::ranges::transform(saved.at(std::string(name)), numbers.begin(), [](double number) { return U(number); });
  });
  for (int t = 0; t < 5; ++t) first.step(restored);
  CHECK(std::ranges::equal(whole.one.lora_E.elements(), first.one.lora_E.elements()));
  CHECK(std::ranges::equal(whole.two.lora_E.elements(), first.two.lora_E.elements()));
}

TEST_CASE("A RankAllocator refuses options out of range and layers of other sizes", "[optim]") {
  Training run;
  const auto code = [&](const Allocator::Options& options) {
    return test::code_of([&] { Allocator(options, run.sizes()); });
  };
  CHECK(code({.target = 8, .steps = 5}) == ErrorCode::option);
  CHECK(code({.target = -1, .steps = 5}) == ErrorCode::option);
  CHECK(code({.target = 2, .steps = 5, .warmup = 3, .settling = 2}) == ErrorCode::option);
  CHECK(code({.target = 2, .steps = 5, .interval = 0}) == ErrorCode::option);
  CHECK(code({.target = 2, .steps = 5, .beta1 = 1}) == ErrorCode::option);
  CHECK(code({.target = 2, .steps = 5, .beta2 = std::nan("")}) == ErrorCode::option);

  Allocator allocator({.target = 2, .steps = 5}, run.sizes());
  std::vector<Allocator::Layer> layers{{&run.one, &run.d_one}};
  CHECK(test::code_of([&] { allocator.step(layers); }) == ErrorCode::shape);
  layers.push_back({&run.two, &run.d_one});
  const std::string text = test::text_of([&] { allocator.step(layers); });
  CHECK(text.find("lora_A [3 x 5] in layer 1 and its gradients, found [4 x 5]") != std::string::npos);
  CHECK(allocator.steps_taken() == 0);
}

TEST_CASE("A gradient that is NaN costs its triplet alone, and the budget is kept", "[optim]") {
  Training run;
  Allocator allocator({.target = 2, .steps = 6}, run.sizes());
  Triplets broken = run.d_one;
  broken.lora_A(2, 1) = std::nanf("");
  for (int t = 0; t < 6; ++t) {
    const std::vector<Allocator::Layer> layers{{&run.one, &broken}, {&run.two, &run.d_two}};
    allocator.step(layers);
  }
  CHECK(run.one.lora_E(0, 2) == 0);
  CHECK(zeros(run.one) + zeros(run.two) == 5);
}
