// SPDX-License-Identifier: MIT
// FeedForwardExperts: experts that are whole feed-forward blocks, gated or not.
#pragma once

#include "mole/core/activation.hpp"
#include "mole/core/random.hpp"
#include "mole/core/row.hpp"
#include "mole/kernel/architecture_of.hpp"
#include "mole/layer/expert_projection.hpp"

#include <algorithm>
#include <type_traits>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

namespace detail {
/// What a block has of each of its maps.
template <class OfMap, bool gated>
struct OfBlock {
  OfMap gate, up, down;
};
template <class OfMap>
struct OfBlock<OfMap, false> {
  OfMap up, down;
};

/// Parameters, or gradients, of the maps, which own their tensors.
template <class OfMap, bool gated>
struct BlockParameters : OfBlock<OfMap, gated> {
  template <class F, class... P>
  static void for_each_tensor(F&& f, P&... p) {
    if constexpr (gated) for_each_tensor_within<OfMap>("gate", f, p.gate...);
    for_each_tensor_within<OfMap>("up", f, p.up...);
    for_each_tensor_within<OfMap>("down", f, p.down...);
  }
};

/// The parameters in place; converts to those that own their tensors, to make gradients of the same shapes.
template <class Parameters, class InPlace, bool gated>
struct BlockInPlace : OfBlock<InPlace, gated> {
  operator Parameters() const {
    if constexpr (gated)
      return {{this->gate, this->up, this->down}};
    else
      return {{this->up, this->down}};
  }
  template <class F, class... P>
  static void for_each_tensor(F&& f, P&... p) {
    Parameters::for_each_tensor(f, p...);
  }
};

/// In the place of a map that a block does not have.
struct NoMap {};
}  // namespace detail

/// y_n += sum over the chosen e of gate_ne down_e(act(gate_e x_n) o up_e x_n), or, of two maps alone,
///        sum over the chosen e of gate_ne down_e(act(up_e x_n))
///
///   each of the maps is   base(.) + what expert e adds to it
///   x [N x I], gate and up map I to H, down maps H to O, y [N x O]
///
///     FeedForwardExperts{gate, up, down}              gated, as in LLaMA and Mixtral
///     FeedForwardExperts{up, down, ReLU{}}            without a gate map, as in Switch, T5 and BERT
///
/// These are the experts of a layer whose own base is none: NoBase(I, O). LoRA experts on the three linear maps of a
/// frozen block make MixLoRA; MapExperts<DenseMaps> without bases, the full experts of Mixtral, OLMoE or DeepSeekMoE.
/// An expert here multiplies nonlinearly what it adds, so its gate weighs the whole block, not its ranks, and experts
/// cannot be merged into the base.
///
/// The products of x with the bases of gate and up are computed once for all experts of a token; everything else, once
/// for each pair of token and expert. A token without experts keeps its y, and its x, NaN even, reaches nothing. Each
/// pair draws dropout masks of its own, and each map others: they depend on the pair's place among those of all
/// experts, so a batch in pieces draws others than the whole. Scratch: two [tokens x H], and for each pair 2 I + 4 H +
/// O numbers. Throws Error(shape) unless the maps fit each other. No allocation after scratch(). Source: Shazeer 2020,
/// arXiv:2002.05202, for the gated block; Li et al. 2024 (MixLoRA), arXiv:2404.15159.
template <class Experts, class Base, class Activation = SiLU, bool gated = true>
class FeedForwardExperts {
  static_assert(ActivationPolicy<Activation>,
                "mole: Activation does not model ActivationPolicy (mole/core/activation.hpp)");

 public:
  using Scalar = typename Experts::Scalar;
  using T = Scalar;
  using Projection = ExpertProjection<Experts, Base>;
  static constexpr bool borrows = borrows_parameters<Projection>;

  /// `gate` is there in a gated block alone.
  using Parameters = detail::BlockParameters<ParametersOf<Projection>, gated>;

  struct Scratch {
    Routing<T> alone;        // a row for each pair, served by its expert with a gate of 1; an expert's rows together
    std::span<int> pair_of;  // [pairs], of each row, and
    std::span<int> row_of;   // [pairs], of each pair
    View<T> of_gate, of_up;  // [tokens x H], what the bases make of x; in backward their gradients
    View<T> x, d_x;          // [rows x I], a row for each pair
    View<T> gate, up, h;     // [rows x H]; in backward gate and up hold their gradients
    View<T> d_h;             // [rows x H]
    View<T> y;               // [rows x O], in backward its gradient
    ScratchOf<Projection> gate_map, up_map, down_map;
  };

