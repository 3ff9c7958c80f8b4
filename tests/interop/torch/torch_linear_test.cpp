// SPDX-License-Identifier: MIT
// TorchLinear, against libtorch's own arithmetic.
#include "core/error_code.hpp"
#include "interop/torch/torch_and_catch.hpp"
#include "interop/torch/torch_mixture.hpp"

#include "mole/interop/torch.hpp"
#include "mole/loss/load_balance.hpp"
#include "mole/base/dense_base.hpp"
#include "mole/base/nf4_base.hpp"
#include "mole/base/packed_base.hpp"
#include "mole/core/random.hpp"
#include "mole/method/lora.hpp"
#include "mole/method/mola.hpp"

#include <algorithm>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

using namespace mole;
using test::error_text;
using test::TorchMixture;

namespace {
constexpr std::int64_t in = 24, out = 20, experts = 4, ranks = 3;

template <class T>
torch::Tensor random_tensor(torch::IntArrayRef sizes) {
  return torch::randn(sizes, mole::detail::torch_type<T>) / 4;
}

/// A layer around a weight and a bias of its own, with B that is not zero.
template <class T>
TorchLinear<T> new_layer(double dropout = 0, TrainableParts trainable = {}) {
  const torch::Tensor weight = random_tensor<T>({out, in}), bias = random_tensor<T>({out});
  Rng rng(std::uint64_t(weight[0][0].template item<double>() * 1e6));
  auto layer = mola({.experts = experts, .rank = ranks, .k = 2, .alpha = 6, .dropout = dropout},
                    DenseBase{torch_view<const T>(weight), torch_bias<T>(bias)}, rng);
  TorchLinear<T> module(std::move(layer), weight, bias, trainable);
  const torch::NoGradGuard no_grad;
  for (auto& parameter : module->named_parameters())
    if (parameter.key() == "experts.lora_B") parameter.value().normal_(0, 0.3);
  return module;
}

/// Of the same numbers, as leaves of a graph of their own.
template <class T>
TorchMixture mixture_of(TorchLinear<T>& layer) {
  const auto parameters = layer->named_parameters();
  const auto leaf = [&](const char* name) { return parameters[name].detach().clone().set_requires_grad(true); };
  return {parameters["weight"].detach(),
          parameters["bias"].detach(),
          leaf("router.weight"),
          leaf("experts.lora_A"),
          leaf("experts.lora_B"),
          2,
          2.0};
}

double difference(const torch::Tensor& a, const torch::Tensor& b) {
  return (a - b).abs().max().item<double>() / std::max(1e-3, b.abs().max().item<double>());
}

template <class T>
std::vector<torch::Tensor> gradients_of(TorchLinear<T>& layer) {
  std::vector<torch::Tensor> gradients;
  for (auto& parameter : layer->named_parameters())
    if (parameter.value().requires_grad()) {
      gradients.push_back(parameter.value().grad().clone());
      parameter.value().mutable_grad() = torch::Tensor();
    }
  return gradients;
}

bool same_bits(const torch::Tensor& a, const torch::Tensor& b) {
  return torch::equal(a, b);
}
bool same_bits(const std::vector<torch::Tensor>& a, const std::vector<torch::Tensor>& b) {
  return a.size() == b.size() &&
         std::equal(a.begin(), a.end(), b.begin(), [](const auto& x, const auto& y) { return torch::equal(x, y); });
}

bool holds(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}
}  // namespace

