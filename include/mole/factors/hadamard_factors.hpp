// SPDX-License-Identifier: MIT
// HadamardFactors: LoHa's factors, the element-wise product of two low-rank matrices.
#pragma once

#include "mole/core/dropout.hpp"
#include "mole/core/matrix.hpp"
#include "mole/core/random.hpp"
#include "mole/core/row.hpp"
#include "mole/factors/computed_tables.hpp"
#include "mole/factors/factor_policy.hpp"

#include <cmath>
#include <optional>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Of each expert:   delta = scale (W1a W1b) o (W2a W2b), each product of rank r, all four trained.
///
///   hada_w1_a, hada_w2_a [E r x O]   hada_w1_b, hada_w2_b [E r x I], rank-major
///
/// The product has rank r^2 at most, and is a LoRA of that rank whose rows are products of rows:
///     a_ij = w1b_i o w2b_j,   b_ij = w1a_i o w2a_j,   i, j = 0 ... r-1
/// so delta [O x I] is never formed. 2 r (I + O) trained numbers do the work of r^2 ranks, and cost as much as those;
/// scratch is 2 r^2 (I + O) numbers an expert: at I = O = 4,096 and r = 8, 131,072 trained numbers and 4 MiB in float.
///
/// Starts at W2b = 0, so that the output of a fresh layer equals its base's; the others are uniform within
/// 1/sqrt(columns as the release stores them): 1/sqrt(r) for the two of O, 1/sqrt(I) for W1b. `alpha` is over r.
/// Throws Error(option) for sizes below 1.
/// Source: Hyeon-Woo et al. 2022 (FedPara), arXiv:2108.06098; huggingface/peft, tuners/loha/layer.py.
template <class T>
class HadamardFactors {
 public:
  using Scalar = T;
  using Scratch = ComputedTables<T>;

  struct Options {
    Index in = 0;
    Index out = 0;
    Index experts = 1;
    Index rank = 8;                    ///< r of each of the two products
    std::optional<double> alpha = {};  ///< unset: scale 1
    Scaling scaling = Scaling::alpha_over_rank;
    Dropout dropout = {};  ///< on the adapter's input
  };

