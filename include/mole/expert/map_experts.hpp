// SPDX-License-Identifier: MIT
// MapExperts: experts that are maps of a row, other than blocks of ranks.
#pragma once

#include "mole/core/dropout.hpp"
#include "mole/core/offline_call.hpp"
#include "mole/core/rank/scaling.hpp"
#include "mole/core/row.hpp"
#include "mole/expert/expert_policy.hpp"
#include "mole/maps/map_policy.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// y_n += sum over the chosen e of scale_e gate_ne f_e(x_n), with the f_e of Maps.
///
/// The rows of an expert are gathered, mapped together, and added to y. If every token has an expert, and there is no
/// gap between rows, x is read in place. There is one scale per expert, which may be set; dropout acts on the x that
/// the maps see, with stream 1 unless its options say otherwise. Scratch holds the rows of one expert: [tokens x I]
/// and [tokens x O], twice each, and with dropout [tokens x I] twice more. Maps that sum per token (SummingMapPolicy)
/// see x in place. Backward maps an expert's rows again where its gate has a gradient. No allocation after scratch().
template <MapPolicy Maps>
class MapExperts {
 public:
  using Scalar = typename Maps::Scalar;
  using T = Scalar;
  using Parameters = ParametersOf<Maps>;
  using Options = typename Maps::Options;
  static constexpr bool borrows = borrows_parameters<Maps>;

  struct Scratch {
    View<T> dropped, d_dropped;  // [tokens x I], with dropout only
    View<T> x, d_x;              // rows of one expert [tokens x I]
    View<T> y, d_y;              // [tokens x O]
    ScratchOf<Maps> maps;
  };

  template <std::uniform_random_bit_generator Generator>
  MapExperts(const Options& options, Generator& generator)
      : maps_(options, generator), dropout_(options.dropout), scale_(std::size_t(experts())) {
    dropout_.check("MapExperts");
    detail::require_alpha("MapExperts", options.alpha);
    for (Index e = 0; e < experts(); ++e)
      scale_[std::size_t(e)] = T(options.alpha ? maps_.scale(*options.alpha, options.scaling, e) : 1.0);
  }

  /// From existing maps.   scale [E]
  MapExperts(Maps maps, std::vector<T> scale, Dropout dropout = {})
      : maps_(std::move(maps)), dropout_(dropout), scale_(std::move(scale)) {
    dropout_.check("MapExperts");
    check_scales();
  }

  /// Reinitializes the maps; scales stay.
  template <std::uniform_random_bit_generator Generator>
  requires requires(Maps& maps, Generator& generator) { maps.reset(generator); }
  void reset(Generator& generator) { maps_.reset(generator); }

  /// The scales, and the state of Maps.
  template <class F>
  void for_each_state(F&& f) {
    f("scale", std::span<T>(scale_));
    if constexpr (requires { maps_.for_each_state(f); }) maps_.for_each_state(f);
  }

  void check_sizes() const {
    detail::check_sizes(maps_);
    check_scales();
  }
  void check_gradients(const Parameters& gradients) const { detail::check_gradients(maps_, gradients); }

  Index experts() const { return maps_.experts(); }
  Index in() const { return maps_.in(); }
  Index out() const { return maps_.out(); }
  Maps& maps() { return maps_; }
  const Maps& maps() const { return maps_; }
  std::span<T> scale() { return scale_; }
  std::span<const T> scale() const { return scale_; }
  decltype(auto) parameters() { return parameters_of(maps_); }
  decltype(auto) parameters() const { return parameters_of(maps_); }

  Scratch scratch(const CallSize& size, Arena& arena) const {
    return {dropout_.scratch<T>(size, in(), arena), dropout_.scratch<T>(size, in(), arena),
            arena.matrix<T>(size.tokens, in()),     arena.matrix<T>(size.tokens, in()),
            arena.matrix<T>(size.tokens, out()),    arena.matrix<T>(size.tokens, out()),
            scratch_for(maps_, size, arena)};
  }

  void forward(View<const T> x, View<const T>, const Routing<T>& routing, View<T> y, auto call) const {
    Scratch& s = call.scratch;
    if constexpr (requires { maps_.prepare(call.with(s.maps)); }) maps_.prepare(call.with(s.maps));
    const View<const T> seen = dropout_.seen(x, s.dropped, call.pass);
    if constexpr (SummingMapPolicy<Maps>)
      if (maps_.sums_per_token()) return add_sums(seen, routing, y, call);
    for (Index e = 0; e < experts(); ++e) {
      const std::span<const int> pairs = routing.pairs_of(e);
      if (pairs.empty()) continue;
      const View<T> of_expert = s.y.top(Index(pairs.size()));
      maps_.map(e, rows_of(seen, pairs, routing, s.x), of_expert, call.with(s.maps));
      call.execution.parallel_for(Index(pairs.size()), [&](Index i) {
        const int pair = pairs[std::size_t(i)];
        detail::add_scaled(scale_[std::size_t(e)] * routing.gate(pair), of_expert.row_data(i),
                           y.row_data(routing.token(pair)), out());
      });
    }
  }

