// SPDX-License-Identifier: MIT
// KroneckerMaps: LoKr's update, a Kronecker product that is applied without being formed.
#pragma once

#include "mole/core/dropout.hpp"
#include "mole/core/matrix.hpp"
#include "mole/core/random.hpp"
#include "mole/core/rank/scaling.hpp"
#include "mole/core/row.hpp"
#include "mole/maps/map_policy.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <string_view>
#include <tuple>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Of each expert:   delta = scale kron(W1, W2), W1 [l x m], W2 [k x n], with O = l k and I = m n.
///
///   lokr_w1 [E l x m], or lokr_w1_a [E l x r] and lokr_w1_b [E r x m]
///   lokr_w2 [E k x n], or lokr_w2_a [E k x r] and lokr_w2_b [E r x n]
///
/// With a row of x as X [m x n] and one of y as Y [l x k]:   Y = W1 X W2^T, which takes m n k + l m k products instead
/// of I O. l <= k and m <= n are as near to square roots as the sizes allow, or l and m at most `factor`. W2 is of rank
/// r if r < max(k, n) / 2; W1, with decompose_both, if r < max(l, m) / 2; what is no product is empty. The scale alpha
/// / r is that of the release, whatever is of rank r. At I = O = 4,096 and r = 8: 5,120 trained numbers.
/// The bits of a row of y do not depend on the other rows if k is at most 128.
///
/// Starts at W1 = 0, so that the output of a fresh layer equals its base's; W2 is uniform within 1/sqrt(columns), each
/// factor of a product likewise. Throws Error(option) for sizes below 1 and a negative factor.
/// Source: Yeh et al. 2024 (LyCORIS), arXiv:2309.14859; huggingface/peft, tuners/lokr/layer.py.
template <class T>
class KroneckerMaps {
 public:
  using Scalar = T;

  struct Options {
    Index in = 0;
    Index out = 0;
    Index experts = 1;
    Index rank = 8;                    ///< r
    Index factor = 0;                  ///< most rows and columns of W1; 0: as many as W2, if that divides
    bool decompose_both = false;       ///< W1, too, may be a product of rank r
    std::optional<double> alpha = {};  ///< unset: scale 1
    Scaling scaling = Scaling::alpha_over_rank;
    Dropout dropout = {};  ///< on the adapter's input
  };

