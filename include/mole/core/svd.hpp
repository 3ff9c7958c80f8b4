// SPDX-License-Identifier: MIT
// svd(): the singular values and vectors of a dense matrix.
#pragma once

#include "mole/core/qr.hpp"

#include <limits>
#include <numeric>

#include "mole/core/macros_off.hpp"

namespace mole {

/// m = u diag(s) v^T.   u [rows x k], v [cols x k], u^T u = v^T v = 1; s [k], descending, none below 0
template <class T>
struct Svd {
  Matrix<T> u;
  std::vector<T> s;
  Matrix<T> v;
};

namespace detail {

/// Rotates pairs of the rows of a square matrix until all are orthogonal: J m = diag(s) V^T.
class OneSidedJacobi {
 public:
  explicit OneSidedJacobi(Matrix<double> rows) : rows_(std::move(rows)), rotations_(rows_.rows(), rows_.rows()) {
    for (Index i = 0; i < size(); ++i) rotations_(i, i) = 1;
    // Ten sweeps are many: convergence is quadratic once rows are nearly orthogonal.
    for (int sweep = 0; sweep < 60 && !orthogonalized(); ++sweep) {
    }
    sort();
    for (Index i = 0; i < size(); ++i) s_.push_back(std::sqrt(squares_[std::size_t(i)]));
    for (Index i = 0; i < size(); ++i) normalize(i);
  }

  Index size() const { return rows_.rows(); }
  const std::vector<double>& s() const { return s_; }
  const Matrix<double>& rows_of_v() const { return rows_; }       // [k x k]
  const Matrix<double>& rotations() const { return rotations_; }  // [k x k]

 private:
  static constexpr double vanished = 1e-280;  // of a square, where the largest number is near 1

  double square(Index i) const { return dot(rows_.view().row_data(i), rows_.view().row_data(i), size()); }

  /// One sweep over all pairs, the longest rows first, as in de Rijk 1989. True if all were orthogonal.
  bool orthogonalized() {
    const double allowed = 4 * std::numeric_limits<double>::epsilon() * std::sqrt(double(size()));
    squares_.clear();
    for (Index i = 0; i < size(); ++i) squares_.push_back(square(i));
    bool all = true;
    for (Index p = 0; p + 1 < size(); ++p) {
      const auto from = squares_.begin() + p;
      exchange(p, p + (std::max_element(from, squares_.end()) - from));
      for (Index q = p + 1; q < size(); ++q) {
        const double pp = squares_[std::size_t(p)], qq = squares_[std::size_t(q)];
        if (pp <= vanished || qq <= vanished) continue;
        const double pq = dot(rows_.view().row_data(p), rows_.view().row_data(q), size());
        if (std::abs(pq) <= allowed * std::sqrt(pp) * std::sqrt(qq)) continue;
        all = false;
        rotate(p, q, (qq - pp) / (2 * pq));
      }
    }
    return all;
  }

  /// By the angle that makes rows p and q orthogonal, from its cotangent of twice the angle; the smaller of two.
  void rotate(Index p, Index q, double cotangent) {
    const double tangent = std::copysign(1 / (std::abs(cotangent) + std::hypot(1.0, cotangent)), cotangent);
    const double cosine = 1 / std::hypot(1.0, tangent), sine = cosine * tangent;
    for (Matrix<double>* m : {&rows_, &rotations_}) {
      double *const of_p = m->view().row_data(p), *const of_q = m->view().row_data(q);
      for (Index i = 0; i < size(); ++i) {
        const double a = of_p[i], b = of_q[i];
        of_p[i] = cosine * a - sine * b;
        of_q[i] = sine * a + cosine * b;
      }
    }
    squares_[std::size_t(p)] = square(p);
    squares_[std::size_t(q)] = square(q);
  }

