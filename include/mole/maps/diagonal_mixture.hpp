// SPDX-License-Identifier: MIT
// DiagonalMixture: RandLoRA's update, a sum of random matrices between trained diagonals, of full rank.
#pragma once

#include "mole/core/dropout.hpp"
#include "mole/core/matrix.hpp"
#include "mole/core/rank/scaling.hpp"
#include "mole/core/row.hpp"
#include "mole/maps/diagonal_bases.hpp"
#include "mole/maps/map_policy.hpp"

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Which row of A, between which diagonals, meets which row of a basis.
enum class BasisPairing {
  formula,    ///< row k of A, of basis b, meets row k of B_b
  flattened,  ///< row k of A, of basis b, is number k n + b, and meets that row of the B_b one below the other
};

/// Of each expert:   delta = scale sum_b B_b^T diag(lambda_b) A diag(gamma_b), or its transpose if O < I.
///
///   randlora_lambda [E r x n]   randlora_gamma [E n x m]   m = min(I, O), n = m / r, rounded up
///
/// A and the B_b are those of DiagonalBases: only the diagonals are trained, n (r + m) numbers, and n bases of rank r
/// give delta full rank. It is applied one basis at a time, r m products to make diag(lambda_b) A diag(gamma_b), then
/// T r (I + O) for T tokens; backward does twice that and makes everything again. Scratch is two tiles [r x m] and two
/// of [tokens x r]; unless the bases are in memory, also [r x m] and [r x max(I, O)]. At I = O = 4,096 and r = 32:
/// 528,384 trained numbers. The bits of a row of y do not depend on the other rows.
///
/// The release pairs rows as `flattened`, although its paper has the formula. That only permutes rows of random
/// matrices: the formula is the default, and `flattened` reads the release's checkpoints.
/// Scale: alpha / (r sqrt(n)), as in the paper's repository; without `over_root_of_bases` alpha / r, as in peft.
/// Starts at lambda = 0, so that the output of a fresh layer equals its base's, and gamma = 1 / max(n, m); the first
/// gradient is of lambda alone. State: a fingerprint of the bases, so that a checkpoint over others is refused. Throws
/// Error(option) for sizes below 1 or without bases, Error(shape) if the bases are smaller than the layer.
/// Source: Albert et al. 2025 (RandLoRA), arXiv:2502.00987; huggingface/peft, tuners/randlora/layer.py.
template <class T>
class DiagonalMixture {
 public:
  using Scalar = T;
  static constexpr bool borrows = true;  // the bases

  struct Options {
    Index in = 0;
    Index out = 0;
    Index experts = 1;
    std::shared_ptr<const DiagonalBases<T>> bases = {};
    Index used = 0;  ///< n; 0: as many as give full rank
    BasisPairing pairing = BasisPairing::formula;
    std::optional<double> alpha = {};  ///< unset: scale 1
    bool over_root_of_bases = true;
    Scaling scaling = Scaling::alpha_over_rank;
    Dropout dropout = {};  ///< on the adapter's input
  };

