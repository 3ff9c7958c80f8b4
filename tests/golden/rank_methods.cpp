// SPDX-License-Identifier: MIT
// Layers whose ranks count one by one: flylora, flylora-train, sora, sora-step, smora.
#include "golden/methods.hpp"
#include "golden/parameters.hpp"
#include "mole/optim/sign_bias_balancer.hpp"

namespace golden {
namespace {

template <class T>
using SparseExperts = mole::LowRank<mole::SparseProjection<T>>;

/// The experts of a file, its dense A [r x in] taken apart; its B is [out x r].
template <class T>
SparseExperts<T> load_sparse_experts(const Comparison<T>& file, bool detached) {
  const Matrix<T> a = file.matrix("lora_A"), b = file.matrix("lora_B");
  const auto first = a.view().row(0);
  const Index nonzeros = a.cols() - std::count(first.begin(), first.end(), T(0));
  typename mole::SparseProjection<T>::Projection sparse{Matrix<int>(a.rows(), nonzeros), Matrix<T>(a.rows(), nonzeros)};
  for (Index j = 0; j < a.rows(); ++j)
    for (Index i = 0, k = 0; i < a.cols(); ++i)
      if (a(j, i) != 0) {
        if (k == nonzeros) throw std::runtime_error("expected as many non-zeros in every row of A, found more");
        sparse.columns(j, k) = int(i);
        sparse.values(j, k++) = a(j, i);
      }
  mole::Rng rng;
  SparseExperts<T> experts({.in = a.cols(),
                            .out = b.rows(),
                            .experts = a.rows(),
                            .nonzeros = nonzeros,
                            .alpha = file.number("scaling"),
                            .scaling = mole::Scaling::fixed,
                            .detached = detached},
                           rng);
  experts.factors().set_projection(sparse);
  for (Index j = 0; j < b.cols(); ++j)
    for (Index o = 0; o < b.rows(); ++o) experts.parameters().lora_B(j, o) = b(o, j);
  return experts;
}

/// A step of balancing: counts and bias have the very numbers of the file. Releases hold their rate in float32.
template <class T>
void expect_balanced(Comparison<T>& file, mole::SignBiasBalancer balancer, const mole::Trace<T>& trace,
                     const std::string& step, const std::string& bias_after, std::span<T> bias) {
  balancer.set_rate(double(float(balancer.rate())));
  balancer.observe(trace);
  const std::string count = "routing.count" + step;
  const bool integers = file.file().at(count).dtype == mole::Dtype::i64;
  const Matrix<T> numbers = integers ? Matrix<T>() : file.matrix(count);
  const auto counted = [&](auto&& expected) { return std::ranges::equal(expected, balancer.counts()); };
  if (!(integers ? counted(file.file().integers(count)) : counted(numbers.elements())))
    throw std::runtime_error("expected the counts of " + count + ", found others");
  balancer.update(bias);
  file.expect(bias_after + step, View<const T>(bias.data(), 1, Index(bias.size())));
  if (!std::ranges::equal(file.matrix(bias_after + step).elements(), bias))
    throw std::runtime_error("expected the bits of " + bias_after + step + ", found others");
}

/// y and all gradients of one step, and the bias after it; its tensors end in `step`, the bias that it starts from has
/// a name of its own.
template <class T, class Layer>
void expect_step(Comparison<T>& file, Layer& layer, const std::string& step, const std::string& bias_name,
                 const mole::SignBiasBalancer& balancer, const std::string& bias_after, const mole::Pass& pass) {
  const Matrix<T> x = file.matrix("x" + step), d_y = file.matrix("grad_y" + step), bias = file.matrix(bias_name);
  std::copy(bias.elements().begin(), bias.elements().end(), layer.router().bias().begin());
  Matrix<T> y(x.rows(), layer.out()), d_x(x.rows(), layer.in());
  auto work = layer.workspace(x.rows());
  auto gradients = layer.gradients();
  layer.forward(x, y, work, pass);
  layer.backward(x, d_y, d_x, gradients, work);
  file.expect("y" + step, y);
  file.expect("grad_x" + step, d_x);
  file.expect("grad.lora_B" + step, transposed(gradients.experts.lora_B));
  expect_balanced<T>(file, balancer, work, step, bias_after, layer.router().bias());
}

/// The release's reference file: the largest magnitudes win, there is no base, and a share is compared with a count.
Method flylora() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const auto experts = load_sparse_experts(file, false);
    mole::MixtureLinear layer(mole::LatentRouter<T>(experts.experts()),
                              mole::Gate{mole::Magnitude{}, mole::TopK{.k = file.integer("top_k")}, mole::Unit{}},
                              experts, mole::NoBase<T>(experts.in(), experts.out()), execution);
    const mole::SignBiasBalancer balancer({.experts = experts.experts(),
                                           .rate = file.number("bias_lr"),
                                           .target = mole::BalanceTarget::frequency,
                                           .counts_padding = true});
    expect_step(file, layer, "", "routing.bias", balancer, "routing.bias_after_update", {.training = true});
    file.expect("grad.routing.bias", Matrix<T>(1, experts.experts()));  // the bias is state
    file.expect_all_compared();
  });
}

