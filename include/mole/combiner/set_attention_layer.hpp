// SPDX-License-Identifier: MIT
// SetAttentionLayer: one transformer layer over small sets of rows, without positions.
#pragma once

#include "mole/core/activation.hpp"
#include "mole/core/linear_parameters.hpp"
#include "mole/core/row.hpp"
#include "mole/core/scratch.hpp"

#include <algorithm>
#include <cmath>
#include <span>

#include "mole/core/macros_off.hpp"

namespace mole {

/// f += O attention(norm1(f)) + o,   f += W2 gelu(W1 norm2(f) + b1) + b2
///
///   f [M x D], whose rows begin[s] ... begin[s + 1] - 1 are set s: they attend to each other, to no other set's
///   attention.norm, ff.norm [1 x D]; attention.in [3 D x D]: queries, keys, values; attention.out [D x D];
///   ff.0 [2 D x D], ff.1 [D x 2 D]
///
/// Norms are those of a layer, with a weight, a bias and 1e-5 beside the variance; scores are divided by the root of
/// the size of a head; GELU is exact. The part of SetAttention that repeats; parameters come from there.
template <class T>
struct SetAttentionLayer {
  struct Parameters {
    LinearParameters<T> norm1, in, out, norm2, ff0, ff1;

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      for_each_tensor_within<LinearParameters<T>>("attention.norm", f, p.norm1...);
      for_each_tensor_within<LinearParameters<T>>("attention.in", f, p.in...);
      for_each_tensor_within<LinearParameters<T>>("attention.out", f, p.out...);
      for_each_tensor_within<LinearParameters<T>>("ff.norm", f, p.norm2...);
      for_each_tensor_within<LinearParameters<T>>("ff.0", f, p.ff0...);
      for_each_tensor_within<LinearParameters<T>>("ff.1", f, p.ff1...);
    }
  };

  /// What backward needs of forward.
  struct Scratch {
    View<T> hat1, hat2;    // [M x D], rows of mean 0 and variance 1
    View<T> root1, root2;  // [M x 1], one over the deviation
    View<T> qkv;           // [M x 3 D]
    View<T> shares;        // [M x heads most], of a row's attention
    View<T> mixed;         // [M x D], the values that a row attends to
    View<T> h;             // [M x 2 D], before the GELU

    Scratch() = default;
    Scratch(Index rows, Index width, Index heads, Index most, Arena& arena)
        : hat1(arena.matrix<T>(rows, width)),
          hat2(arena.matrix<T>(rows, width)),
          root1(arena.matrix<T>(rows, 1)),
          root2(arena.matrix<T>(rows, 1)),
          qkv(arena.matrix<T>(rows, 3 * width)),
          shares(arena.matrix<T>(rows, heads * most)),
          mixed(arena.matrix<T>(rows, width)),
          h(arena.matrix<T>(rows, 2 * width)) {}
  };

  /// Rows that no call keeps.
  struct Spare {
    View<T> one, two, wide, wider;  // [M x D] twice, [M x 2 D], [M x 3 D]
  };

  static void forward(const Parameters& p, Index heads, std::span<const int> begin, View<T> f, Scratch& s, Spare& spare,
                      const auto& execution) {
    const Index rows = f.rows();
    const View<T> seen = spare.one.top(rows), added = spare.two.top(rows), gelu = spare.wide.top(rows);
    normalize(f, s.hat1.top(rows), s.root1);
    scaled(s.hat1.top(rows), p.norm1, seen);
    execution.linear(View<const T>(seen), p.in.weights(), s.qkv.top(rows));
    attend(heads, begin, s);
    execution.linear(View<const T>(s.mixed.top(rows)), p.out.weights(), added);
    add(added, f);
    normalize(f, s.hat2.top(rows), s.root2);
    scaled(s.hat2.top(rows), p.norm2, seen);
    execution.linear(View<const T>(seen), p.ff0.weights(), s.h.top(rows));
    activate(s.h.top(rows), gelu);
    execution.linear(View<const T>(gelu), p.ff1.weights(), added);
    add(added, f);
  }

  /// From the gradient of the new f to that of the old one, in d_f.
  static void backward(const Parameters& p, Index heads, std::span<const int> begin, View<T> d_f, Parameters& gradients,
                       Scratch& s, Spare& spare, const auto& execution) {
    const Index rows = d_f.rows();
    const View<T> seen = spare.one.top(rows), d_seen = spare.two.top(rows), wide = spare.wide.top(rows),
                  d_qkv = spare.wider.top(rows), h = s.h.top(rows);
    activate(h, wide);
    gradients.ff1.add_gradients(wide, d_f, execution);
    fill(wide, T(0));
    execution.product_nn(View<const T>(d_f), p.ff1.weight, wide);
    for (Index m = 0; m < rows; ++m)
      for (Index i = 0; i < wide.cols(); ++i) wide(m, i) *= GELU{}.derivative(h(m, i));
    map_backward(p.ff0, p.norm2, s.hat2.top(rows), s.root2, wide, seen, d_seen, gradients.ff0, gradients.norm2, d_f,
                 execution);
    gradients.out.add_gradients(View<const T>(s.mixed.top(rows)), d_f, execution);
    const View<T> d_mixed = seen;
    fill(d_mixed, T(0));
    execution.product_nn(View<const T>(d_f), p.out.weight, d_mixed);
    attend_backward(heads, begin, s, d_mixed, d_qkv);
    map_backward(p.in, p.norm1, s.hat1.top(rows), s.root1, d_qkv, seen, d_seen, gradients.in, gradients.norm1, d_f,
                 execution);
  }

