// SPDX-License-Identifier: MIT
// MergedExperts: LoRA experts whose parameters are averaged by the gates, so that a token meets one expert.
#pragma once

#include "mole/core/dropout.hpp"
#include "mole/core/matrix.hpp"
#include "mole/core/rank/rank_layout.hpp"
#include "mole/core/rank/rank_terms.hpp"
#include "mole/core/row.hpp"
#include "mole/expert/expert_policy.hpp"
#include "mole/factors/factor_policy.hpp"

#include <algorithm>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// y_n += s B^T (A x_n),   A = sum_e gate_ne A_e,   B = sum_e gate_ne B_e
///
///   x [N x I], y [N x O]; experts of one rank R, with one scale s
///
/// Soft merging: a sum of gates and products of ranks, where a mixture (LowRank) has sum_e gate_ne B_e^T A_e: the
/// experts of a token act on each other (pairs_interact), and an expert alone with a gate of 1 is a plain LoRA. With
/// gates of a sequence (PooledRouter) all its tokens meet the same merged expert, as published. A and B are not formed:
/// from A_e x_n and B_e d_y_n of the pairs come the result and exact gradients of the gates, for gates of tokens, too,
/// at the cost of a mixture. Dropout acts on the x that A sees. No allocation after scratch(): 4 R numbers a pair.
///
/// Merging makes a router learn without sampling or straight-through estimates; nothing in it is sparse. Throws
/// Error(shape) unless all experts have one rank, and ranks of A of their own.
/// Source: Muqeeth et al. 2023 (SMEAR), arXiv:2306.03745, whose experts are adapters with a ReLU.
template <FactorPolicy Factors>
class MergedExperts {
  static_assert(!StreamedFactorPolicy<Factors>, "mole: MergedExperts take Factors that hold A as a table");

 public:
  using Scalar = typename Factors::Scalar;
  using T = Scalar;
  using Parameters = ParametersOf<Factors>;
  using Options = typename Factors::Options;
  static constexpr bool borrows = borrows_parameters<Factors>;
  static constexpr bool pairs_interact = true;

  struct Scratch {
    ScratchVector<int> begin;  // [pairs + 1]; empty before the first forward
    std::span<T> h, u;         // A_e x_n and B_e d_y_n, of all pairs
    std::span<T> merged, d_h;  // s gate A x_n, and the gradient of h
    View<T> z;                 // [tokens x R], A x_n; in backward also s B d_y_n
    View<T> d_z;
    View<T> dropped;  // [tokens x I], with dropout only
    ScratchOf<Factors> factors;
  };

  template <std::uniform_random_bit_generator Generator>
  MergedExperts(const Options& options, Generator& generator)
      : factors_(options, generator), dropout_(options.dropout) {
    dropout_.check("MergedExperts");
    detail::require_alpha("MergedExperts", options.alpha);
    check_sizes();
    scale_ = T(options.alpha ? scale_of(*options.alpha, rank(), options.scaling) : 1.0);
  }

  void check_sizes() const {
    detail::check_sizes(factors_);
    require(!blocks().shared_down() || experts() == 1, ErrorCode::shape,
            "MergedExperts: expected an A of each expert, found one that all share");
    for (Index e = 0; e < experts(); ++e)
      require(blocks().size(e) == rank(), ErrorCode::shape, "MergedExperts: expected ", rank(),
              " ranks of each expert, as of the first, found ", blocks().size(e), " of expert ", e);
  }
  void check_gradients(const Parameters& gradients) const { detail::check_gradients(factors_, gradients); }

  Index experts() const { return blocks().experts(); }
  Index in() const { return factors_.in(); }
  Index out() const { return factors_.out(); }
  Index rank() const { return blocks().size(0); }
  T scale() const { return scale_; }
  const RankBlocks& blocks() const { return factors_.blocks(); }
  Factors& factors() { return factors_; }
  const Factors& factors() const { return factors_; }
  decltype(auto) parameters() { return parameters_of(factors_); }
  decltype(auto) parameters() const { return parameters_of(factors_); }

  /// The scale, and the state of Factors.
  template <class F>
  void for_each_state(F&& f) {
    f("scale", std::span<T>(&scale_, 1));
    if constexpr (requires { factors_.for_each_state(f); }) factors_.for_each_state(f);
  }

  Scratch scratch(const CallSize& size, Arena& arena) const {
    const Index ranks = checked_int("workspace: ranks of all pairs",
                                    checked_product("workspace: ranks of all pairs", size.pairs, rank()));
    return {arena.vector<int>(size.pairs + 1),
            arena.array<T>(ranks),
            arena.array<T>(ranks),
            arena.array<T>(ranks),
            arena.array<T>(ranks),
            arena.matrix<T>(size.tokens, rank()),
            arena.matrix<T>(size.tokens, rank()),
            dropout_.scratch<T>(size, in(), arena),
            scratch_for(factors_, size, arena)};
  }

