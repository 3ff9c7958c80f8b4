// SPDX-License-Identifier: MIT
// Routers that are more than one linear map: tutel-cosine, rmoe.
#include "golden/methods.hpp"
#include "golden/routed_layers.hpp"
#include "mole/loss/squared_cv.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

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
      {weight, file.has("cosine_projector.bias") ? file.matrix("cosine_projector.bias") : Matrix<T>{}},
      transposed(similarity),
      file.has("temperature") ? file.matrix("temperature") : Matrix<T>{}};
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
    const Matrix<T> x = load_x(file);
    const auto router = load_cosine_router(file);
    const Index experts = router.outputs();
    file.expect_option("experts", double(experts));
    file.expect_option("proj_dim", double(router.parameters().prototypes.cols()));
    mole::Rng rng;
    mole::MixtureLinear layer(router,
                              mole::Gate{mole::Softmax{}, mole::TopK{file.integer("top_k")}, mole::Renormalized{}},
                              Experts<T>({.in = x.cols(), .out = 1, .experts = experts, .rank = 1}, rng),
                              mole::NoBase<T>(x.cols(), 1), execution);
    auto work = layer.workspace(x.rows());
    layer.route(x, work);
    expect_gate<T>(file, work);

    const auto expect_router = [&](const std::string& prefix, const auto& gradients) {
      const auto expect = [&](const std::string& name, const Matrix<T>& gradient) {
        if (!gradient.empty()) file.expect_gradient(prefix + name, gradient);
      };
      expect("cosine_projector.weight", gradients.projection.weight);
      expect("cosine_projector.bias", gradients.projection.bias);
      expect("sim_matrix", transposed(gradients.prototypes));
      expect("temperature", gradients.log_scale);
    };
    if (file.has("grad_logits")) {
      const Matrix<T> d_logits = file.matrix("grad_logits");
      auto gradients = layer.gradients();
      Matrix<T> d_x(x.rows(), x.cols());
      std::ranges::copy(d_logits.elements(), work.d_logits().data());
      layer.route_backward(x, d_x, gradients, work);
      file.expect("grad_x", d_x);
      expect_router("grad.", gradients.router);
    }

    const auto expect = [&](const std::string& name, auto loss) {
      expect_loss(file, name, layer, work, {}, loss, expect_router);
    };
    expect("gshard", [](mole::Trace<T>& trace) {
      return mole::load_balance(trace, {.count = mole::BalanceCount::first_choice});
    });
    const double deviation = file.number("gate_noise", 1) / double(experts);
    expect("load_importance", [&](mole::Trace<T>& trace) { return load_importance(trace, deviation); });
  });
}

/// Rows of r, z and n, one below the other.
template <class T>
mole::LinearParameters<T> load_gates(const Comparison<T>& file, const std::string& of) {
  const auto rows = [&](const std::string& gate) { return file.matrix("rnn.weight_" + of + gate); };
  const Index width = rows("r").rows();
  mole::LinearParameters<T> gates{stacked(stacked(rows("r"), rows("z")), rows("n")), Matrix<T>(1, 3 * width)};
  T* place = gates.bias.data();
  for (const char* gate : {"r", "z", "n"}) {
    const std::string bias = "rnn.bias_" + of + gate;
    if (file.has(bias)) std::ranges::copy(file.matrix(bias).elements(), place);
    place += width;
  }
  return gates;
}

template <class T>
void expect_gates(Comparison<T>& file, const std::string& prefix, const std::string& of,
                  const mole::LinearParameters<T>& gradients) {
  const Index width = gradients.weight.rows() / 3;
  Index first = 0;
  for (const char* gate : {"r", "z", "n"}) {
    file.expect_gradient(prefix + "rnn.weight_" + of + gate, gradients.weight.view().middle_rows(first, width));
    if (file.has("rnn.bias_" + of + gate))
      file.expect_gradient(prefix + "rnn.bias_" + of + gate, gradients.bias.view().middle_cols(first, width));
    first += width;
  }
}

/// The routing of a stack of layers, each with tokens of its own; their experts are not used.
template <class T, class Execution>
class RecurrentStack {
  using Layer = mole::MixtureLinear<mole::RecurrentRouter<T>, mole::Gate<mole::Softmax, mole::TopK, mole::Renormalized>,
                                    Experts<T>, mole::NoBase<T>, Execution>;

 public:
  RecurrentStack(Comparison<T>& file, const Execution& execution) : cell_(load_cell(file)) {
    for (Index l = 0; file.has(layer(l) + "x"); ++l) {
      const Matrix<T> down = file.matrix(layer(l) + "weight1"), out = file.matrix(layer(l) + "weight2");
      mole::Rng rng;
      mole::RecurrentRouter<T> router({.in = down.cols(), .experts = out.rows()}, cell_, rng);
      router.parameters() = {{down, {}}, {out, {}}};
      layers_.emplace_back(router, mole::Gate{mole::Softmax{}, mole::TopK{file.integer("top_k")}, mole::Renormalized{}},
                           Experts<T>({.in = down.cols(), .out = 1, .experts = out.rows(), .rank = 1}, rng),
                           mole::NoBase<T>(down.cols(), 1), execution);
      x_.push_back(load_x(file, layer(l) + "x"));
      file.expect_option("experts", double(out.rows()));
      h_.emplace_back(x_.back().rows(), cell_.width());
      work_.push_back(layers_.back().workspace(x_.back().rows()));
    }
    d_h_ = h_;
    file.expect_option("layers", double(layers_.size()));
    file.expect_option("router_hidden", double(cell_.width()));
  }