TEMPLATE_TEST_CASE("Forward, the gradients of x and of all parameters are those of the mixture in torch's operations",
                   "[interop]", float, double) {
  torch::manual_seed(1);
  auto layer = new_layer<TestType>();
  const TorchMixture mixture = mixture_of(layer);
  const torch::Tensor x = random_tensor<TestType>({3, 7, in}).set_requires_grad(true);
  const torch::Tensor rows = x.detach().clone().reshape({21, in}).set_requires_grad(true);
  const torch::Tensor d_y = random_tensor<TestType>({3, 7, out});
  const double tolerance = sizeof(TestType) == 4 ? 1e-5 : 1e-13;

  const torch::Tensor y = layer(x), expected = mixture(rows);
  CHECK(y.sizes() == torch::IntArrayRef({3, 7, out}));
  CHECK(difference(y.view({21, out}), expected) < tolerance);
  y.backward(d_y);
  expected.backward(d_y.view({21, out}));
  CHECK(difference(x.grad().view({21, in}), rows.grad()) < tolerance);
  const auto parameters = layer->named_parameters();
  CHECK(difference(parameters["router.weight"].grad(), mixture.router.grad()) < tolerance);
  CHECK(difference(parameters["experts.lora_A"].grad(), mixture.lora_a.grad()) < tolerance);
  CHECK(difference(parameters["experts.lora_B"].grad(), mixture.lora_b.grad()) < tolerance);
  CHECK(!parameters["weight"].requires_grad());
}

TEST_CASE("An auxiliary loss is a part of the graph, whatever it is multiplied by", "[interop]") {
  torch::manual_seed(2);
  auto layer = new_layer<double>();
  const TorchMixture mixture = mixture_of(layer);
  const torch::Tensor x = random_tensor<double>({16, in});
  layer->set_auxiliary_loss([](Trace<double>& trace) { return load_balance(trace, {.coefficient = 0.5}); });
  for (const double factor : {1.0, 2.5, 0.0}) {
    layer->zero_grad(true);
    mixture.router.mutable_grad() = torch::Tensor();
    const torch::Tensor y = layer(x);
    const torch::Tensor loss = y.square().sum() + factor * layer->auxiliary_loss();
    const torch::Tensor expected = mixture(x).square().sum() + factor * 0.5 * mixture.load_balance(x);
    CHECK(std::abs(loss.item<double>() - expected.item<double>()) < 1e-12);
    loss.backward();
    expected.backward();
    CHECK(difference(layer->named_parameters()["router.weight"].grad(), mixture.router.grad()) < 1e-12);
  }
  layer->zero_grad(true);
  mixture.router.mutable_grad() = torch::Tensor();
  layer(x);
  layer->auxiliary_loss().backward();  // alone
  (0.5 * mixture.load_balance(x)).backward();
  CHECK(difference(layer->named_parameters()["router.weight"].grad(), mixture.router.grad()) < 1e-12);
}

TEST_CASE("A forward without gradients between forward and backward changes no bit", "[interop]") {
  torch::manual_seed(3);
  auto layer = new_layer<float>();
  const torch::Tensor x = random_tensor<float>({9, in}), other = random_tensor<float>({30, in});
  const torch::Tensor goal = random_tensor<float>({9, out});
  (layer(x) - goal).square().sum().backward();
  const auto expected = gradients_of(layer);
  const torch::Tensor loss = (layer(x) - goal).square().sum();
  {
    const torch::NoGradGuard no_grad;
    layer->eval();
    CHECK(!layer(other).requires_grad());
    layer(x);
    layer->train();
  }
  loss.backward();
  CHECK(same_bits(gradients_of(layer), expected));
}

TEST_CASE("Any number of forwards may be in flight, and a second backward of a graph is the first again", "[interop]") {
  torch::manual_seed(4);
  auto layer = new_layer<float>(0.2);
  layer->set_auxiliary_loss([](Trace<float>& trace) { return load_balance(trace, {.coefficient = 0.5}); });
  std::vector<torch::Tensor> inputs, losses;
  std::vector<std::vector<torch::Tensor>> expected;
  for (const std::int64_t rows : {5, 11, 3}) {
    inputs.push_back(random_tensor<float>({rows, in}));
    const torch::Tensor y = layer(inputs.back());
    losses.push_back(y.square().sum() + 3 * layer->auxiliary_loss());
    losses.back().backward({}, true);
    expected.push_back(gradients_of(layer));
  }
  for (const std::size_t again : {2u, 0u, 1u}) {
    losses[again].backward({}, true);
    CHECK(same_bits(gradients_of(layer), expected[again]));
  }
  torch::manual_seed(5);
  for (std::size_t i = 0; i < 3; ++i) losses[i] = layer(inputs[i]).square().sum();
  (losses[0] + losses[1] + losses[2]).backward();
  const auto together = gradients_of(layer);
  torch::manual_seed(5);
  for (std::size_t i = 0; i < 3; ++i) layer(inputs[i]).square().sum().backward();  // into the same gradients
  const auto one_by_one = gradients_of(layer);
  for (std::size_t i = 0; i < together.size(); ++i) CHECK(difference(together[i], one_by_one[i]) < 1e-5);
}