  void forward(View<const T> x, View<const T>, const Routing<T>& routing, View<T> y, auto call) const {
    Scratch& s = call.scratch;
    detail::prepare(factors_, call.with(s.factors));
    const FactorViews<const T> f = factors_.factors(s.factors);
    require(!f.rank_gate, ErrorCode::option, "MergedExperts: expected Factors without gates of ranks, found some");
    const RankLayout<T> layout = lay_out(routing, s);
    const auto h = ranks_in(s.h, layout), merged = ranks_in(s.merged, layout);
    call.execution.routed_down(seen(x, call), f.a, FactorSide::down, layout, h);
    merge(routing, h, s.z.top(x.rows()));
    for (Index p = 0; p < routing.pairs(); ++p) {
      const T factor = scale_ * routing.gate(p);
      std::transform(s.z.row(routing.token(p)).begin(), s.z.row(routing.token(p)).end(), of(merged, p).begin(),
                     [factor](T z) { return factor * z; });
    }
    call.execution.routed_up(RankTerms<T>{layout, merged, f.b, FactorSide::up}, y);
  }

  /// With u_e = s B_e d_y_n and d_z_n = sum_e gate_e u_e:
  ///   d_gate_e += <u_e, z_n> + <d_z_n, A_e x_n>,   A_e += gate_e d_z_n x_n^T,   B_e += s gate_e z_n d_y_n^T
  void backward(View<const T> x, const Routing<T>& routing, View<const T> d_y, std::span<T> d_gate, View<T> d_x,
                Parameters& gradients, auto call) const {
    Scratch& s = call.scratch;
    if (s.begin.empty()) s.begin.push_back(0);  // no pairs before the first forward
    require_equal(ErrorCode::shape, "MergedExperts: pairs in backward, as forward left them", Index(s.begin.size()) - 1,
                  routing.pairs());
    const FactorViews<const T> f = factors_.factors(s.factors);
    const FactorViews<T> d = factors_.gradient_views(gradients, s.factors);
    const RankLayout<T> layout = layout_of(routing, s);
    const auto h = ranks_in(s.h, layout), u = ranks_in(s.u, layout), d_h = ranks_in(s.d_h, layout);
    const View<T> z = s.z.top(x.rows()), d_z = s.d_z.top(x.rows());
    call.execution.routed_down(d_y, f.b, FactorSide::up, layout, u);
    for (T& value : u) value *= scale_;
    merge(routing, u, d_z);
    for (Index p = 0; p < routing.pairs(); ++p) {
      const Index n = routing.token(p);
      const T gate = routing.gate(p);
      if (!d_gate.empty())
        d_gate[std::size_t(p)] +=
            detail::dot(of(u, p).data(), z.row_data(n), rank()) + detail::dot(d_z.row_data(n), of(h, p).data(), rank());
      std::transform(d_z.row(n).begin(), d_z.row(n).end(), of(d_h, p).begin(),
                     [gate](T value) { return gate * value; });
    }
    if (d.b) call.execution.routed_outer(ranks_in(s.merged, layout), d_y, FactorSide::up, layout, d.b);
    if (d.a) call.execution.routed_outer(d_h, seen(x, call), FactorSide::down, layout, d.a);
    dropout_.seen_backward(d_x, s.dropped, call.pass, [&](View<T> d_seen) {
      call.execution.routed_up(RankTerms<T>{layout, d_h, f.a, FactorSide::down}, d_seen);
    });
    detail::contract(factors_, gradients, call.with(s.factors));
  }

 private:
  /// sum_n = sum over the pairs of token n of gate times what the pair has
  void merge(const Routing<T>& routing, std::span<const T> of_pairs, View<T> sum) const {
    fill(sum, T(0));
    for (Index p = 0; p < routing.pairs(); ++p)
      detail::add_scaled(routing.gate(p), of_pairs.data() + p * rank(), sum.row_data(routing.token(p)), rank());
  }
  std::span<T> of(std::span<T> pairs, Index pair) const {
    return pairs.subspan(std::size_t(pair * rank()), std::size_t(rank()));
  }

  RankLayout<T> lay_out(const Routing<T>& routing, Scratch& s) const {
    s.begin.assign(1, 0);
    for (Index p = 0; p < routing.pairs(); ++p) s.begin.push_back(s.begin.back() + int(rank()));
    return layout_of(routing, s);
  }
  RankLayout<T> layout_of(const Routing<T>& routing, const Scratch& s) const {
    return {blocks(), routing, {s.begin.data(), s.begin.size()}};
  }
  static std::span<T> ranks_in(std::span<T> all, const RankLayout<T>& layout) {
    return all.first(std::size_t(layout.begin.back()));
  }
  /// x as A sees it.
  View<const T> seen(View<const T> x, auto call) const { return dropout_.seen(x, call.scratch.dropped, call.pass); }

  Factors factors_;
  Dropout dropout_;
  T scale_ = 1;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