/// The release's training code: the largest signed values win, the adapter hands x no gradient, and every call,
/// training or not, is balanced.
Method flylora_train() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const auto experts = load_sparse_experts(file, true);
    mole::MixtureLinear layer(mole::LatentRouter<T>(experts.experts()),
                              mole::Gate{mole::Identity{}, mole::TopK{.k = file.integer("top_k")}, mole::Unit{}},
                              experts, mole::DenseBase(file.matrix("base.weight"), file.matrix("base.bias")),
                              execution);
    const mole::SignBiasBalancer balancer({.experts = experts.experts(),
                                           .rate = file.number("bias_u"),
                                           .counts_padding = true,
                                           .counts_evaluation = true});
    const auto step = [&](const std::string& name, const std::string& bias) {
      expect_step(file, layer, name, bias, balancer, "routing.bias_after", {});
    };
    if (file.integer("steps") == 1) step("", "routing.bias");
    for (Index s = 0; s < file.integer("steps") && file.integer("steps") > 1; ++s)
      step("." + std::to_string(s), s == 0 ? "routing.bias" : "routing.bias_after." + std::to_string(s - 1));
    file.expect_all_compared();
  });
}

/// A trained gate between A and B.
Method sora() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const Matrix<T> x = file.matrix("x"), d_y = file.matrix("grad_y");
    mole::Rng rng;
    auto layer = mole::sora({.rank = file.integer("rank"), .alpha = file.number("alpha")},
                            mole::DenseBase(file.matrix("base.weight")), rng, execution);
    layer.experts().parameters() = {file.matrix("lora_A"), transposed(file.matrix("lora_B")), file.matrix("gate")};
    Matrix<T> y(x.rows(), layer.out()), d_x(x.rows(), layer.in());
    auto work = layer.workspace(x.rows());
    auto gradients = layer.gradients();
    layer.forward(x, y, work);
    layer.backward(x, d_y, d_x, gradients, work);
    file.expect("y", y);
    file.expect("grad_x", d_x);
    file.expect("grad.lora_A", gradients.experts.lora_A);
    file.expect("grad.lora_B", transposed(gradients.experts.lora_B));
    file.expect("grad.gate", gradients.experts.gate);
    file.expect_all_compared();
  });
}