TEST_CASE("Only what is wanted gets a gradient", "[interop]") {
  torch::manual_seed(6);
  auto layer = new_layer<float>();
  const torch::Tensor x = random_tensor<float>({4, in}).set_requires_grad(true);
  layer->named_parameters()["router.weight"].set_requires_grad(false);
  layer(x).sum().backward();
  CHECK(!layer->named_parameters()["router.weight"].grad().defined());
  CHECK(layer->named_parameters()["experts.lora_A"].grad().defined());
  const torch::Tensor d_x = x.grad().clone();
  for (auto& parameter : layer->parameters()) parameter.set_requires_grad(false);
  x.mutable_grad() = torch::Tensor();
  layer(x).sum().backward();
  CHECK(same_bits(x.grad(), d_x));
  CHECK(!layer(x.detach()).requires_grad());
  auto frozen = new_layer<float>(0, {.router = false});
  CHECK(!frozen->named_parameters()["router.weight"].requires_grad());
  frozen->named_parameters()["router.weight"].set_requires_grad(true);
  CHECK(holds(error_text(ErrorCode::not_trainable, [&] { frozen(x).sum().backward(); }), "found it of router.weight"));
  CHECK(layer(random_tensor<float>({0, in})).sizes() == torch::IntArrayRef({0, out}));
}

TEST_CASE("What a backward cannot be right for is refused", "[interop]") {
  torch::manual_seed(7);
  auto layer = new_layer<float>();
  const torch::Tensor x = random_tensor<float>({4, in}).set_requires_grad(true);
  CHECK(
      holds(error_text(ErrorCode::not_trainable, [&] { torch::autograd::grad({layer(x).sum()}, {x}, {}, true, true); }),
            "create_graph"));
  const torch::Tensor loss = layer(x).square().sum();
  {
    const torch::NoGradGuard no_grad;
    layer->named_parameters()["experts.lora_A"].add_(1);
  }
  CHECK_THROWS_WITH(loss.backward(), Catch::Contains("modified by an inplace operation"));
  const torch::Tensor of_old_weight = layer(x).square().sum();
  layer->named_parameters()["weight"].add_(1);
  CHECK_THROWS_WITH(of_old_weight.backward(), Catch::Contains("modified by an inplace operation"));
  const torch::Tensor of_other_weight = layer(x).square().sum();
  layer->named_parameters()["weight"].set_data(random_tensor<float>({out, in}));
  layer(x);
  CHECK(holds(error_text(ErrorCode::order, [&] { of_other_weight.backward(); }), "expected the parameters of forward"));
  const torch::Tensor of_other_parameters = layer(x).square().sum();
  std::stringstream file;
  torch::save(layer, file);
  torch::load(layer, file);
  CHECK_THROWS(of_other_parameters.backward());
  layer->named_parameters()["weight"].set_requires_grad(true);
  CHECK(holds(error_text(ErrorCode::not_trainable, [&] { layer(x).sum().backward(); }), "found it of weight"));
}

TEST_CASE("Tensors of another type, device or size are refused, others without rows are copied", "[interop]") {
  torch::manual_seed(8);
  auto layer = new_layer<float>();
  CHECK(error_text(ErrorCode::option, [&] {
          layer(random_tensor<double>({2, in}));
        }) == "TorchLinear: expected x of Float on the CPU, found Double on cpu, Strided");
  CHECK(error_text(ErrorCode::option, [&] {
          layer(torch::empty({2, in}, torch::kMeta));
        }) == "TorchLinear: expected x of Float on the CPU, found Float on meta, Strided");
  CHECK(holds(error_text(ErrorCode::option, [&] { layer(torch::Tensor()); }), "undefined"));
  CHECK(error_text(ErrorCode::shape, [&] {
          layer(random_tensor<float>({2, in + 1}));
        }) == "TorchLinear: expected x with rows of 24 numbers, found [2, 25]");

  const torch::Tensor wide = random_tensor<float>({in, 2 * in});
  for (const torch::Tensor& part : {wide.t().slice(0, 0, in).t(), wide.slice(1, 0, in), wide.slice(1, 0, 2 * in, 2),
                                    wide.slice(0, 0, 1).slice(1, 0, in).expand({5, in}), wide[0].slice(0, 0, in)}) {
    const torch::Tensor x = part.detach().set_requires_grad(true), copy = part.contiguous().set_requires_grad(true);
    const torch::Tensor y = layer(x), y_of_copy = layer(copy);
    CHECK(same_bits(y, y_of_copy));
    y.sum().backward();  // an expanded gradient
    y_of_copy.backward(torch::ones_like(y));
    CHECK(same_bits(x.grad(), copy.grad()));
  }
}

