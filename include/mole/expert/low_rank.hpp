// SPDX-License-Identifier: MIT
// LowRank: experts that are blocks of ranks of one pair of factors.
#pragma once

#include "mole/core/add_outer_products.hpp"
#include "mole/core/dropout.hpp"
#include "mole/core/matrix.hpp"
#include "mole/core/offline_call.hpp"
#include "mole/core/rank/rank_layout.hpp"
#include "mole/expert/expert_policy.hpp"
#include "mole/expert/latent_ranks.hpp"
#include "mole/factors/factor_policy.hpp"

#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// y_n += sum over the chosen e of scale_e gate_ne B_e^T (A_e x_n).
///
///   x [N x I], y [N x O]; A, B and their blocks come from Factors
///
/// Blocks of one rank are rank-wise experts; blocks of different sizes are ragged ranks. There is one scale per expert,
/// from alpha and its rank, and it may be set. Dropout acts on the x that A sees, with stream 1 unless its options say
/// otherwise. Cost is proportional to what is chosen; no allocation after scratch().
///
/// If Factors stream A, x is always projected onto all ranks: the kernel puts ranks in SIMD lanes, and computing only
/// the chosen ones was slower (I = 768: 3.2 us per token for 8 of 32, 0.22 us for all).
template <FactorPolicy Factors>
class LowRank {
 public:
  using Scalar = typename Factors::Scalar;
  using T = Scalar;
  using Parameters = ParametersOf<Factors>;
  using Options = typename Factors::Options;
  static constexpr bool borrows = borrows_parameters<Factors>;

  struct Scratch {
    ScratchVector<int> begin;  // [pairs + 1]; empty before the first forward
    std::span<T> h, d_h;       // ranks of all pairs
    std::span<T> weighted;     // h times scale and gate
    View<T> dropped;           // [tokens x I], with dropout only
    View<T> latent, d_latent;  // [tokens x ranks], only for a router that reads the latent, or if A is streamed
    ScratchOf<Factors> factors;
  };

  template <std::uniform_random_bit_generator Generator>
  LowRank(const Options& options, Generator& generator)
      : factors_(options, generator), dropout_(options.dropout), scale_(std::size_t(experts())) {
    dropout_.check("LowRank");
    detail::require_alpha("LowRank", options.alpha);
    for (Index e = 0; e < experts(); ++e)
      scale_[std::size_t(e)] = T(options.alpha ? scale_from(*options.alpha, options.scaling, e) : 1.0);
  }

  /// From existing factors.   scale [E]
  LowRank(Factors factors, std::vector<T> scale, Dropout dropout = {})
      : factors_(std::move(factors)), dropout_(dropout), scale_(std::move(scale)) {
    dropout_.check("LowRank");
    require_equal(ErrorCode::shape, "LowRank: number of scales", experts(), Index(scale_.size()));
  }

  /// The scales and dropout of these experts over other factors.
  template <FactorPolicy Other>
  LowRank<Other> with(Other factors) const {
    return {std::move(factors), scale_, dropout_};
  }

  /// Reinitializes the factors; scales stay.
  template <std::uniform_random_bit_generator Generator>
  requires requires(Factors& factors, Generator& generator) { factors.reset(generator); }
  void reset(Generator& generator) { factors_.reset(generator); }

  /// Adds `ranks` experts of one rank each, if Factors can grow. Workspaces and gradients made before become invalid.
  template <std::uniform_random_bit_generator Generator>
  requires requires(Factors& factors, Generator& generator) { factors.append(Index(1), generator); }
  void append(Index ranks, Generator& generator, double scale = 1) {
    factors_.append(ranks, generator);
    scale_.resize(std::size_t(experts()), T(scale));
  }

