// SPDX-License-Identifier: MIT
// SharedFrozen: VeRA's factors, one frozen random pair for all layers, and two trained vectors a layer.
#pragma once

#include "mole/core/dropout.hpp"
#include "mole/core/matrix.hpp"
#include "mole/factors/computed_tables.hpp"
#include "mole/factors/factor_policy.hpp"
#include "mole/factors/frozen_pair.hpp"

#include <cmath>
#include <memory>
#include <optional>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Of each expert:   delta = scale diag(lambda_b) B diag(lambda_d) A, with the lambdas trained.
///
///   lambda_d [1 x E r]   lambda_b [E x O]
///
/// A and B are those of a FrozenPair: all layers of a model, and all experts of a layer, read the first I and O of its
/// columns. lambda_d multiplies A x, and costs nothing; B diag(lambda_b) is computed once a forward: r O numbers an
/// expert, and as many for its gradient. At I = O = 4,096 and r = 256: 4,352 trained numbers a layer, 8 MiB of scratch
/// in float, and 8 MiB for the pair, once.
///
/// Starts at lambda_d = 0.1 and lambda_b = 0, so that the output of a fresh layer equals its base's.
/// State: a fingerprint of the pair, so that a checkpoint of another pair is refused. Throws Error(option) for sizes
/// below 1 or without a pair, Error(shape) if the pair is narrower than the layer.
/// Source: Kopiczko et al. 2024 (VeRA), arXiv:2310.11454; huggingface/peft, tuners/vera/layer.py.
template <class T>
class SharedFrozen {
 public:
  using Scalar = T;
  static constexpr bool borrows = true;  // the pair
  using Scratch = ComputedTables<T>;

  struct Options {
    Index in = 0;
    Index out = 0;
    Index experts = 1;
    std::shared_ptr<const FrozenPair<T>> pair = {};
    double start = 0.1;                ///< of lambda_d
    std::optional<double> alpha = {};  ///< unset: scale 1
    Scaling scaling = Scaling::alpha_over_rank;
    Dropout dropout = {};  ///< on the adapter's input
  };

  struct Parameters {
    Matrix<T> lambda_d, lambda_b;

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      f("lambda_d", p.lambda_d...);
      f("lambda_b", p.lambda_b...);
    }
  };

  template <std::uniform_random_bit_generator Generator>
  SharedFrozen(const Options& options, Generator& generator)
      : in_(options.in), start_(T(options.start)), pair_(options.pair) {
    require(options.in >= 1 && options.out >= 1, ErrorCode::option,
            "SharedFrozen: expected in and out of at least 1, found in = ", options.in, ", out = ", options.out);
    require(std::isfinite(options.start), ErrorCode::option, "SharedFrozen: expected a finite start, found ",
            options.start);
    require(pair_ != nullptr, ErrorCode::option, "SharedFrozen: expected a pair of A and B, found none");
    check_pair(*pair_, options.in, options.out);
    blocks_ = RankBlocks::uniform(options.experts, pair_->a.rows(), true);
    parameters_ = {Matrix<T>(1, blocks_.ranks_up()), Matrix<T>(options.experts, options.out)};
    reset(generator);
  }

  void check_sizes() const {
    require_equal(ErrorCode::shape, "SharedFrozen: lambda_d", blocks_.ranks_up(), parameters_.lambda_d.size());
    require_equal(ErrorCode::shape, "SharedFrozen: rows of lambda_b", blocks_.experts(), parameters_.lambda_b.rows());
    check_pair(*pair_, in_, out());
    require_equal(ErrorCode::shape, "SharedFrozen: ranks of the pair", blocks_.max_size(), pair_->a.rows());
  }

  Index in() const { return in_; }
  Index out() const { return parameters_.lambda_b.cols(); }
  const RankBlocks& blocks() const { return blocks_; }
  const std::shared_ptr<const FrozenPair<T>>& pair() const { return pair_; }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }

  /// Reinitializes, as the constructor does; draws nothing.
  template <std::uniform_random_bit_generator Generator>
  void reset(Generator&) {
    fill(parameters_.lambda_d.view(), start_);
    parameters_.lambda_b.set_zero();
  }

  template <class F>
  void for_each_state(F&& f) {
    const auto own = std::int64_t(pair_->fingerprint());
    std::int64_t found = own;
    f("pair", std::span<std::int64_t>(&found, 1));
    require(found == own, ErrorCode::option, "SharedFrozen: expected the pair of fingerprint ", own, ", found that of ",
            found);
  }

  Scratch scratch(const CallSize&, Arena& arena) const { return Scratch::only_b(blocks_, out(), arena); }

  FactorViews<const T> factors(Scratch& scratch) const {
    return {pair_->a.view().middle_cols(0, in_), scratch.b, parameters_.lambda_d};
  }
  FactorViews<T> gradient_views(Parameters& gradients, Scratch& scratch) const {
    return {{}, scratch.zeroed(false, !gradients.lambda_b.empty()).b, gradients.lambda_d};
  }

  void prepare(auto call) const {
    call.execution.parallel_for(blocks_.ranks_up(), [&, &s = call.scratch](Index row) {
      const T* const lambda = parameters_.lambda_b.view().row_data(row / pair_->b.rows());
      const T* const b = row_of_b(row);
      const std::span<T> to = s.b.row(row);
      for (std::size_t o = 0; o < to.size(); ++o) to[o] = lambda[o] * b[o];
    });
  }

  void contract(Parameters& gradients, auto call) const {
    if (gradients.lambda_b.empty()) return;
    call.execution.parallel_for(blocks_.experts(), [&, &s = call.scratch](Index expert) {
      const std::span<T> to = gradients.lambda_b.view().row(expert);
      for (Index row = blocks_.up(expert); row < blocks_.up(expert) + blocks_.size(expert); ++row) {
        const T* const b = row_of_b(row);
        const T* const d_b = s.d_b.row_data(row);
        for (std::size_t o = 0; o < to.size(); ++o) to[o] += d_b[o] * b[o];
      }
    });
  }

 private:
  static void check_pair(const FrozenPair<T>& pair, Index in, Index out) {
    require(pair.a.rows() == pair.b.rows() && pair.a.cols() >= in && pair.b.cols() >= out, ErrorCode::shape,
            "SharedFrozen: expected a pair of at least ", in, " inputs and ", out, " outputs, found A [", pair.a.rows(),
            " x ", pair.a.cols(), "] and B [", pair.b.rows(), " x ", pair.b.cols(), "]");
  }
  const T* row_of_b(Index row) const { return pair_->b.view().row_data(row % pair_->b.rows()); }

  Index in_;
  T start_;
  std::shared_ptr<const FrozenPair<T>> pair_;
  RankBlocks blocks_ = RankBlocks::uniform(1, 1);
  Parameters parameters_;
};

static_assert(ComputedFactorPolicy<SharedFrozen<float>>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
