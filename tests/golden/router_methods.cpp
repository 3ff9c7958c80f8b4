// SPDX-License-Identifier: MIT
// Routers that are not linear: tutel-cosine.
#include "golden/methods.hpp"
#include "golden/routed_layers.hpp"
#include "mole/loss/load_balance.hpp"
#include "mole/loss/squared_cv.hpp"

#include <cmath>
#include <numbers>

namespace golden {
namespace {

template <class T>
mole::CosineRouter<T> load_cosine_router(const Comparison<T>& file) {
  const Matrix<T> weight = file.matrix("cosine_projector.weight"), similarity = file.matrix("sim_matrix");
  mole::Rng rng;
  mole::CosineRouter<T> router({.in = weight.cols(),
                                .experts = similarity.cols(),
                                .projection = weight.rows(),
                                .learned_scale = true,
                                .deviation = 0.01},
                               rng);
  router.parameters() = {
      {weight, file.matrix("cosine_projector.bias")}, transposed(similarity), file.matrix("temperature")};
  return router;
}

/// Tutel's load_importance_loss: half the sum of CV^2 of the importance, sum over all tokens of the score, and of the
/// load, sum of Phi((score - threshold) / deviation). As its layer calls it, a token's threshold is the last chosen of
/// its logits, and not of its scores; it has a gradient.
template <class T>
double load_importance(mole::Trace<T>& trace, double deviation) {
  const auto last_chosen = [&](Index n) { return Index(trace.routing.experts_of(n).back()); };
  const auto above = [&](Index n, Index e) {
    return (double(trace.scores()(n, e)) - double(trace.logits()(n, last_chosen(n)))) / deviation;
  };
  const auto importance = [&](Index e) {
    double sum = 0;
    for (Index n = 0; n < trace.tokens(); ++n) sum += double(trace.scores()(n, e));
    return sum;
  };
  const auto load = [&](Index e) {
    double sum = 0;
    for (Index n = 0; n < trace.tokens(); ++n) sum += std::erfc(-above(n, e) / std::numbers::sqrt2) / 2;
    return sum;
  };
  const auto cv_of = [&](auto&& number) { return mole::SquaredCv::of(trace.experts(), true, 1e-10, number); };
  const mole::SquaredCv of_importance = cv_of(importance), of_load = cv_of(load);
  for (Index e = 0; e < trace.experts(); ++e) {
    const double d_importance = of_importance.derivative(importance(e)) / 2, d_load = of_load.derivative(load(e)) / 2;
    for (Index n = 0; n < trace.tokens(); ++n) {
      const double z = above(n, e), density = std::exp(-z * z / 2) * std::numbers::inv_sqrtpi / std::numbers::sqrt2;
      const double d_above = d_load * density / deviation;
      trace.d_scores()(n, e) += T(d_importance + d_above);
      trace.d_logits()(n, last_chosen(n)) -= T(d_above);
    }
  }
  return (of_importance.value() + of_load.value()) / 2;
}

/// Routing alone; the gradients of the file are of its logits.
Method tutel_cosine() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const Matrix<T> x = file.matrix("x"), d_logits = file.matrix("grad_logits");
    const Index experts = d_logits.cols();
    mole::Rng rng;
    mole::MixtureLinear layer(load_cosine_router(file),
                              mole::Gate{mole::Softmax{}, mole::TopK{file.integer("top_k")}, mole::Renormalised{}},
                              Experts<T>({.in = x.cols(), .out = 1, .experts = experts, .rank = 1}, rng),
                              mole::NoBase<T>(x.cols(), 1), execution);
    auto work = layer.workspace(x.rows());
    layer.route(x, work);
    expect_gate<T>(file, work);
    for (Index n = 0; const auto expected : file.file().integers("gate.indices"))
      if (const Index pair = n++; work.routing.expert(pair) != expected)
        throw std::runtime_error("expected the experts of gate.indices, found others");

    const auto expect_router = [&](const std::string& prefix, const auto& gradients) {
      file.expect(prefix + "cosine_projector.weight", gradients.projection.weight);
      file.expect(prefix + "cosine_projector.bias", gradients.projection.bias);
      file.expect(prefix + "sim_matrix", transposed(gradients.prototypes));
      file.expect(prefix + "temperature", gradients.log_scale);
    };
    auto gradients = layer.gradients();
    Matrix<T> d_x(x.rows(), x.cols());
    std::ranges::copy(d_logits.elements(), work.d_logits().data());
    layer.route_backward(x, d_x, gradients, work);
    file.expect("grad_x", d_x);
    expect_router("grad.", gradients.router);

    const auto expect = [&](const std::string& name, auto loss) {
      expect_loss(file, name, layer, work, {}, loss, expect_router);
    };
    expect("gshard", [](mole::Trace<T>& trace) {
      return mole::load_balance(trace, {.count = mole::BalanceCount::first_choice});
    });
    expect("load_importance",
           [&](mole::Trace<T>& trace) { return load_importance(trace, file.number("gate_noise") / double(experts)); });
    file.expect_all_compared();
  });
}

}  // namespace

std::map<std::string, Method> router_methods() {
  return {{"tutel-cosine", tutel_cosine()}};
}

}  // namespace golden
