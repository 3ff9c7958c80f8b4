// SPDX-License-Identifier: MIT
#include "mole/io/checkpoint.hpp"

#include "core/error_code.hpp"
#include "io/temporary_folder.hpp"
#include "mole/loss/load_balance.hpp"
#include "mole/optim/adamw.hpp"
#include "mole/optim/clip_norm.hpp"
#include "mole/optim/sgd.hpp"
#include "mole/optim/sign_bias_balancer.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

#include <numeric>

using namespace mole;
using support::same_bits;
using test::TemporaryFolder;

namespace {

/// All that a run has, in one file.
template <class Run>
void save(Run& run, const std::filesystem::path& path) {
  CheckpointWriter writer;
  writer.add_parameters("layer", run.walk());
  writer.add_state("state", run.layer);
  if constexpr (requires { run.balancer; }) writer.add_state("balancer", run.balancer);
  writer.add_optimizer("optimizer", run.optimizer);
  writer.set_number("step", run.step);
  writer.add_rng("rng", run.rng);
  writer.write(path);
}
template <class Run>
void load(Run& run, const std::filesystem::path& path) {
  const CheckpointReader reader(path);
  reader.read_parameters("layer", run.walk());
  reader.read_state("state", run.layer);
  if constexpr (requires { run.balancer; }) reader.read_state("balancer", run.balancer);
  reader.read_optimizer("optimizer", run.optimizer, run.walk());
  run.step = reader.number("step");
  reader.read_rng("rng", run.rng);
}

/// A training run on random data, whose every step is a function of its number.
template <class Optimizer>
struct Run {
  using Layer = decltype(support::routed_layer<float>({.dropout = 0.2}, support::top_2(), Simd<>{}));

  explicit Run(Optimizer o) : optimizer(std::move(o)) {}

  Layer layer = support::routed_layer<float>({.dropout = 0.2}, support::top_2(), Simd<>{});
  typename Layer::Gradients gradients = layer.gradients();
  typename Layer::Workspace work = layer.workspace(16);
  Optimizer optimizer;
  Rng rng{3};
  std::uint64_t step = 0;

  void take_steps(int count) {
    for (int i = 0; i < count; ++i, ++step) {
      Matrix<float> x(16, 11), y(16, 13), d_y(16, 13);
      fill_uniform(x.view(), 1, rng);
      fill_uniform(d_y.view(), 1, rng);
      set_zero(gradients);
      layer.forward(x, y, work, {.training = true, .seed = 5, .step = step});
      load_balance(work, {.coefficient = 0.1});
      layer.backward(x, d_y, View<float>{}, gradients, work);
      clip_norm(layer, gradients, 1.0);
      optimizer.step(layer, gradients);
    }
  }
  auto walk() {
    return [this](auto&& f) { layer.for_each_tensor(f, gradients); };
  }
};

template <class Optimizer>
void check_resume(const Optimizer& optimizer) {
  const TemporaryFolder folder;
  const auto path = folder / "run.safetensors";
  Run<Optimizer> whole(optimizer), first(optimizer), second(optimizer);
  whole.take_steps(9);
  first.take_steps(4);
  save(first, path);
  second.take_steps(2);  // something to overwrite
  load(second, path);
  second.take_steps(5);
  const auto& a = whole.layer.experts().parameters();
  const auto& b = second.layer.experts().parameters();
  CHECK(same_bits(a.lora_A, b.lora_A));
  CHECK(same_bits(a.lora_B, b.lora_B));
  CHECK(same_bits(whole.layer.router().parameters().weight, second.layer.router().parameters().weight));
}

/// A bias in the score, and another in the selection alone.
template <class T>
auto balanced_layer(Index experts) {
  return support::routed_layer<T>(
      {.experts = experts},
      Gate{BiasedSigmoid<T>(experts), GroupedTopK<T>(2, 1, 1, std::vector<T>(std::size_t(experts))), Raw{}});
}

/// Routing whose biases move after every third step, so that a file may be written with counts under way.
struct BalancedRun {
  static constexpr Index experts = 6;