  /// What restores the experts besides their parameters: the scales, and the state of Factors. Also visits a copy of
  /// the ranks of each expert, so that a file of others, whose tensors might have the same shapes, is refused: throws
  /// Error(shape) if f changes them.
  template <class F>
  void for_each_state(F&& f) {
    std::vector<std::int32_t> ranks;
    for (Index e = 0; e < experts(); ++e) ranks.push_back(std::int32_t(blocks().size(e)));
    const auto own = ranks;
    f("ranks", std::span<std::int32_t>(ranks));
    for (std::size_t e = 0; e < own.size(); ++e)
      require(ranks[e] == own[e], ErrorCode::shape, "LowRank: expected ", own[e], " ranks of expert ", e, ", found ",
              ranks[e]);
    f("scale", std::span<T>(scale_));
    if constexpr (requires { factors_.for_each_state(f); }) factors_.for_each_state(f);
  }

  void check_sizes() const {
    detail::check_sizes(factors_);
    require_equal(ErrorCode::shape, "LowRank: scales, one of each expert", experts(), Index(scale_.size()));
  }
  void check_gradients(const Parameters& gradients) const { detail::check_gradients(factors_, gradients); }

  Index experts() const { return blocks().experts(); }
  Index in() const { return factors_.in(); }
  Index out() const { return factors_.out(); }
  const RankBlocks& blocks() const { return factors_.blocks(); }
  Factors& factors() { return factors_; }
  const Factors& factors() const { return factors_; }
  std::span<T> scale() { return scale_; }
  std::span<const T> scale() const { return scale_; }
  const Dropout& dropout() const { return dropout_; }
  decltype(auto) parameters() { return parameters_of(factors_); }
  decltype(auto) parameters() const { return parameters_of(factors_); }

  Scratch scratch(const CallSize& size, Arena& arena) const {
    const Index ranks = checked_int("workspace: ranks of all pairs",
                                    checked_product("workspace: ranks of all pairs", size.pairs, blocks().max_size()));
    const Index latent_rows = size.latent || StreamedFactorPolicy<Factors> ? size.tokens : 0;
    return {arena.vector<int>(size.pairs + 1),
            arena.array<T>(ranks),
            arena.array<T>(ranks),
            arena.array<T>(ranks),
            dropout_.scratch<T>(size, in(), arena),
            arena.matrix<T>(latent_rows, blocks().ranks_down()),
            arena.matrix<T>(latent_rows, blocks().ranks_down()),
            scratch_for(factors_, size, arena)};
  }

  void forward(View<const T> x, View<const T> latent, const Routing<T>& routing, View<T> y, auto call) const {
    call.execution.routed_up(down(x, latent, routing, call), y);
  }

  RankTerms<T> down(View<const T> x, View<const T> latent, const Routing<T>& routing, auto call) const {
    Scratch& s = call.scratch;
    if (!latent) detail::prepare(factors_, call.with(s.factors));
    const FactorViews<const T> f = factors_.factors(s.factors);
    const RankLayout<T> layout = lay_out(routing, s);
    const auto h = ranks_in(s.h, layout), weighted = ranks_in(s.weighted, layout);
    if (latent || StreamedFactorPolicy<Factors>)
      gather_ranks(latent ? latent : projected(x, call), layout, h);
    else
      call.execution.routed_down(seen(x, call), f.a, FactorSide::down, layout, h);
    for (Index p = 0; p < routing.pairs(); ++p) {
      const T factor = scale_[std::size_t(routing.expert(p))] * routing.gate(p);
      for (Index at = layout.first(p); at < layout.first(p) + layout.ranks(p); ++at)
        weighted[std::size_t(at)] = factor * h[std::size_t(at)];
    }
    if (f.rank_gate)
      for_each_rank(layout, [&](Index, Index row, std::size_t at) { weighted[at] *= f.rank_gate.data()[row]; });
    return {layout, weighted, f.b, FactorSide::up};
  }

