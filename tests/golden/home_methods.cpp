// SPDX-License-Identifier: MIT
// The first level of HoME: feature gates, gates under a hierarchy and self-gates over normalized experts: home.
#include "golden/methods.hpp"
#include "golden/routed_layers.hpp"
#include "mole/testing/harness.hpp"

#include <array>
#include <cmath>
#include <deque>
#include <optional>

namespace golden {
namespace {

constexpr std::array<const char*, 3> kinds{"shared", "watch", "interact"};

template <class T>
T sigmoid(T v) {
  return 1 / (1 + std::exp(-v));
}

/// x o sigmoid(v), v the sum over all LoRAs of softmax(R x)_j B_j A_j x. The paper's text has 2 sigmoid(v).
template <class T, class Execution>
class FeatureGate {
 public:
  FeatureGate(Comparison<T>& file, const std::string& kind, const Execution& execution)
      : name_("feature_gate." + kind + "."), layer_(load(file, name_, execution)) {}

  Matrix<T> forward(const Matrix<T>& x) {
    work_.emplace(layer_.workspace(x.rows()));
    v_ = Matrix<T>(x.rows(), x.cols());
    layer_.forward(x, v_, *work_);
    Matrix<T> gated = x;
    for (Index i = 0; i < x.size(); ++i) gated.data()[i] *= sigmoid(v_.data()[i]);
    return gated;
  }
  void backward(Comparison<T>& file, const Matrix<T>& x, const Matrix<T>& d_gated, Matrix<T>& d_x) {
    Matrix<T> d_v = d_gated;
    for (Index i = 0; i < x.size(); ++i) {
      const T s = sigmoid(v_.data()[i]);
      d_x.data()[i] += d_gated.data()[i] * s;
      d_v.data()[i] *= x.data()[i] * s * (1 - s);
    }
    auto gradients = layer_.gradients();
    layer_.backward(x, d_v, d_x, gradients, *work_);
    expect_router_gradients(file, "grad." + name_, gradients.router);
    const Index rank = layer_.experts().blocks().size(0);
    for (Index j = 0; j < layer_.experts().experts(); ++j) {
      const std::string lora = "grad." + name_ + std::to_string(j);
      file.expect_gradient(lora + ".lora_A", gradients.experts.lora_A.view().middle_rows(j * rank, rank));
      const auto b = gradients.experts.lora_B.view().middle_rows(j * rank, rank);
      Matrix<T> columns(b.cols(), rank);
      for (Index r = 0; r < rank; ++r)
        for (Index o = 0; o < b.cols(); ++o) columns(o, r) = b(r, o);
      file.expect_gradient(lora + ".lora_B", columns);
    }
  }

 private:
  static auto load(Comparison<T>& file, const std::string& name, const Execution& execution) {
    const Index loras = file.integer("loras"), rank = file.integer("rank"), in = file.integer("d_in");
    mole::Rng rng;
    Experts<T> experts({.in = in, .out = in, .experts = loras, .rank = rank, .scaling = mole::Scaling::fixed}, rng);
    for (Index j = 0; j < loras; ++j) {
      const Matrix<T> a = file.matrix(name + std::to_string(j) + ".lora_A"),
                      b = file.matrix(name + std::to_string(j) + ".lora_B");
      for (Index r = 0; r < rank; ++r)
        for (Index i = 0; i < in; ++i) {
          experts.parameters().lora_A(j * rank + r, i) = a(r, i);
          experts.parameters().lora_B(j * rank + r, i) = b(i, r);
        }
    }
    mole::LinearRouter<T> router({.in = in, .experts = loras, .bias = true}, rng);
    router.parameters() = load_linear(file, name + "router");
    return mole::MixtureLinear(router, mole::Gate{mole::Softmax{}, mole::All{}, mole::Raw{.scale = 1}}, experts,
                               mole::NoBase<T>(in, in), execution);
  }

  using Layer = decltype(load(std::declval<Comparison<T>&>(), "", std::declval<Execution>()));

  std::string name_;
  Layer layer_;
  std::optional<typename Layer::Workspace> work_;
  Matrix<T> v_;
};

/// silu(batchnorm(linear)).
template <class T, class Execution>
class NormalizedExpert {
  using Maps = mole::NormalizedMaps<mole::DenseMaps<T>>;

 public:
  NormalizedExpert(const Comparison<T>& file, const std::string& name, const Execution& execution)
      : name_("experts." + name), maps_(load(file, name_)), training_(file.flag("training")), execution_(execution) {}

  Matrix<T> out, d_out;

  void forward(Comparison<T>& file, const Matrix<T>& u) {
    out = d_out = Matrix<T>(u.rows(), maps_.out());
    harness_.emplace(maps_, mole::CallSize{.tokens = u.rows()}, mole::Pass{.training = training_}, execution_);
    maps_.prepare(harness_->call());
    maps_.map(0, u, out.view(), harness_->call());
    maps_.running().update(harness_->scratch().batch);
    file.expect_optional("after." + name_ + ".norm.running_mean", View<const T>(maps_.running().mean()));
    file.expect_optional("after." + name_ + ".norm.running_var", View<const T>(maps_.running().variance()));
  }

