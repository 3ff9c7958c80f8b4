// SPDX-License-Identifier: MIT
// GatedRanks: SoRA's factors, in which a trained gate per rank can switch the rank off.
#pragma once

#include "mole/core/dropout.hpp"
#include "mole/core/random.hpp"
#include "mole/factors/dense_factors.hpp"
#include "mole/factors/factor_policy.hpp"

#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Initial values of the gates.
enum class GateStart { normal, ones };

/// A and B of all experts, and a gate g between them, all trained.
///
///   y = s B^T (g o (A x))
///   lora_A [ranks x I]   lora_B [ranks x O]   gate [1 x ranks of B], the same for every token, of either sign
///
/// Starts at A ~ U(-1/sqrt(I), 1/sqrt(I)), B = 0 and g ~ N(0, 1), or all 1. The gate multiplies h = A x where the
/// experts weigh it, so it costs no copy and no memory. With u = s B d_y, d_gate = sum over tokens of (A x) o u, which
/// is the sum over columns of d_B' o B for the d_B' of B' = diag(g) B; d_B = g o d_B'.  O(ranks) per pair.
///
/// A gate of exactly 0, which soft_threshold() produces, adds nothing and passes no gradient to its rows of A and B,
/// but gets a gradient itself and may recover; prune_zero_ranks() removes such ranks.
/// Throws Error(option) for sizes below 1, negative ranks, or `ranks` together with another number of `rank` blocks.
/// Source: Ding et al. 2023 (SoRA), arXiv:2311.11696.
template <class T>
class GatedRanks {
 public:
  using Scalar = T;
  using Ungated = DenseFactors<T>;  ///< what remains once the gate is part of B

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
    GateStart start = GateStart::normal;
  };

  struct Parameters {
    Matrix<T> lora_A, lora_B, gate;

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      f("lora_A", p.lora_A...);
      f("lora_B", p.lora_B...);
      f("gate", p.gate...);
    }
  };

  template <std::uniform_random_bit_generator Generator>
  GatedRanks(const Options& options, Generator& generator)
      : blocks_(RankBlocks::of(options.experts, options.rank, options.ranks, options.shared_down)),
        start_(options.start) {
    require(options.in >= 1 && options.out >= 1, ErrorCode::option,
            "GatedRanks: expected in and out of at least 1, found in = ", options.in, ", out = ", options.out);
    parameters_ = {Matrix<T>(blocks_.ranks_down(), options.in), Matrix<T>(blocks_.ranks_up(), options.out),
                   Matrix<T>(1, blocks_.ranks_up())};
    reset(generator);
  }

  /// From existing parameters. Throws Error(shape) if `blocks` do not fit.
  GatedRanks(RankBlocks blocks, Parameters parameters, GateStart start = GateStart::normal)
      : blocks_(std::move(blocks)), start_(start), parameters_(std::move(parameters)) {
    check_sizes();
  }

  void check_sizes() const {
    require_equal(ErrorCode::shape, "GatedRanks: rows of A", blocks_.ranks_down(), parameters_.lora_A.rows());
    require_equal(ErrorCode::shape, "GatedRanks: rows of B", blocks_.ranks_up(), parameters_.lora_B.rows());
    require_equal(ErrorCode::shape, "GatedRanks: gates", blocks_.ranks_up(), parameters_.gate.size());
  }

  Index in() const { return parameters_.lora_A.cols(); }
  Index out() const { return parameters_.lora_B.cols(); }
  const RankBlocks& blocks() const { return blocks_; }
  GateStart start() const { return start_; }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }

  /// Reinitializes, as the constructor does.
  template <std::uniform_random_bit_generator Generator>
  void reset(Generator& generator) {
    fill_uniform(parameters_.lora_A.view(), 1 / std::sqrt(double(in())), generator);
    parameters_.lora_B.set_zero();
    for (T& g : parameters_.gate.elements()) g = start_ == GateStart::ones ? T(1) : T(standard_normal(generator));
  }

  FactorViews<const T> factors(NoScratch&) const { return {parameters_.lora_A, parameters_.lora_B, parameters_.gate}; }
  FactorViews<T> gradient_views(Parameters& gradients, NoScratch&) const {
    return {gradients.lora_A, gradients.lora_B, gradients.gate};
  }

 private:
  RankBlocks blocks_;
  GateStart start_;
  Parameters parameters_;
};

static_assert(FactorPolicy<GatedRanks<float>>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