  void backward(View<const T> x, const Routing<T>& routing, View<const T> d_y, std::span<T> d_gate, View<T> d_x,
                Parameters& gradients, auto call) const {
    Scratch& s = call.scratch;
    if (s.begin.empty()) s.begin.push_back(0);  // no pairs before the first forward
    require_equal(ErrorCode::shape, "LowRank: pairs in backward, as forward left them", Index(s.begin.size()) - 1,
                  routing.pairs());
    const FactorViews<const T> f = factors_.factors(s.factors);
    const FactorViews<T> d = factors_.gradient_views(gradients, s.factors);
    const RankLayout<T> layout = layout_of(routing, s);
    const auto h = ranks_in(s.h, layout), d_h = ranks_in(s.d_h, layout);
    call.execution.routed_down(d_y, f.b, FactorSide::up, layout, d_h);
    if (f.rank_gate) rank_gate_backward(layout, f.rank_gate, h, d_h, d.rank_gate);
    weigh_backward(layout, h, d_h, d_gate);
    if (d.b) call.execution.routed_outer(ranks_in(s.weighted, layout), d_y, FactorSide::up, layout, d.b);
    if (d.a) call.execution.routed_outer(d_h, seen(x, call), FactorSide::down, layout, d.a);
    dropout_.seen_backward(d_x, s.dropped, call.pass, [&](View<T> d_seen) {
      if constexpr (StreamedFactorPolicy<Factors>)
        factors_.project_backward(scatter_ranks<T>(d_h, layout, d_latent(x.rows(), call)), d_seen,
                                  call.with(s.factors));
      else
        call.execution.routed_up(d_x_terms(routing, call), d_seen);
    });
    detail::contract(factors_, gradients, call.with(s.factors));
  }

  /// Only if fuses_d_x().
  RankTerms<T> d_x_terms(const Routing<T>& routing, auto call) const {
    const RankLayout<T> layout = layout_of(routing, call.scratch);
    return {layout, ranks_in(call.scratch.d_h, layout), factors_.factors(call.scratch.factors).a, FactorSide::down};
  }
  bool fuses_d_x(const Pass& pass) const { return !StreamedFactorPolicy<Factors> && !dropout_.acts(pass); }

  View<const T> project(View<const T> x, auto call) const {
    detail::prepare(factors_, call.with(call.scratch.factors));
    return projected(x, call);
  }

  View<T> d_latent(Index tokens, auto call) const {
    const View<T> d_z = call.scratch.d_latent.top(tokens);
    fill(d_z, T(0));
    return d_z;
  }

  /// d_a += d_z^T x,  d_x += d_z A
  void project_backward(View<const T> x, View<const T> d_z, View<T> d_x, Parameters& gradients, auto call) const {
    const FactorViews<T> d = factors_.gradient_views(gradients, call.scratch.factors);
    if (d.a)  // of the last rows of A, if the others are frozen
      add_outer_products(d_z.middle_cols(d_z.cols() - d.a.rows(), d.a.rows()), seen(x, call), d.a, call.execution);
    dropout_.seen_backward(d_x, call.scratch.dropped, call.pass, [&](View<T> d_seen) {
      detail::project_backward(factors_, d_z, d_seen, call.with(call.scratch.factors));
    });
    detail::contract(factors_, gradients, call.with(call.scratch.factors));
  }

  /// w += weight * scale_e B_e^T A_e.   w [O x I].  Offline: plain loops, and all the memory that Factors need.
  void add_delta(Index expert, double weight, View<T> w) const {
    OfflineCall offline(factors_);
    detail::prepare(factors_, offline.call());
    ScratchOf<Factors>& scratch = offline.call().scratch;
    const FactorViews<const T> f = factors_.factors(scratch);
    for (Index j = 0; j < blocks().size(expert); ++j)
      for (Index o = 0; o < w.rows(); ++o) {
        const Index row = blocks().up(expert) + j;
        const T rank_gate = f.rank_gate ? f.rank_gate(0, row) : T(1);
        const T factor = T(weight) * scale_[std::size_t(expert)] * rank_gate * f.b(row, o);
        detail::add_row(factors_, blocks().down(expert) + j, factor, w.row(o), scratch);
      }
  }