  void backward(Comparison<T>& file, const Matrix<T>& u, Matrix<T>& d_u) {
    auto gradients = mole::zeros_like(mole::ParametersOf<Maps>(maps_.parameters()));
    maps_.begin_backward(gradients, harness_->call());
    maps_.map_backward(0, u, d_out, d_u.view(), gradients, harness_->call());
    file.expect_gradient("grad." + name_ + ".linear.weight", gradients.maps.weight);
    file.expect_gradient("grad." + name_ + ".linear.bias", gradients.maps.bias);
    file.expect_gradient("grad." + name_ + ".norm.weight", gradients.weight);
    file.expect_gradient("grad." + name_ + ".norm.bias", gradients.bias);
  }

 private:
  static Maps load(const Comparison<T>& file, const std::string& name) {
    const auto linear = load_linear(file, name + ".linear");
    mole::Rng rng;
    mole::DenseMaps<T> map({.in = linear.weight.cols(), .out = linear.weight.rows(), .bias = true}, rng);
    map.parameters() = {linear.weight, linear.bias};
    Maps maps(map, file.number("bn_eps"), file.number("bn_momentum"));
    auto parameters = maps.parameters();
    parameters.weight = file.matrix(name + ".norm.weight");
    parameters.bias = file.matrix(name + ".norm.bias");
    mole::copy(file.matrix(name + ".norm.running_mean"), maps.running().mean());
    mole::copy(file.matrix(name + ".norm.running_var"), maps.running().variance());
    maps.check_sizes();
    return maps;
  }

  std::string name_;
  Maps maps_;
  bool training_;
  Execution execution_;
  std::optional<mole::laws::Harness<Maps, Execution>> harness_;
};

/// The sum over some experts of their gate times their output, the gates from a router of the file for these alone.
template <class T, class Score, class Execution>
class GatedSum {
 public:
  /// `allowed`: for each expert, whether the file's router has a row for it; the others are masked out.
  GatedSum(Comparison<T>& file, std::string name, const Score& score, const std::vector<std::uint8_t>& allowed,
           const Execution& execution)
      : name_(std::move(name)), allowed_(allowed), layer_(load(file, name_, score, allowed, execution)) {}

  void forward(const Matrix<T>& u, const std::vector<NormalizedExpert<T, Execution>*>& experts, Matrix<T>& y) {
    work_.emplace(layer_.workspace(u.rows()));
    layer_.route(u, *work_);
    for_each_pair([&](Index n, int e, T gate, T&) {
      for (Index o = 0; o < y.cols(); ++o) y(n, o) += gate * experts[std::size_t(e)]->out(n, o);
    });
  }
  void backward(Comparison<T>& file, const Matrix<T>& u, const std::vector<NormalizedExpert<T, Execution>*>& experts,
                const Matrix<T>& d_y, Matrix<T>& d_u) {
    for_each_pair([&](Index n, int e, T gate, T& d_gate) {
      NormalizedExpert<T, Execution>& expert = *experts[std::size_t(e)];
      for (Index o = 0; o < d_y.cols(); ++o) {
        d_gate += d_y(n, o) * expert.out(n, o);
        expert.d_out(n, o) += gate * d_y(n, o);
      }
    });
    auto gradients = layer_.gradients();
    layer_.route_backward(u, d_u, gradients, *work_);
    Matrix<T> weight(Index(std::ranges::count(allowed_, 1)), u.cols()), bias(1, weight.rows());
    for_each_row([&](Index row, Index e) {
      std::ranges::copy(gradients.router.weight.view().row(e), weight.view().row_data(row));
      bias(0, row) = gradients.router.bias(0, e);
    });
    file.expect_gradient("grad." + name_ + ".weight", weight);
    file.expect_gradient("grad." + name_ + ".bias", bias);
  }

 private:
  static auto load(Comparison<T>& file, const std::string& name, const Score& score,
                   const std::vector<std::uint8_t>& allowed, const Execution& execution) {
    const auto rows = load_linear(file, name);
    const Index in = rows.weight.cols(), experts = Index(allowed.size());
    mole::Rng rng;
    mole::LinearRouter<T> router({.in = in, .experts = experts, .bias = true}, rng);
    Index row = 0;
    for (Index e = 0; e < experts; ++e)
      if (allowed[std::size_t(e)] != 0) {
        std::ranges::copy(rows.weight.view().row(row), router.parameters().weight.view().row_data(e));
        router.parameters().bias(0, e) = rows.bias(0, row++);
      }
    return mole::MixtureLinear(router, mole::Gate{score, mole::All{}, mole::Raw{}},
                               Experts<T>({.in = in, .out = 1, .experts = experts, .rank = 1}, rng),
                               mole::NoBase<T>(in, 1), execution);
  }
  template <class F>
  void for_each_row(F f) const {
    for (Index e = 0, row = 0; e < Index(allowed_.size()); ++e)
      if (allowed_[std::size_t(e)] != 0) f(row++, e);
  }
  template <class F>
  void for_each_pair(F f) {
    auto& routing = work_->routing;
    for (Index p = 0; p < routing.pairs(); ++p)
      f(routing.token(p), routing.expert(p), routing.gate(p), work_->d_gate()[std::size_t(p)]);
  }

