// SPDX-License-Identifier: MIT
// BankMixture: VB-LoRA's factors, whose pieces are mixtures of the vectors of a bank that all layers share.
#pragma once

#include "mole/core/dropout.hpp"
#include "mole/core/matrix.hpp"
#include "mole/core/random.hpp"
#include "mole/core/row.hpp"
#include "mole/factors/computed_tables.hpp"
#include "mole/factors/factor_policy.hpp"
#include "mole/factors/vector_bank.hpp"

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Of each expert:   every piece of A and B, as long as a vector, is sum_j w_j v_j over the k vectors of its largest
/// logits, with w the softmax of those k logits.
///
///   logits_A [E r I/length x h]   logits_B [E r O/length x h]: pieces of a row of A or B follow each other
///
/// Trained are the logits, and the bank, whose gradient is added to where the layer's gradients point:
///
///     gradients.experts.bank = &bank_gradients;   null, as gradients() makes it, is a frozen bank
///
/// Logits that are not chosen have no gradient; of equal ones the first is chosen, NaN last. Layers that run backward
/// at the same time need bank gradients of their own. At I = O = 4,096, r = 4, h = length = 256 and k = 2: 32,768
/// trained numbers a layer, 65,536 for the bank of all layers; 258 KiB of scratch in float.
///
/// Starts at logits ~ N(0, 0.1^2): the output of a fresh layer is not its base's. There is no alpha in the release.
/// Throws Error(option) without a bank, for sizes below 1, a length that does not divide I and O, or k out of [1, h].
/// Source: Li et al. 2024 (VB-LoRA), arXiv:2405.15179; huggingface/peft, tuners/vblora/layer.py.
template <class T>
class BankMixture {
 public:
  using Scalar = T;
  static constexpr bool borrows = true;  // the bank

  struct Options {
    Index in = 0;
    Index out = 0;
    Index experts = 1;
    Index rank = 4;
    Index k = 2;  ///< vectors of a piece
    std::shared_ptr<const VectorBank<T>> bank = {};
    double deviation = 0.1;            ///< of fresh logits
    std::optional<double> alpha = {};  ///< unset: scale 1
    Scaling scaling = Scaling::alpha_over_rank;
    Dropout dropout = {};  ///< on the adapter's input
  };