  decltype(balanced_layer<float>(experts)) layer = balanced_layer<float>(experts);
  decltype(layer)::Workspace work = layer.workspace(16);
  SignBiasBalancer balancer{{.experts = experts, .rate = 0.02}};
  std::uint64_t step = 0;

  void take_steps(int count) {
    for (int i = 0; i < count; ++i) {
      const auto x = support::random_matrix<float>(16, layer.in(), 100 + step++);
      layer.route(x, work, {.training = true});
      balancer.observe(work);
      if (step % 3 == 0) {
        layer.gating().score.bias[0] += float(work.routing.load(0)) / 1000;
        balancer.update(layer.gating().select.bias);
      }
    }
  }
  void save(const std::filesystem::path& path) {
    CheckpointWriter writer;
    writer.add_state("layer", layer);
    writer.add_state("balancer", balancer);
    writer.set_number("step", step);
    writer.write(path);
  }
  void load(const std::filesystem::path& path) {
    const CheckpointReader reader(path);
    reader.read_state("layer", layer);
    reader.read_state("balancer", balancer);
    step = reader.number("step");
  }
  std::vector<float> biases() const {
    std::vector<float> all = layer.gating().score.bias;
    const auto& select = layer.gating().select.bias;
    all.insert(all.end(), select.begin(), select.end());
    return all;
  }
};

/// Two integers and a flag, of types that a balancer has not.
struct Flags {
  std::vector<std::int32_t> numbers{-5, 7};
  std::vector<std::uint8_t> flags{0, 255, 1};

  template <class F>
  void for_each_state(F&& f) {
    f("numbers", std::span(numbers));
    f("flags", std::span(flags));
  }
};

}  // namespace

TEST_CASE("Balancing resumed from a checkpoint gives the bits of balancing that never stopped", "[io]") {
  const TemporaryFolder folder;
  const auto path = folder / "run.safetensors";
  BalancedRun whole, first, second;
  whole.take_steps(11);
  first.take_steps(4);
  CHECK(first.balancer.tokens() == 16);  // one call since the update after the third
  first.save(path);
  second.take_steps(2);
  second.load(path);
  second.take_steps(7);
  CHECK(whole.biases() == second.biases());
  CHECK(whole.biases() != first.biases());
  CHECK(std::ranges::equal(whole.balancer.counts(), second.balancer.counts()));
  CHECK(whole.balancer.tokens() == second.balancer.tokens());
}

TEST_CASE("State of integers keeps its type and its numbers", "[io]") {
  const TemporaryFolder folder;
  Flags flags, zero{{0, 0}, {0, 0, 0}};
  CheckpointWriter writer;
  writer.add_state("bank", flags);
  writer.write(folder / "flags.safetensors");
  CheckpointReader(folder / "flags.safetensors").read_state("bank", zero);
  CHECK(zero.numbers == flags.numbers);
  CHECK(zero.flags == flags.flags);
}

TEST_CASE("State that does not fit is refused, and nothing is changed", "[io]") {
  const TemporaryFolder folder;
  const auto path = folder / "state.safetensors";
  const auto message_of = [&](auto& stored, auto& found) {
    CheckpointWriter writer;
    writer.add_state("part", stored);
    writer.write(path);
    try {
      CheckpointReader(path).read_state("part", found);
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::file);
      return std::string(error.what());
    }
    return std::string("no error");
  };
  const auto contains = [](const std::string& text, const std::string& part) { return text.find(part) != text.npos; };
  BalancedRun run;
  run.take_steps(4);
  const std::vector<float> before = run.biases();
  SECTION("a tensor is missing") {
    Flags flags;
    CHECK(contains(message_of(flags, run.layer), "'part.gating.score.bias'"));
  }
  SECTION("the file has more of it") {
    Gate score{BiasedSigmoid<float>(6), GroupedTopK<float>(2), Raw{}};
    auto other = support::routed_layer<float>({.experts = 6}, score);
    CHECK(contains(message_of(run.layer, other), "expected 3 tensors of 'part', found 4"));
    CHECK(other.gating().score.bias == std::vector<float>(6));
  }
  SECTION("a size differs") {
    auto other = balanced_layer<float>(6);
    other.gating().select.bias.pop_back();
    const std::string message = message_of(other, run.layer);
    CHECK(contains(message, "expected 1 x 6 for 'part.gating.select.bias', found 1 x 5"));
  }
  SECTION("a type differs") {
    auto wide = balanced_layer<double>(6);
    CHECK(contains(message_of(wide, run.layer), "expected F32 for 'part.gating.score.bias', found F64"));
  }
  SECTION("the part is missing") {
    Flags flags;
    message_of(flags, flags);
    CHECK_THROWS_AS(CheckpointReader(path).read_state("other", flags), Error);
  }
  CHECK(run.biases() == before);
}

