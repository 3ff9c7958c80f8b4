// SPDX-License-Identifier: MIT
#include "mole/interop/torch/replace_linear.hpp"

#include "core/error_code.hpp"
#include "interop/torch/torch_and_catch.hpp"
#include "mole/base/dense_base.hpp"
#include "mole/core/random.hpp"
#include "mole/method/mola.hpp"

#include <algorithm>
#include <string>
#include <vector>

using namespace mole;

namespace {
/// The feed-forward part of a transformer's block: finds its children by name.
struct NamedMlpImpl : torch::nn::Module {
  NamedMlpImpl() {
    parts->update({{"up", torch::nn::Linear(6, 10).ptr()}, {"down", torch::nn::Linear(10, 6).ptr()}});
    register_module("parts", parts);
    register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({6})));
  }
  static torch::Tensor call(torch::nn::Module& module, const torch::Tensor& x) {
    if (auto* linear = module.as<torch::nn::Linear>()) return linear->forward(x);
    return module.as<TorchLinear<float>>()->forward(x);
  }
  torch::Tensor forward(const torch::Tensor& x) { return x + call(*parts["down"], torch::gelu(call(*parts["up"], x))); }
  torch::nn::ModuleDict parts;
};
TORCH_MODULE(NamedMlp);

struct HeadImpl : torch::nn::SequentialImpl {
  using torch::nn::SequentialImpl::SequentialImpl;
  torch::Tensor forward(const torch::Tensor& x) { return torch::nn::SequentialImpl::forward(x); }
};
TORCH_MODULE(Head);

struct MemberMlpImpl : torch::nn::Module {
  torch::Tensor forward(const torch::Tensor& x) { return up(x); }
  torch::nn::Linear up = register_module("up", torch::nn::Linear(6, 6));
};
TORCH_MODULE(MemberMlp);

struct AnyMlpImpl : torch::nn::Module {
  AnyMlpImpl() { register_module("up", up.ptr()); }
  torch::Tensor forward(const torch::Tensor& x) { return up.forward(x); }
  torch::nn::AnyModule up{torch::nn::Linear(6, 6)};
};
TORCH_MODULE(AnyMlp);

auto mola_on(std::uint64_t seed) {
  return [seed](View<const float> weight, BiasView<float> bias) {
    Rng rng(seed);
    return mola({.experts = 4, .rank = 2, .k = 2, .dropout = 0}, DenseBase{weight, bias}, rng);
  };
}
}  // namespace

TEST_CASE("A layer takes the place of a Linear in a Sequential and in a ModuleDict, and trains there", "[interop]") {
  torch::manual_seed(21);
  torch::nn::Sequential model(torch::nn::Linear(5, 6), NamedMlp(), Head(torch::nn::Linear(6, 3)));
  const torch::Tensor x = torch::randn({32, 5}), goal = torch::randn({32, 3});
  const torch::Tensor before = model->forward(x);
  for (auto& parameter : model->parameters()) parameter.set_requires_grad(false);

  model->eval();
  CHECK(!replace_linear(*model, "0", mola_on(1))->is_training());
  model->train();
  for (const char* path : {"1.parts.up", "1.parts.down", "2.0"}) replace_linear(*model, path, mola_on(2));
  const torch::Tensor after = model->forward(x);
  CHECK((after - before).abs().max().item<float>() < 1e-5f);  // B is zero

  const auto names = model->named_parameters().keys();
  const auto has = [&](const std::string& name) { return std::find(names.begin(), names.end(), name) != names.end(); };
  CHECK((has("0.weight") && has("0.bias") && has("1.parts.up.router.weight") && has("2.0.experts.lora_A")));
  std::vector<torch::Tensor> trained;
  for (auto& parameter : model->parameters())
    if (parameter.requires_grad()) trained.push_back(parameter);
  CHECK(trained.size() == 4 * 3);
  torch::optim::Adam optimizer(trained, torch::optim::AdamOptions(0.01));
  double first = 0, last = 0;
  for (int step = 0; step < 60; ++step) {
    optimizer.zero_grad();
    const torch::Tensor loss = (model->forward(x) - goal).square().mean();
    loss.backward();
    optimizer.step();
    last = loss.item<double>();
    if (step == 0) first = last;
  }
  CHECK(last < 0.7 * first);
}

TEST_CASE("replace_linear says what it found where it cannot replace, and leaves the model as it was", "[interop]") {
  torch::nn::Sequential model(torch::nn::Linear(5, 6), torch::nn::ReLU(), NamedMlp(), MemberMlp());
  const auto names = model->named_parameters().keys();
  const auto refused = [&](ErrorCode code, const char* path) {
    return test::error_text(code, [&] { replace_linear(*model, path, mola_on(1)); });
  };
  CHECK(refused(ErrorCode::option, "2.parts.gate") ==
        "replace_linear: expected a child 'gate' of 2.parts, found up, down");
  CHECK(refused(ErrorCode::option, "4") == "replace_linear: expected a child '4' of the model, found 0, 1, 2, 3");
  CHECK(refused(ErrorCode::option, "0.weight") == "replace_linear: expected a child 'weight' of 0, found none");
  CHECK(refused(ErrorCode::option, "1") ==
        "replace_linear: expected a torch::nn::Linear at 1, found torch::nn::ReLUImpl");
  CHECK(refused(ErrorCode::option, "3.up").find("found 1 others: a member of a module") != std::string::npos);
  const torch::Tensor weight = torch::zeros({7, 5});
  Rng rng(1);
  const TorchLinear<float> layer(mola({.experts = 2}, DenseBase{torch_view<const float>(weight)}, rng), weight);
  CHECK(test::error_text(ErrorCode::shape, [&] { replace_linear(*model, "0", layer); }) ==
        "replace_linear: expected a layer of 5 inputs and 6 outputs for 0, found 5 and 7");
  CHECK(model->named_parameters().keys() == names);
}

TEST_CASE("A member that is an AnyModule takes a layer by assignment", "[interop]") {
  torch::manual_seed(22);
  AnyMlp model;
  const torch::Tensor x = torch::randn({4, 6}), before = model(x);
  CHECK(test::error_text(ErrorCode::option, [&] {
          replace_linear(*model, "up", mola_on(1));
        }).find("a member of a module") != std::string::npos);
  const torch::nn::LinearImpl& linear = model->up.get<torch::nn::LinearImpl>();
  const torch::Tensor weight = linear.weight, bias = linear.bias;
  TorchLinear<float> layer(mola_on(1)(torch_view<const float>(weight), torch_bias<float>(bias)), weight, bias);
  model->up = torch::nn::AnyModule(layer);
  model->replace_module("up", model->up.ptr());
  CHECK((model(x) - before).abs().max().item<float>() < 1e-5f);
  CHECK(model->named_parameters().contains("up.router.weight"));
}
