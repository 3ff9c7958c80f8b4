// SPDX-License-Identifier: MIT
// ExpertFiles: moves parameters and gradients between the names of the golden files and those of a layer.
#pragma once

#include "golden/comparison.hpp"
#include "mole/mole.hpp"

#include <string>
#include <utility>

namespace golden {

template <class T>
using Experts = mole::LowRank<mole::DenseFactors<T>>;

using mole::detail::transposed;

/// What the options say of the experts of a linear layer besides their number.
template <class T, class AnyExperts>
void expect_sizes(Comparison<T>& file, const AnyExperts& experts, Index rank) {
  file.expect_option("d_in", double(experts.in()));
  file.expect_option("d_out", double(experts.out()));
  file.expect_option("rank", double(rank));
  file.expect_option("scaling", double(experts.scale()[0]));
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
    one_shared_ = file.has("shared." + projection_ + "lora_B");
    while (file.has(shared_name(shared_) + "lora_B") && !(one_shared_ && shared_ == 1)) ++shared_;
  }

  /// `uncounted` of the experts are not among those that the option "experts" counts.
  Experts<T> load(Comparison<T>& file, mole::Scaling scaling = mole::Scaling::alpha_over_rank,
                  Index uncounted = 0) const {
    std::vector<int> ranks;
    for (Index e = 0; e < experts(); ++e) ranks.push_back(int(file.matrix(a_name(e)).rows()));
    const bool has_alpha = file.has_option("alpha");
    mole::Rng rng;
    Experts<T> experts({.in = file.matrix(a_name(0)).cols(),
                        .out = file.matrix(b_name(0)).rows(),
                        .experts = this->experts(),
                        .ranks = ranks,
                        .alpha = has_alpha ? file.number("alpha") : file.number("scaling", 1),
                        .scaling = has_alpha ? scaling : mole::Scaling::fixed,
                        .shared_down = shared_down_},
                       rng);
    expect_sizes(file, experts, ranks[0]);
    if (!single_) file.expect_option("experts", double(experts_ - uncounted));
    load(file, experts);
    return experts;
  }
  /// Into experts that exist.
  void load(Comparison<T>& file, Experts<T>& experts) const {
    auto& parameters = experts.parameters();
    for (Index e = 0; e < experts.experts(); ++e) {
      const Matrix<T> a = file.matrix(a_name(e)), b = file.matrix(b_name(e));
      for (Index j = 0; j < a.rows(); ++j) {
        for (Index i = 0; i < a.cols(); ++i) parameters.lora_A(experts.blocks().down(e) + j, i) = a(j, i);
        for (Index o = 0; o < b.rows(); ++o) parameters.lora_B(experts.blocks().up(e) + j, o) = b(o, j);
      }
    }
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
  std::string shared_name(Index s) const {
    return (one_shared_ ? "shared." : "shared_experts." + std::to_string(s) + ".") + projection_;
  }
  std::string of_expert(Index e) const {
    return e >= experts_ && shared_ > 0 ? shared_name(e - experts_)
                                        : "experts." + std::to_string(e) + "." + projection_;
  }
  std::string a_name(Index e) const { return (single_ || shared_down_ ? "" : of_expert(e)) + "lora_A"; }
  std::string b_name(Index e) const { return (single_ ? "" : of_expert(e)) + "lora_B"; }

  std::string projection_;
  bool single_ = false, shared_down_ = false, one_shared_ = false;
  Index experts_ = 0, shared_ = 0;
};

/// x, of as many tokens as the options say.
template <class T>
Matrix<T> load_x(Comparison<T>& file, const std::string& name = "x") {
  const Matrix<T> x = file.matrix(name);
  file.expect_option("T", double(x.rows()));
  if (file.has_option("S")) file.expect_option("S", double(x.rows()) / double(file.integer("B", 1)));
  if (file.has_option("B")) file.expect_option("B", double(x.rows()) / double(file.integer("S", x.rows())));
  for (const char* width : {"d", "d_in", "d_model"}) file.expect_option(width, double(x.cols()));
  return x;
}

/// A linear map that may lack a bias.
template <class T>
mole::LinearParameters<T> load_linear(const Comparison<T>& file, const std::string& name) {
  const std::string bias = name + ".bias";
  return {file.matrix(name + ".weight"), file.has(bias) ? file.matrix(bias) : Matrix<T>{}};
}

/// First tokens of the B sequences.
template <class T>
std::vector<Index> sequence_starts(const Comparison<T>& file, Index tokens) {
  const Index sequences = file.integer("B", 1);
  std::vector<Index> starts;
  for (Index b = 0; b < sequences; ++b) starts.push_back(b * tokens / sequences);
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
void expect_scores(Comparison<T>& file, mole::Trace<T>& trace, const std::string& step = "") {
  const Index experts = trace.scored_experts();
  file.expect_optional("router.logits" + step, trace.logits().middle_cols(0, experts));
  file.expect_optional("router.probs" + step, trace.scores().middle_cols(0, experts));
  file.expect_optional("gate.dense" + step, dense_weights(trace.routing, experts));
}

/// Who serves whom, as 0 and 1.   [N x E]
template <class T>
std::vector<std::int64_t> mask_of(const mole::Routing<T>& routing, Index experts) {
  std::vector<std::int64_t> mask(std::size_t(routing.tokens() * experts));
  for (Index p = 0; p < routing.pairs(); ++p)
    if (routing.expert(p) < experts) mask[std::size_t(routing.token(p) * experts + routing.expert(p))] = 1;
  return mask;
}

/// Who is chosen, in the order of the file, with the weights of the slots; -1 is an unused slot.
template <class T>
void expect_choice(Comparison<T>& file, const mole::Routing<T>& routing, Index experts, const std::string& step = "",
                   const std::string& layer = "") {
  const Index tokens = routing.tokens();
  std::vector<std::int64_t> mask = mask_of(routing, experts);
  file.expect_optional(layer + "gate.mask" + step, mask);

  const std::string indices = layer + "gate.indices" + step;
  if (!file.has(indices)) return;
  std::vector<std::int64_t> found = file.integers(indices);
  const Index slots = Index(found.size()) / tokens;
  const Matrix<T> dense = dense_weights(routing, experts);
  Matrix<T> weights(tokens, slots);
  for (Index i = 0; i < weights.size(); ++i) {
    std::int64_t& expert = found[std::size_t(i)];
    if (expert < 0 || expert >= experts) continue;
    const Index n = i / slots;
    weights(n, i % slots) = dense(n, expert);
    auto& unclaimed = mask[std::size_t(n * experts + expert)];
    if (std::exchange(unclaimed, 0) == 0) expert = -2;
  }
  if (std::ranges::count(mask, 1) > 0) found.clear();  // somebody chosen has no slot
  file.expect_optional(indices, found);
  file.expect_optional(layer + "gate.weights" + step, weights);
}

template <class T>
void expect_gate(Comparison<T>& file, mole::Trace<T>& trace, const std::string& step = "") {
  expect_scores(file, trace, step);
  expect_choice(file, trace.routing, trace.scored_experts(), step);
}

}  // namespace golden
