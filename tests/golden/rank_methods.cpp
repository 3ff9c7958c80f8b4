// SPDX-License-Identifier: MIT
// Layers whose experts are single ranks: flylora, flylora-train.
#include "golden/methods.hpp"
#include "golden/parameters.hpp"
#include "mole/factors/sparse_projection.hpp"
#include "mole/gating/magnitude.hpp"
#include "mole/optim/sign_bias_balancer.hpp"
#include "mole/router/latent_router.hpp"

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
  Matrix<int> columns(a.rows(), nonzeros);
  Matrix<T> values(a.rows(), nonzeros);
  for (Index j = 0; j < a.rows(); ++j)
    for (Index i = 0, k = 0; i < a.cols(); ++i)
      if (a(j, i) != 0) {
        if (k == nonzeros) throw std::runtime_error("expected as many non-zeros in every row of A, found more");
        columns(j, k) = int(i);
        values(j, k++) = a(j, i);
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
  experts.factors().set_projection(columns, values);
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
                 const mole::SignBiasBalancer& balancer, const std::string& bias_after, const mole::Batch& batch) {
  const Matrix<T> x = file.matrix("x" + step), d_y = file.matrix("grad_y" + step), bias = file.matrix(bias_name);
  std::copy(bias.elements().begin(), bias.elements().end(), layer.router().bias().begin());
  Matrix<T> y(x.rows(), layer.out()), d_x(x.rows(), layer.in());
  auto work = layer.workspace(x.rows());
  auto gradients = layer.gradients();
  layer.forward(x, y, work, batch);
  layer.backward(x, d_y, d_x, gradients, work);
  file.expect("y" + step, y);
  file.expect("grad_x" + step, d_x);
  const Matrix<T>& d_b = gradients.experts.lora_B;
  Matrix<T> turned(d_b.cols(), d_b.rows());
  for (Index o = 0; o < turned.rows(); ++o)
    for (Index j = 0; j < turned.cols(); ++j) turned(o, j) = d_b(j, o);
  file.expect("grad.lora_B" + step, turned);
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

/// The release's training code: the largest signed values win, the adapter hands x no gradient, and every call, training
/// or not, is balanced.
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

}  // namespace

std::map<std::string, Method> rank_methods() {
  return {{"flylora", flylora()}, {"flylora-train", flylora_train()}};
}

}  // namespace golden