TEST_CASE("Training resumed from a checkpoint gives the bits of training that never stopped", "[io]") {
  SECTION("AdamW") {
    check_resume(AdamW<float>({.learning_rate = 1e-2}));
  }
  SECTION("SGD with momentum") {
    check_resume(Sgd<float>({.learning_rate = 1e-2, .momentum = 0.9}));
  }
}

TEST_CASE("A checkpoint of an optimizer that has not stepped can be resumed", "[io]") {
  const TemporaryFolder folder;
  Run<AdamW<float>> run{AdamW<float>()}, other{AdamW<float>()};
  save(run, folder / "fresh.safetensors");
  load(other, folder / "fresh.safetensors");
  CHECK(other.optimizer.steps() == 0);
}

TEST_CASE("A checkpoint that does not fit is refused, and nothing is changed", "[io]") {
  const TemporaryFolder folder;
  const auto path = folder / "other.safetensors";
  Run<AdamW<float>> run{AdamW<float>()};
  run.take_steps(2);
  const auto before = run.layer.experts().parameters();
  const auto message_of = [&](auto&& write) {
    CheckpointWriter writer;
    write(writer);
    writer.write(path);
    try {
      load(run, path);
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::file);
      return std::string(error.what());
    }
    return std::string("no error");
  };
  SECTION("a tensor is missing") {
    const auto message = message_of([](CheckpointWriter&) {});
    CHECK(message.find("layer.router.weight") != std::string::npos);
  }
  SECTION("a tensor has another shape") {
    auto small = support::routed_layer<float>({.rank = 2}, support::top_2());
    const auto message = message_of(
        [&](CheckpointWriter& w) { w.add_parameters("layer", [&](auto&& f) { small.for_each_tensor(f); }); });
    CHECK(message.find("layer.experts.lora_A") != std::string::npos);
    CHECK(message.find("12 x 11") != std::string::npos);
    CHECK(message.find("8 x 11") != std::string::npos);
  }
  SECTION("a tensor has another type") {
    auto wide = support::routed_layer<double>({}, support::top_2());
    const auto message =
        message_of([&](CheckpointWriter& w) { w.add_parameters("layer", [&](auto&& f) { wide.for_each_tensor(f); }); });
    CHECK(message.find("F32") != std::string::npos);
    CHECK(message.find("F64") != std::string::npos);
  }
  SECTION("a number is missing") {
    const auto message = message_of([&](CheckpointWriter& w) {
      w.add_parameters("layer", run.walk());
      w.add_state("state", run.layer);
    });
    CHECK(message.find("optimizer.kind") != std::string::npos);
    return;  // the parameters fitted, and are in
  }
  CHECK(same_bits(before.lora_A, run.layer.experts().parameters().lora_A));
  CHECK(same_bits(before.lora_B, run.layer.experts().parameters().lora_B));
}

TEST_CASE("What the file has and the layer has not is refused, like the reverse", "[io]") {
  const TemporaryFolder folder;
  const auto path = folder / "run.safetensors";
  auto with_bias = support::routed_layer<float>({.bias = true}, support::top_2());
  auto without = support::routed_layer<float>({}, support::top_2());
  const auto before = without.experts().parameters();
  for (auto* stored : {&with_bias, &without}) {
    CheckpointWriter writer;
    writer.add_layer("layer", *stored);
    writer.write(path);
    auto& other = stored == &without ? with_bias : without;
    CHECK(test::code_of([&] { CheckpointReader(path).read_layer("layer", other); }) == ErrorCode::file);
    CHECK_NOTHROW(CheckpointReader(path).read_layer("layer", *stored));
  }
  CHECK(same_bits(before.lora_A, without.experts().parameters().lora_A));
}

