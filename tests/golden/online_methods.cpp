// SPDX-License-Identifier: MIT
// Routing that learns from a stream or from references: drift-moe, c3po.
#include "golden/methods.hpp"
#include "golden/routed_layers.hpp"
#include "mole/adapt/routing_references.hpp"
#include "mole/loss/multi_hot_bce.hpp"

#include <algorithm>
#include <array>

namespace golden {
namespace {

/// Three linear maps with a ReLU between them, of the host.
template <class T>
class HostRouter {
 public:
  explicit HostRouter(const Comparison<T>& file) {
    for (std::size_t l = 0; l < 3; ++l)
      maps_[l] = {file.matrix(tensor(l, "weight", "initial")), file.matrix(tensor(l, "bias", "initial"))};
  }

  static std::string tensor(std::size_t map, const char* part, const std::string& step) {
    return "router." + std::to_string(map) + "." + part + "." + step;
  }
  const mole::LinearParameters<T>& map(std::size_t l) const { return maps_[l]; }

  Matrix<T> forward(View<const T> x) {
    in_[0] = Matrix<T>(x.rows(), x.cols());
    copy(x, in_[0].view());
    for (std::size_t l = 0;; ++l) {
      const auto& map = maps_[l];
      Matrix<T> out(x.rows(), map.weight.rows());
      for (Index n = 0; n < out.rows(); ++n)
        for (Index o = 0; o < out.cols(); ++o) {
          out(n, o) = map.bias(0, o);
          for (Index i = 0; i < map.weight.cols(); ++i) out(n, o) += map.weight(o, i) * in_[l](n, i);
          if (l < 2) out(n, o) = std::max(out(n, o), T(0));
        }
      if (l == 2) return out;
      in_[l + 1] = std::move(out);
    }
  }

  /// One step by the gradient of the logits of the last forward.
  template <class Optimizer>
  void step(Matrix<T> d_out, Optimizer& optimizer) {
    std::array<mole::LinearParameters<T>, 3> gradients;
    for (std::size_t l = 3; l-- > 0;) {
      const Matrix<T>& weight = maps_[l].weight;
      gradients[l] = {Matrix<T>(weight.rows(), weight.cols()), Matrix<T>(1, weight.rows())};
      Matrix<T> d_in(in_[l].rows(), in_[l].cols());
      for (Index n = 0; n < d_out.rows(); ++n)
        for (Index o = 0; o < d_out.cols(); ++o) {
          gradients[l].bias(0, o) += d_out(n, o);
          for (Index i = 0; i < weight.cols(); ++i) {
            gradients[l].weight(o, i) += d_out(n, o) * in_[l](n, i);
            if (in_[l](n, i) > 0) d_in(n, i) += d_out(n, o) * weight(o, i);  // a ReLU's, but for the first map
          }
        }
      d_out = std::move(d_in);
    }
    optimizer.step([&](auto&& f) {
      for (std::size_t l = 0; l < 3; ++l) {
        f(tensor(l, "weight", ""), maps_[l].weight.view(), gradients[l].weight.view());
        f(tensor(l, "bias", ""), maps_[l].bias.view(), gradients[l].bias.view());
      }
    });
  }

 private:
  std::array<mole::LinearParameters<T>, 3> maps_;
  std::array<Matrix<T>, 3> in_;
};

/// What the experts answer to a sample: uniform from one that answers nothing (1), 0 for a last class that is missing
/// (2).
template <class T>
Matrix<T> answers(const Comparison<T>& file, Index sample, Index experts) {
  const Matrix<T> probabilities = file.matrix("expert.probs");
  const auto missing = file.integers("expert.missing");
  const Index classes = probabilities.cols() / experts;
  Matrix<T> answer(experts, classes);
  for (Index e = 0; e < experts; ++e)
    for (Index c = 0; c < classes; ++c) {
      const auto kind = missing[std::size_t(sample * experts + e)];
      answer(e, c) = kind == 1                       ? 1 / T(classes)
                     : kind == 2 && c == classes - 1 ? T(0)
                                                     : probabilities(sample, e * classes + c);
    }
  return answer;
}

/// The best expert predicts, the k best train, and the router takes a step after each batch.
Method drift_moe() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const Matrix<T> x = file.matrix("x");
    HostRouter<T> router(file);
    const Index experts = router.map(2).weight.rows(), samples = file.integer("batch");
    file.expect_option("samples", double(x.rows()));
    file.expect_option("d", double(x.cols()));
    file.expect_option("hidden", double(router.map(0).weight.rows()));
    file.expect_option("experts", double(experts));
    file.expect_option("classes", double(file.matrix("expert.probs").cols()) / double(experts));
    file.expect_option("steps", double(x.rows() / samples));
    file.ignore_option("temperature");  // which changes no order
    const std::vector<double> betas = file.list("betas");
    mole::AdamW<T> adam({.learning_rate = file.number("lr"),
                         .beta1 = betas.at(0),
                         .beta2 = betas.at(1),
                         .epsilon = file.number("eps"),
                         .weight_decay = 0});
    mole::Rng rng;
    mole::LinearRouter<T> as_given({.in = experts, .experts = experts}, rng);
    as_given.parameters().weight.set_zero();
    for (Index e = 0; e < experts; ++e) as_given.parameters().weight(e, e) = 1;
    const mole::MixtureLinear gate(as_given,
                                   mole::Gate{mole::Softmax{.temperature = file.number("temperature")},
                                              mole::TopK{file.integer("top_k")}, mole::Raw{}},
                                   Experts<T>({.in = experts, .out = 1, .experts = experts, .rank = 1}, rng),
                                   mole::NoBase<T>(experts, 1), execution);

