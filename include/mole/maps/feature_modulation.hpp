// SPDX-License-Identifier: MIT
// FeatureModulation: experts that scale and shift the features of a shared block, each in its own way.
#pragma once

#include "mole/core/add_outer_products.hpp"
#include "mole/core/dropout.hpp"
#include "mole/core/linear_weights.hpp"
#include "mole/core/matrix.hpp"
#include "mole/core/random.hpp"
#include "mole/core/rank/scaling.hpp"
#include "mole/maps/map_policy.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <string_view>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// What scale and shift of a feature depend on: nothing; the feature itself; r combinations of all; all of them.
enum class ModulationForm { vector, diagonal, low_rank, full };

/// Of each expert:   f(u) = (P u + p) o u + Q u + q,   P and Q of one of the four forms.
///
///   u and f(u) [N x I], O = I    scale_bias p, shift_bias q [E x I]
///   diagonal: scale_weight, shift_weight [E x I]     full: the same [E I x I]
///   low_rank: scale_A, scale_B, shift_A, shift_B [E r x I], row j of A and of B being one rank, P = B^T A
///
/// u is what a shared block makes of a token, in MoFME two linear maps and a GELU: give route() the token and apply()
/// the features, or stand the experts behind a base (ExpertsBehindBase). Tensors that a form does not have are empty.
///
/// f is linear in its parameters, so a weighted sum of experts is one expert of the summed parameters. `vector` and
/// `diagonal` use it in every forward: a token's modulations are added up first, and its features are read and written
/// once, whatever the number of its experts (I = 4,096, two of eight experts, one thread: 4.4 us a token for vectors,
/// and 8.3 us one after the other). For weights that all tokens share collapsed() does it in every form.
///
/// Starts at p = `start`, q = P = Q = 0, with A within 1/sqrt(I): start = 1 is the identity, start = 0 adds nothing.
/// The release's own start, linear layers within 1/sqrt(I), is `random`; it is not the default because a fresh layer
/// then is no longer its base.
/// Trained numbers of an expert at I = 4,096: 8,192, 16,384, 139,264 (r = 8) and 33,562,624; in float 32 KiB, 64 KiB,
/// 544 KiB and 128 MiB. Scratch: none for `vector` and `diagonal`, 2 [tokens x I] else, and 2 [tokens x r] for
/// low_rank.
///
/// Throws Error(option) for sizes below 1.
/// Source: Zhang et al. 2024 (MoFME), arXiv:2312.16610; RoyZry98/MoFME-Pytorch, models/moe/film.py, is `full`.
/// FiLM: Perez et al. 2018, arXiv:1709.07871.
template <class T>
class FeatureModulation {
 public:
  using Scalar = T;

  struct Options {
    Index features = 0;  ///< I
    Index experts = 1;
    ModulationForm form = ModulationForm::full;
    Index rank = 8;                    ///< r of low_rank
    double start = 1;                  ///< of p
    bool random = false;               ///< all tensors start within 1/sqrt(I), as in the release
    std::optional<double> alpha = {};  ///< unset: scale 1
    Scaling scaling = Scaling::fixed;
    Dropout dropout = {};  ///< on u
  };