TEST_CASE("Experts of other ranks are refused, though their tensors have the same shapes", "[io]") {
  const TemporaryFolder folder;
  const auto path = folder / "run.safetensors";
  auto stored = support::routed_layer<float>({.experts = 2, .ranks = {2, 6}}, support::top_2());
  auto other = support::routed_layer<float>({.experts = 2, .ranks = {4, 4}}, support::top_2());
  for (float& number : stored.experts().parameters().lora_A.elements()) number += 1;
  stored.experts().scale()[0] = 99;
  CheckpointWriter writer;
  writer.add_layer("layer", stored);
  writer.write(path);
  const auto before = other.experts().parameters();
  const float scale = other.experts().scale()[0];
  CHECK(test::text_of([&] { CheckpointReader(path).read_layer("layer", other); }).find("ranks of expert 0, found 2") !=
        std::string::npos);
  CHECK(same_bits(before.lora_A, other.experts().parameters().lora_A));
  CHECK(other.experts().scale()[0] == scale);
}

TEST_CASE("State of an optimizer is read by one of the same kind and tensors alone", "[io]") {
  const TemporaryFolder folder;
  const auto path = folder / "run.safetensors";
  Run<AdamW<float>> run{AdamW<float>({.learning_rate = 1e-2})};
  run.take_steps(2);
  const auto write = [&](auto& optimizer) {
    CheckpointWriter writer;
    writer.add_optimizer("optimizer", optimizer);
    writer.write(path);
  };
  const auto code_of_reading = [&](auto& optimizer, auto&& walk) {
    return test::code_of([&] { CheckpointReader(path).read_optimizer("optimizer", optimizer, walk); });
  };
  write(run.optimizer);
  Sgd<float> sgd({.momentum = 0.9});
  CHECK(code_of_reading(sgd, run.walk()) == ErrorCode::file);
  CHECK(sgd.steps() == 0);
  for (const AdamW<float>::Options& options :
       {AdamW<float>::Options{.beta1 = 0.8}, {.beta2 = 0.99}, {.epsilon = 1e-7}, {.bias_correction = false}}) {
    AdamW<float> other(options);
    CHECK(code_of_reading(other, run.walk()) == ErrorCode::file);
  }
  AdamW<float> slower({.learning_rate = 1e-4, .weight_decay = 0});  // may change
  CHECK(code_of_reading(slower, run.walk()) == std::nullopt);
  CHECK(slower.steps() == 2);

  // All trained, into a router that is frozen; and other ranks: the state stays what it was.
  Run<AdamW<float>> frozen{AdamW<float>()};
  frozen.gradients = frozen.layer.gradients({.router = false});
  auto small = support::routed_layer<float>({.rank = 2}, support::top_2());
  auto small_gradients = small.gradients();
  frozen.optimizer.step(frozen.walk());
  std::vector<float> before, after;
  const auto collect = [&](std::vector<float>& all) {
    frozen.optimizer.for_each_state(
        [&](std::string_view, auto... spans) { (all.insert(all.end(), spans.begin(), spans.end()), ...); });
  };
  collect(before);
  CHECK(code_of_reading(frozen.optimizer, frozen.walk()) == ErrorCode::file);
  CHECK(code_of_reading(frozen.optimizer, [&](auto&& f) { small.for_each_tensor(f, small_gradients); }) ==
        ErrorCode::file);
  collect(after);
  CHECK(before == after);
  CHECK(frozen.optimizer.steps() == 1);

  AdamW<float> fresh;
  write(fresh);  // of no step: reading it starts over
  CHECK(code_of_reading(run.optimizer, run.walk()) == std::nullopt);
  CHECK(run.optimizer.steps() == 0);
  run.optimizer.for_each_state([](std::string_view, auto... spans) {
    for (const std::span<const float> moment : {std::span<const float>(spans)...}) {
      CHECK(std::all_of(moment.begin(), moment.end(), [](float number) { return number == 0; }));
    }
  });
}