  FeedForwardExperts(Projection gate, Projection up, Projection down, Activation activation = {}) requires gated
      : gate_(std::move(gate)),
        up_(std::move(up)),
        down_(std::move(down)),
        activation_(activation) {
    check_sizes();
  }
  FeedForwardExperts(Projection up, Projection down, Activation activation = {}) requires(!gated)
      : up_(std::move(up)), down_(std::move(down)), activation_(activation) {
    check_sizes();
  }

  void check_sizes() const {
    up_.check_sizes();
    down_.check_sizes();
    expect("experts of down, those of up", experts(), Index(down_.experts.experts()));
    expect("inputs of down, outputs of up", up_.out(), down_.in());
    if constexpr (gated) {
      gate_.check_sizes();
      expect("experts of gate, those of up", experts(), Index(gate_.experts.experts()));
      expect("inputs of gate, those of up", up_.in(), gate_.in());
      expect("outputs of gate, those of up", up_.out(), gate_.out());
    }
  }
  void check_gradients(const Parameters& gradients) const {
    if constexpr (gated) gate_.check_gradients(gradients.gate);
    up_.check_gradients(gradients.up);
    down_.check_gradients(gradients.down);
  }

  Index experts() const { return up_.experts.experts(); }
  Index in() const { return up_.in(); }
  Index hidden() const { return up_.out(); }
  Index out() const { return down_.out(); }
  Projection& gate() requires gated { return gate_; }
  Projection& up() { return up_; }
  Projection& down() { return down_; }
  const Projection& gate() const requires gated { return gate_; }
  const Projection& up() const { return up_; }
  const Projection& down() const { return down_; }
  const Activation& activation() const { return activation_; }
  auto parameters() { return in_place(*this); }
  auto parameters() const { return in_place(*this); }
  template <class F>
  void for_each_state(F&& f) {
    if constexpr (gated) for_each_state_within("gate", gate_, f);
    for_each_state_within("up", up_, f);
    for_each_state_within("down", down_, f);
  }

  Scratch scratch(const CallSize& size, Arena& arena) const {
    CallSize by_token = size, by_pair = size;
    by_token.latent = by_pair.latent = false;
    by_pair.tokens = size.pairs;
    const auto of_tokens = [&](Index cols) { return arena.matrix<T>(size.tokens, cols); };
    const auto of_pairs = [&](Index cols) { return arena.matrix<T>(size.pairs, cols); };
    const auto of_map = [&](const Projection& map, const CallSize& rows) {
      return ScratchOf<Projection>{scratch_for(map.experts, by_pair, arena), scratch_for(map.base, rows, arena)};
    };
    const Index of_gate = gated ? hidden() : 0;
    Scratch s{Routing<T>(by_pair, arena),
              arena.array<int>(size.pairs),
              arena.array<int>(size.pairs),
              of_tokens(of_gate),
              of_tokens(hidden()),
              of_pairs(in()),
              of_pairs(in()),
              of_pairs(of_gate),
              of_pairs(hidden()),
              of_pairs(hidden()),
              of_pairs(hidden()),
              of_pairs(out()),
              ScratchOf<Projection>(),
              of_map(up_, by_token),
              of_map(down_, by_pair)};
    if constexpr (gated) s.gate_map = of_map(gate_, by_token);
    return s;
  }

  void forward(View<const T> x, View<const T>, const Routing<T>& routing, View<T> y, auto call) const {
    Scratch& s = call.scratch;
    const Index pairs = routing.pairs();
    lay_out(routing, s);
    const View<T> rows = s.x.top(pairs);
    call.execution.parallel_for(
        pairs, [&](Index r) { std::ranges::copy(x.row(token_of(r, routing, s)), rows.row(r).begin()); });
    const View<T> g = s.gate.top(pairs), u = s.up.top(pairs), h = s.h.top(pairs), out = s.y.top(pairs);
    if constexpr (gated) behind_shared_base(gate_, 0, x, rows, routing, s.of_gate, g, s.gate_map, call);
    behind_shared_base(up_, 1, x, rows, routing, s.of_up, u, s.up_map, call);
    call.execution.parallel_for(pairs, [&](Index r) {
      for_each_number<decltype(call.execution)>(h.cols(), [&](auto at, auto set) {
        if constexpr (gated)
          set(h.row_data(r), activation_.value(at(g.row_data(r))) * at(u.row_data(r)));
        else
          set(h.row_data(r), activation_.value(at(u.row_data(r))));
      });
    });
    down_.base.forward(h, out, call.with(s.down_map.base));
    add(down_, 2, h, out, s.down_map, call);
    call.execution.parallel_for(x.rows(), [&](Index n) {
      for (Index p = routing.first_pair(n); p < routing.first_pair(n + 1); ++p)
        detail::add_scaled(routing.gate(p), out.row_data(s.row_of[std::size_t(p)]), y.row_data(n), y.cols());
    });
  }

