// SPDX-License-Identifier: MIT
// ExpertFiles: moves parameters and gradients between the names of the golden files and those of a layer.
#pragma once

#include "golden/comparison.hpp"
#include "mole/mole.hpp"

#include <string>

namespace golden {

template <class T>
using Experts = mole::LowRank<mole::DenseFactors<T>>;

template <class T>
Matrix<T> transposed(const Matrix<T>& m) {
  Matrix<T> turned(m.cols(), m.rows());
  for (Index r = 0; r < m.rows(); ++r)
    for (Index c = 0; c < m.cols(); ++c) turned(c, r) = m(r, c);
  return turned;
}

/// The tensors of all experts of one linear layer, named `prefix` + "lora_A" and so on.
///
/// Files have A [r x in] and B [out x r], an expert a pair; mole has one A [ranks x in] and one B [ranks x out]. Shared
/// experts, which may have another rank, come last.
template <class T>
class ExpertFiles {
 public:
  ExpertFiles(const Comparison<T>& file, std::string projection = "") : projection_(std::move(projection)) {
    single_ = file.has("lora_B");
    shared_down_ = file.has("lora_A") && !single_;
    while (file.has(b_name(experts_)) && !(single_ && experts_ == 1)) ++experts_;
    while (file.has(shared_name(shared_) + "lora_B")) ++shared_;
  }

  Experts<T> load(const Comparison<T>& file) const {
    std::vector<int> ranks;
    for (Index e = 0; e < experts(); ++e) ranks.push_back(int(file.matrix(a_name(e)).rows()));
    mole::Rng rng;
    Experts<T> experts({.in = file.matrix(a_name(0)).cols(),
                        .out = file.matrix(b_name(0)).rows(),
                        .experts = this->experts(),
                        .ranks = ranks,
                        .alpha = file.number("scaling"),
                        .scaling = mole::Scaling::fixed,
                        .shared_down = shared_down_},
                       rng);
    auto& parameters = experts.parameters();
    for (Index e = 0; e < experts.experts(); ++e) {
      const Matrix<T> a = file.matrix(a_name(e)), b = file.matrix(b_name(e));
      for (Index j = 0; j < a.rows(); ++j) {
        for (Index i = 0; i < a.cols(); ++i) parameters.lora_A(experts.blocks().down(e) + j, i) = a(j, i);
        for (Index o = 0; o < b.rows(); ++o) parameters.lora_B(experts.blocks().up(e) + j, o) = b(o, j);
      }
    }
    return experts;
  }

  void expect_gradients(Comparison<T>& file, const std::string& prefix, const Experts<T>& experts,
                        const mole::ParametersOf<Experts<T>>& gradients) const {
    for (Index e = 0; e < experts.experts(); ++e) {
      const Index size = experts.blocks().size(e);
      file.expect_gradient(prefix + a_name(e), gradients.lora_A.view().middle_rows(experts.blocks().down(e), size));
      Matrix<T> b(experts.out(), size);
      for (Index o = 0; o < b.rows(); ++o)
        for (Index j = 0; j < size; ++j) b(o, j) = gradients.lora_B(experts.blocks().up(e) + j, o);
      file.expect_gradient(prefix + b_name(e), b);
    }
  }

  Index experts() const { return experts_ + shared_; }
  Index shared() const { return shared_; }

 private:
  std::string shared_name(Index s) const { return "shared_experts." + std::to_string(s) + "." + projection_; }
  std::string of_expert(Index e) const {
    return e >= experts_ && shared_ > 0 ? shared_name(e - experts_)
                                        : "experts." + std::to_string(e) + "." + projection_;
  }
  std::string a_name(Index e) const { return (single_ || shared_down_ ? "" : of_expert(e)) + "lora_A"; }
  std::string b_name(Index e) const { return (single_ ? "" : of_expert(e)) + "lora_B"; }

  std::string projection_;
  bool single_ = false, shared_down_ = false;
  Index experts_ = 0, shared_ = 0;
};

/// Sequence starts of the B sequences of S tokens.
template <class T>
std::vector<Index> sequence_starts(const Comparison<T>& file) {
  std::vector<Index> starts;
  for (Index b = 0; b < file.integer("B"); ++b) starts.push_back(b * file.integer("S"));
  return starts;
}

/// The linear router of a file, with its bias if it has one and that is the router's own.
template <class T>
mole::LinearRouter<T> load_router(const Comparison<T>& file, bool own_bias = true) {
  const Matrix<T> weight = file.matrix("router.weight");
  const bool bias = own_bias && file.has("router.bias");
  mole::Rng rng;
  mole::LinearRouter<T> router({.in = weight.cols(), .experts = weight.rows(), .bias = bias}, rng);
  router.parameters().weight = weight;
  if (bias) router.parameters().bias = file.matrix("router.bias");
  return router;
}

template <class T>
void expect_router_gradients(Comparison<T>& file, const std::string& prefix,
                             const mole::LinearParameters<T>& gradients) {
  file.expect_gradient(prefix + "router.weight", gradients.weight);
  if (!gradients.bias.empty()) file.expect_gradient(prefix + "router.bias", gradients.bias);
}

/// The weights of the first `experts` experts, 0 where not chosen.
template <class T>
Matrix<T> dense_weights(const mole::Routing<T>& routing, Index experts) {
  Matrix<T> dense(routing.tokens(), experts);
  for (Index p = 0; p < routing.pairs(); ++p)
    if (routing.expert(p) < experts) dense(routing.token(p), routing.expert(p)) = routing.gate(p);
  return dense;
}

/// Logits, probabilities and weights, as far as the file has them.
template <class T>
void expect_gate(Comparison<T>& file, mole::Trace<T>& trace) {
  if (file.has("router.logits")) file.expect("router.logits", trace.logits());
  if (file.has("router.probs")) file.expect("router.probs", trace.scores());
  if (file.has("gate.dense")) file.expect("gate.dense", dense_weights(trace.routing, trace.scored_experts()));
}

}  // namespace golden
