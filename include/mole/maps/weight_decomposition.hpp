// SPDX-License-Identifier: MIT
// WeightDecomposition: DoRA's update, a LoRA whose sum with the weight has rows of trained lengths.
#pragma once

#include "mole/core/dropout.hpp"
#include "mole/core/lasting_view.hpp"
#include "mole/core/matrix.hpp"
#include "mole/core/random.hpp"
#include "mole/core/rank/scaling.hpp"
#include "mole/core/row.hpp"
#include "mole/kernel/architecture_of.hpp"
#include "mole/kernel/row_sums.hpp"
#include "mole/maps/map_policy.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <span>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Of each expert, with V = W + s B A and n_o the length of row o of V:   delta = diag(m / n) V - W
///
///   lora_A [E r x I]   lora_B [E r x O], rank-major   magnitude m [E x O]
///
/// One expert under a gate of 1 is DoRA: with the base's W x + b the layer gives m/n o (V x) + b. Under other gates
/// each expert is a DoRA of its own. W is the base's weight, in memory of the host, which must outlive the layer, and
/// is not trained; a coded base needs its decoded weight as floats, too.
///
/// n is taken as a constant in backward, as published: gradients of A and B are then not those of the output, and
/// `exact_norm` adds what is missing. W x is computed again for the rows of each expert. Lengths cost O I (r + 1)
/// products an expert once a forward, without forming V; `exact_norm` costs four times that in backward. Scratch is
/// three times [tokens x O], one of [tokens x r], and 3 O numbers an expert. At I = O = 4,096 and r = 8: 69,632 trained
/// numbers. A row of zeros in V has no direction, and is taken as m = n.
///
/// Starts as LoRA does, with m = n, so that the output of a fresh layer equals its base's. Throws Error(option) for
/// sizes below 1 or an alpha out of range, Error(shape) unless the weight is [O x I].
/// Source: Liu et al. 2024 (DoRA), arXiv:2402.09353; huggingface/peft, tuners/lora/dora.py.
template <class T>
class WeightDecomposition {
 public:
  using Scalar = T;
  static constexpr bool borrows = true;  // the weight

  struct Options {
    Index in = 0;
    Index out = 0;
    Index experts = 1;
    Index rank = 8;
    LastingView<const T> weight = {};  ///< W [O x I]
    bool exact_norm = false;           ///< n depends on A and B in backward, too
    std::optional<double> alpha = {};  ///< unset: s = 1
    Scaling scaling = Scaling::alpha_over_rank;
    Dropout dropout = {};  ///< on the adapter's input
  };