  /// With all of forward() in the scratch, which this uses up.
  void backward(View<const T> x, const Routing<T>& routing, View<const T> d_y, std::span<T> d_gate, View<T> d_x,
                Parameters& gradients,
                auto call) const requires TrainableBasePolicy<Base> && TrainableExpertPolicy<Experts> {
    Scratch& s = call.scratch;
    const Index pairs = routing.pairs();
    const View<T> out = s.y.top(pairs), h = s.h.top(pairs), d_h = s.d_h.top(pairs);
    call.execution.parallel_for(pairs, [&](Index r) {
      const Index p = s.pair_of[std::size_t(r)];
      const std::span<const T> d = d_y.row(routing.token(p));
      if (!d_gate.empty()) d_gate[std::size_t(p)] += detail::dot(d.data(), out.row_data(r), out.cols());
      std::ranges::transform(d, out.row(r).begin(), [gate = routing.gate(p)](T value) { return gate * value; });
    });
    fill(d_h, T(0));
    add_backward(down_, 2, h, out, d_h, gradients.down.experts, s.down_map, call);
    down_.base.backward(h, View<const T>(out), d_h, gradients.down.base, call.with(s.down_map.base));
    const View<T> g = s.gate.top(pairs), u = s.up.top(pairs);
    call.execution.parallel_for(pairs, [&](Index r) {
      for_each_number<decltype(call.execution)>(h.cols(), [&](auto at, auto set) {
        const auto d = at(d_h.row_data(r)), up = at(u.row_data(r));
        if constexpr (gated) {
          const auto z = at(g.row_data(r));
          set(g.row_data(r), d * up * activation_.derivative(z));
          set(u.row_data(r), d * activation_.value(z));
        } else {
          set(u.row_data(r), d * activation_.derivative(up));
        }
      });
    });
    const View<T> d_rows = d_x ? s.d_x.top(pairs) : View<T>();
    if (d_rows) fill(d_rows, T(0));
    if constexpr (gated)
      behind_shared_base_backward(gate_, 0, x, routing, g, d_rows, d_x, s.of_gate, gradients.gate, s.gate_map, call);
    behind_shared_base_backward(up_, 1, x, routing, u, d_rows, d_x, s.of_up, gradients.up, s.up_map, call);
    if (d_x) add_pairs(routing, d_rows, d_x, call);
  }

 private:
  static void expect(const char* what, Index expected, Index found) {
    require(expected == found, ErrorCode::shape, "FeedForwardExperts: ", what, ": expected ", expected, ", found ",
            found);
  }
  template <class Self>
  static auto in_place(Self& self) {
    using OfMap = decltype(self.up_.parameters());
    using InPlace = detail::BlockInPlace<Parameters, OfMap, gated>;
    if constexpr (gated)
      return InPlace{{self.gate_.parameters(), self.up_.parameters(), self.down_.parameters()}};
    else
      return InPlace{{self.up_.parameters(), self.down_.parameters()}};
  }
  /// An expert's pairs side by side, so that it reads them where they lie.
  static void lay_out(const Routing<T>& routing, Scratch& s) {
    s.alone.start(routing.experts());
    int row = 0;
    for (Index e = 0; e < routing.experts(); ++e)
      for (const int pair : routing.pairs_of(e)) {
        s.pair_of[std::size_t(row)] = pair;
        s.row_of[std::size_t(pair)] = row++;
        s.alone.push(int(e), T(1));
        s.alone.end_token();
      }
    s.alone.finish();
  }
  static Index token_of(Index row, const Routing<T>& routing, const Scratch& s) {
    return routing.token(s.pair_of[std::size_t(row)]);
  }

  /// Calls f(at, set) for `count` numbers of some rows, a vector of them at once if the activation and the execution
  /// have vectors: at(row) is what stands there in a row, set(row, value) changes it.
  template <class Execution, class F>
  static void for_each_number(Index count, F f) {
    using Arch = kernel::ArchitectureOf<Execution>;
    Index i = 0;
    if constexpr (VectorActivationPolicy<Activation> && !std::is_void_v<Arch>) {
      using Vector = kernel::Vector<Arch, T>;
      for (; i + kernel::step_of<Arch, T> <= count; i += kernel::step_of<Arch, T>)
        f([i](const T* row) { return Vector::load_unaligned(row + i); },
          [i](T* row, const Vector& value) { value.store_unaligned(row + i); });
    }
    for (; i < count; ++i) f([i](const T* row) { return row[i]; }, [i](T* row, T value) { row[i] = value; });
  }

