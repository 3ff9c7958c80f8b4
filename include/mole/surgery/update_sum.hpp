// SPDX-License-Identifier: MIT
// UpdateSum: a weighted sum of updates, as stacked factors of which [O x I] is never formed.
#pragma once

#include "mole/core/svd.hpp"
#include "mole/surgery/weighted_adapter.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// S = sum_i factor_i B_i^T A_i, in double:
///
///   A = [A_1; A_2; ...] [R x I]   B = [factor_1 B_1; factor_2 B_2; ...] [R x O]
///
/// A product with S takes R (I + O) multiply-adds per row. norms() and svd() cost O((I + O) R^2 + R^3) for R up to I
/// and O. Matrices of other sizes throw Error(shape).  Offline.
class UpdateSum {
 public:
  UpdateSum(Index in, Index out) : a_(0, in), b_(0, out) {}

  /// sum_i w_i s_i B_i^T A_i.  Throws Error(option) for no adapter.
  template <class T>
  static UpdateSum of(const std::vector<WeightedAdapter<T>>& adapters) {
    require(!adapters.empty(), ErrorCode::option, "UpdateSum: expected at least 1 adapter, found 0");
    UpdateSum sum(adapters.front().in(), adapters.front().out());
    for (const auto& adapter : adapters) sum.add(adapter.factor(), adapter.a, adapter.b);
    return sum;
  }

  /// += factor b^T a.   a [r x I], b [r x O]
  template <class T>
  void add(double factor, View<const T> a, View<const T> b) {
    require_equal(ErrorCode::shape, "UpdateSum: columns of A", in(), a.cols());
    require_equal(ErrorCode::shape, "UpdateSum: columns of B", out(), b.cols());
    require_equal(ErrorCode::shape, "UpdateSum: rows of B, as many as of A", a.rows(), b.rows());
    a_ = stacked(a_, detail::converted<double>(a));
    Matrix<double> weighted = detail::converted<double>(b);
    for (double& value : weighted.elements()) value *= factor;
    b_ = stacked(b_, weighted);
  }
  template <class T>
  void add(double factor, const Adapter<T>& adapter) {
    add(factor * adapter.scale, adapter.a.view(), adapter.b.view());
  }

  Index in() const { return a_.cols(); }
  Index out() const { return b_.cols(); }
  Index ranks() const { return a_.rows(); }

  /// y = x S^T.   x [n x I], y [n x O]
  void times(View<const double> x, View<double> y) const {
    require_sizes(x, y);
    const Matrix<double> z = detail::product_nt(x, a_);
    copy<double>(detail::product(z, b_), y);
  }
  /// x = y S.   y [n x O], x [n x I]
  void times_transposed(View<const double> y, View<double> x) const {
    require_sizes(x, y);
    const Matrix<double> z = detail::product_nt(y, b_);
    copy<double>(detail::product(z, a_), x);
  }

  /// The Frobenius norm of S.
  double norm() const { return norms(ranks())[0]; }
  /// That of its first `first` ranks, and that of all.  Throws Error(option) unless 0 <= first <= ranks().
  std::array<double, 2> norms(Index first) const {
    require(first >= 0 && first <= ranks(), ErrorCode::option, "UpdateSum: expected from 0 to ", ranks(),
            " first ranks, found ", first);
    const Matrix<double> a = detail::triangle_of_rows(a_), b = detail::triangle_of_rows(b_);
    const auto norm_of = [&](Index count) {
      const Matrix<double> core = detail::product_nt(b.view().middle_cols(0, count), a.view().middle_cols(0, count));
      return std::sqrt(detail::inner(core, core));
    };
    return {norm_of(first), norm_of(ranks())};
  }

  /// All of S that is not 0: min(R, I, O) triplets, u [O x k], s [k], v [I x k].
  Svd<double> svd() const {
    const Reduced r = reduced();
    Svd<double> inner = mole::svd(r.core);
    return {detail::product(r.of_out, inner.u), std::move(inner.s), detail::product(r.of_in, inner.v)};
  }

  /// S itself.   [O x I]
  Matrix<double> dense() const { return detail::product(detail::transposed(b_), a_); }

 private:
  void require_sizes(const View<const double>& x, const View<const double>& y) const {
    require_equal(ErrorCode::shape, "UpdateSum: columns of x", in(), x.cols());
    require_equal(ErrorCode::shape, "UpdateSum: columns of y", out(), y.cols());
    require_equal(ErrorCode::shape, "UpdateSum: rows of y, as many as of x", x.rows(), y.rows());
  }

  /// S = of_out core of_in^T, both with orthonormal columns.
  struct Reduced {
    Matrix<double> of_out, core, of_in;
  };
  Reduced reduced() const {
    Qr<double> a = qr(detail::transposed(a_)), b = qr(detail::transposed(b_));
    Matrix<double> core = detail::product_nt(b.r, a.r);
    return {std::move(b.q), std::move(core), std::move(a.q)};
  }

  Matrix<double> a_, b_;
};

namespace detail {

/// A relative error: 0 for 0 of 0, infinite for anything else of 0.
inline double ratio_of_norms(double difference, double norm) {
  if (norm == 0) return difference == 0 ? 0 : std::numeric_limits<double>::infinity();
  return difference / norm;
}

/// ||merged - sum|| / ||sum||
template <class T>
double relative_error(const Adapter<T>& merged, UpdateSum sum) {
  const Index ranks = sum.ranks();
  sum.add(-1, merged);
  const auto [norm, difference] = sum.norms(ranks);
  return ratio_of_norms(difference, norm);
}

/// `adapter`, and how far it is from the weighted sum of `adapters`.
template <class T>
MergedAdapter<T> with_error(Adapter<T> adapter, const std::vector<WeightedAdapter<T>>& adapters) {
  const double error = relative_error(adapter, UpdateSum::of(adapters));
  return {std::move(adapter), error};
}

/// The first `rank` triplets as an adapter:   A = V^T, B = diag(s) U^T / scale.  Ranks beyond the number of triplets
/// are 0.
template <class T>
Adapter<T> truncated(const Svd<double>& svd, Index rank, double scale) {
  Adapter<T> adapter{Matrix<T>(rank, svd.v.rows()), Matrix<T>(rank, svd.u.rows()), scale};
  for (Index j = 0; j < std::min(rank, Index(svd.s.size())); ++j) {
    for (Index i = 0; i < adapter.in(); ++i) adapter.a(j, i) = T(svd.v(i, j));
    for (Index o = 0; o < adapter.out(); ++o) adapter.b(j, o) = T(svd.s[std::size_t(j)] * svd.u(o, j) / scale);
  }
  return adapter;
}

/// `rank`, an option named `what`, or for 0 the largest rank of the adapters.
template <class T>
Index rank_or_largest(std::string_view who, std::string_view what, Index rank,
                      const std::vector<WeightedAdapter<T>>& adapters) {
  require(rank >= 0, ErrorCode::option, who, ": expected ", what, " of at least 1, or 0 for the largest rank of the ",
          "adapters, found ", rank);
  if (rank > 0) return rank;
  for (const auto& adapter : adapters) rank = std::max(rank, adapter.rank());
  return rank;
}

}  // namespace detail

}  // namespace mole

#include "mole/core/macros_on.hpp"