  struct Parameters {
    Matrix<T> hada_w1_a, hada_w1_b, hada_w2_a, hada_w2_b;

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      f("hada_w1_a", p.hada_w1_a...);
      f("hada_w1_b", p.hada_w1_b...);
      f("hada_w2_a", p.hada_w2_a...);
      f("hada_w2_b", p.hada_w2_b...);
    }
  };

  template <std::uniform_random_bit_generator Generator>
  HadamardFactors(const Options& options, Generator& generator)
      : rank_(options.rank),
        blocks_(RankBlocks::uniform(options.experts,
                                    checked_product("HadamardFactors: ranks", options.rank, options.rank))) {
    require(options.in >= 1 && options.out >= 1 && options.rank >= 1, ErrorCode::option,
            "HadamardFactors: expected in, out and rank of at least 1, found in = ", options.in,
            ", out = ", options.out, ", rank = ", options.rank);
    const Index rows = options.experts * options.rank;
    parameters_ = {Matrix<T>(rows, options.out), Matrix<T>(rows, options.in), Matrix<T>(rows, options.out),
                   Matrix<T>(rows, options.in)};
    reset(generator);
  }

  void check_sizes() const {
    const Index rows = blocks_.experts() * rank_;
    for (const Matrix<T>* table :
         {&parameters_.hada_w1_a, &parameters_.hada_w1_b, &parameters_.hada_w2_a, &parameters_.hada_w2_b})
      require_equal(ErrorCode::shape, "HadamardFactors: rows of each factor", rows, table->rows());
    require_equal(ErrorCode::shape, "HadamardFactors: outputs of W2a", out(), parameters_.hada_w2_a.cols());
    require_equal(ErrorCode::shape, "HadamardFactors: inputs of W2b", in(), parameters_.hada_w2_b.cols());
  }

  Index in() const { return parameters_.hada_w1_b.cols(); }
  Index out() const { return parameters_.hada_w1_a.cols(); }
  Index rank() const { return rank_; }
  const RankBlocks& blocks() const { return blocks_; }
  double scale(double alpha, Scaling scaling, Index) const { return scale_of(alpha, rank_, scaling); }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }

  /// Reinitializes, as the constructor does.
  template <std::uniform_random_bit_generator Generator>
  void reset(Generator& generator) {
    fill_uniform(parameters_.hada_w1_a.view(), 1 / std::sqrt(double(rank_)), generator);
    fill_uniform(parameters_.hada_w1_b.view(), 1 / std::sqrt(double(in())), generator);
    fill_uniform(parameters_.hada_w2_a.view(), 1 / std::sqrt(double(rank_)), generator);
    parameters_.hada_w2_b.set_zero();
  }

  Scratch scratch(const CallSize&, Arena& arena) const { return Scratch::both(blocks_, in(), out(), arena); }

  FactorViews<const T> factors(Scratch& scratch) const { return {scratch.a, scratch.b}; }
  FactorViews<T> gradient_views(Parameters& gradients, Scratch& scratch) const {
    return scratch.zeroed(!gradients.hada_w1_b.empty() || !gradients.hada_w2_b.empty(),
                          !gradients.hada_w1_a.empty() || !gradients.hada_w2_a.empty());
  }

  void prepare(auto call) const {
    call.execution.parallel_for(blocks_.ranks_up(), [&, &s = call.scratch](Index row) {
      const auto [first, second] = pair_of(row);
      multiply(parameters_.hada_w1_b, parameters_.hada_w2_b, first, second, s.a.row(row));
      multiply(parameters_.hada_w1_a, parameters_.hada_w2_a, first, second, s.b.row(row));
    });
  }

  /// d_w1b_i += sum_j d_a_ij o w2b_j,   d_w2b_j += sum_i d_a_ij o w1b_i,   and so with b
  void contract(Parameters& gradients, auto call) const {
    const auto& p = parameters_;
    call.execution.parallel_for(blocks_.experts() * rank_, [&, &s = call.scratch](Index row) {
      const Index expert = row / rank_, k = row % rank_;
      for (Index other = 0; other < rank_; ++other) {
        const Index with = expert * rank_ + other;
        const Index as_first = row * rank_ + other, as_second = with * rank_ + k;
        add_product(s.d_a, as_first, p.hada_w2_b, with, gradients.hada_w1_b, row);
        add_product(s.d_b, as_first, p.hada_w2_a, with, gradients.hada_w1_a, row);
        add_product(s.d_a, as_second, p.hada_w1_b, with, gradients.hada_w2_b, row);
        add_product(s.d_b, as_second, p.hada_w1_a, with, gradients.hada_w2_a, row);
      }
    });
  }

 private:
  struct Pair {
    Index first, second;
  };
  /// The rows i and j, of all experts' rows, whose product is row (e r + i) r + j of A and B.
  Pair pair_of(Index row) const {
    const Index first = row / rank_;
    return {first, first / rank_ * rank_ + row % rank_};
  }

  static void multiply(const Matrix<T>& one, const Matrix<T>& two, Index first, Index second, std::span<T> to) {
    const T* const u = one.view().row_data(first);
    const T* const v = two.view().row_data(second);
    for (std::size_t i = 0; i < to.size(); ++i) to[i] = u[i] * v[i];
  }
  static void add_product(View<const T> d, Index d_row, const Matrix<T>& factor, Index factor_row, Matrix<T>& gradient,
                          Index gradient_row) {
    if (gradient.empty()) return;
    const T* const u = d.row_data(d_row);
    const T* const v = factor.view().row_data(factor_row);
    const std::span<T> to = gradient.view().row(gradient_row);
    if (detail::is_zero(u, d.cols())) return;
    for (std::size_t i = 0; i < to.size(); ++i) to[i] += u[i] * v[i];
  }

  Index rank_;
  RankBlocks blocks_;
  Parameters parameters_;
};

static_assert(ComputedFactorPolicy<HadamardFactors<float>>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