    mole::OnlineBatch<T> batch({.in = x.cols(), .experts = experts, .samples = samples});
    auto work = gate.workspace(samples);
    const auto labels = file.integers("labels");
    const Index steps = x.rows() / samples;
    Matrix<T> logits(steps * samples, experts), losses(1, steps);
    std::vector<std::int64_t> predicted, trained, right;
    for (Index n = 0, step = 0; n < x.rows(); ++n) {
      const Matrix<T> answer = answers(file, n, experts), z = router.forward(x.view().middle_rows(n, 1));
      gate.route(z, work);
      const auto chosen = work.routing.experts_of(0);
      const auto of_best = answer.view().row(chosen[0]);
      predicted.push_back(std::ranges::max_element(of_best) - of_best.begin());
      for (int e = 0; e < experts; ++e) trained.push_back(std::ranges::count(chosen, e));
      std::vector<T> targets(static_cast<std::size_t>(experts));
      mole::right_experts(answer.view(), labels[std::size_t(n)], std::span<T>(targets));
      if (n < logits.rows()) {
        std::ranges::copy(z.elements(), logits.view().row_data(n));
        right.insert(right.end(), targets.begin(), targets.end());
      }
      if (!batch.add(x.view().row(n), targets)) continue;
      const Matrix<T> of_batch = router.forward(batch.x());
      gate.route(of_batch, work);
      losses(0, step) = T(mole::multi_hot_bce<T>(work, batch.targets()));
      Matrix<T> d_logits(samples, experts);
      copy(View<const T>(work.d_logits()), d_logits.view());
      router.step(std::move(d_logits), adam);
      for (std::size_t l = 0; l < 3; ++l) {
        file.expect_optional(router.tensor(l, "weight", std::to_string(step)), router.map(l).weight);
        file.expect_optional(router.tensor(l, "bias", std::to_string(step)), router.map(l).bias);
      }
      ++step;
      batch.clear();
    }
    file.expect_optional("router.logits", logits);
    file.expect_optional("loss.bce", losses);
    file.expect_optional("prediction", predicted);
    file.expect_optional("trained", trained);
    file.expect_optional("correct.mask", right);
  });
}

/// Rows of tensors with a layer more are those of a matrix one after the other.
Method c3po() {
  return offline([]<class T>(Comparison<T>& file) {
    const Matrix<T> query = file.matrix("query.embedding"), own = file.matrix("query.routing"),
                    embeddings = file.matrix("reference.embedding"), routings = file.matrix("reference.routing");
    const Index layers = own.rows(), experts = own.cols();
    file.expect_option("layers", double(layers));
    file.expect_option("experts", double(experts));
    file.expect_option("references", double(embeddings.rows()));
    mole::RoutingReferences<T> references({.embedding = embeddings.cols(),
                                           .layers = layers,
                                           .experts = experts,
                                           .neighbors = file.integer("neighbours")});
    const std::vector<std::int64_t> present = file.integers("reference.present");
    if (Index(present.size()) != embeddings.rows() * layers || routings.size() != embeddings.rows() * layers * experts)
      throw std::runtime_error("reference.routing: expected a row of each layer of each reference");
    const std::vector<std::uint8_t> has(present.begin(), present.end());
    for (Index i = 0; i < embeddings.rows(); ++i)
      references.add(embeddings.view().row(i), View<const T>(routings.data() + i * layers * experts, layers, experts),
                     std::span(has).subspan(std::size_t(i * layers), std::size_t(layers)));

    const auto neighbors = references.nearest(query.elements());
    std::vector<std::int64_t> indices, adapted;
    Matrix<T> similarities(1, Index(neighbors.size()));
    for (std::size_t i = 0; i < neighbors.size(); ++i) {
      indices.push_back(neighbors[i].reference);
      similarities(0, Index(i)) = T(neighbors[i].similarity);
    }
    file.expect_optional("neighbours", indices);
    file.expect("similarity", similarities);

    const Index adapts = file.integer("core_layers");
    if (adapts < 1) file.refuse("core_layers", "at least 1");
    const Index first = std::max(Index(0), layers - adapts);
    Matrix<T> routing(layers - first, experts);
    copy(own.view().middle_rows(first, routing.rows()), routing.view());
    for (Index l = 0; l < routing.rows(); ++l) {
      references.regress(neighbors, first + l, routing.view().row(l));
      adapted.push_back(first + l);
    }
    file.expect_optional("layers", adapted);
    file.expect("routing", routing);
  });
}

}  // namespace

std::map<std::string, Method> online_methods() {
  return {{"c3po", c3po()}, {"drift-moe", drift_moe()}};
}

}  // namespace golden
