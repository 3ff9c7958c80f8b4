// SPDX-License-Identifier: MIT
// SkillFactors: Poly's factors, an inventory of skills that each task mixes in its own way.
#pragma once

#include "mole/core/dropout.hpp"
#include "mole/core/float_range.hpp"
#include "mole/core/matrix.hpp"
#include "mole/core/row.hpp"
#include "mole/core/token_random.hpp"
#include "mole/factors/computed_tables.hpp"
#include "mole/factors/factor_policy.hpp"

#include <cmath>
#include <optional>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Of each expert k, which serves one task:   A_k = sum_s w_ks A_s,   B_k = sum_s w_ks B_s,
///
///   w_ks = u_ks / (sum over skills of u_k + 1e-12),   u_ks = sigmoid(skill_logits_ks)
///
///   lora_A [S r x I], lora_B [S r x O]: row s r + j is rank j of skill s   skill_logits [E x P S]
///
/// A and B are mixed each by itself, so an update has cross terms of skills. With P splits the columns of A and of B
/// are cut into P parts of the same width, and part p is mixed by weights of its own, skill_logits_k[p S + s]
/// (multi-head routing). In training u is relaxed: sigmoid((logit + log v - log(1 - v)) / temperature), v ~ U(0, 1) for
/// each task of a call; the release draws for each sequence.
///
/// A_k and B_k are computed once a forward: E S r (I + O) products; scratch is 2 r (I + O) numbers an expert.
/// Starts at B = 0, A uniform within 1/sqrt(I / P), logits uniform within 1e-3. At I = O = 4,096, 8 tasks, r = 8 and 4
/// skills: 262,176 trained numbers. Throws Error(option) for sizes below 1, splits that do not divide I and O, or a
/// temperature that is not above 0.
/// Source: Ponti et al. 2022 (Poly), arXiv:2202.13914; Caccia et al. 2022 (MHR), arXiv:2211.03831; as released in
/// huggingface/peft, tuners/poly.
template <class T>
class SkillFactors {
 public:
  using Scalar = T;

  struct Options {
    Index in = 0;
    Index out = 0;
    Index experts = 1;  ///< tasks
    Index rank = 8;
    Index skills = 4;
    Index splits = 1;
    bool normalized = true;            ///< false: w = u
    bool relaxed = true;               ///< in training
    double temperature = 1;            ///< of the relaxation
    std::uint64_t stream = 3000;       ///< of its draws
    std::optional<double> alpha = {};  ///< unset: scale 1
    Scaling scaling = Scaling::alpha_over_rank;
    Dropout dropout = {};  ///< on the adapter's input
  };

