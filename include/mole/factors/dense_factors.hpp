// SPDX-License-Identifier: MIT
// DenseFactors: the usual LoRA factors, two trained matrices.
#pragma once

#include "mole/core/dropout.hpp"
#include "mole/core/random.hpp"
#include "mole/factors/factor_policy.hpp"
#include "mole/factors/lora_parameters.hpp"

#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// A and B of all experts, both trained.
///
///   lora_A [ranks x I]   lora_B [ranks x O], rank-major: row i of both is one rank-1 expert
///
/// Starts at A ~ U(-1/sqrt(I), 1/sqrt(I)) and B = 0, so that the output of a fresh layer equals its base's bit for bit.
/// Throws Error(option) for sizes below 1, negative ranks, or `ranks` together with another number of `rank` blocks.
/// Source: Hu et al. 2021, arXiv:2106.09685; shared A: Tian et al. 2024 (HydraLoRA), arXiv:2404.19245.
template <class T>
class DenseFactors {
 public:
  using Scalar = T;
  using Parameters = LoraParameters<T>;

  struct Options {
    Index in = 0;
    Index out = 0;
    Index experts = 1;
    Index rank = 8;                    ///< ranks of every expert ...
    std::vector<int> ranks = {};       ///< ... or of each one, as many as experts
    std::optional<double> alpha = {};  ///< unset: scale 1
    Scaling scaling = Scaling::alpha_over_rank;
    Dropout dropout = {};      ///< on the adapter's input
    bool shared_down = false;  ///< every expert reads the same A
  };

  template <std::uniform_random_bit_generator Generator>
  DenseFactors(const Options& options, Generator& generator)
      : blocks_(RankBlocks::of(options.experts, options.rank, options.ranks, options.shared_down)) {
    require(options.in >= 1 && options.out >= 1, ErrorCode::option,
            "DenseFactors: expected in and out of at least 1, found in = ", options.in, ", out = ", options.out);
    parameters_ = {Matrix<T>(blocks_.ranks_down(), options.in), Matrix<T>(blocks_.ranks_up(), options.out)};
    reset(generator);
  }

  /// From existing parameters.   lora_A [ranks x I], lora_B [ranks x O].  Throws Error(shape) if `blocks` do not fit.
  DenseFactors(RankBlocks blocks, Parameters parameters)
      : blocks_(std::move(blocks)), parameters_(std::move(parameters)) {
    check_sizes();
  }

  void check_sizes() const {
    require_equal(ErrorCode::shape, "DenseFactors: rows of A", blocks_.ranks_down(), parameters_.lora_A.rows());
    require_equal(ErrorCode::shape, "DenseFactors: rows of B", blocks_.ranks_up(), parameters_.lora_B.rows());
  }

  Index in() const { return parameters_.lora_A.cols(); }
  Index out() const { return parameters_.lora_B.cols(); }
  const RankBlocks& blocks() const { return blocks_; }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }

  /// Reinitializes, as the constructor does.
  template <std::uniform_random_bit_generator Generator>
  void reset(Generator& generator) {
    fill_uniform(parameters_.lora_A.view(), 1 / std::sqrt(double(in())), generator);
    parameters_.lora_B.set_zero();
  }

  /// Appends the ranks of `other`. Throws Error(shape) for other sizes and Error(option) if several experts share one
  /// A; then nothing has changed. Copies.
  void append(const DenseFactors& other) {
    require_equal(ErrorCode::shape, "DenseFactors: inputs of what is appended", in(), other.in());
    require_equal(ErrorCode::shape, "DenseFactors: outputs of what is appended", out(), other.out());
    RankBlocks blocks = blocks_.followed_by(other.blocks_);
    parameters_ = {stacked(parameters_.lora_A, other.parameters_.lora_A),
                   stacked(parameters_.lora_B, other.parameters_.lora_B)};
    blocks_ = std::move(blocks);
  }

  FactorViews<const T> factors(NoScratch&) const { return {parameters_.lora_A, parameters_.lora_B}; }
  FactorViews<T> gradient_views(Parameters& gradients, NoScratch&) const {
    return {gradients.lora_A, gradients.lora_B};
  }

 private:
  RankBlocks blocks_;
  Parameters parameters_;
};

static_assert(FactorPolicy<DenseFactors<float>>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