  using Layer =
      decltype(load(std::declval<Comparison<T>&>(), "", std::declval<Score>(), {}, std::declval<Execution>()));

  std::string name_;
  std::vector<std::uint8_t> allowed_;
  Layer layer_;
  std::optional<typename Layer::Workspace> work_;
};

/// A category sees the shared experts and its own, the shared gate sees all. A self-gate adds the kind's own experts
/// once more, by a softmax, or by a sigmoid if there is one.
template <class T, class Execution>
class Home {
 public:
  explicit Home(Comparison<T>& file, const Execution& execution) : file_(file), execution_(execution) {
    for (const char* kind : kinds) {
      const Index count = file.integer(std::string(kind) == "shared" ? "shared_experts" : "category_experts");
      for (Index e = 0; e < count; ++e) {
        experts_.emplace_back(file, std::string(kind) + "." + std::to_string(e), execution);
        kind_.push_back(kind);
      }
      feature_gates_.emplace_back(file, kind, execution);
    }
    for (auto& expert : experts_) all_.push_back(&expert);
  }

  void check(const Matrix<T>& x) {
    std::vector<Matrix<T>> gated, d_gated(kinds.size(), Matrix<T>(x.rows(), x.cols()));
    for (std::size_t c = 0; c < kinds.size(); ++c) {
      gated.push_back(feature_gates_[c].forward(x));
      file_.expect_optional(std::string("gated.") + kinds[c], gated[c]);
      for (std::size_t e = 0; e < all_.size(); ++e)
        if (kind_[e] == kinds[c]) all_[e]->forward(file_, gated[c]);
    }
    for (std::size_t c = 0; c < kinds.size(); ++c) {
      std::vector<NormalizedExpert<T, Execution>*> own;
      std::vector<std::uint8_t> seen;
      for (std::size_t e = 0; e < all_.size(); ++e) {
        if (kind_[e] == kinds[c]) own.push_back(all_[e]);
        seen.push_back(c == 0 || kind_[e] == kinds[0] || kind_[e] == kinds[c]);
      }
      GatedSum<T, mole::MaskedSoftmax, Execution> gate(file_, std::string("gate.") + kinds[c],
                                                       mole::MaskedSoftmax{seen}, seen, execution_);
      const std::vector<std::uint8_t> all_own(own.size(), 1);
      if (own.size() > 1)
        check_output(
            kinds[c], gate,
            GatedSum<T, mole::Softmax, Execution>(file_, std::string("self_gate.") + kinds[c], {}, all_own, execution_),
            own, gated[c], d_gated[c]);
      else
        check_output(
            kinds[c], gate,
            GatedSum<T, mole::Sigmoid, Execution>(file_, std::string("self_gate.") + kinds[c], {}, all_own, execution_),
            own, gated[c], d_gated[c]);
    }
    if (!file_.has("grad_y.shared")) return;
    Matrix<T> d_x(x.rows(), x.cols());
    for (std::size_t c = 0; c < kinds.size(); ++c) {
      for (std::size_t e = 0; e < all_.size(); ++e)
        if (kind_[e] == kinds[c]) all_[e]->backward(file_, gated[c], d_gated[c]);
      feature_gates_[c].backward(file_, x, d_gated[c], d_x);
    }
    file_.expect("grad_x", d_x);
  }

 private:
  template <class Gate, class SelfGate>
  void check_output(const std::string& kind, Gate& gate, SelfGate self_gate,
                    const std::vector<NormalizedExpert<T, Execution>*>& own, const Matrix<T>& u, Matrix<T>& d_u) {
    Matrix<T> y(u.rows(), own.front()->out.cols());
    gate.forward(u, all_, y);
    self_gate.forward(u, own, y);
    file_.expect("y." + kind, y);
    file_.expect_option("d_out", double(y.cols()));
    if (!file_.has("grad_y." + kind)) return;
    const Matrix<T> d_y = file_.matrix("grad_y." + kind);
    gate.backward(file_, u, all_, d_y, d_u);
    self_gate.backward(file_, u, own, d_y, d_u);
  }

  Comparison<T>& file_;
  Execution execution_;
  std::deque<NormalizedExpert<T, Execution>> experts_;
  std::vector<std::string> kind_;
  std::vector<NormalizedExpert<T, Execution>*> all_;
  std::deque<FeatureGate<T, Execution>> feature_gates_;
};

Method home() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    if (file.text("categories") != "[shared, watch, interact]") file.refuse("categories", "[shared, watch, interact]");
    const Matrix<T> x = file.matrix("x");
    file.expect_option("B", double(x.rows()));
    Home<T, decltype(execution)>(file, execution).check(x);
  });
}

}  // namespace

std::map<std::string, Method> home_methods() {
  return {{"home", home()}};
}

}  // namespace golden