  void exchange(Index p, Index q) {
    if (p == q) return;
    std::swap(squares_[std::size_t(p)], squares_[std::size_t(q)]);
    for (Matrix<double>* m : {&rows_, &rotations_})
      std::swap_ranges(m->view().row_data(p), m->view().row_data(p) + size(), m->view().row_data(q));
  }
  void sort() {
    for (Index i = 0; i < size(); ++i) {
      const auto from = squares_.begin() + i;
      exchange(i, i + (std::max_element(from, squares_.end()) - from));
    }
  }

  /// Row i of V^T; one of a singular value of 0 is any that is orthogonal to those before.
  void normalize(Index i) {
    double* const row = rows_.view().row_data(i);
    if (squares_[std::size_t(i)] > vanished) {
      for (Index c = 0; c < size(); ++c) row[c] /= s_[std::size_t(i)];
      return;
    }
    s_[std::size_t(i)] = 0;
    for (Index unit = 0; unit < size(); ++unit) {
      std::fill_n(row, size(), 0.0);
      row[unit] = 1;
      for (int twice = 0; twice < 2; ++twice)
        for (Index j = 0; j < i; ++j) {
          const double* const other = rows_.view().row_data(j);
          const double along = dot(row, other, size());
          for (Index c = 0; c < size(); ++c) row[c] -= along * other[c];
        }
      const double length = std::sqrt(square(i));
      if (length * length * double(size()) < 0.25) continue;  // of some unit vector no less is left
      for (Index c = 0; c < size(); ++c) row[c] /= length;
      return;
    }
  }

  Matrix<double> rows_, rotations_;
  std::vector<double> squares_, s_;
};

/// Of a matrix with at least as many rows as columns.
template <class T>
Svd<T> svd_of_tall(const char* who, View<const T> m) {
  const int exponent = exponent_of(who, m);
  Matrix<double> columns = scaled_columns(m, exponent);
  const HouseholderReflections reflections(columns);
  // Columns of R^T are nearer to orthogonal than those of R, and here they are rows: J R = diag(s) V^T, U = Q J^T.
  const View<const double> r_transposed(columns.data(), m.cols(), m.cols(), columns.cols());
  const OneSidedJacobi jacobi(transposed(r_transposed));
  const Matrix<double> u = product(jacobi.rotations(), reflections.columns_of_q());  // [k x rows]
  Svd<T> result{Matrix<T>(m.rows(), m.cols()), {}, Matrix<T>(m.cols(), m.cols())};
  for (const double s : jacobi.s()) result.s.push_back(T(std::ldexp(s, exponent)));
  for (Index j = 0; j < m.cols(); ++j) {
    for (Index r = 0; r < m.rows(); ++r) result.u(r, j) = T(u(j, r));
    for (Index c = 0; c < m.cols(); ++c) result.v(c, j) = T(jacobi.rows_of_v()(j, c));
  }
  return result;
}

}  // namespace detail

/// m = u diag(s) v^T, all of it, with k = min(rows, cols).
///
///   m [rows x cols]   ->   u [rows x k], s [k] descending, v [cols x k]
///
/// u and v are orthonormal whatever the rank of m. The signs of a pair (u_j, v_j) are arbitrary, and so are the vectors
/// of equal singular values. Computed in double whatever T, for numbers of any size; singular values below 1e-140 of
/// the largest come out as 0. Throws Error(option) for a number that is not finite.
/// O(max min^2) for the triangular factor, O(min^3) in each of about ten sweeps; allocates. 0.13 s for 256 x 256, 1.0 s
/// for 512 x 512.  Offline. For a few singular values of a large matrix, or of one that is never formed:
/// randomized_svd().
/// Source: one-sided Jacobi of the triangular factor: Hestenes 1958; de Rijk 1989; Drmac and Veselic 2008.
template <class T>
requires std::floating_point<T> Svd<T> svd(View<const T> m) {
  if (m.rows() >= m.cols()) return detail::svd_of_tall("svd", m);
  const Matrix<T> turned = detail::transposed(m);
  Svd<T> result = detail::svd_of_tall("svd", turned.view());
  std::swap(result.u, result.v);
  return result;
}
template <class T>
Svd<T> svd(const Matrix<T>& m) {
  return svd(m.view());
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