  void forward() {
    d_cell_ = cell_.gradients();
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      d_h_[l].set_zero();
      auto& carry = work_[l].router_scratch.carry;
      carry = {.out = h_[l], .d_out = d_h_[l], .d_cell = &d_cell_};
      if (l > 0) carry.in = h_[l - 1], carry.d_in = d_h_[l - 1];
      layers_[l].route(x_[l], work_[l]);
    }
  }

  void expect_routing(Comparison<T>& file) {
    for (Index l = 0; l < Index(layers_.size()); ++l) {
      auto& work = work_[std::size_t(l)];
      file.expect_optional(layer(l) + "hidden", h_[std::size_t(l)]);
      file.expect_optional(layer(l) + "router.logits", work.logits());
      expect_choice(file, work.routing, work.experts(), "", layer(l));
    }
  }

  /// From what is in the traces, last layer first.
  void expect_gradients(Comparison<T>& file, const std::string& prefix) {
    for (Index l = Index(layers_.size()); l-- > 0;) {
      const auto i = std::size_t(l);
      Matrix<T> d_x(x_[i].rows(), x_[i].cols());
      auto gradients = layers_[i].gradients();
      layers_[i].route_backward(x_[i], d_x, gradients, work_[i]);
      file.expect_gradient(prefix + layer(l) + "x", d_x);
      file.expect_gradient(prefix + layer(l) + "weight1", gradients.router.input.weight);
      file.expect_gradient(prefix + layer(l) + "weight2", gradients.router.output.weight);
    }
    expect_gates(file, prefix, "i", d_cell_.input);
    expect_gates(file, prefix, "h", d_cell_.hidden);
  }

  void set_d_logits(const Comparison<T>& file) {
    for (Index l = 0; l < Index(layers_.size()); ++l) {
      const Matrix<T> d_logits = file.matrix(layer(l) + "grad_logits");
      copy_rows(d_logits.view(), work_[std::size_t(l)].d_logits());
    }
  }

  /// A loss of the tokens of all layers, as if they were those of one; its gradient goes to each layer's trace.
  template <class Loss>
  double loss_of_all(Loss loss) {
    const Index tokens = x_[0].rows(), layers = Index(layers_.size()), experts = work_[0].experts();
    mole::Trace<T> all(
        {.tokens = tokens * layers, .pairs = tokens * layers * experts, .experts = experts, .columns = experts});
    all.start(tokens * layers, {});
    all.routing.start(experts);
    for (Index l = 0; l < layers; ++l) {
      mole::Trace<T>& one = work_[std::size_t(l)];
      copy_rows<const T>(one.scores(), all.scores().middle_rows(l * tokens, tokens));
      for (Index n = 0; n < tokens; ++n) {
        for (int e : one.routing.experts_of(n)) all.routing.push(e, 1);
        all.routing.end_token();
      }
    }
    all.routing.finish();
    const double value = loss(all);
    for (Index l = 0; l < layers; ++l)
      copy_rows<const T>(all.d_scores().middle_rows(l * tokens, tokens), work_[std::size_t(l)].d_scores());
    return value;
  }

 private:
  static std::string layer(Index l) { return "layer." + std::to_string(l) + "."; }

  static mole::GruCell<T> load_cell(const Comparison<T>& file) {
    if (file.has_option("cell") && file.text("cell") != "gru") file.refuse("cell", "gru: no file has another");
    const Matrix<T> input = file.matrix("rnn.weight_ir"), hidden = file.matrix("rnn.weight_hr");
    mole::Rng rng;
    mole::GruCell<T> cell({.in = input.cols(), .width = hidden.cols()}, rng);
    cell.parameters() = {load_gates(file, "i"), load_gates(file, "h")};
    return cell;
  }

  template <class From>
  static void copy_rows(View<From> from, View<T> to) {
    for (Index n = 0; n < from.rows(); ++n) std::ranges::copy(from.row(n), to.row_data(n));
  }

  mole::GruCell<T> cell_;
  typename mole::GruCell<T>::Parameters d_cell_;
  std::vector<Layer> layers_;
  std::vector<typename Layer::Workspace> work_;
  std::vector<Matrix<T>> x_, h_, d_h_;
};

Method rmoe() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    file.losses_have_float32_counts();
    RecurrentStack stack(file, execution);
    stack.forward();
    stack.expect_routing(file);
    if (file.has("layer.0.grad_logits")) {
      stack.set_d_logits(file);
      stack.expect_gradients(file, "grad.");
    }

    if (!file.has("loss.load_balance")) return;
    stack.forward();
    file.expect_number("loss.load_balance", stack.loss_of_all([](mole::Trace<T>& all) {
      return mole::load_balance(all, {.norm = mole::BalanceNorm::k_at_uniform});
    }));
    stack.expect_gradients(file, "grad_loss.load_balance.");
  });
}

}  // namespace

std::map<std::string, Method> router_methods() {
  return {{"tutel-cosine", tutel_cosine()}, {"rmoe", rmoe()}};
}

}  // namespace golden
