// SPDX-License-Identifier: MIT
// leading_directions(): the first singular values and vectors of a weight, all exact or by random projection.
#pragma once

#include "mole/core/randomized_svd.hpp"
#include "mole/core/row.hpp"

#include <cstdint>
#include <optional>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// How many singular triplets, and how exact.
struct DirectionsOptions {
  Index count = 8;                             ///< at most; min(rows, cols) bounds it, too
  std::optional<Index> power_iterations = {};  ///< of a random projection; unset: all of svd(), which is exact
  std::uint64_t seed = 0;                      ///< of the projection
};

/// weight [O x I] = u diag(s) v^T:   u [O x count], s [count] descending, v [I x count]
///
/// Cost: svd()'s, which is 1 s for 512 x 512 and grows with the cube; with power_iterations p, 2 + 2 p products of the
/// weight with count + 10 vectors. With power_iterations it throws as randomized_svd(), else as svd().
/// Offline.
template <class T>
Svd<double> leading_directions(View<const T> weight, const DirectionsOptions& options) {
  if (!options.power_iterations) {
    const Svd<double> all = svd(detail::converted<double>(weight));
    const Index count = std::min(options.count, Index(all.s.size()));
    Svd<double> result{Matrix<double>(weight.rows(), count),
                       {all.s.begin(), all.s.begin() + count},
                       Matrix<double>(weight.cols(), count)};
    copy(all.u.view().middle_cols(0, count), result.u.view());
    copy(all.v.view().middle_cols(0, count), result.v.view());
    return result;
  }
  std::vector<double> row(std::size_t(weight.cols()));
  const auto for_each_row = [&](auto&& use) {
    for (Index o = 0; o < weight.rows(); ++o) {
      std::copy_n(weight.row_data(o), row.size(), row.begin());
      use(o);
    }
  };
  const auto times = [&](View<const double> x, View<double> y) {
    for_each_row([&](Index o) {
      for (Index n = 0; n < x.rows(); ++n) y(n, o) = detail::dot(x.row_data(n), row.data(), x.cols());
    });
  };
  const auto times_transposed = [&](View<const double> y, View<double> x) {
    fill(x, 0.0);
    for_each_row([&](Index o) {
      for (Index n = 0; n < y.rows(); ++n) detail::add_scaled(y(n, o), row.data(), x.row_data(n), x.cols());
    });
  };
  Rng generator(options.seed);
  return randomized_svd(weight.rows(), weight.cols(), times, times_transposed,
                        {.rank = options.count, .power_iterations = *options.power_iterations}, generator);
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