  struct Parameters {
    Matrix<T> randlora_lambda, randlora_gamma;

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      f("randlora_lambda", p.randlora_lambda...);
      f("randlora_gamma", p.randlora_gamma...);
    }
  };

  struct Scratch {
    View<T> a;             // the rows of A that a layer reads [r x m], unless in memory
    View<T> between;       // those of one basis, between the diagonals [r x m]
    View<T> d_between;     // [r x m]
    View<T> basis;         // [r x max(I, O)], unless in memory
    View<T> h, d_h;        // [tokens x r]
    View<const T> rows_a;  // a, wherever it is
  };

  template <std::uniform_random_bit_generator Generator>
  DiagonalMixture(const Options& options, Generator& generator) : options_(options) {
    require(options.in >= 1 && options.out >= 1 && options.experts >= 1 && options.used >= 0, ErrorCode::option,
            "DiagonalMixture: expected in, out and experts of at least 1, found in = ", options.in,
            ", out = ", options.out, ", experts = ", options.experts, ", bases = ", options.used);
    require(options.bases != nullptr, ErrorCode::option, "DiagonalMixture: expected bases, found none");
    if (options_.used == 0) options_.used = options.bases->bases_for(small());
    check_bases();
    parameters_ = {Matrix<T>(checked_product("DiagonalMixture: lambda", options_.experts, rank()), options_.used),
                   Matrix<T>(checked_product("DiagonalMixture: gamma", options_.experts, options_.used), small())};
    reset(generator);
  }

  void check_sizes() const {
    check_bases();
    require_equal(ErrorCode::shape, "DiagonalMixture: rows of lambda", options_.experts * rank(),
                  parameters_.randlora_lambda.rows());
    require_equal(ErrorCode::shape, "DiagonalMixture: columns of lambda", options_.used,
                  parameters_.randlora_lambda.cols());
    require_equal(ErrorCode::shape, "DiagonalMixture: rows of gamma", options_.experts * options_.used,
                  parameters_.randlora_gamma.rows());
    require_equal(ErrorCode::shape, "DiagonalMixture: columns of gamma", small(), parameters_.randlora_gamma.cols());
  }

  Index experts() const { return options_.experts; }
  Index in() const { return options_.in; }
  Index out() const { return options_.out; }
  Index used_bases() const { return options_.used; }
  BasisPairing pairing() const { return options_.pairing; }
  const std::shared_ptr<const DiagonalBases<T>>& bases() const { return options_.bases; }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }

  double scale(double alpha, Scaling scaling, Index) const {
    return scale_of(alpha, rank(), scaling) / (options_.over_root_of_bases ? std::sqrt(double(options_.used)) : 1.0);
  }

  /// Reinitializes, as the constructor does; draws nothing.
  template <std::uniform_random_bit_generator Generator>
  void reset(Generator&) {
    parameters_.randlora_lambda.set_zero();
    fill(parameters_.randlora_gamma.view(), T(1 / double(std::max(options_.used, small()))));
  }

  template <class F>
  void for_each_state(F&& f) {
    const auto own = std::int64_t(options_.bases->fingerprint());
    std::int64_t found = own;
    f("bases", std::span<std::int64_t>(&found, 1));
    require(found == own, ErrorCode::option, "DiagonalMixture: expected the bases of fingerprint ", own,
            ", found those of ", found);
  }

  Scratch scratch(const CallSize& size, Arena& arena) const {
    const bool kept = options_.bases->in_memory();
    return {arena.matrix<T>(kept ? 0 : rank(), small()),
            arena.matrix<T>(rank(), small()),
            arena.matrix<T>(rank(), small()),
            arena.matrix<T>(kept ? 0 : rank(), large()),
            arena.matrix<T>(size.tokens, rank()),
            arena.matrix<T>(size.tokens, rank()),
            {}};
  }

  void prepare(auto call) const { call.scratch.rows_a = options_.bases->a(small(), call.scratch.a, call.execution); }

  void map(Index expert, View<const T> x, View<T> y, auto call) const {
    fill(y, T(0));
    const View<T> h = call.scratch.h.top(x.rows());
    for (Index b = 0; b < options_.used; ++b) {
      const Sides sides = sides_of(expert, b, call);
      call.execution.product_nt(x, sides.down, h);
      call.execution.product_nn(View<const T>(h), sides.up, y);
    }
  }

  /// d_h = d_y U^T,   d_x += d_h D   for h = x D^T, y += h U, where D or U is what the diagonals stand around
  void map_backward(Index expert, View<const T> x, View<const T> d_y, View<T> d_x, Parameters& gradients,
                    auto call) const {
    const View<T> h = call.scratch.h.top(x.rows()), d_h = call.scratch.d_h.top(x.rows());
    const bool trained = !gradients.randlora_lambda.empty() || !gradients.randlora_gamma.empty();
    for (Index b = 0; b < options_.used; ++b) {
      const Sides sides = sides_of(expert, b, call);
      call.execution.product_nt(d_y, sides.up, d_h);
      if (d_x) call.execution.product_nn(View<const T>(d_h), sides.down, d_x);
      if (!trained) continue;
      fill(call.scratch.d_between, T(0));
      if (small_is_in()) {
        call.execution.product_tn(View<const T>(d_h), x, call.scratch.d_between);
      } else {
        call.execution.product_nt(x, sides.down, h);
        call.execution.product_tn(View<const T>(h), d_y, call.scratch.d_between);
      }
      add_gradients(expert, b, gradients, call);
    }
  }

  void add_delta(Index expert, T factor, View<T> w, auto call) const {
    for (Index b = 0; b < options_.used; ++b) {
      const Sides sides = sides_of(expert, b, call);
      for (Index o = 0; o < out(); ++o)
        for (Index k = 0; k < rank(); ++k)
          detail::add_scaled(factor * sides.up(k, o), sides.down.row_data(k), w.row_data(o), in());
    }
  }

 private:
  /// Of one basis.   down [r x I]   up [r x O]
  struct Sides {
    View<const T> down, up;
  };
  /// Row k of A, and the diagonals around it.
  struct RowOfA {
    Index k, b;
  };

  Index rank() const { return options_.bases->options().rank; }
  Index small() const { return std::min(options_.in, options_.out); }
  Index large() const { return std::max(options_.in, options_.out); }
  bool small_is_in() const { return options_.in <= options_.out; }

  void check_bases() const {
    const auto& has = options_.bases->options();
    require(has.small_side >= small() && has.large_side >= large() && has.bases >= options_.used, ErrorCode::shape,
            "DiagonalMixture: expected at least ", options_.used, " bases for sides of ", small(), " and ", large(),
            ", found ", has.bases, " for ", has.small_side, " and ", has.large_side);
  }

  /// What meets row k of basis b.
  RowOfA row_of(Index b, Index k) const {
    if (options_.pairing == BasisPairing::formula) return {k, b};
    const Index number = b * rank() + k;
    return {number / options_.used, number % options_.used};
  }

  Sides sides_of(Index expert, Index b, auto call) const {
    Scratch& s = call.scratch;
    call.execution.parallel_for(rank(), [&](Index k) {
      const RowOfA row = row_of(b, k);
      const T lambda = parameters_.randlora_lambda(expert * rank() + row.k, row.b);
      const T* const a = s.rows_a.row_data(row.k);
      const T* const gamma = gamma_of(expert, row.b);
      const std::span<T> to = s.between.row(k);
      for (std::size_t j = 0; j < to.size(); ++j) to[j] = lambda * a[j] * gamma[j];
    });
    const View<const T> basis = options_.bases->b(b, large(), s.basis, call.execution);
    return small_is_in() ? Sides{s.between, basis} : Sides{basis, s.between};
  }

  /// From the gradient of what stands between the diagonals, which this uses up.
  void add_gradients(Index expert, Index b, Parameters& gradients, auto call) const {
    const Scratch& s = call.scratch;
    for (Index k = 0; k < rank(); ++k) {
      const RowOfA row = row_of(b, k);
      T* const d = s.d_between.row_data(k);
      const T* const a = s.rows_a.row_data(row.k);
      for (Index j = 0; j < small(); ++j) d[j] *= a[j];
      if (!gradients.randlora_lambda.empty())
        gradients.randlora_lambda(expert * rank() + row.k, row.b) +=
            detail::dot<T>(d, gamma_of(expert, row.b), small());
      if (!gradients.randlora_gamma.empty())
        detail::add_scaled(parameters_.randlora_lambda(expert * rank() + row.k, row.b), d,
                           gradients.randlora_gamma.view().row_data(expert * options_.used + row.b), small());
    }
  }

  const T* gamma_of(Index expert, Index b) const {
    return parameters_.randlora_gamma.view().row_data(expert * options_.used + b);
  }

  Options options_;
  Parameters parameters_;
};

static_assert(TrainableMapPolicy<DiagonalMixture<float>> && LinearMapPolicy<DiagonalMixture<float>>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