  struct Parameters {
    Matrix<T> logits_A, logits_B;
    typename VectorBank<T>::Parameters* bank = nullptr;  ///< of gradients: those of the bank; null = frozen

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      f("logits_A", p.logits_A...);
      f("logits_B", p.logits_B...);
    }
  };

  struct Scratch {
    ComputedTables<T> tables;
    View<int> chosen_a, chosen_b;  // [pieces x k]
    View<T> weight_a, weight_b;
  };

  template <std::uniform_random_bit_generator Generator>
  BankMixture(const Options& options, Generator& generator)
      : in_(options.in), out_(options.out), k_(options.k), deviation_(options.deviation), bank_(options.bank) {
    require(bank_ != nullptr, ErrorCode::option, "BankMixture: expected a bank, found none");
    require(options.in >= 1 && options.out >= 1 && options.rank >= 1, ErrorCode::option,
            "BankMixture: expected in, out and rank of at least 1, found in = ", options.in, ", out = ", options.out,
            ", rank = ", options.rank);
    require(options.in % length() == 0 && options.out % length() == 0, ErrorCode::option,
            "BankMixture: expected vectors whose length divides the ", options.in, " inputs and ", options.out,
            " outputs, found ", length());
    require(options.k >= 1 && options.k <= vectors(), ErrorCode::option, "BankMixture: expected k from 1 to ",
            vectors(), " vectors, found ", options.k);
    require(std::isfinite(options.deviation), ErrorCode::option, "BankMixture: expected a finite deviation, found ",
            options.deviation);
    blocks_ = RankBlocks::uniform(options.experts, options.rank);
    parameters_.logits_A = Matrix<T>(pieces(in_), vectors());
    parameters_.logits_B = Matrix<T>(pieces(out_), vectors());
    reset(generator);
  }

  void check_sizes() const {
    bank_->check_sizes();
    require_equal(ErrorCode::shape, "BankMixture: pieces of A", pieces(in_), parameters_.logits_A.rows());
    require_equal(ErrorCode::shape, "BankMixture: pieces of B", pieces(out_), parameters_.logits_B.rows());
    require_equal(ErrorCode::shape, "BankMixture: logits of a piece of A", vectors(), parameters_.logits_A.cols());
    require_equal(ErrorCode::shape, "BankMixture: logits of a piece of B", vectors(), parameters_.logits_B.cols());
  }
  void check_gradients(const Parameters& gradients) const {
    if (gradients.bank != nullptr) bank_->check_gradients(*gradients.bank, "BankMixture");
  }

  Index in() const { return in_; }
  Index out() const { return out_; }
  const RankBlocks& blocks() const { return blocks_; }
  const std::shared_ptr<const VectorBank<T>>& bank() const { return bank_; }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }

  /// Reinitializes the logits, as the constructor does.
  template <std::uniform_random_bit_generator Generator>
  void reset(Generator& generator) {
    for (Matrix<T>* logits : {&parameters_.logits_A, &parameters_.logits_B})
      for (T& logit : logits->elements()) logit = T(deviation_ * standard_normal(generator));
  }

  Scratch scratch(const CallSize&, Arena& arena) const {
    return {ComputedTables<T>::both(blocks_, in_, out_, arena), arena.matrix<int>(pieces(in_), k_),
            arena.matrix<int>(pieces(out_), k_), arena.matrix<T>(pieces(in_), k_), arena.matrix<T>(pieces(out_), k_)};
  }

  FactorViews<const T> factors(Scratch& scratch) const { return {scratch.tables.a, scratch.tables.b}; }
  FactorViews<T> gradient_views(Parameters& gradients, Scratch& scratch) const {
    const bool of_bank = gradients.bank != nullptr && !gradients.bank->vectors.empty();
    return scratch.tables.zeroed(of_bank || !gradients.logits_A.empty(), of_bank || !gradients.logits_B.empty());
  }

  void prepare(auto call) const {
    Scratch& s = call.scratch;
    call.execution.parallel_for(pieces(in_) + pieces(out_), [&](Index task) {
      if (task < pieces(in_))
        mix(parameters_.logits_A, task, s.chosen_a, s.weight_a, piece(s.tables.a, task));
      else
        mix(parameters_.logits_B, task - pieces(in_), s.chosen_b, s.weight_b, piece(s.tables.b, task - pieces(in_)));
    });
  }

  /// On one thread: pieces may share vectors.
  void contract(Parameters& gradients, auto call) const {
    Scratch& s = call.scratch;
    Matrix<T>* const of_bank =
        gradients.bank != nullptr && !gradients.bank->vectors.empty() ? &gradients.bank->vectors : nullptr;
    if (of_bank != nullptr || !gradients.logits_A.empty())
      for (Index p = 0; p < pieces(in_); ++p)
        mix_backward(p, s.chosen_a, s.weight_a, piece(s.tables.d_a, p), gradients.logits_A, of_bank);
    if (of_bank != nullptr || !gradients.logits_B.empty())
      for (Index p = 0; p < pieces(out_); ++p)
        mix_backward(p, s.chosen_b, s.weight_b, piece(s.tables.d_b, p), gradients.logits_B, of_bank);
  }

 private:
  Index vectors() const { return bank_->options().vectors; }
  Index length() const { return bank_->options().length; }
  Index pieces(Index width) const {
    return checked_product("BankMixture: pieces", blocks_.ranks_up(), width / length());
  }

  std::span<T> piece(View<T> table, Index p) const {
    const Index of_row = table.cols() / length();
    return table.row(p / of_row).subspan(std::size_t(p % of_row * length()), std::size_t(length()));
  }

  void mix(const Matrix<T>& all_logits, Index p, View<int> all_chosen, View<T> all_weights, std::span<T> to) const {
    const std::span<const T> logits = all_logits.view().row(p);
    const std::span<int> chosen = all_chosen.row(p);
    const std::span<T> weights = all_weights.row(p);
    choose(logits, chosen);
    T sum = 0;
    for (std::size_t j = 0; j < chosen.size(); ++j) {
      weights[j] = std::exp(logits[std::size_t(chosen[j])] - logits[std::size_t(chosen[0])]);
      sum += weights[j];
    }
    std::ranges::fill(to, T(0));
    for (std::size_t j = 0; j < chosen.size(); ++j) {
      weights[j] /= sum;
      const T* const vector = bank_->parameters().vectors.view().row_data(chosen[j]);
      for (std::size_t i = 0; i < to.size(); ++i) to[i] += weights[j] * vector[i];
    }
  }

  /// The indices of the largest logits, in falling order; of equal ones the first, NaN last.
  static void choose(std::span<const T> logits, std::span<int> chosen) {
    std::size_t count = 0;
    for (std::size_t v = 0; v < logits.size(); ++v) {
      const auto before = [&](int other) {
        const T there = logits[std::size_t(other)];
        return there >= logits[v] || std::isnan(logits[v]);
      };
      std::size_t at = count;
      while (at > 0 && !before(chosen[at - 1])) --at;
      if (at == chosen.size()) continue;
      count = std::min(count + 1, chosen.size());
      std::copy_backward(chosen.begin() + std::ptrdiff_t(at), chosen.begin() + std::ptrdiff_t(count) - 1,
                         chosen.begin() + std::ptrdiff_t(count));
      chosen[at] = int(v);
    }
  }

  /// d_v_j += w_j d,   d_logit_j += w_j (<d, v_j> - sum_i w_i <d, v_i>)
  void mix_backward(Index p, View<const int> all_chosen, View<const T> all_weights, std::span<const T> d,
                    Matrix<T>& d_logits, Matrix<T>* d_vectors) const {
    if (detail::is_zero(d.data(), Index(d.size()))) return;
    const std::span<const int> chosen = all_chosen.row(p);
    const std::span<const T> weights = all_weights.row(p);
    T mean = 0;
    for (std::size_t j = 0; j < chosen.size(); ++j) mean += weights[j] * product_with(chosen[j], d);
    for (std::size_t j = 0; j < chosen.size(); ++j) {
      if (!d_logits.empty()) d_logits(p, chosen[j]) += weights[j] * (product_with(chosen[j], d) - mean);
      if (d_vectors == nullptr) continue;
      T* const d_vector = d_vectors->view().row_data(chosen[j]);
      for (std::size_t i = 0; i < d.size(); ++i) d_vector[i] += weights[j] * d[i];
    }
  }
  T product_with(int vector, std::span<const T> d) const {
    const T* const v = bank_->parameters().vectors.view().row_data(vector);
    T sum = 0;
    for (std::size_t i = 0; i < d.size(); ++i) sum += v[i] * d[i];
    return sum;
  }

  Index in_, out_, k_;
  double deviation_;
  std::shared_ptr<const VectorBank<T>> bank_;
  RankBlocks blocks_ = RankBlocks::uniform(1, 1);
  Parameters parameters_;
};

static_assert(ComputedFactorPolicy<BankMixture<float>>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
