// SPDX-License-Identifier: MIT
// SparseProjection: FlyLoRA's factors, a frozen sparse random A and a trained B.
#pragma once

#include "mole/core/dropout.hpp"
#include "mole/core/matrix.hpp"
#include "mole/core/random.hpp"
#include "mole/factors/factor_policy.hpp"
#include "mole/kernel/architecture_of.hpp"
#include "mole/kernel/sliced_products.hpp"

#include <algorithm>
#include <cstring>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// A frozen A with exactly p nonzeros per row, and a trained B.
///
///   A [ranks x I]: p columns drawn uniformly for each row, values ~ N(0, 1 / ranks^2)   lora_B [ranks x O]
///
/// Starts at B = 0. A is not a parameter: its bits never change, and equal generators give equal ones. It is state: a
/// checkpoint holds its columns and values. For SIMD it is stored as slices of A and of its transpose, never as a
/// matrix: some 22 bytes per nonzero of float, less memory than a matrix below 18 % of nonzeros; a call reads half.
///
/// FlyLoRA's scale counts all ranks: with blocks of one rank, alpha / r is Scaling::fixed with that number for alpha.
/// Throws Error(option) for sizes below 1 or `nonzeros` outside [1, I].
/// Source: Zou et al. 2025 (FlyLoRA), arXiv:2510.08396, eq. 7-11. In the released adapter library (gfyddha/FlyLoRA,
/// peft fork) A x is computed without gradient: this is `detached`.
template <class T>
class SparseProjection {
 public:
  using Scalar = T;

  struct Options {
    Index in = 0;
    Index out = 0;
    Index experts = 32;
    Index rank = 1;                    ///< ranks per expert
    Index nonzeros = 0;                ///< p, of each row of A; FlyLoRA: I k / r
    std::optional<double> alpha = {};  ///< unset: scale 1
    Scaling scaling = Scaling::alpha_over_rank;
    Dropout dropout = {};   ///< on the adapter's input
    bool detached = false;  ///< x gets no gradient through A
  };