  void backward(View<const T> x, const Routing<T>& routing, View<const T> d_y, std::span<T> d_gate, View<T> d_x,
                Parameters& gradients, auto call) const requires TrainableMapPolicy<Maps> {
    Scratch& s = call.scratch;
    const auto maps_call = call.with(s.maps);
    if constexpr (requires { maps_.begin_backward(gradients, maps_call); }) maps_.begin_backward(gradients, maps_call);
    const View<const T> seen = dropout_.seen(x, s.dropped, call.pass);
    dropout_backward(d_x, s, call.pass, [&](View<T> d_seen) {
      for (Index e = 0; e < experts(); ++e) {
        const std::span<const int> pairs = routing.pairs_of(e);
        if (pairs.empty()) continue;
        const auto count = Index(pairs.size());
        const T scale = scale_[std::size_t(e)];
        const View<const T> rows = rows_of(seen, pairs, routing, s.x);
        const auto pair_of = [&](Index i) { return pairs[std::size_t(i)]; };
        if (!d_gate.empty()) {
          maps_.map(e, rows, s.y.top(count), maps_call);
          call.execution.parallel_for(count, [&](Index i) {
            d_gate[std::size_t(pair_of(i))] +=
                scale * detail::dot(d_y.row_data(routing.token(pair_of(i))), s.y.row_data(i), out());
          });
        }
        call.execution.parallel_for(count, [&](Index i) {
          const T factor = scale * routing.gate(pair_of(i));
          std::ranges::transform(d_y.row(routing.token(pair_of(i))), s.d_y.row(i).begin(),
                                 [&](T d) { return factor * d; });
        });
        const bool in_place = d_seen && consecutive(pairs, routing);
        const View<T> d_rows = in_place ? d_seen.middle_rows(routing.token(pairs[0]), count)
                               : d_seen ? s.d_x.top(count)
                                        : View<T>();
        if (d_rows && !in_place) fill(d_rows, T(0));
        maps_.map_backward(e, rows, View<const T>(s.d_y.top(count)), d_rows, gradients, maps_call);
        if (d_rows && !in_place)
          call.execution.parallel_for(count, [&](Index i) {
            detail::add_scaled(1, d_rows.row_data(i), d_seen.row_data(routing.token(pair_of(i))), in());
          });
      }
    });
    if constexpr (requires { maps_.contract(gradients, maps_call); }) maps_.contract(gradients, maps_call);
  }

  /// w += weight * scale_e * the matrix of expert e.   w [O x I].  Offline.
  void add_delta(Index expert, double weight, View<T> w) const requires LinearMapPolicy<Maps> {
    OfflineCall offline(maps_);
    if constexpr (requires { maps_.prepare(offline.call()); }) maps_.prepare(offline.call());
    maps_.add_delta(expert, T(weight) * scale_[std::size_t(expert)], w, offline.call());
  }

 private:
  void check_scales() const {
    require_equal(ErrorCode::shape, "MapExperts: scales, one of each expert", experts(), Index(scale_.size()));
  }

  /// Do these pairs belong to tokens that follow each other?
  static bool consecutive(std::span<const int> pairs, const Routing<T>& routing) {
    for (std::size_t i = 1; i < pairs.size(); ++i)
      if (routing.token(pairs[i]) != routing.token(pairs[i - 1]) + 1) return false;
    return true;
  }

  /// The rows of x of these pairs: where they lie, or copies in `rows`.
  View<const T> rows_of(View<const T> x, std::span<const int> pairs, const Routing<T>& routing, View<T> rows) const {
    if (consecutive(pairs, routing) && x.stride() == x.cols())
      return x.middle_rows(routing.token(pairs[0]), Index(pairs.size()));
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      const std::span<const T> from = x.row(routing.token(pairs[i]));
      std::copy(from.begin(), from.end(), rows.row(Index(i)).begin());
    }
    return rows.top(Index(pairs.size()));
  }

  /// All experts of a token at once.
  void add_sums(View<const T> x, const Routing<T>& routing, View<T> y, auto call) const {
    call.execution.parallel_for(x.rows(), [&](Index n) {
      const Index first = routing.first_pair(n), count = routing.first_pair(n + 1) - first;
      if (count == 0) return;
      maps_.add_sum(
          count, [&](Index j) { return Index(routing.expert(first + j)); },
          [&](Index j) { return scale_[std::size_t(routing.expert(first + j))] * routing.gate(first + j); }, x.row(n),
          y.row(n));
    });
  }

  /// Calls add(d_seen), which may be empty, and passes d_seen through the mask to d_x.
  template <class Add>
  void dropout_backward(View<T> d_x, Scratch& s, const Pass& pass, Add add) const {
    if (!d_x) return add(d_x);
    dropout_.seen_backward(d_x, s.d_dropped, pass, add);
  }

  Maps maps_;
  Dropout dropout_;
  std::vector<T> scale_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