  struct Parameters {
    Matrix<T> lora_A, lora_B, magnitude;

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      f("lora_A", p.lora_A...);
      f("lora_B", p.lora_B...);
      f("magnitude", p.magnitude...);
    }
  };

  struct Scratch {
    View<T> n, ratio;  // lengths of the rows of V, and m / n [E x O]
    View<T> d_n;       // d_n / n [E x O]
    View<T> w_x, v_x;  // W x and s B A x, or s ratio o d_y [tokens x O]
    View<T> rest;      // (ratio - 1) o d_y [tokens x O]
    View<T> h;         // A x, or its gradient [tokens x r]
  };

  template <std::uniform_random_bit_generator Generator>
  WeightDecomposition(const Options& options, Generator& generator)
      : experts_(options.experts), exact_norm_(options.exact_norm), weight_(options.weight) {
    require(options.in >= 1 && options.out >= 1 && options.experts >= 1 && options.rank >= 1, ErrorCode::option,
            "WeightDecomposition: expected in, out, experts and rank of at least 1, found in = ", options.in,
            ", out = ", options.out, ", experts = ", options.experts, ", rank = ", options.rank);
    const Index ranks = checked_product("WeightDecomposition: ranks", options.experts, options.rank);
    parameters_ = {Matrix<T>(ranks, options.in), Matrix<T>(ranks, options.out),
                   Matrix<T>(options.experts, options.out)};
    detail::require_alpha("WeightDecomposition", options.alpha);
    s_ = T(options.alpha ? scale_of(*options.alpha, options.rank, options.scaling) : 1.0);
    check_sizes();
    reset(generator);
  }

  void check_sizes() const {
    const auto& [a, b, m] = parameters_;
    require(a.rows() >= experts_ && a.rows() % experts_ == 0 && b.rows() == a.rows() && m.rows() == experts_ &&
                m.cols() == b.cols(),
            ErrorCode::shape, "WeightDecomposition: expected A and B of equal ranks, and a magnitude of [", experts_,
            " x ", b.cols(), "], found ", a.rows(), " and ", b.rows(), " ranks, and [", m.rows(), " x ", m.cols(), "]");
    require(weight_.rows() == out() && weight_.cols() == in(), ErrorCode::shape,
            "WeightDecomposition: expected a weight of [", out(), " x ", in(), "], found [", weight_.rows(), " x ",
            weight_.cols(), "]");
  }

  Index experts() const { return experts_; }
  Index in() const { return parameters_.lora_A.cols(); }
  Index out() const { return parameters_.lora_B.cols(); }
  /// s: the scale of B A before V is measured. What an expert adds has no scale of its own.
  T inner_scale() const { return s_; }
  double scale(double, Scaling, Index) const { return 1; }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }

  /// Reinitializes, as the constructor does. m is the length of rows of W.
  template <std::uniform_random_bit_generator Generator>
  void reset(Generator& generator) {
    fill_uniform(parameters_.lora_A.view(), 1 / std::sqrt(double(in())), generator);
    parameters_.lora_B.set_zero();
    for (Index e = 0; e < experts_; ++e) measure<void>(e, 0, parameters_.magnitude.view().row(e));
  }

  /// s, which an optimizer does not see.
  template <class F>
  void for_each_state(F&& f) {
    f("inner_scale", std::span<T>(&s_, 1));
  }

  Scratch scratch(const CallSize& size, Arena& arena) const {
    return {arena.matrix<T>(experts_, out()),    arena.matrix<T>(experts_, out()),
            arena.matrix<T>(experts_, out()),    arena.matrix<T>(size.tokens, out()),
            arena.matrix<T>(size.tokens, out()), arena.matrix<T>(size.tokens, out()),
            arena.matrix<T>(size.tokens, rank())};
  }

  /// The ratios m / n.
  void prepare(auto call) const {
    using Arch = kernel::ArchitectureOf<decltype(call.execution)>;
    const Index groups = (out() + rows_together - 1) / rows_together;
    call.execution.parallel_for(experts_ * groups, [&, &s = call.scratch](Index task) {
      const Index e = task / groups, first = task % groups * rows_together;
      const Index end = std::min(first + rows_together, out());
      measure<Arch>(e, first, s.n.row(e).subspan(std::size_t(first), std::size_t(end - first)));
      for (Index o = first; o < end; ++o)
        s.ratio(e, o) = s.n(e, o) == 0 ? T(1) : parameters_.magnitude(e, o) / s.n(e, o);
    });
  }

  /// y = ratio o (V x) - W x = (ratio - 1) o (W x) + ratio o (s B A x)
  void map(Index expert, View<const T> x, View<T> y, auto call) const {
    const Scratch& s = call.scratch;
    products(expert, x, call);
    call.execution.parallel_for(x.rows(), [&](Index t) {
      const T *const ratio = s.ratio.row_data(expert), *const w_x = s.w_x.row_data(t), *const v_x = s.v_x.row_data(t);
      const std::span<T> to = y.row(t);
      for (std::size_t o = 0; o < to.size(); ++o) to[o] = (ratio[o] - 1) * w_x[o] + ratio[o] * v_x[o];
    });
  }

  void begin_backward(Parameters&, auto call) const { fill(call.scratch.d_n, T(0)); }

  /// With d_v = ratio o d_y and n constant:   d_m = sum over tokens of d_y o (V x) / n,   d_B += s (A x)^T d_v,
  /// d_A += s (d_v B^T)^T x,   d_x += ((ratio - 1) o d_y) W + s (d_v B^T) A
  void map_backward(Index expert, View<const T> x, View<const T> d_y, View<T> d_x, Parameters& gradients,
                    auto call) const {
    const Scratch& s = call.scratch;
    const Index first = expert * rank();
    products(expert, x, call);
    call.execution.parallel_for(out(), [&](Index o) {  // d_m n = sum over tokens of d_y o (V x)
      T sum = 0;
      for (Index t = 0; t < x.rows(); ++t) sum += d_y(t, o) * (s.w_x(t, o) + s.v_x(t, o));
      const T n = s.n(expert, o);
      if (n == 0) return;
      if (!gradients.magnitude.empty()) gradients.magnitude(expert, o) += sum / n;
      s.d_n(expert, o) -= s.ratio(expert, o) * sum / (n * n);
    });
    const View<T> h = s.h.top(x.rows()), d_v = s.v_x.top(x.rows()), rest = s.rest.top(x.rows());
    call.execution.parallel_for(x.rows(), [&](Index t) {
      const T* const ratio = s.ratio.row_data(expert);
      for (Index o = 0; o < out(); ++o) {
        d_v(t, o) = s_ * ratio[o] * d_y(t, o);
        rest(t, o) = (ratio[o] - 1) * d_y(t, o);
      }
    });
    if (!gradients.lora_B.empty())  // h is A x still
      call.execution.product_tn(View<const T>(h), View<const T>(d_v),
                                gradients.lora_B.view().middle_rows(first, rank()));
    call.execution.product_nt(View<const T>(d_v), b_of(expert), h);
    if (!gradients.lora_A.empty())
      call.execution.product_tn(View<const T>(h), x, gradients.lora_A.view().middle_rows(first, rank()));
    if (!d_x) return;
    call.execution.product_nn(View<const T>(rest), weight_, d_x);
    call.execution.product_nn(View<const T>(h), a_of(expert), d_x);
  }

  /// With `exact_norm`, and c_o the gradient of n_o over n_o:   d_V += diag(c) V
  void contract(Parameters& gradients, auto call) const {
    if (!exact_norm_) return;
    const Scratch& s = call.scratch;
    if (!gradients.lora_B.empty())
      call.execution.parallel_for(experts_ * out(), [&](Index task) {
        const Index e = task / out(), o = task % out();
        if (s.d_n(e, o) == 0) return;  // of an expert that nobody chose
        for_each_tile(e, o, 0, in(), [&](Index first, std::span<const T> v) {
          for (Index k = e * rank(); k < (e + 1) * rank(); ++k)
            gradients.lora_B(k, o) += s_ * s.d_n(e, o) * detail::dot(v.data(), a_row(k, first), Index(v.size()));
        });
      });
    if (gradients.lora_A.empty()) return;
    const Index tiles = (in() + tile - 1) / tile;
    call.execution.parallel_for(experts_ * tiles, [&](Index task) {
      const Index e = task / tiles, begin = task % tiles * tile, end = std::min(begin + tile, in());
      for (Index o = 0; o < out(); ++o) {
        if (s.d_n(e, o) == 0) continue;
        for_each_tile(e, o, begin, end, [&](Index first, std::span<const T> v) {
          for (Index k = e * rank(); k < (e + 1) * rank(); ++k)
            detail::add_scaled(s_ * s.d_n(e, o) * parameters_.lora_B(k, o), v.data(),
                               gradients.lora_A.view().row_data(k) + first, Index(v.size()));
        });
      }
    });
  }

  /// Into the borrowed weight itself a single expert alone: after it, there is no W that others could measure.
  void add_delta(Index expert, T factor, View<T> w, auto call) const {
    const bool is_weight = w.data() == weight_.data() && w.stride() == weight_.stride();
    require((is_weight && experts_ == 1) || !overlap(View<const T>(w), weight_), ErrorCode::not_mergeable,
            "WeightDecomposition: expected memory of its own for the sum of ", experts_,
            " experts and the weight, found that of the weight, which each of them measures");
    for (Index o = 0; o < out(); ++o)
      for_each_tile(expert, o, 0, in(), [&](Index first, std::span<const T> v) {
        const T ratio = call.scratch.ratio(expert, o);
        for (std::size_t i = 0; i < v.size(); ++i)
          w(o, first + Index(i)) += factor * (ratio * v[i] - weight_(o, first + Index(i)));
      });
  }

 private:
  static constexpr Index tile = 512;         ///< columns of V that exist at once
  static constexpr Index rows_together = 8;  ///< of V, whose parts meet a part of A while it is in the nearest cache

  Index rank() const { return parameters_.lora_A.rows() / experts_; }
  View<const T> a_of(Index expert) const { return parameters_.lora_A.view().middle_rows(expert * rank(), rank()); }
  View<const T> b_of(Index expert) const { return parameters_.lora_B.view().middle_rows(expert * rank(), rank()); }
  const T* a_row(Index row, Index first) const { return parameters_.lora_A.view().row_data(row) + first; }

  /// W x, s B A x and A x of these rows, in the scratch.
  void products(Index expert, View<const T> x, auto call) const {
    const Scratch& s = call.scratch;
    const View<T> v_x = s.v_x.top(x.rows()), h = s.h.top(x.rows());
    call.execution.product_nt(x, weight_, s.w_x.top(x.rows()));
    call.execution.product_nt(x, a_of(expert), h);
    fill(v_x, T(0));
    call.execution.product_nn(View<const T>(h), b_of(expert), v_x);
    call.execution.parallel_for(x.rows(), [&](Index t) {
      for (T& element : v_x.row(t)) element *= s_;
    });
  }

  /// Calls f(first column, part of the row) for the columns [begin, end) of row o of V, which is formed part by part.
  template <class F>
  void for_each_tile(Index expert, Index o, Index begin, Index end, F&& f) const {
    std::array<T, tile> buffer;
    for (Index first = begin; first < end; first += tile) {
      const std::span<T> v = std::span<T>(buffer).first(std::size_t(std::min(tile, end - first)));
      make_part<void>(expert, o, first, v);
      f(first, std::span<const T>(v));
    }
  }

  /// Columns of row o of V from `first` on. Where B is 0, those of W to the bit, by vectors and without: a fresh m is
  /// n.
  template <class Arch>
  void make_part(Index expert, Index o, Index first, std::span<T> v) const {
    std::copy_n(weight_.row_data(o) + first, v.size(), v.begin());
    constexpr Index together = 8;
    const Index begin = expert * rank(), end = begin + rank();
    for (Index k = begin; k < end; k += together) {
      std::array<T, std::size_t(together)> factors;
      std::array<const T*, std::size_t(together)> rows;
      const Index count = std::min(together, end - k);
      for (Index i = 0; i < count; ++i)
        factors[std::size_t(i)] = s_ * parameters_.lora_B(k + i, o), rows[std::size_t(i)] = a_row(k + i, first);
      if constexpr (!std::is_void_v<Arch>)
        kernel::RowSums<Arch, T>{}(factors.data(), rows.data(), count, Index(v.size()), v.data());
      else
        for (Index i = 0; i < count; ++i)
          detail::add_scaled(factors[std::size_t(i)], rows[std::size_t(i)], v.data(), Index(v.size()));
    }
  }

  /// The lengths of rows of V, from row `first` on.
  template <class Arch>
  void measure(Index expert, Index first, std::span<T> lengths) const {
    std::array<T, tile> buffer;
    std::ranges::fill(lengths, T(0));
    for (Index column = 0; column < in(); column += tile) {
      const std::span<T> v = std::span<T>(buffer).first(std::size_t(std::min(tile, in() - column)));
      for (std::size_t o = 0; o < lengths.size(); ++o) {
        make_part<Arch>(expert, first + Index(o), column, v);
        lengths[o] += detail::dot(v.data(), v.data(), Index(v.size()));
      }
    }
    for (T& length : lengths) length = std::sqrt(length);
  }

  Index experts_;
  bool exact_norm_;
  View<const T> weight_;
  T s_ = 1;
  Parameters parameters_;
};

static_assert(TrainableMapPolicy<WeightDecomposition<float>> && LinearMapPolicy<WeightDecomposition<float>>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