TEST_CASE("State of an optimizer of other ranks is refused in both directions, and no state is written", "[io]") {
  const TemporaryFolder folder;
  const auto path = folder / "run.safetensors";
  const auto layer_of = [](Index rank) { return support::routed_layer<float>({.rank = rank}, support::top_2()); };
  for (const auto& [stored_rank, rank] : {std::pair<Index, Index>{2, 3}, {3, 2}, {3, 4}})
    for (bool stepped : {false, true}) {
      auto stored = layer_of(stored_rank), layer = layer_of(rank);
      auto stored_gradients = stored.gradients(), gradients = layer.gradients();
      fill(stored_gradients.experts.lora_A.view(), 1);
      AdamW<float> from, to;
      from.step(stored, stored_gradients);
      if (stepped) to.step(layer, gradients);
      CheckpointWriter writer;
      writer.add_optimizer("optimizer", from);
      writer.write(path);
      const auto walk = [&](auto&& f) { layer.for_each_tensor(f, gradients); };
      CAPTURE(stored_rank, rank, stepped);
      CHECK(test::code_of([&] { CheckpointReader(path).read_optimizer("optimizer", to, walk); }) == ErrorCode::file);
      CHECK(to.steps() == (stepped ? 1 : 0));
      to.for_each_state([](std::string_view, auto... spans) {  // of gradients of 0
        CHECK((std::ranges::all_of(spans, [](float number) { return number == 0; }) && ...));
      });
    }
}

TEST_CASE("A number of steps that no run takes is refused, and so is what is no number", "[io]") {
  const TemporaryFolder folder;
  AdamW<float> adamw;
  for (const char* steps : {"18446744073709551615", "3x", "3 ", "-3", "x", "", "3"}) {
    SafetensorsWriter writer;
    writer.set_metadata("format", "mole.checkpoint.2");
    writer.set_metadata("optimizer.kind", adamw.kind());
    writer.set_metadata("optimizer.steps", steps);
    writer.set_metadata("optimizer.tensors", "0");
    writer.write(folder / "run.safetensors");
    CAPTURE(steps);
    CHECK(test::code_of([&] {
            CheckpointReader(folder / "run.safetensors").read_optimizer("optimizer", adamw, [](auto&&) {});
          }) == (std::string_view(steps) == "3" ? std::nullopt : std::optional(ErrorCode::file)));
  }
}

TEST_CASE("A part may be added under a name once", "[io]") {
  AdamW<float> first, second;
  CheckpointWriter writer;
  writer.add_optimizer("optimizer", first);
  CHECK(test::code_of([&] { writer.add_optimizer("optimizer", second); }) == ErrorCode::option);
  writer.set_number("step", 1);
  CHECK(test::code_of([&] { writer.set_number("step", 2); }) == ErrorCode::option);
}

TEST_CASE("A group of parameters that applies to nothing is refused at the first step", "[optim]") {
  auto layer = support::routed_layer<float>({}, support::top_2());
  auto gradients = layer.gradients();
  AdamW<float> misspelled({.groups = {{.contains = "lora_b"}}});
  CHECK(test::code_of([&] { misspelled.step(layer, gradients); }) == ErrorCode::option);
  CHECK(misspelled.steps() == 0);
  AdamW<float> right({.groups = {{.contains = "lora_B"}}});
  CHECK_NOTHROW(right.step(layer, gradients));
}

TEST_CASE("A safetensors file of another format is no checkpoint", "[io]") {
  const TemporaryFolder folder;
  SafetensorsWriter writer;
  writer.write(folder / "adapter.safetensors");
  CHECK_THROWS_AS(CheckpointReader(folder / "adapter.safetensors"), Error);
}

namespace {

/// A layer that learned two tasks and is at its third.
struct BankRun {
  explicit BankRun(const std::vector<int>& ranges)
      : layer(LatentRouter<float>(std::accumulate(ranges.begin(), ranges.end(), Index(0))),
              Gate{Sigmoid{}, TopK{.k = 4}, Raw{}},
              LowRank<GrowingBank<float>>({.in = 11, .out = 13, .ranks = ranges}, start),
              DenseBase(support::random_matrix<float>(13, 11, 6)), Simd<>{}) {}