  struct Parameters {
    Matrix<T> lokr_w1, lokr_w1_a, lokr_w1_b, lokr_w2, lokr_w2_a, lokr_w2_b;

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      f("lokr_w1", p.lokr_w1...);
      f("lokr_w1_a", p.lokr_w1_a...);
      f("lokr_w1_b", p.lokr_w1_b...);
      f("lokr_w2", p.lokr_w2...);
      f("lokr_w2_a", p.lokr_w2_a...);
      f("lokr_w2_b", p.lokr_w2_b...);
    }
  };

  struct Scratch {
    View<T> w1, w2, d_w1, d_w2;  // of all experts
    View<T> z, d_z;              // X W2^T [tokens m x k]
  };

  template <std::uniform_random_bit_generator Generator>
  KroneckerMaps(const Options& options, Generator& generator) : experts_(options.experts), rank_(options.rank) {
    require(options.in >= 1 && options.out >= 1 && options.experts >= 1 && options.rank >= 1, ErrorCode::option,
            "KroneckerMaps: expected in, out, experts and rank of at least 1, found in = ", options.in,
            ", out = ", options.out, ", experts = ", options.experts, ", rank = ", options.rank);
    require(options.factor >= 0, ErrorCode::option, "KroneckerMaps: expected a factor of at least 0, found ",
            options.factor);
    m_ = smaller_factor(options.in, options.factor), n_ = options.in / m_;
    l_ = smaller_factor(options.out, options.factor), k_ = options.out / l_;
    const auto rows = [&](Index rows_of_one, Index cols) {
      return Matrix<T>(checked_product("KroneckerMaps: rows", experts_, rows_of_one), cols);
    };
    const auto is_low = [&](Index a, Index b) { return rank_ < (std::max(a, b) + 1) / 2; };  // 2 r < max(a, b)
    if (options.decompose_both && is_low(l_, m_))
      parameters_.lokr_w1_a = rows(l_, rank_), parameters_.lokr_w1_b = rows(rank_, m_);
    else
      parameters_.lokr_w1 = rows(l_, m_);
    if (is_low(k_, n_))
      parameters_.lokr_w2_a = rows(k_, rank_), parameters_.lokr_w2_b = rows(rank_, n_);
    else
      parameters_.lokr_w2 = rows(k_, n_);
    sizes_ = sizes_of(parameters_);
    reset(generator);
  }

  /// From existing parameters of one expert, whatever the factors of I and O. Throws Error(shape) unless each of W1 and
  /// W2 is there once, whole or as two factors.
  explicit KroneckerMaps(Parameters parameters) : experts_(1), rank_(1), parameters_(std::move(parameters)) {
    const auto& p = parameters_;
    const auto rows_and_cols = [&](const Matrix<T>& whole, const Matrix<T>& a, const Matrix<T>& b) {
      require(whole.empty() ? !a.empty() && a.cols() == b.rows() && !b.empty() : a.empty() && b.empty(),
              ErrorCode::shape, "KroneckerMaps: expected W1 and W2, each a matrix or two factors of one rank, found [",
              whole.rows(), " x ", whole.cols(), "], [", a.rows(), " x ", a.cols(), "] and [", b.rows(), " x ",
              b.cols(), "]");
      if (whole.empty()) rank_ = a.cols();
      return whole.empty() ? std::pair(a.rows(), b.cols()) : std::pair(whole.rows(), whole.cols());
    };
    std::tie(l_, m_) = rows_and_cols(p.lokr_w1, p.lokr_w1_a, p.lokr_w1_b);
    const Index rank_of_w1 = rank_;
    std::tie(k_, n_) = rows_and_cols(p.lokr_w2, p.lokr_w2_a, p.lokr_w2_b);
    if (!p.lokr_w1_a.empty()) require_equal(ErrorCode::shape, "KroneckerMaps: rank of W2", rank_of_w1, rank_);
    checked_product("KroneckerMaps: inputs", m_, n_);
    checked_product("KroneckerMaps: outputs", l_, k_);
    sizes_ = sizes_of(parameters_);
  }

  void check_sizes() const {
    require(sizes_of(parameters_) == sizes_, ErrorCode::shape,
            "KroneckerMaps: expected W1 and W2, or their factors, of the sizes that they were made with, found others");
  }

  Index experts() const { return experts_; }
  Index in() const { return m_ * n_; }
  Index out() const { return l_ * k_; }
  std::array<Index, 2> factors_of_in() const { return {m_, n_}; }   ///< columns of W1 and of W2
  std::array<Index, 2> factors_of_out() const { return {l_, k_}; }  ///< rows of W1 and of W2
  double scale(double alpha, Scaling scaling, Index) const { return scale_of(alpha, rank_, scaling); }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }

  /// Reinitializes, as the constructor does.
  template <std::uniform_random_bit_generator Generator>
  void reset(Generator& generator) {
    Parameters::for_each_tensor(
        [&](std::string_view name, Matrix<T>& tensor) {
          if (name == "lokr_w1" || name == "lokr_w1_a")
            tensor.set_zero();
          else if (!tensor.empty())
            fill_uniform(tensor.view(), 1 / std::sqrt(double(tensor.cols())), generator);
        },
        parameters_);
  }

  Scratch scratch(const CallSize& size, Arena& arena) const {
    const Index rows = checked_product("KroneckerMaps: rows", size.tokens, m_);
    return {arena.matrix<T>(experts_ * l_, m_), arena.matrix<T>(experts_ * k_, n_), arena.matrix<T>(experts_ * l_, m_),
            arena.matrix<T>(experts_ * k_, n_), arena.matrix<T>(rows, k_),          arena.matrix<T>(rows, k_)};
  }

  void prepare(auto call) const {
    multiply(parameters_.lokr_w1, parameters_.lokr_w1_a, parameters_.lokr_w1_b, l_, call.scratch.w1);
    multiply(parameters_.lokr_w2, parameters_.lokr_w2_a, parameters_.lokr_w2_b, k_, call.scratch.w2);
  }

  void map(Index expert, View<const T> x, View<T> y, auto call) const {
    const View<const T> z = products_with_w2(expert, x, call);
    const View<const T> w1 = call.scratch.w1.middle_rows(expert * l_, l_);
    call.execution.parallel_for(x.rows(), [&](Index t) {
      const std::span<T> row = y.row(t);
      std::fill(row.begin(), row.end(), T(0));
      for (Index a = 0; a < l_; ++a)
        for (Index b = 0; b < m_; ++b) detail::add_scaled(w1(a, b), z.row_data(t * m_ + b), row.data() + a * k_, k_);
    });
  }

  void begin_backward(Parameters&, auto call) const {
    fill(call.scratch.d_w1, T(0));
    fill(call.scratch.d_w2, T(0));
  }

  /// d_z = W1^T d_Y,   d_W1 += d_Y Z^T,   d_W2 += d_z^T X,   d_X += d_z W2
  void map_backward(Index expert, View<const T> x, View<const T> d_y, View<T> d_x, Parameters&, auto call) const {
    const View<const T> z = products_with_w2(expert, x, call);
    const View<const T> w1 = call.scratch.w1.middle_rows(expert * l_, l_);
    const View<T> d_z = call.scratch.d_z.top(x.rows() * m_), d_w1 = call.scratch.d_w1.middle_rows(expert * l_, l_);
    call.execution.parallel_for(x.rows(), [&](Index t) {
      for (Index b = 0; b < m_; ++b) {
        const std::span<T> row = d_z.row(t * m_ + b);
        std::fill(row.begin(), row.end(), T(0));
        for (Index a = 0; a < l_; ++a) detail::add_scaled(w1(a, b), d_y.row_data(t) + a * k_, row.data(), k_);
      }
    });
    call.execution.parallel_for(l_, [&](Index a) {
      for (Index t = 0; t < x.rows(); ++t)
        for (Index b = 0; b < m_; ++b) {
          const T* const d = d_y.row_data(t) + a * k_;
          const T* const of_z = z.row_data(t * m_ + b);
          d_w1(a, b) += detail::dot(d, of_z, k_);
        }
    });
    const View<const T> rows(x.data(), x.rows() * m_, n_);
    call.execution.product_tn(View<const T>(d_z), rows, call.scratch.d_w2.middle_rows(expert * k_, k_));
    if (d_x) call.execution.product_nn(View<const T>(d_z), w2_of(expert, call), View<T>(d_x.data(), x.rows() * m_, n_));
  }

  void contract(Parameters& gradients, auto call) const {
    multiply_backward(parameters_.lokr_w1_a, parameters_.lokr_w1_b, l_, call.scratch.d_w1, gradients.lokr_w1,
                      gradients.lokr_w1_a, gradients.lokr_w1_b);
    multiply_backward(parameters_.lokr_w2_a, parameters_.lokr_w2_b, k_, call.scratch.d_w2, gradients.lokr_w2,
                      gradients.lokr_w2_a, gradients.lokr_w2_b);
  }

  void add_delta(Index expert, T factor, View<T> w, auto call) const {
    const Scratch& s = call.scratch;
    for (Index a = 0; a < l_; ++a)
      for (Index c = 0; c < k_; ++c)
        for (Index b = 0; b < m_; ++b)
          detail::add_scaled(factor * s.w1(expert * l_ + a, b), s.w2.row_data(expert * k_ + c),
                             w.row_data(a * k_ + c) + b * n_, n_);
  }

 private:
  using Sizes = std::array<std::pair<Index, Index>, 6>;
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

  /// The smaller of `factor` and size / factor if `factor` divides; else the largest divisor of at most the square
  /// root, and at most `factor` if it is set.
  static Index smaller_factor(Index size, Index factor) {
    if (factor > 0 && size % factor == 0) return std::min(factor, size / factor);
    const Index bound = factor > 0 ? factor : size;
    Index smaller = 1;
    for (Index d = 1; d <= size / d; ++d)
      if (size % d == 0 && d <= bound) smaller = d;
    return smaller;
  }

  View<const T> w2_of(Index expert, auto call) const { return call.scratch.w2.middle_rows(expert * k_, k_); }

  /// Z = X W2^T of every row, one below the other.
  View<const T> products_with_w2(Index expert, View<const T> x, auto call) const {
    const View<T> z = call.scratch.z.top(x.rows() * m_);
    call.execution.product_nt(View<const T>(x.data(), x.rows() * m_, n_), w2_of(expert, call), z);
    return z;
  }

  /// The matrices of all experts, `rows` each: as they are, or products of a and b.
  void multiply(const Matrix<T>& whole, const Matrix<T>& a, const Matrix<T>& b, Index rows, View<T> to) const {
    if (!whole.empty()) return copy(whole.view(), to);
    fill(to, T(0));
    for (Index r = 0; r < to.rows(); ++r)
      for (Index q = 0; q < rank_; ++q)
        detail::add_scaled(a(r, q), b.view().row_data(r / rows * rank_ + q), to.row_data(r), to.cols());
  }
  void multiply_backward(const Matrix<T>& a, const Matrix<T>& b, Index rows, View<const T> d, Matrix<T>& d_whole,
                         Matrix<T>& d_a, Matrix<T>& d_b) const {
    for (Index r = 0; r < d.rows(); ++r) {
      if (detail::is_zero(d.row_data(r), d.cols())) continue;
      if (!d_whole.empty()) detail::add_scaled(T(1), d.row_data(r), d_whole.view().row_data(r), d.cols());
      for (Index q = 0; q < rank_ && !a.empty(); ++q) {
        const Index of_b = r / rows * rank_ + q;
        if (!d_b.empty()) detail::add_scaled(a(r, q), d.row_data(r), d_b.view().row_data(of_b), d.cols());
        if (!d_a.empty()) d_a(r, q) += detail::dot(d.row_data(r), b.view().row_data(of_b), d.cols());
      }
    }
  }

  Index experts_, rank_;
  Index l_ = 1, k_ = 1, m_ = 1, n_ = 1;
  Parameters parameters_;
  Sizes sizes_;
};

static_assert(TrainableMapPolicy<KroneckerMaps<float>> && LinearMapPolicy<KroneckerMaps<float>>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
