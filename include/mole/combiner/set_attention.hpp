// SPDX-License-Identifier: MIT
// SetAttention: transformer layers over the set of the experts' outputs, then their mean.
#pragma once

#include "mole/combiner/combiner_policy.hpp"
#include "mole/combiner/set_attention_layer.hpp"
#include "mole/core/random.hpp"

#include <array>
#include <cmath>

#include "mole/core/macros_off.hpp"

namespace mole {

/// y_n = mean over the experts of layers(F_n),   F_n [E x F] the features of each expert for input n
///
///   x [N x E F], y [N x F]; layers as SetAttentionLayer has them, named "layers.0.attention.norm.weight" and so on
///
/// No positions: another order of the experts gives the same y. An expert that Pass::allowed rules out is removed from
/// the set, not zeroed; Meta-DMoE trains without the expert of an input's own domain. An input without experts gets 0.
/// Maps start as U(-1/sqrt(f), 1/sqrt(f)), f their inputs, norms at the identity. The release's dropout is left out.
/// Throws Error(option) for sizes below 1, more than 8 layers, or features that heads do not divide. For few experts:
/// O(E^2 F) a head. Scratch: about (10 + heads E / F) L E F numbers an input, L layers.
/// Source: Zhong et al. 2022 (Meta-DMoE), arXiv:2210.03885; n3il666/Meta-DMoE, src/transformer.py.
template <class T>
class SetAttention {
 public:
  using Scalar = T;
  using Layer = SetAttentionLayer<T>;
  static constexpr std::size_t most_layers = 8;

  struct Options {
    Index experts = 0;
    Index features = 0;
    Index layers = 1;
    Index heads = 16;
  };

  struct Parameters {
    std::array<typename Layer::Parameters, most_layers> layers;  // as many as there are, then empty ones

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      constexpr std::array<std::string_view, most_layers> names{"layers.0", "layers.1", "layers.2", "layers.3",
                                                                "layers.4", "layers.5", "layers.6", "layers.7"};
      for (std::size_t l = 0; l < most_layers; ++l)
        for_each_tensor_within<typename Layer::Parameters>(names[l], f, p.layers[l]...);
    }
  };

  struct Scratch {
    ScratchVector<int> begin;  // [tokens + 1], the first row of each set
    View<T> f;                 // [sets' rows x F], in backward its gradient
    std::array<typename Layer::Scratch, most_layers> layers;
    typename Layer::Spare spare;
    Index room = 0, rows = -1;  // tokens; rows: of the forward that has no backward yet
  };

  template <std::uniform_random_bit_generator Generator>
  SetAttention(const Options& options, Generator& generator) : options_(options) {
    const Index width = options.features;
    require(options.experts >= 1 && width >= 1 && options.heads >= 1 && width % options.heads == 0, ErrorCode::option,
            "SetAttention: expected experts, features and heads of at least 1, and heads that divide features, found ",
            options.experts, ", ", width, ", ", options.heads);
    require(options.layers >= 1 && options.layers <= Index(most_layers), ErrorCode::option,
            "SetAttention: expected layers from 1 to ", most_layers, ", found ", options.layers);
    const auto map = [&](Index out, Index in) {
      LinearParameters<T> linear{Matrix<T>(out, in), Matrix<T>(1, out)};
      fill_uniform(linear.weight.view(), 1 / std::sqrt(double(in)), generator);
      fill_uniform(linear.bias.view(), 1 / std::sqrt(double(in)), generator);
      return linear;
    };
    LinearParameters<T> norm{Matrix<T>(1, width), Matrix<T>(1, width)};
    fill(norm.weight.view(), T(1));
    for (std::size_t l = 0; l < std::size_t(options.layers); ++l)
      parameters_.layers[l] = {norm, map(3 * width, width), map(width, width),
                               norm, map(2 * width, width), map(width, 2 * width)};
  }