  void take_steps(int count) {
    auto gradients = layer.gradients({.base = false});
    auto work = layer.workspace(16);
    for (int i = 0; i < count; ++i) {
      Matrix<float> x(16, 11), y(16, 13), d_y(16, 13);
      fill_uniform(x.view(), 1, rng);
      fill_uniform(d_y.view(), 1, rng);
      set_zero(gradients);
      layer.forward(x, y, work);
      layer.backward(x, d_y, {}, gradients, work);
      optimizer.step(layer, gradients);
    }
  }
  void next_task(Index ranks, float scale) {
    layer.experts().append(ranks, rng, scale);
    layer.router().append(ranks);
    optimizer = Sgd<float>({.learning_rate = 0.1, .momentum = 0.9});
  }
  void save(const std::filesystem::path& path) {
    const auto& ranges = layer.experts().factors().ranges();
    CheckpointWriter writer;
    writer.add_parameters("layer", [&](auto&& f) { layer.for_each_tensor(f); });
    writer.add_state("state", layer);
    writer.add_numbers("ranges", std::vector<double>(ranges.begin(), ranges.end()));
    writer.add_rng("rng", rng);
    writer.write(path);
  }
  static BankRun load(const std::filesystem::path& path) {
    const CheckpointReader reader(path);
    const std::vector<double> ranges = reader.numbers("ranges");
    BankRun run(std::vector<int>(ranges.begin(), ranges.end()));
    reader.read_parameters("layer", [&](auto&& f) { run.layer.for_each_tensor(f); });
    reader.read_state("state", run.layer);
    reader.read_rng("rng", run.rng);
    return run;
  }

  Rng start{1}, rng{2};
  MixtureLinear<LatentRouter<float>, Gate<Sigmoid, TopK, Raw>, LowRank<GrowingBank<float>>, DenseBase<Matrix<float>>,
                Simd<>>
      layer;
  Sgd<float> optimizer{{.learning_rate = 0.1, .momentum = 0.9}};
};

}  // namespace

TEST_CASE("A bank is restored with its frozen atoms, their scales and the router's bias", "[io]") {
  const TemporaryFolder folder;
  BankRun run({4});
  run.take_steps(3);
  run.next_task(3, 0.5f);
  run.take_steps(3);
  run.next_task(5, 2.0f);
  run.layer.router().bias()[2] = 0.25f;
  run.take_steps(3);
  run.save(folder / "bank.safetensors");
  BankRun again = BankRun::load(folder / "bank.safetensors");
  for (BankRun* some : {&run, &again}) {
    some->optimizer = Sgd<float>({.learning_rate = 0.1, .momentum = 0.9});
    some->take_steps(4);
    some->next_task(2, 1.0f);
    some->take_steps(4);
  }
  NoScratch none;
  const auto found = again.layer.experts().factors().factors(none),
             expected = run.layer.experts().factors().factors(none);
  CHECK(same_bits(found.a, expected.a));
  CHECK(same_bits(found.b, expected.b));
  CHECK(std::equal(again.layer.experts().scale().begin(), again.layer.experts().scale().end(),
                   run.layer.experts().scale().begin()));
  CHECK(again.layer.router().bias()[2] == 0.25f);

  BankRun other({4, 3, 4});  // another range
  const CheckpointReader reader(folder / "bank.safetensors");
  CHECK_THROWS_AS(reader.read_state("state", other.layer), Error);
}

namespace {

/// FlyLoRA in training: B by an optimizer, the bias by a balancer after every second step, A never.
struct FlyRun {
  explicit FlyRun(std::uint64_t seed) : start(seed) {}

  static Matrix<float> base() { return support::random_matrix<float>(13, 11, 6); }