  struct Parameters {
    Matrix<T> lora_B;

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      f("lora_B", p.lora_B...);
    }
  };

  /// A row by row: the columns of its nonzeros, ascending, and their values.   columns, values [ranks x p]
  struct Projection {
    Matrix<int> columns;
    Matrix<T> values;
  };

  template <std::uniform_random_bit_generator Generator>
  SparseProjection(const Options& options, Generator& generator)
      : blocks_(RankBlocks::uniform(options.experts, options.rank)),
        in_(options.in),
        nonzeros_(options.nonzeros),
        detached_(options.detached) {
    require(options.in >= 1 && options.out >= 1 && options.rank >= 1, ErrorCode::option,
            "SparseProjection: expected in, out and rank of at least 1, found in = ", options.in,
            ", out = ", options.out, ", rank = ", options.rank);
    require(options.nonzeros >= 1 && options.nonzeros <= options.in, ErrorCode::option,
            "SparseProjection: expected nonzeros from 1 to ", options.in, " inputs, found ", options.nonzeros);
    checked_int("SparseProjection: inputs", options.in);
    parameters_.lora_B = Matrix<T>(ranks(), options.out);
    Projection a{Matrix<int>(ranks(), nonzeros()), Matrix<T>(ranks(), nonzeros())};
    for (Index j = 0; j < ranks(); ++j) {
      draw_columns(generator, a.columns.view().row(j));
      for (T& value : a.values.view().row(j)) value = draw_value(generator);
    }
    cut(a);
  }

  void check_sizes() const {
    require_equal(ErrorCode::shape, "SparseProjection: rows of B", ranks(), parameters_.lora_B.rows());
  }

  Index in() const { return in_; }
  Index out() const { return parameters_.lora_B.cols(); }
  Index nonzeros() const { return nonzeros_; }
  bool detached() const { return detached_; }
  const RankBlocks& blocks() const { return blocks_; }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }

  /// A copy of A.
  Projection projection() const;

  /// Sets an A of the same shape. Throws Error(shape) for other sizes, Error(option) unless the columns of each row
  /// ascend within [0, I); A is then unchanged.
  void set_projection(const Projection& a);

  /// Passes copies of A's numbers to f and sets A to them if f changes them; may throw as set_projection().
  template <class F>
  void for_each_state(F&& f) {
    const Projection before = projection();
    Projection after = before;
    f("columns_of_A", after.columns.elements());
    f("values_of_A", after.values.elements());
    if (!same_bits(before.columns, after.columns) || !same_bits(before.values, after.values)) set_projection(after);
  }

  /// Appends the ranks of `other`; `detached` stays. Throws Error(shape) for other sizes or another p; then nothing has
  /// changed. Copies, and slices A anew.
  void append(const SparseProjection& other);

  FactorViews<const T> factors(NoScratch&) const { return {{}, parameters_.lora_B}; }
  FactorViews<T> gradient_views(Parameters& gradients, NoScratch&) const { return {{}, gradients.lora_B}; }

  /// z = x A^T.   x [N x I], z [N x ranks]
  void project(View<const T> x, View<T> z, auto call) const {
    using Arch = kernel::ArchitectureOf<decltype(call.execution)>;
    for_each_chunk(call.execution, x.rows(), [&](Index first, Index tokens) {
      const View<const T> some = x.middle_rows(first, tokens);
      const View<T> to = z.middle_rows(first, tokens);
      if constexpr (!std::is_void_v<Arch>)
        multiply<Arch>(slices_, some, to, false);
      else
        project_plainly(some, to);
    });
  }

  /// d_x += d_z A.   d_z [N x ranks], d_x [N x I]
  void project_backward(View<const T> d_z, View<T> d_x, auto call) const {
    using Arch = kernel::ArchitectureOf<decltype(call.execution)>;
    if (detached_) return;
    for_each_chunk(call.execution, d_z.rows(), [&](Index first, Index tokens) {
      const View<const T> some = d_z.middle_rows(first, tokens);
      const View<T> to = d_x.middle_rows(first, tokens);
      if (is_zero(some)) return;
      if constexpr (!std::is_void_v<Arch>)
        multiply<Arch>(transposed_, some, to, true);
      else
        project_backward_plainly(some, to);
    });
  }

  void add_row(Index rank, T factor, std::span<T> to, NoScratch&) const { add_row(rank, factor, to); }

 private:
  void add_row(Index rank, T factor, std::span<T> to) const {
    slices_.for_each(rank, [&](Index column, T value) { to[std::size_t(column)] += factor * value; });
  }
  Index ranks() const { return blocks_.ranks_down(); }

  /// A uniformly drawn set of columns, ascending.
  /// Source: selection sampling, Knuth, The Art of Computer Programming 2, algorithm 3.4.2 S.
  template <class Generator>
  void draw_columns(Generator& generator, std::span<int> columns) const {
    std::size_t chosen = 0;
    for (Index i = 0; chosen < columns.size(); ++i)
      if (double(in_ - i) * unit_interval(generator()) < double(columns.size() - chosen)) columns[chosen++] = int(i);
  }

  /// N(0, 1 / ranks^2), but never 0.
  template <class Generator>
  T draw_value(Generator& generator) const {
    for (;;)
      if (const T value = T(standard_normal(generator) / double(ranks())); value != 0) return value;
  }

  void check(const Projection& a) const;
  void cut(const Projection& a);

  template <class U>
  static bool same_bits(const Matrix<U>& a, const Matrix<U>& b) {
    return std::memcmp(a.data(), b.data(), std::size_t(a.size()) * sizeof(U)) == 0;
  }

  /// Calls f(first token, tokens) for chunks of about 10 us.
  template <class Execution, class F>
  static void for_each_chunk(const Execution& execution, Index tokens, F f) {
    constexpr Index chunk = 64;
    execution.parallel_for((tokens + chunk - 1) / chunk,
                           [&](Index c) { f(c * chunk, std::min(chunk, tokens - c * chunk)); });
  }

  template <class Arch>
  static void multiply(const kernel::SlicedRows<T>& a, View<const T> x, View<T> out, bool accumulate) {
    kernel::SlicedProducts<Arch, T>{}(a, x.data(), x.stride(), x.rows(), out.data(), out.stride(), accumulate);
  }

  void project_plainly(View<const T> x, View<T> z) const {
    for (Index n = 0; n < x.rows(); ++n)
      for (Index j = 0; j < ranks(); ++j) {
        T sum = 0;
        slices_.for_each(j, [&](Index column, T value) { sum += value * x(n, column); });
        z(n, j) = sum;
      }
  }
  void project_backward_plainly(View<const T> d_z, View<T> d_x) const {
    for (Index n = 0; n < d_z.rows(); ++n)
      for (Index j = 0; j < ranks(); ++j)
        if (d_z(n, j) != 0) add_row(j, d_z(n, j), d_x.row(n));
  }

  static bool is_zero(View<const T> d_z) {
    for (Index n = 0; n < d_z.rows(); ++n)
      for (T element : d_z.row(n))
        if (element != 0) return false;
    return true;
  }

  RankBlocks blocks_;
  Index in_ = 0, nonzeros_ = 0;
  bool detached_ = false;
  Parameters parameters_;
  kernel::SlicedRows<T> slices_, transposed_;
};