  /// The pass of map number `map`, whose rows are pairs: it has no tokens of the caller's.
  Pass pass_of(Index map, const Pass& pass) const {
    return {.training = pass.training,
            .seed = pass.seed,
            .layer = mix_bits(3 * pass.layer + std::uint64_t(map)),
            .step = pass.step,
            .first_token = pass.first_token * std::uint64_t(experts())};
  }
  /// y += what the expert of each row adds
  void add(const Projection& map, Index number, View<const T> x, View<T> y, ScratchOf<Projection>& s, auto call) const {
    const Pass pass = pass_of(number, call.pass);
    map.experts.forward(x, {}, call.scratch.alone, y, Call{call.execution, pass, s.experts});
  }
  void add_backward(const Projection& map, Index number, View<const T> x, View<const T> d_y, View<T> d_x,
                    ParametersOf<Experts>& gradients, ScratchOf<Projection>& s, auto call) const {
    const Pass pass = pass_of(number, call.pass);
    map.experts.backward(x, call.scratch.alone, d_y, {}, d_x, gradients, Call{call.execution, pass, s.experts});
  }

  /// y of each row = base(x of its token), which is computed once, + what its expert adds
  void behind_shared_base(const Projection& map, Index number, View<const T> x, View<const T> rows,
                          const Routing<T>& routing, View<T> of_base, View<T> y, ScratchOf<Projection>& s,
                          auto call) const {
    const View<T> shared = of_base.top(x.rows());
    map.base.forward(x, shared, call.with(s.base));
    call.execution.parallel_for(y.rows(), [&](Index r) {
      std::ranges::copy(shared.row(token_of(r, routing, call.scratch)), y.row(r).begin());
    });
    add(map, number, rows, y, s, call);
  }
  void behind_shared_base_backward(const Projection& map, Index number, View<const T> x, const Routing<T>& routing,
                                   View<const T> d_y, View<T> d_rows, View<T> d_x, View<T> of_base,
                                   ParametersOf<Projection>& gradients, ScratchOf<Projection>& s, auto call) const {
    add_backward(map, number, View<const T>(call.scratch.x.top(d_y.rows())), d_y, d_rows, gradients.experts, s, call);
    if (!d_x && !any_wanted(gradients.base)) return;
    const View<T> d_shared = of_base.top(x.rows());
    fill(d_shared, T(0));
    add_pairs(routing, d_y, d_shared, call);
    map.base.backward(x, View<const T>(d_shared), d_x, gradients.base, call.with(s.base));
  }
  /// of_tokens_n += of_rows_r, for the rows of the pairs of token n
  static void add_pairs(const Routing<T>& routing, View<const T> of_rows, View<T> of_tokens, auto call) {
    call.execution.parallel_for(of_tokens.rows(), [&](Index n) {
      for (Index p = routing.first_pair(n); p < routing.first_pair(n + 1); ++p)
        detail::add_scaled(1, of_rows.row_data(call.scratch.row_of[std::size_t(p)]), of_tokens.row_data(n),
                           of_tokens.cols());
    });
  }

  [[no_unique_address]] std::conditional_t<gated, Projection, detail::NoMap> gate_;
  Projection up_, down_;
  [[no_unique_address]] Activation activation_;
};

template <class Experts, class Base>
FeedForwardExperts(ExpertProjection<Experts, Base>, ExpertProjection<Experts, Base>, ExpertProjection<Experts, Base>)
    -> FeedForwardExperts<Experts, Base>;
template <class Experts, class Base, ActivationPolicy Activation>
FeedForwardExperts(ExpertProjection<Experts, Base>, ExpertProjection<Experts, Base>, ExpertProjection<Experts, Base>,
                   Activation) -> FeedForwardExperts<Experts, Base, Activation>;
template <class Experts, class Base>
FeedForwardExperts(ExpertProjection<Experts, Base>, ExpertProjection<Experts, Base>)
    -> FeedForwardExperts<Experts, Base, SiLU, false>;
template <class Experts, class Base, ActivationPolicy Activation>
FeedForwardExperts(ExpertProjection<Experts, Base>, ExpertProjection<Experts, Base>, Activation)
    -> FeedForwardExperts<Experts, Base, Activation, false>;

}  // namespace mole

#include "mole/core/macros_on.hpp"