/// Steps of the gate's own optimizer as released; there grad.s is what a step is fed.
template <class T, class Arch>
void expect_gate_steps(Comparison<T>& file) {
  const auto& text = file.file().metadata();
  const std::string& betas = text.at("betas");
  mole::AdamW<T, Arch> adamw({.learning_rate = file.number("lr"),
                              .beta1 = std::stod(betas),
                              .beta2 = std::stod(betas.substr(betas.find(',') + 1)),
                              .epsilon = file.number("eps"),
                              .weight_decay = file.number("weight_decay"),
                              .epsilon_on_raw = true});
  if (text.at("correct_bias") != "True") throw std::runtime_error("expected correct_bias = True");
  const bool by_rate = text.at("case") == "threshold lambda*lr";
  Matrix<T> gate = file.matrix("param");
  for (Index s = 0; s < file.integer("steps"); ++s) {
    const std::string step = "." + std::to_string(s);
    Matrix<T> gradient = file.matrix("grad" + step);
    adamw.step([&](auto&& f) { f("gate", gate.view(), gradient.view()); });
    const double lambda = file.file().template matrix<double>("lambda" + step)(0, 0);
    mole::soft_threshold(gate.elements(), by_rate ? lambda * file.number("lr") : lambda,
                         mole::ThresholdMode::dead_zone);
    file.expect("param" + step, gate);
  }
}

Method sora_step() {
  const auto all = []<class T>(Comparison<T>& file) {
    file.under("vectors");
    expect_gate_steps<T, mole::kernel::DefaultArchitecture>(file);
    file.under("one element a vector");
    expect_gate_steps<T, mole::kernel::Scalar>(file);
  };
  return {all, all};
}

/// A router, a gate whose bias is in the weights too, and a training call that balances after each forward.
template <class T, class Layer>
void expect_smora_step(Comparison<T>& file, Layer& layer, const std::string& step, const std::string& bias_name) {
  const Matrix<T> x = file.matrix("x" + step), d_y = file.matrix("grad_y" + step), bias = file.matrix(bias_name);
  auto& own_bias = layer.gating().score.bias;
  std::copy(bias.elements().begin(), bias.elements().end(), own_bias.begin());
  Matrix<T> y(x.rows(), layer.out()), d_x(x.rows(), layer.in()), d_bias(1, bias.cols());
  auto work = layer.workspace(x.rows());
  auto gradients = layer.gradients();
  layer.forward(x, y, work, {.training = true});
  layer.backward(x, d_y, d_x, gradients, work);
  file.expect("y" + step, y);
  file.expect("gate.dense" + step, dense_weights(work.routing, work.experts()));
  file.expect("grad_x" + step, d_x);
  file.expect("grad.lora_A" + step, gradients.experts.lora_A);
  file.expect("grad.lora_B" + step, transposed(gradients.experts.lora_B));
  file.expect("grad.router.weight" + step, gradients.router.weight);
  for (Index n = 0; n < x.rows(); ++n)
    for (Index e = 0; e < d_bias.cols(); ++e) d_bias(0, e) += work.d_scores()(n, e);
  file.expect("grad.routing.bias" + step, d_bias);
  const mole::SignBiasBalancer balancer(
      {.experts = bias.cols(), .rate = file.number("bias_update_rate"), .counts_padding = true});
  expect_balanced<T>(file, balancer, work, step, "routing.bias_after", own_bias);
}

Method smora() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const Matrix<T> b = file.matrix("lora_B");
    mole::Rng rng;
    auto layer = mole::smora({.rank = b.cols(),
                              .k = file.integer("top_k"),
                              .rank_partition = file.integer("rank_partition"),
                              .alpha = file.number("alpha")},
                             mole::DenseBase(file.matrix("base.weight"), file.matrix("base.bias")), rng, execution);
    layer.experts().parameters() = {file.matrix("lora_A"), transposed(b)};
    layer.router().parameters().weight = file.matrix("router.weight");
    const Index steps = file.integer("steps");
    for (Index s = 0; s < steps; ++s)
      expect_smora_step(file, layer, steps == 1 ? "" : "." + std::to_string(s),
                        s == 0 ? "routing.bias" : "routing.bias_after." + std::to_string(s - 1));
    file.expect_all_compared();
  });
}

}  // namespace

std::map<std::string, Method> rank_methods() {
  return {{"smora", smora()},
          {"flylora", flylora()},
          {"flylora-train", flylora_train()},
          {"sora", sora()},
          {"sora-step", sora_step()}};
}

}  // namespace golden