  /// A [rows of blocks() x I] and B [ranks x O] of all experts, a rank gate in B: the matrices of a plain LoRA that
  /// adds the same, under the same scales.
  struct Tables {
    Matrix<T> a, b;
  };
  /// Copies.  Offline.
  Tables tables() const {
    OfflineCall offline(factors_);
    detail::prepare(factors_, offline.call());
    ScratchOf<Factors>& scratch = offline.call().scratch;
    const FactorViews<const T> f = factors_.factors(scratch);
    Tables tables{Matrix<T>(blocks().ranks_down(), in()), Matrix<T>(blocks().ranks_up(), out())};
    for (Index j = 0; j < tables.a.rows(); ++j) detail::add_row(factors_, j, T(1), tables.a.view().row(j), scratch);
    copy(f.b, tables.b.view());
    for (Index j = 0; f.rank_gate && j < tables.b.rows(); ++j)
      for (T& b : tables.b.view().row(j)) b *= f.rank_gate(0, j);
    return tables;
  }

 private:
  double scale_from(double alpha, Scaling scaling, Index expert) const {
    if constexpr (requires { factors_.scale(alpha, scaling, expert); })
      return factors_.scale(alpha, scaling, expert);
    else
      return scale_of(alpha, blocks().size(expert), scaling);
  }

  /// z = A x, of what A sees of x, after prepare().
  View<const T> projected(View<const T> x, auto call) const {
    const View<T> z = call.scratch.latent.top(x.rows());
    detail::project(factors_, seen(x, call), z, call.with(call.scratch.factors));
    return z;
  }

  RankLayout<T> lay_out(const Routing<T>& routing, Scratch& s) const {
    s.begin.assign(1, 0);
    for (Index p = 0; p < routing.pairs(); ++p)
      s.begin.push_back(s.begin.back() + int(blocks().size(routing.expert(p))));
    require(std::size_t(s.begin.back()) <= s.h.size(), ErrorCode::capacity, "LowRank: workspace made for ", s.h.size(),
            " ranks, the routing has ", s.begin.back());
    return layout_of(routing, s);
  }
  RankLayout<T> layout_of(const Routing<T>& routing, const Scratch& s) const {
    return {blocks(), routing, {s.begin.data(), s.begin.size()}};
  }

  static std::span<T> ranks_in(std::span<T> all, const RankLayout<T>& layout) {
    return all.first(std::size_t(layout.begin.back()));
  }

  /// From u = b d_y in d_h, with B = diag(rank_gate) b:
  ///   d_rank_gate_j += scale_e gate_p u_pj h_pj,   u_pj *= rank_gate_j
  void rank_gate_backward(const RankLayout<T>& layout, View<const T> rank_gate, std::span<const T> h, std::span<T> u,
                          View<T> d_rank_gate) const {
    if (d_rank_gate)
      for_each_rank(layout, [&](Index p, Index row, std::size_t at) {
        d_rank_gate.data()[row] +=
            scale_[std::size_t(layout.routing.expert(p))] * layout.routing.gate(p) * u[at] * h[at];
      });
    for_each_rank(layout, [&](Index, Index row, std::size_t at) { u[at] *= rank_gate.data()[row]; });
  }

  /// From u = B d_y in d_h:   d_h_p = scale_e gate_p u_p,   d_gate_p += scale_e <u_p, h_p>
  void weigh_backward(const RankLayout<T>& layout, std::span<const T> h, std::span<T> d_h, std::span<T> d_gate) const {
    for (Index p = 0; p < layout.routing.pairs(); ++p) {
      const T scale = scale_[std::size_t(layout.routing.expert(p))], factor = scale * layout.routing.gate(p);
      T d = 0;
      for (Index at = layout.first(p); at < layout.first(p) + layout.ranks(p); ++at) {
        d += d_h[std::size_t(at)] * h[std::size_t(at)];
        d_h[std::size_t(at)] *= factor;
      }
      if (!d_gate.empty()) d_gate[std::size_t(p)] += scale * d;
    }
  }

  /// x as A sees it.
  View<const T> seen(View<const T> x, auto call) const { return dropout_.seen(x, call.scratch.dropped, call.pass); }

  Factors factors_;
  Dropout dropout_;
  std::vector<T> scale_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