template <class T>
auto SparseProjection<T>::projection() const -> Projection {
  Projection a{Matrix<int>(ranks(), nonzeros()), Matrix<T>(ranks(), nonzeros())};
  for (Index j = 0; j < ranks(); ++j) {
    Index k = 0;
    slices_.for_each(j, [&](Index column, T value) {
      a.columns(j, k) = int(column);
      a.values(j, k++) = value;
    });
  }
  return a;
}

template <class T>
void SparseProjection<T>::set_projection(const Projection& a) {
  check(a);
  cut(a);
}

template <class T>
void SparseProjection<T>::check(const Projection& a) const {
  for (const auto& [rows, cols] : {std::pair{a.columns.rows(), a.columns.cols()}, {a.values.rows(), a.values.cols()}}) {
    require_equal(ErrorCode::shape, "SparseProjection: rows of A", ranks(), rows);
    require_equal(ErrorCode::shape, "SparseProjection: non-zeros of a row of A", nonzeros(), cols);
  }
  for (Index j = 0; j < ranks(); ++j)
    for (Index k = 0, least = 0; k < nonzeros(); least = a.columns(j, k++) + 1)
      require(a.columns(j, k) >= least && a.columns(j, k) < in_, ErrorCode::option,
              "SparseProjection: expected a column from ", least, " to ", in_ - 1, " in row ", j, " of A, found ",
              a.columns(j, k));
}

template <class T>
void SparseProjection<T>::append(const SparseProjection& other) {
  require_equal(ErrorCode::shape, "SparseProjection: inputs of what is appended", in(), other.in());
  require_equal(ErrorCode::shape, "SparseProjection: outputs of what is appended", out(), other.out());
  require_equal(ErrorCode::shape, "SparseProjection: non-zeros of a row of what is appended", nonzeros(),
                other.nonzeros());
  const Projection above = projection(), below = other.projection();
  SparseProjection whole = *this;  // which may run out of memory
  whole.parameters_.lora_B = stacked(parameters_.lora_B, other.parameters_.lora_B);
  whole.blocks_ = blocks_.followed_by(other.blocks_);
  whole.cut({stacked(above.columns, below.columns), stacked(above.values, below.values)});
  *this = std::move(whole);
}

/// Slices A and its transpose, given A's rows.
template <class T>
void SparseProjection<T>::cut(const Projection& a) {
  std::vector<int> row_begin(std::size_t(ranks()) + 1), column_begin(std::size_t(in_) + 1);
  for (std::size_t j = 0; j < row_begin.size(); ++j)
    row_begin[j] = checked_int("SparseProjection: non-zeros of A", Index(j) * nonzeros());
  slices_ = kernel::SlicedRows<T>(in_, row_begin, a.columns.elements(), a.values.elements());

  for (int i : a.columns.elements()) ++column_begin[std::size_t(i) + 1];
  for (std::size_t i = 0; i < std::size_t(in_); ++i) column_begin[i + 1] += column_begin[i];
  std::vector<int> rank(a.columns.elements().size()), next = column_begin;
  std::vector<T> value(rank.size());
  for (Index j = 0; j < ranks(); ++j)
    for (Index k = 0; k < nonzeros(); ++k) {
      const auto at = std::size_t(next[std::size_t(a.columns(j, k))]++);
      rank[at] = int(j);
      value[at] = a.values(j, k);
    }
  transposed_ = kernel::SlicedRows<T>(ranks(), column_begin, rank, value);
}

static_assert(StreamedFactorPolicy<SparseProjection<float>>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