TEST_CASE("Training with torch's optimizer descends, in the memory of the layer", "[interop]") {
  torch::manual_seed(9);
  auto layer = new_layer<float>();
  auto teacher = new_layer<float>();
  const torch::Tensor x = random_tensor<float>({64, in}), goal = teacher(x).detach();
  layer->layer().for_each_tensor([&](std::string_view name, View<float> tensor, View<float>) {
    CHECK(layer->named_parameters()[std::string(name)].data_ptr() == tensor.data());
  });
  torch::optim::Adam optimizer(layer->parameters(), torch::optim::AdamOptions(0.02));
  double first = 0, last = 0;
  for (int step = 0; step < 150; ++step) {
    optimizer.zero_grad();
    const torch::Tensor loss = (layer(x) - goal).square().mean();
    loss.backward();
    optimizer.step();
    last = loss.item<double>();
    if (step == 0) first = last;
  }
  CHECK(last < 0.35 * first);
}

TEST_CASE("train() draws dropout by torch's generator, eval() has none", "[interop]") {
  auto layer = new_layer<float>(0.5);
  const torch::Tensor x = random_tensor<float>({8, in});
  torch::manual_seed(10);
  const torch::Tensor first = layer(x), second = layer(x);
  torch::manual_seed(10);
  CHECK(same_bits(layer(x), first));
  CHECK(!same_bits(first, second));
  layer->eval();
  const torch::Tensor plain = layer(x);
  CHECK(same_bits(layer(x), plain));
  CHECK(difference(plain, mixture_of(layer)(x)) < 1e-5);
  CHECK(plain.requires_grad());
}

TEST_CASE("A layer that was saved is loaded with its parameters, state, weight and bias", "[interop]") {
  torch::manual_seed(11);
  auto layer = new_layer<float>(), other = new_layer<float>();
  const torch::Tensor x = random_tensor<float>({6, in});
  layer->layer().for_each_state([](std::string_view name, auto numbers) {
    if (name == "experts.scale") numbers[0] = 7;
  });
  std::stringstream file;
  torch::save(layer, file);
  CHECK(!same_bits(other(x), layer(x)));
  torch::optim::SGD optimizer(other->parameters(), torch::optim::SGDOptions(0.1));
  torch::load(other, file);
  CHECK(same_bits(other(x), layer(x)));
  other->layer().for_each_tensor([&](std::string_view name, View<float> tensor, View<float>) {
    CHECK(other->named_parameters()[std::string(name)].data_ptr() == tensor.data());
  });
  other(x).square().sum().backward();
  optimizer.step();  // of the optimizer from before
  CHECK(!same_bits(other(x), layer(x)));
}

TEST_CASE("Parameters that were moved come home, or are refused by name", "[interop]") {
  torch::manual_seed(12);
  auto layer = new_layer<float>();
  const torch::Tensor x = random_tensor<float>({6, in});
  torch::Tensor lora_a = layer->named_parameters()["experts.lora_A"];
  const void* const home = lora_a.data_ptr();
  lora_a.set_data(torch::zeros_like(lora_a));
  const torch::Tensor y = layer(x);
  CHECK(lora_a.data_ptr() == home);
  CHECK(difference(y, mixture_of(layer)(x)) < 1e-5);
  layer->to(torch::kFloat64);
  CHECK(error_text(ErrorCode::option, [&] { layer(x); }) ==
        "TorchLinear: expected router.weight of Float on the CPU, found Double on cpu, Strided");
  layer->to(torch::kFloat32);
  CHECK(same_bits(layer(x), y));
  lora_a.set_data(torch::zeros({2, 2}));
  CHECK(holds(error_text(ErrorCode::shape, [&] { layer(x); }), "experts.lora_A of [12, 24], found [2, 2]"));
}