  struct Parameters {
    Matrix<T> lora_A, lora_B, skill_logits;

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      f("lora_A", p.lora_A...);
      f("lora_B", p.lora_B...);
      f("skill_logits", p.skill_logits...);
    }
  };

  struct Scratch {
    ComputedTables<T> tables;
    View<T> u, weights, d_weights;  // [E x P S]
  };

  template <std::uniform_random_bit_generator Generator>
  SkillFactors(const Options& options, Generator& generator)
      : options_(options), blocks_(RankBlocks::uniform(options.experts, options.rank)) {
    const auto& o = options;
    require(o.in >= 1 && o.out >= 1 && o.rank >= 1 && o.skills >= 1 && o.splits >= 1, ErrorCode::option,
            "SkillFactors: expected in, out, rank, skills and splits of at least 1, found ", o.in, ", ", o.out, ", ",
            o.rank, ", ", o.skills, ", ", o.splits);
    require(o.in % o.splits == 0 && o.out % o.splits == 0, ErrorCode::option,
            "SkillFactors: expected splits that divide in and out, found ", o.splits, " splits of ", o.in, " and ",
            o.out);
    require(o.temperature > 0 && in_float_range(o.temperature), ErrorCode::option,
            "SkillFactors: expected a temperature from 1e-30 to 1e30, found ", o.temperature);
    const Index rows = checked_product("SkillFactors: ranks of all skills", o.skills, o.rank);
    parameters_ = {Matrix<T>(rows, o.in), Matrix<T>(rows, o.out),
                   Matrix<T>(o.experts, checked_product("SkillFactors: logits of a task", o.splits, o.skills))};
    reset(generator);
  }

  void check_sizes() const {
    const auto check = [](std::string_view what, const Matrix<T>& tensor, Index rows, Index cols) {
      require(tensor.rows() == rows && tensor.cols() == cols, ErrorCode::shape, "SkillFactors: expected a ", what,
              " of [", rows, " x ", cols, "], found [", tensor.rows(), " x ", tensor.cols(), "]");
    };
    check("lora_A", parameters_.lora_A, skills() * rank(), in());
    check("lora_B", parameters_.lora_B, skills() * rank(), out());
    check("skill_logits", parameters_.skill_logits, blocks_.experts(), splits() * skills());
  }

  Index in() const { return options_.in; }
  Index out() const { return options_.out; }
  const Options& options() const { return options_; }
  const RankBlocks& blocks() const { return blocks_; }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }

  /// Reinitializes, as the constructor does.
  template <std::uniform_random_bit_generator Generator>
  void reset(Generator& generator) {
    fill_uniform(parameters_.lora_A.view(), 1 / std::sqrt(double(in() / splits())), generator);
    parameters_.lora_B.set_zero();
    fill_uniform(parameters_.skill_logits.view(), 1e-3, generator);
  }

  Scratch scratch(const CallSize&, Arena& arena) const {
    const auto each = [&] { return arena.matrix<T>(blocks_.experts(), splits() * skills()); };
    return {ComputedTables<T>::both(blocks_, in(), out(), arena), each(), each(), each()};
  }

  FactorViews<const T> factors(Scratch& scratch) const { return {scratch.tables.a, scratch.tables.b}; }
  FactorViews<T> gradient_views(Parameters& gradients, Scratch& scratch) const {
    const bool logits = !gradients.skill_logits.empty();
    return scratch.tables.zeroed(logits || !gradients.lora_A.empty(), logits || !gradients.lora_B.empty());
  }

  void prepare(auto call) const {
    Scratch& s = call.scratch;
    for (Index k = 0; k < blocks_.experts(); ++k) weigh(k, call.pass, s);
    call.execution.parallel_for(blocks_.ranks_up(), [&](Index row) {
      mix(parameters_.lora_A, row, s.weights, s.tables.a.row(row));
      mix(parameters_.lora_B, row, s.weights, s.tables.b.row(row));
    });
  }

  /// d_A_s += sum_k w_ks d_a_k, d_B_s alike;   d_w_ks = <d_a_k, A_s> + <d_b_k, B_s>, over the columns of a split;
  /// d_u_s = (d_w_s - <w, d_w>) / (sum of u + 1e-12),   d_logit = d_u u (1 - u), over the temperature where u is
  /// relaxed
  void contract(Parameters& gradients, auto call) const {
    Scratch& s = call.scratch;
    call.execution.parallel_for(skills() * rank(), [&](Index row) {
      unmix(s.tables.d_a, row, s.weights, gradients.lora_A.view());
      unmix(s.tables.d_b, row, s.weights, gradients.lora_B.view());
    });
    if (gradients.skill_logits.empty()) return;
    call.execution.parallel_for(blocks_.experts(), [&](Index k) {
      if (detail::is_zero(s.tables.d_a.row_data(k * rank()), rank() * in()) &&
          detail::is_zero(s.tables.d_b.row_data(k * rank()), rank() * out()))
        return;
      fill(s.d_weights.middle_rows(k, 1), T(0));
      add_products(parameters_.lora_A, s.tables.d_a, k, s.d_weights.row(k));
      add_products(parameters_.lora_B, s.tables.d_b, k, s.d_weights.row(k));
      unweigh(k, call.pass, s, gradients.skill_logits.view().row(k));
    });
  }

 private:
  Index rank() const { return options_.rank; }
  Index skills() const { return options_.skills; }
  Index splits() const { return options_.splits; }
  bool relaxes(const Pass& pass) const { return pass.training && options_.relaxed; }

  void weigh(Index k, Pass pass, Scratch& s) const {
    pass.first_token = 0;  // a draw is a task's, not a token's
    const TokenRandom random(pass, options_.stream, k);
    for (Index i = 0; i < s.u.cols(); ++i) {
      double logit = double(parameters_.skill_logits(k, i));
      if (relaxes(pass)) {
        const double v = random.uniform(i);
        logit = (logit + std::log(v) - std::log1p(-v)) / options_.temperature;
      }
      s.u(k, i) = T(1 / (1 + std::exp(-logit)));
    }
    for (Index first = 0; first < s.u.cols(); first += skills()) {
      const T sum = divisor(s.u.row(k), first);
      for (Index i = first; i < first + skills(); ++i) s.weights(k, i) = s.u(k, i) / sum;
    }
  }
  void unweigh(Index k, const Pass& pass, Scratch& s, std::span<T> d_logits) const {
    const T slope = T(relaxes(pass) ? 1 / options_.temperature : 1);
    for (Index first = 0; first < s.u.cols(); first += skills()) {
      const T sum = divisor(s.u.row(k), first);
      T mean = 0;
      for (Index i = first; i < first + skills() && options_.normalized; ++i)
        mean += s.weights(k, i) * s.d_weights(k, i);
      for (Index i = first; i < first + skills(); ++i)
        d_logits[std::size_t(i)] += (s.d_weights(k, i) - mean) / sum * s.u(k, i) * (1 - s.u(k, i)) * slope;
    }
  }
  /// What the u of a split, from its first, are divided by.
  T divisor(std::span<const T> u, Index first) const {
    if (!options_.normalized) return 1;
    T sum = T(1e-12);
    for (Index i = first; i < first + skills(); ++i) sum += u[std::size_t(i)];
    return sum;
  }

  /// Row k r + j of the tables of tasks, from the tables of skills.
  void mix(View<const T> of_skills, Index row, View<const T> weights, std::span<T> to) const {
    const Index k = row / rank(), j = row % rank(), width = of_skills.cols() / splits();
    std::ranges::fill(to, T(0));
    for (Index p = 0; p < splits(); ++p)
      for (Index skill = 0; skill < skills(); ++skill)
        detail::add_scaled(weights(k, p * skills() + skill), of_skills.row_data(skill * rank() + j) + p * width,
                           to.data() + p * width, width);
  }
  /// Row s r + j of the gradient of skills, from that of tasks.
  void unmix(View<const T> d_of_tasks, Index row, View<const T> weights, View<T> gradient) const {
    if (!gradient) return;
    const Index skill = row / rank(), j = row % rank(), width = gradient.cols() / splits();
    for (Index k = 0; k < blocks_.experts(); ++k) {
      const T* const d = d_of_tasks.row_data(k * rank() + j);
      if (detail::is_zero(d, gradient.cols())) continue;
      for (Index p = 0; p < splits(); ++p)
        detail::add_scaled(weights(k, p * skills() + skill), d + p * width, gradient.row_data(row) + p * width, width);
    }
  }
  void add_products(View<const T> of_skills, View<const T> d_of_tasks, Index k, std::span<T> d_weights) const {
    const Index width = of_skills.cols() / splits();
    for (Index j = 0; j < rank(); ++j)
      for (Index p = 0; p < splits(); ++p)
        for (Index skill = 0; skill < skills(); ++skill)
          d_weights[std::size_t(p * skills() + skill)] +=
              detail::dot(d_of_tasks.row_data(k * rank() + j) + p * width,
                          of_skills.row_data(skill * rank() + j) + p * width, width);
  }

  Options options_;
  RankBlocks blocks_;
  Parameters parameters_;
};

static_assert(ComputedFactorPolicy<SkillFactors<float>>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