  Rng start, rng{2};
  Matrix<float> weight = base();
  using Layer = decltype(flylora({}, DenseBase{weight}, start));
  Layer layer = flylora({.rank = 12, .k = 4, .dropout = 0.1}, DenseBase{weight}, start);
  typename Layer::Gradients gradients = layer.gradients();
  typename Layer::Workspace work = layer.workspace(16);
  AdamW<float> optimizer{{.learning_rate = 1e-2}};
  SignBiasBalancer balancer{{.experts = 12, .rate = 0.01}};
  std::uint64_t step = 0;

  void take_steps(int count) {
    for (int i = 0; i < count; ++i, ++step) {
      Matrix<float> x(16, 11), y(16, 13), d_y(16, 13);
      fill_uniform(x.view(), 1, rng);
      fill_uniform(d_y.view(), 1, rng);
      set_zero(gradients);
      layer.forward(x, y, work, {.training = true, .seed = 5, .step = step});
      balancer.observe(work);
      layer.backward(x, d_y, {}, gradients, work);
      optimizer.step(layer, gradients);
      if (step % 2 == 1) balancer.update(layer.router().bias());
    }
  }
  auto walk() {
    return [this](auto&& f) { layer.for_each_tensor(f, gradients); };
  }
  const Matrix<float>& b() const { return layer.experts().parameters().lora_B; }
  Matrix<float> a() const { return layer.experts().factors().projection().values; }
  std::vector<float> bias() const { return {layer.router().bias().begin(), layer.router().bias().end()}; }
  Matrix<float> y() const { return support::output(layer, support::random_matrix<float>(30, 11, 9)); }
};

/// A run's state with every number another, and a column of A that no input has.
struct Broken {
  decltype(FlyRun::layer)& layer;

  template <class F>
  void for_each_state(F&& f) {
    layer.for_each_state([&]<class U>(std::string_view name, std::span<U> numbers) {
      std::vector<U> other(numbers.begin(), numbers.end());
      if constexpr (!std::is_same_v<U, int>)
        for (U& number : other) number += 1;
      else if (name != "experts.ranks")
        other[1] = 11;  // of 11 inputs
      f(name, std::span<U>(other));
    });
  }
};

}  // namespace

TEST_CASE("FlyLoRA resumed in a layer of another seed gives the bits of training that never stopped", "[io]") {
  const TemporaryFolder folder;
  const auto path = folder / "fly.safetensors";
  FlyRun whole(1), first(1), second(77);
  whole.take_steps(9);
  first.take_steps(5);  // with counts of one step under way
  save(first, path);
  second.take_steps(2);
  CHECK_FALSE(same_bits(first.a(), second.a()));
  load(second, path);
  second.take_steps(4);
  CHECK(same_bits(whole.a(), second.a()));
  CHECK(same_bits(whole.b(), second.b()));
  CHECK(whole.bias() == second.bias());
  CHECK(whole.bias() != first.bias());
  CHECK(same_bits(whole.y(), second.y()));
}

TEST_CASE("A layer of erased type reads FlyLoRA's A, too", "[io]") {
  const TemporaryFolder folder;
  FlyRun run(1), other(77);
  CheckpointWriter writer;
  writer.add_state("state", run.layer);
  writer.write(folder / "fly.safetensors");
  AnyLinear<float> any(std::move(other.layer), 30);
  CheckpointReader(folder / "fly.safetensors").read_state("state", any);
  Matrix<int> columns(12, 3);
  any.for_each_state([&]<class U>(std::string_view, std::span<U> numbers) {
    if constexpr (std::is_same_v<U, int>) std::ranges::copy(numbers, columns.elements().begin());
  });
  CHECK(same_bits(columns, run.layer.experts().factors().projection().columns));
}