  struct Parameters {
    Matrix<T> scale_weight, scale_A, scale_B, scale_bias, shift_weight, shift_A, shift_B, shift_bias;

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      f("scale_weight", p.scale_weight...);
      f("scale_A", p.scale_A...);
      f("scale_B", p.scale_B...);
      f("scale_bias", p.scale_bias...);
      f("shift_weight", p.shift_weight...);
      f("shift_A", p.shift_A...);
      f("shift_B", p.shift_B...);
      f("shift_bias", p.shift_bias...);
    }
  };

  struct Scratch {
    View<T> scale, d_scale;  // P u + p [tokens x I]
    View<T> z, d_z;          // A u [tokens x r]
  };

  template <std::uniform_random_bit_generator Generator>
  FeatureModulation(const Options& options, Generator& generator) : options_(options) {
    require(options.features >= 1 && options.experts >= 1 && options.rank >= 1, ErrorCode::option,
            "FeatureModulation: expected features, experts and rank of at least 1, found ", options.features, ", ",
            options.experts, ", ", options.rank);
    require(std::isfinite(options.start), ErrorCode::option, "FeatureModulation: expected a finite start, found ",
            options.start);
    parameters_ = shaped(options);
    sizes_ = sizes_of(parameters_);
    reset(generator);
  }

  void check_sizes() const {
    require(sizes_of(parameters_) == sizes_, ErrorCode::shape,
            "FeatureModulation: expected scales and shifts of the sizes that they were made with, found others");
  }

  Index experts() const { return options_.experts; }
  Index in() const { return options_.features; }
  Index out() const { return options_.features; }
  ModulationForm form() const { return options_.form; }
  double scale(double alpha, Scaling scaling, Index) const {
    return scale_of(alpha, options_.form == ModulationForm::low_rank ? options_.rank : 1, scaling);
  }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }

  /// Reinitializes, as the constructor does.
  template <std::uniform_random_bit_generator Generator>
  void reset(Generator& generator) {
    Parameters::for_each_tensor(
        [&](std::string_view name, Matrix<T>& tensor) {
          tensor.set_zero();
          if (tensor.empty()) return;
          if (options_.random || name.ends_with("_A"))
            fill_uniform(tensor.view(), 1 / std::sqrt(double(in())), generator);
          else if (name == "scale_bias")
            fill(tensor.view(), T(options_.start));
        },
        parameters_);
  }

  /// The one expert that adds what all of these add under fixed weights, a scale of the experts included. Of low_rank,
  /// one of E r ranks.   weights [E].  Offline.
  FeatureModulation collapsed(std::span<const T> weights) const {
    require_equal(ErrorCode::shape, "FeatureModulation: weights, one of each expert", experts(), Index(weights.size()));
    FeatureModulation one = *this;
    one.options_.experts = 1;
    one.options_.rank *= experts();
    one.parameters_ = shaped(one.options_);
    Parameters::for_each_tensor(
        [&](std::string_view name, const Matrix<T>& from, Matrix<T>& to) {
          const Index rows = from.rows() / experts();
          const bool ranks = name.ends_with("_A") || name.ends_with("_B");
          for (Index r = 0; r < from.rows(); ++r)
            add_scaled(name.ends_with("_A") ? T(1) : weights[std::size_t(r / rows)], from.view().row(r),
                       to.view().row(ranks ? r : r % rows));
        },
        parameters_, one.parameters_);
    one.sizes_ = sizes_of(one.parameters_);
    return one;
  }

  Scratch scratch(const CallSize& size, Arena& arena) const {
    const Index rows = elementwise() ? 0 : size.tokens;
    const Index ranks = options_.form == ModulationForm::low_rank ? options_.rank : 0;
    return {arena.matrix<T>(rows, in()), arena.matrix<T>(rows, in()), arena.matrix<T>(rows, ranks),
            arena.matrix<T>(rows, ranks)};
  }

  void map(Index expert, View<const T> u, View<T> y, auto call) const {
    const Net<const T> scale = scale_of_expert<const T>(parameters_, expert), shift = shift_of(parameters_, expert);
    if (elementwise())
      return call.execution.parallel_for(u.rows(), [&](Index n) {
        const std::span<T> to = y.row(n);
        std::fill(to.begin(), to.end(), T(0));
        add_elementwise(scale, shift, T(1), u.row(n), to);
      });
    const View<T> s = call.scratch.scale.top(u.rows());
    forward(scale, u, s, call);
    forward(shift, u, y, call);
    call.execution.parallel_for(u.rows(), [&](Index n) {
      for (Index i = 0; i < in(); ++i) y.row_data(n)[i] += s.row_data(n)[i] * u.row_data(n)[i];
    });
  }

  /// May the modulations of a token be added up before they act?
  bool sums_per_token() const { return elementwise(); }
  /// y += sum over j of weight(j) f_expert(j)(u), of one token.
  template <class Expert, class Weight>
  void add_sum(Index count, Expert expert, Weight weight, std::span<const T> u, std::span<T> y) const {
    constexpr Index width = 128;  // features whose sums stay in the first cache
    const bool reads_u = options_.form == ModulationForm::diagonal;
    for (Index first = 0; first < in(); first += width) {
      const Index end = std::min(in(), first + width);
      std::array<T, width> linear{}, square{}, constant{};
      for (Index j = 0; j < count; ++j) {
        const T w = weight(j);
        const Index e = expert(j);
        const T *const p = parameters_.scale_bias.view().row_data(e) + first,
                       *const q = parameters_.shift_bias.view().row_data(e) + first;
        for (Index i = 0; i < end - first; ++i)
          linear[std::size_t(i)] += w * p[i], constant[std::size_t(i)] += w * q[i];
        if (!reads_u) continue;
        const T *const of_scale = parameters_.scale_weight.view().row_data(e) + first,
                       *const of_shift = parameters_.shift_weight.view().row_data(e) + first;
        for (Index i = 0; i < end - first; ++i)
          square[std::size_t(i)] += w * of_scale[i], linear[std::size_t(i)] += w * of_shift[i];
      }
      for (Index i = first; i < end; ++i) {
        const auto at = std::size_t(i - first);
        const T x = u[std::size_t(i)];
        y[std::size_t(i)] += (square[at] * x + linear[at]) * x + constant[at];
      }
    }
  }

  /// With S = P u + p and d_S = d_y o u:   d_u += d_y o S + P^T d_S + Q^T d_y;   d_p += d_S, d_P += d_S u^T, alike d_q
  /// and d_Q of d_y
  void map_backward(Index expert, View<const T> u, View<const T> d_y, View<T> d_u, Parameters& gradients,
                    auto call) const {
    const Net<const T> scale = scale_of_expert<const T>(parameters_, expert), shift = shift_of(parameters_, expert);
    const Net<T> d_scale = scale_of_expert<T>(gradients, expert), d_shift = shift_of(gradients, expert);
    if (elementwise()) return elementwise_backward(scale, shift, u, d_y, d_u, d_scale, d_shift, call);
    const View<T> s = call.scratch.scale.top(u.rows()), d_s = call.scratch.d_scale.top(u.rows());
    if (d_u) forward(scale, u, s, call);
    call.execution.parallel_for(u.rows(), [&](Index n) {
      for (Index i = 0; i < in(); ++i) {
        const T d = d_y.row_data(n)[i];
        d_s.row_data(n)[i] = d * u.row_data(n)[i];
        if (d_u) d_u.row_data(n)[i] += d * s.row_data(n)[i];
      }
    });
    backward(scale, u, View<const T>(d_s), d_u, d_scale, call);
    backward(shift, u, d_y, d_u, d_shift, call);
  }

 private:
  using Sizes = std::array<std::pair<Index, Index>, 8>;

  /// weight u + bias of one expert, or B^T A u + bias.
  template <class U>
  struct Net {
    View<U> weight, a, b, bias;
  };
  template <class U, class P>
  Net<U> net(P& weight, P& a, P& b, P& bias, Index expert) const {
    const auto of_expert = [&](P& tensor) {
      if (tensor.empty()) return View<U>();
      const Index rows = tensor.rows() / experts();
      return View<U>(tensor.view().middle_rows(expert * rows, rows));
    };
    return {of_expert(weight), of_expert(a), of_expert(b), of_expert(bias)};
  }
  template <class U, class P>
  Net<U> scale_of_expert(P& p, Index expert) const {
    return net<U>(p.scale_weight, p.scale_A, p.scale_B, p.scale_bias, expert);
  }
  Net<const T> shift_of(const Parameters& p, Index expert) const {
    return net<const T>(p.shift_weight, p.shift_A, p.shift_B, p.shift_bias, expert);
  }
  Net<T> shift_of(Parameters& p, Index expert) const {
    return net<T>(p.shift_weight, p.shift_A, p.shift_B, p.shift_bias, expert);
  }

  bool elementwise() const {
    return options_.form == ModulationForm::vector || options_.form == ModulationForm::diagonal;
  }

  static Parameters shaped(const Options& options) {
    const auto rows = [&](Index of_one) {
      return Matrix<T>(checked_product("FeatureModulation: rows", options.experts, of_one), options.features);
    };
    Parameters p;
    p.scale_bias = p.shift_bias = rows(1);
    if (options.form == ModulationForm::diagonal) p.scale_weight = p.shift_weight = rows(1);
    if (options.form == ModulationForm::full) p.scale_weight = p.shift_weight = rows(options.features);
    if (options.form == ModulationForm::low_rank) p.scale_A = p.scale_B = p.shift_A = p.shift_B = rows(options.rank);
    return p;
  }
  static Sizes sizes_of(const Parameters& parameters) {
    Sizes sizes;
    std::size_t next = 0;
    Parameters::for_each_tensor(
        [&](std::string_view, const Matrix<T>& tensor) {
          sizes[next++] = {tensor.rows(), tensor.cols()};
        },
        parameters);
    return sizes;
  }

  static void add_scaled(T factor, std::span<const T> from, std::span<T> to) {
    for (std::size_t i = 0; i < to.size(); ++i) to[i] += factor * from[i];
  }

  void add_elementwise(const Net<const T>& scale, const Net<const T>& shift, T factor, std::span<const T> u,
                       std::span<T> y) const {
    for (std::size_t i = 0; i < u.size(); ++i) {
      T s = scale.bias.data()[i], t = shift.bias.data()[i];
      if (scale.weight) s += scale.weight.data()[i] * u[i], t += shift.weight.data()[i] * u[i];
      y[i] += factor * (s * u[i] + t);
    }
  }

  /// One thread has some features of all tokens, so that sums over tokens have one order.
  void elementwise_backward(const Net<const T>& scale, const Net<const T>& shift, View<const T> u, View<const T> d_y,
                            View<T> d_u, const Net<T>& d_scale, const Net<T>& d_shift, auto call) const {
    constexpr Index width = 64;
    call.execution.parallel_for((in() + width - 1) / width, [&](Index chunk) {
      const Index first = chunk * width, end = std::min(in(), first + width);
      for (Index n = 0; n < u.rows(); ++n)
        for (Index i = first; i < end; ++i) {
          const T x = u.row_data(n)[i], d = d_y.row_data(n)[i];
          if (d_scale.bias) d_scale.bias.data()[i] += d * x;
          if (d_shift.bias) d_shift.bias.data()[i] += d;
          if (d_scale.weight) d_scale.weight.data()[i] += d * x * x;
          if (d_shift.weight) d_shift.weight.data()[i] += d * x;
          if (!d_u) continue;
          T slope = scale.bias.data()[i];
          if (scale.weight) slope += 2 * scale.weight.data()[i] * x + shift.weight.data()[i];
          d_u.row_data(n)[i] += d * slope;
        }
    });
  }

  void forward(const Net<const T>& net, View<const T> u, View<T> result, auto call) const {
    if (net.weight) return call.execution.linear(u, LinearWeights<T>{.weight = net.weight, .bias = net.bias}, result);
    const View<T> z = call.scratch.z.top(u.rows());
    call.execution.product_nt(u, net.a, z);
    for (Index n = 0; n < u.rows(); ++n) std::ranges::copy(net.bias.row(0), result.row(n).begin());
    call.execution.product_nn(View<const T>(z), net.b, result);
  }
  void backward(const Net<const T>& net, View<const T> u, View<const T> d, View<T> d_u, const Net<T>& d_net,
                auto call) const {
    if (d_net.bias)
      for (Index n = 0; n < d.rows(); ++n) add_scaled(T(1), d.row(n), d_net.bias.row(0));
    if (net.weight) {
      if (d_net.weight) add_outer_products(d, u, d_net.weight, call.execution);
      if (d_u) call.execution.product_nn(d, net.weight, d_u);
      return;
    }
    const View<T> z = call.scratch.z.top(u.rows()), d_z = call.scratch.d_z.top(u.rows());
    if (d_net.b) {
      call.execution.product_nt(u, net.a, z);
      add_outer_products(View<const T>(z), d, d_net.b, call.execution);
    }
    call.execution.product_nt(d, net.b, d_z);
    if (d_net.a) add_outer_products(View<const T>(d_z), u, d_net.a, call.execution);
    if (d_u) call.execution.product_nn(View<const T>(d_z), net.a, d_u);
  }

  Options options_;
  Parameters parameters_;
  Sizes sizes_;
};

static_assert(TrainableMapPolicy<FeatureModulation<float>> && SummingMapPolicy<FeatureModulation<float>>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