TEST_CASE("A weight that moves or changes is that of the base from then on, packed or not", "[interop]") {
  torch::manual_seed(13);
  const torch::Tensor x = random_tensor<float>({6, in}), bias = random_tensor<float>({out});
  torch::Tensor weight = random_tensor<float>({out, in});
  const auto made = [&](auto base) {
    Rng rng(1);
    return lora({.rank = 2}, std::move(base), rng);
  };
  const auto bias_view = torch_bias<float>(bias);
  const auto view = torch_view<const float>(weight);
  const auto expected = [&] { return torch::matmul(x, weight.t()) + bias; };
  TorchLinear<float> dense(made(DenseBase{view, bias_view}), weight, bias);
  TorchLinear<float> packed(made(PackedBase<float>(view, bias_view, {.backward = false})), weight, bias);
  TorchLinear<float> coded(made(Nf4Base{view, bias_view, {.block = 32}}), weight, bias);
  TorchLinear<float> any(AnyLinear<float>(made(PackedBase<float>(view, bias_view)), 1), weight, bias);
  weight.add_(1);
  CHECK(difference(dense(x), expected()) < 1e-5);
  CHECK(difference(packed(x), expected()) < 1e-5);
  CHECK(difference(coded(x), expected()) < 0.2);
  CHECK(holds(error_text(ErrorCode::order, [&] { any(x); }), "without a set_base"));
  weight.set_data(random_tensor<float>({out, in}));
  CHECK(difference(dense(x), expected()) < 1e-5);
  CHECK(difference(packed(x), expected()) < 1e-5);
  weight.set_data(random_tensor<float>({in, out}));
  CHECK(holds(error_text(ErrorCode::shape, [&] { dense(x); }), "expected a weight of [20 x 24]"));
  const auto base = DenseBase{view, bias_view};
  CHECK(holds(error_text(ErrorCode::shape, [&] { TorchLinear<float>(made(base), weight); }),
              "expected a weight of [20 x 24]"));
}

TEST_CASE("Threads may call one layer at once, forward and backward", "[interop]") {
  torch::manual_seed(15);
  auto layer = new_layer<float>();
  layer->eval();
  const auto gradients = [&](const torch::Tensor& x) {
    std::vector<torch::Tensor> wanted;
    for (auto& parameter : layer->parameters())
      if (parameter.requires_grad()) wanted.push_back(parameter);
    return torch::autograd::grad({layer(x).square().sum()}, wanted);
  };
  std::vector<torch::Tensor> inputs;
  std::vector<std::vector<torch::Tensor>> expected, found(4);
  for (int i = 0; i < 4; ++i) {
    inputs.push_back(random_tensor<float>({3 + i, in}));
    expected.push_back(gradients(inputs.back()));
  }
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < 4; ++i)
    threads.emplace_back([&, i] {
      for (int repeat = 0; repeat < 20; ++repeat) found[i] = gradients(inputs[i]);
    });
  for (auto& thread : threads) thread.join();
  for (std::size_t i = 0; i < 4; ++i) CHECK(same_bits(found[i], expected[i]));
}

TEST_CASE("A clone has numbers of its own", "[interop]") {
  torch::manual_seed(14);
  auto layer = new_layer<float>();
  const torch::Tensor x = random_tensor<float>({6, in});
  layer->eval();
  const torch::Tensor y = layer(x);
  auto copy = std::dynamic_pointer_cast<TorchLinearImpl<float>>(layer->clone());
  REQUIRE(copy);
  {
    const torch::NoGradGuard no_grad;
    for (auto& parameter : layer->parameters()) parameter.add_(1);
  }
  CHECK(same_bits(copy->forward(x), y));
  CHECK(!same_bits(layer(x), y));
}