TEST_CASE("Training of normalized experts, resumed from a checkpoint behind AnyLinear, goes on with the same bits",
          "[io]") {
  using Experts = MapExperts<NormalizedMaps<DenseMaps<float>>>;
  const auto layer_of = [](std::uint64_t seed) {
    Rng rng(seed);
    const Experts experts({.maps = {.in = 5, .out = 7, .experts = 3, .bias = true}}, rng);
    return MixtureLinear(LinearRouter<float>({.in = 5, .experts = 3}, rng), support::top_2(), experts,
                         NoBase<float>(5, 7), Reference{});
  };
  using Layer = decltype(layer_of(1));
  struct Run {
    AnyLinear<float> layer;
    Sgd<float> optimizer{{.learning_rate = 0.05}};

    void take_step(std::uint64_t step) {
      const auto x = support::random_matrix<float>(12, 5, step), target = support::random_matrix<float>(12, 7, step);
      Matrix<float> y(12, 7), d_x(12, 5);
      layer.forward(x, y, {.training = true});
      for (std::size_t i = 0; i < y.elements().size(); ++i) y.elements()[i] -= target.elements()[i];
      layer.backward(x, y, d_x);
      auto* const inside = layer.target<Layer>();
      inside->experts().maps().running().update(layer.workspace<Layer>()->experts_scratch.maps.batch);
      optimizer.step([&](auto&& f) { layer.for_each_tensor(f); });
      layer.zero_gradients();
    }
    Matrix<float> evaluated() {
      Matrix<float> y(9, 7);
      layer.forward(support::random_matrix<float>(9, 5, 99), y);
      return y;
    }
  };
  const TemporaryFolder folder;
  Run run{AnyLinear<float>(layer_of(1), 20)}, resumed{AnyLinear<float>(layer_of(2), 20)};
  for (std::uint64_t step = 0; step < 4; ++step) run.take_step(step);
  CheckpointWriter writer;
  const auto walk = [](Run& of) { return [&of](auto&& f) { of.layer.for_each_tensor(f); }; };
  writer.add_parameters("layer", walk(run));
  writer.add_state("state", run.layer);
  writer.write(folder / "normalized.safetensors");
  const CheckpointReader reader(folder / "normalized.safetensors");
  reader.read_parameters("layer", walk(resumed));
  reader.read_state("state", resumed.layer);
  CHECK(same_bits(run.evaluated(), resumed.evaluated()));
  for (std::uint64_t step = 4; step < 7; ++step) run.take_step(step), resumed.take_step(step);
  CHECK(same_bits(run.evaluated(), resumed.evaluated()));
  using Other = decltype(support::routed_layer<float>({}, support::top_2()));
  CHECK(run.layer.workspace<Other>() == nullptr);
}

TEST_CASE("A projection that is none is refused, and no other state is changed by it", "[io]") {
  const TemporaryFolder folder;
  const auto path = folder / "fly.safetensors";
  FlyRun run(1);
  run.take_steps(4);
  const auto before = run.y();
  const auto bias = run.bias();
  Broken broken{run.layer};
  CheckpointWriter writer;
  writer.add_state("state", broken);
  writer.write(path);
  const CheckpointReader reader(path);
  CHECK(test::code_of([&] { reader.read_state("state", run.layer); }) == ErrorCode::file);
  const std::string text = test::text_of([&] { reader.read_state("state", run.layer); });
  CHECK(text.find(path.string()) == 0);
  CHECK(text.find("to 10 in row 0 of A, found 11") != std::string::npos);
  CHECK(run.bias() == bias);
  CHECK(run.layer.experts().scale()[0] == 64.0f / 12);
  CHECK(same_bits(run.y(), before));
}

TEST_CASE("A checkpoint in memory is read into a layer whose numbers live with the host", "[io]") {
  auto saved = support::routed_layer<float>({}, support::top_2());
  CheckpointWriter writer;
  writer.add_layer("layer", saved);
  const std::vector<std::byte> bytes = writer.bytes();

  auto layer = support::routed_layer<float>({}, support::top_2());
  std::vector<float> memory(std::size_t(parameter_layout(layer).size));
  bind_parameters(layer, std::span(memory));
  std::ranges::fill(memory, 0.f);
  CheckpointReader(SafetensorsReader::from_bytes(bytes, "memory")).read_layer("layer", layer);
  check_bound(layer, std::span(memory));
  std::size_t next = 0;
  saved.for_each_tensor([&](std::string_view, View<float> tensor) {
    for (Index r = 0; r < tensor.rows(); ++r)
      for (float number : tensor.row(r)) CHECK(memory[next++] == number);
  });
  CHECK(next == memory.size());
}