  Index experts() const { return options_.experts; }
  Index features() const { return options_.features; }
  Index out() const { return options_.features; }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }
  Parameters gradients() const { return zeros_like(parameters_); }
  /// Calls f(name, parameter, other...) with one View per tensor, for the parameters and each of `others`.
  template <class F, class... Others>
  void for_each_tensor(F&& f, Others&... others) {
    detail::for_each_view<Parameters>(f, parameters_, others...);
  }

  Scratch scratch(const CallSize& size, Arena& arena) const {
    const Index rows = checked_product("workspace: outputs of experts", size.tokens, experts()), width = features();
    Scratch s{arena.vector<int>(size.tokens + 1), arena.matrix<T>(rows, width), {}, {}, size.tokens};
    for (std::size_t l = 0; l < layers(); ++l)
      s.layers[l] = typename Layer::Scratch(rows, width, options_.heads, experts(), arena);
    s.spare = {arena.matrix<T>(rows, width), arena.matrix<T>(rows, width), arena.matrix<T>(rows, 2 * width),
               arena.matrix<T>(rows, 3 * width)};
    return s;
  }

  void forward(View<const T> x, View<T> y, auto call) const {
    Scratch& s = call.scratch;
    detail::check_combiner_call("SetAttention", *this, x, y, call.pass, s.room);
    s.rows = x.rows();
    s.begin.assign(1, 0);
    for (Index n = 0; n < x.rows(); ++n) {
      int row = s.begin.back();
      for_each_allowed(call.pass, n,
                       [&](Index column) { std::copy_n(x.row_data(n) + column, features(), s.f.row_data(row++)); });
      s.begin.push_back(row);
    }
    const View<T> f = s.f.top(s.begin.back());
    for (std::size_t l = 0; l < layers(); ++l)
      Layer::forward(parameters_.layers[l], options_.heads, sets(s), f, s.layers[l], s.spare, call.execution);
    fill(y, T(0));
    for_each_row(
        s, [&](Index n, Index row, T share) { detail::add_scaled(share, f.row_data(row), y.row_data(n), features()); });
  }

  void backward(View<const T> x, View<const T> d_y, View<T> d_x, Parameters& gradients, auto call) const {
    Scratch& s = call.scratch;
    detail::check_combiner_backward("SetAttention", *this, x, d_y, d_x, call.pass, s.room, s.rows);
    s.rows = -1;
    const View<T> d_f = s.f.top(s.begin.back());
    fill(d_f, T(0));
    for_each_row(s, [&](Index n, Index row, T share) {
      detail::add_scaled(share, d_y.row_data(n), d_f.row_data(row), features());
    });
    for (std::size_t l = layers(); l > 0; --l)
      Layer::backward(parameters_.layers[l - 1], options_.heads, sets(s), d_f, gradients.layers[l - 1], s.layers[l - 1],
                      s.spare, call.execution);
    for (Index n = 0; d_x && n < x.rows(); ++n) {
      int row = s.begin[std::size_t(n)];
      for_each_allowed(call.pass, n, [&](Index column) {
        detail::add_scaled(1, d_f.row_data(row++), d_x.row_data(n) + column, features());
      });
    }
  }

 private:
  std::size_t layers() const { return std::size_t(options_.layers); }
  static std::span<const int> sets(const Scratch& s) { return {s.begin.data(), s.begin.size()}; }

  /// f(first column of the expert) for those that input n has
  template <class F>
  void for_each_allowed(const Pass& pass, Index n, F f) const {
    for (Index e = 0; e < experts(); ++e)
      if (detail::is_allowed(pass, n, e, experts())) f(e * features());
  }
  /// f(input, row, one over the rows of the input)
  template <class F>
  static void for_each_row(const Scratch& s, F f) {
    for (std::size_t n = 0; n + 1 < s.begin.size(); ++n)
      for (int row = s.begin[n]; row < s.begin[n + 1]; ++row)
        f(Index(n), Index(row), T(1) / T(s.begin[n + 1] - s.begin[n]));
  }

  Options options_;
  Parameters parameters_;
};

static_assert(TrainableCombinerPolicy<SetAttention<float>>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