 private:
  static void add(View<const T> from, View<T> to) {
    for (Index m = 0; m < to.rows(); ++m) detail::add_scaled(1, from.row_data(m), to.row_data(m), to.cols());
  }
  static void activate(View<const T> h, View<T> gelu) {
    for (Index m = 0; m < h.rows(); ++m)
      std::ranges::transform(h.row(m), gelu.row(m).begin(), [](T z) { return GELU{}.value(z); });
  }
  static void normalize(View<const T> f, View<T> hat, View<T> root) {
    for (Index m = 0; m < f.rows(); ++m) {
      T mean = 0, variance = 0;
      for (T value : f.row(m)) mean += value / T(f.cols());
      for (T value : f.row(m)) variance += (value - mean) * (value - mean) / T(f.cols());
      root(m, 0) = 1 / std::sqrt(variance + T(1e-5));
      for (Index i = 0; i < f.cols(); ++i) hat(m, i) = (f(m, i) - mean) * root(m, 0);
    }
  }
  static void scaled(View<const T> hat, const LinearParameters<T>& norm, View<T> out) {
    for (Index m = 0; m < hat.rows(); ++m)
      for (Index i = 0; i < hat.cols(); ++i) out(m, i) = hat(m, i) * norm.weight(0, i) + norm.bias(0, i);
  }
  /// Of   out = map(norm(f)):   its gradients, and d_f += the norm's share
  static void map_backward(const LinearParameters<T>& map, const LinearParameters<T>& norm, View<const T> hat,
                           View<const T> root, View<const T> d_out, View<T> seen, View<T> d_seen,
                           LinearParameters<T>& d_map, LinearParameters<T>& d_norm, View<T> d_f,
                           const auto& execution) {
    scaled(hat, norm, seen);
    d_map.add_gradients(View<const T>(seen), d_out, execution);
    fill(d_seen, T(0));
    execution.product_nn(d_out, map.weight, d_seen);
    for (Index m = 0; m < hat.rows(); ++m) {
      T mean = 0, along = 0;  // of d_hat, and of d_hat times hat
      for (Index i = 0; i < hat.cols(); ++i) {
        if (!d_norm.weight.empty()) d_norm.weight(0, i) += d_seen(m, i) * hat(m, i);
        if (!d_norm.bias.empty()) d_norm.bias(0, i) += d_seen(m, i);
        d_seen(m, i) *= norm.weight(0, i);
        mean += d_seen(m, i) / T(hat.cols());
        along += d_seen(m, i) * hat(m, i) / T(hat.cols());
      }
      for (Index i = 0; i < hat.cols(); ++i) d_f(m, i) += root(m, 0) * (d_seen(m, i) - mean - hat(m, i) * along);
    }
  }

  /// f(head, set's first row, one past its last)
  template <class F>
  static void for_each_head(Index heads, std::span<const int> begin, F f) {
    for (std::size_t set = 0; set + 1 < begin.size(); ++set)
      for (Index head = 0; head < heads; ++head) f(head, Index(begin[set]), Index(begin[set + 1]));
  }
  static void attend(Index heads, std::span<const int> begin, Scratch& s) {
    const Index width = s.mixed.cols(), size = width / heads, most = s.shares.cols() / heads;
    for_each_head(heads, begin, [&](Index head, Index first, Index last) {
      for (Index m = first; m < last; ++m) {
        T* const share = s.shares.row_data(m) + head * most;
        T* const mixed = s.mixed.row_data(m) + head * size;
        const T* const query = s.qkv.row_data(m) + head * size;
        for (Index j = first; j < last; ++j)
          share[j - first] = detail::dot(query, s.qkv.row_data(j) + width + head * size, size) / std::sqrt(T(size));
        const T largest = *std::max_element(share, share + (last - first));
        T sum = 0;
        for (Index j = 0; j < last - first; ++j) sum += share[j] = std::exp(share[j] - largest);
        std::fill_n(mixed, size, T(0));
        for (Index j = first; j < last; ++j) {
          share[j - first] /= sum;
          detail::add_scaled(share[j - first], s.qkv.row_data(j) + 2 * width + head * size, mixed, size);
        }
      }
    });
  }
  static void attend_backward(Index heads, std::span<const int> begin, const Scratch& s, View<const T> d_mixed,
                              View<T> d_qkv) {
    const Index width = s.mixed.cols(), size = width / heads, most = s.shares.cols() / heads;
    fill(d_qkv, T(0));
    for_each_head(heads, begin, [&](Index head, Index first, Index last) {
      const Index q = head * size, k = width + q, v = 2 * width + q;
      for (Index m = first; m < last; ++m) {
        const T* const share = s.shares.row_data(m) + head * most;
        const T* const d = d_mixed.row_data(m) + q;
        const T along = detail::dot(d, s.mixed.row_data(m) + q, size);  // sum over j of share_j d_share_j
        for (Index j = first; j < last; ++j) {
          const T d_share = detail::dot(d, s.qkv.row_data(j) + v, size);
          const T d_score = share[j - first] * (d_share - along) / std::sqrt(T(size));
          detail::add_scaled(share[j - first], d, d_qkv.row_data(j) + v, size);
          detail::add_scaled(d_score, s.qkv.row_data(j) + k, d_qkv.row_data(m) + q, size);
          detail::add_scaled(d_score, s.qkv.row_data(m) + q, d_qkv.row_data(j) + k, size);
        }
      }
    });
  }
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
