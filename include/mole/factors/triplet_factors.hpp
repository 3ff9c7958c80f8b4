// SPDX-License-Identifier: MIT
// TripletFactors: AdaLoRA's factors P Lambda Q, in which a budget decides which of the triplets stay.
#pragma once

#include "mole/core/dropout.hpp"
#include "mole/core/matrix.hpp"
#include "mole/core/random.hpp"
#include "mole/factors/factor_policy.hpp"

#include <optional>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Of each expert:   delta = scale B diag(E) A, all trained: like a singular value decomposition, whose orthogonality a
/// loss asks for, and whose singular values E RankAllocator sets to 0 where they matter least.
///
///   lora_A [ranks x I]   lora_B [ranks x O]   lora_E [1 x ranks]: a triplet is row i of A and B and number i of E
///
/// Starts at A, B ~ N(0, 0.02^2) and E = 0, so that the output of a fresh layer equals its base's. E multiplies A x,
/// and costs nothing. r (I + O + 1) trained numbers an expert.
///
/// `alpha` is over r + 1e-5, as released: the release divides by the number of ranks, which it holds in a tensor, plus
/// that. Throws Error(option) for sizes below 1, or `ranks` together with another number of `rank` blocks.
/// Source: Zhang et al. 2023 (AdaLoRA), arXiv:2303.10512; huggingface/peft, tuners/adalora/layer.py.
template <class T>
class TripletFactors {
 public:
  using Scalar = T;

  struct Options {
    Index in = 0;
    Index out = 0;
    Index experts = 1;
    Index rank = 12;                   ///< ranks of every expert ...
    std::vector<int> ranks = {};       ///< ... or of each one, as many as experts
    std::optional<double> alpha = {};  ///< unset: scale 1
    Scaling scaling = Scaling::alpha_over_rank;
    Dropout dropout = {};  ///< on the adapter's input
  };

  struct Parameters {
    Matrix<T> lora_A, lora_B, lora_E;

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      f("lora_A", p.lora_A...);
      f("lora_B", p.lora_B...);
      f("lora_E", p.lora_E...);
    }
  };

  template <std::uniform_random_bit_generator Generator>
  TripletFactors(const Options& options, Generator& generator)
      : blocks_(RankBlocks::of(options.experts, options.rank, options.ranks)) {
    require(options.in >= 1 && options.out >= 1, ErrorCode::option,
            "TripletFactors: expected in and out of at least 1, found in = ", options.in, ", out = ", options.out);
    parameters_ = {Matrix<T>(blocks_.ranks_down(), options.in), Matrix<T>(blocks_.ranks_up(), options.out),
                   Matrix<T>(1, blocks_.ranks_up())};
    reset(generator);
  }

  void check_sizes() const {
    require_equal(ErrorCode::shape, "TripletFactors: rows of A", blocks_.ranks_down(), parameters_.lora_A.rows());
    require_equal(ErrorCode::shape, "TripletFactors: rows of B", blocks_.ranks_up(), parameters_.lora_B.rows());
    require_equal(ErrorCode::shape, "TripletFactors: numbers of E", blocks_.ranks_up(), parameters_.lora_E.size());
  }

  Index in() const { return parameters_.lora_A.cols(); }
  Index out() const { return parameters_.lora_B.cols(); }
  const RankBlocks& blocks() const { return blocks_; }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }

  double scale(double alpha, Scaling scaling, Index expert) const {
    const Index rank = blocks_.size(expert);
    return scaling == Scaling::alpha_over_rank && rank > 0 ? alpha / (double(rank) + 1e-5)
                                                           : scale_of(alpha, rank, scaling);
  }

  /// Reinitializes, as the constructor does.
  template <std::uniform_random_bit_generator Generator>
  void reset(Generator& generator) {
    for (Matrix<T>* table : {&parameters_.lora_A, &parameters_.lora_B})
      for (T& element : table->elements()) element = T(0.02 * standard_normal(generator));
    parameters_.lora_E.set_zero();
  }

  FactorViews<const T> factors(NoScratch&) const {
    return {parameters_.lora_A, parameters_.lora_B, parameters_.lora_E};
  }
  FactorViews<T> gradient_views(Parameters& gradients, NoScratch&) const {
    return {gradients.lora_A, gradients.lora_B, gradients.lora_E};
  }

 private:
  RankBlocks blocks_;
  Parameters parameters_;
};

static_assert(FactorPolicy<TripletFactors<float>>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
