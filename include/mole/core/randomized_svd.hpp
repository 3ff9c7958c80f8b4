// SPDX-License-Identifier: MIT
// randomized_svd(): the leading singular values and vectors of a matrix that is only multiplied with.
#pragma once

#include "mole/core/random.hpp"
#include "mole/core/svd.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

struct RandomizedSvdOptions {
  Index rank = 8;              ///< singular values to return, at most
  Index oversampling = 10;     ///< directions searched beyond them
  Index power_iterations = 2;  ///< each costs two products, and lets the range forget small singular values
};

namespace detail {
/// Orthonormal rows that span those of m, which has no more rows than columns.
inline Matrix<double> orthonormal_rows(Matrix<double> m) {
  const int exponent = exponent_of("randomized_svd: products", View<const double>(m));
  for (double& value : m.elements()) value = std::ldexp(value, -exponent);
  return HouseholderReflections(m).columns_of_q();
}
}  // namespace detail

/// The first `rank` singular triplets of m [rows x cols], of which only products are known:
///
///   times(x, y)              y = x m^T    x [n x cols], y [n x rows]; as a linear layer with weight m
///   times_transposed(y, x)   x = y m      y [n x rows], x [n x cols]
///   ->   u [rows x rank], s [rank] descending, v [cols x rank]; rank is at most min(rows, cols)
///
/// Both get View<const double> and View<double>, whose numbers they overwrite, and n <= rank + oversampling. Exact to
/// the rounding for a matrix of at most rank + oversampling = l. Otherwise each power iteration brings what is found
/// nearer to the leading directions by (s_{l+1} / s_rank)^2. The result is a function of the generator's state. Throws
/// Error(option) for a rank below 1, negative options, or products that are not finite. 2 + 2 power_iterations
/// products, and O((rows + cols) l^2); allocates.  Offline.
/// Source: Halko, Martinsson and Tropp 2011, arXiv:0909.4061, algorithms 4.4 and 5.1.
template <class Times, class TimesTransposed, std::uniform_random_bit_generator Generator>
Svd<double> randomized_svd(Index rows, Index cols, Times&& times, TimesTransposed&& times_transposed,
                           const RandomizedSvdOptions& options, Generator& generator) {
  require(rows >= 0 && cols >= 0, ErrorCode::option, "randomized_svd: expected sizes of at least 0, found ", rows,
          " x ", cols);
  require(options.rank >= 1, ErrorCode::option, "randomized_svd: expected a rank of at least 1, found ", options.rank);
  require(options.oversampling >= 0 && options.power_iterations >= 0, ErrorCode::option,
          "randomized_svd: expected oversampling and power_iterations of at least 0, found ", options.oversampling,
          " and ", options.power_iterations);
  const Index most = std::min(rows, cols), rank = std::min(options.rank, most);
  const Index searched = options.oversampling < most - rank ? rank + options.oversampling : most;
  Matrix<double> x(searched, cols), y(searched, rows);
  for (double& value : x.elements()) value = standard_normal(generator);
  const auto to_y = [&] { times(View<const double>(x.view()), y.view()); };
  const auto to_x = [&] { times_transposed(View<const double>(y.view()), x.view()); };
  to_y();
  for (Index i = 0; i < options.power_iterations; ++i) {
    y = detail::orthonormal_rows(std::move(y));
    to_x();
    x = detail::orthonormal_rows(std::move(x));
    to_y();
  }
  y = detail::orthonormal_rows(std::move(y));
  to_x();  // m = y^T (y m), as far as the rows of y span its range
  const Svd<double> inner = svd(x);
  Svd<double> result{Matrix<double>(rows, rank), {inner.s.begin(), inner.s.begin() + rank}, Matrix<double>(cols, rank)};
  for (Index j = 0; j < rank; ++j) {
    for (Index c = 0; c < cols; ++c) result.v(c, j) = inner.v(c, j);
    for (Index l = 0; l < searched; ++l)
      for (Index r = 0; r < rows; ++r) result.u(r, j) += inner.u(l, j) * y(l, r);
  }
  return result;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
