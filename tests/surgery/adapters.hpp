// SPDX-License-Identifier: MIT
// Adapters that tests of merging share, and their sums in plain loops.
#pragma once

#include "mole/surgery/weighted_adapter.hpp"
#include "support/norms.hpp"
#include "support/random_matrix.hpp"

#include <vector>

namespace mole::test {

inline constexpr Index adapter_in = 11, adapter_out = 9;

template <class T>
std::vector<Adapter<T>> random_adapters(const std::vector<Index>& ranks, const std::vector<double>& scales,
                                        std::uint64_t seed = 1, Index in = adapter_in, Index out = adapter_out) {
  std::vector<Adapter<T>> adapters;
  for (std::size_t i = 0; i < ranks.size(); ++i)
    adapters.push_back({support::random_matrix<T>(ranks[i], in, seed + 2 * i),
                        support::random_matrix<T>(ranks[i], out, seed + 2 * i + 1), scales[i]});
  return adapters;
}

template <class T>
std::vector<WeightedAdapter<T>> weighted(const std::vector<Adapter<T>>& adapters, const std::vector<double>& weights) {
  std::vector<WeightedAdapter<T>> result;
  for (std::size_t i = 0; i < adapters.size(); ++i) result.emplace_back(adapters[i], weights[i]);
  return result;
}

/// factor scale B^T A is added to `update`.   [O x I]
template <class T>
void add_update(const Adapter<T>& adapter, double factor, Matrix<double>& update) {
  for (Index o = 0; o < update.rows(); ++o)
    for (Index i = 0; i < update.cols(); ++i)
      for (Index j = 0; j < adapter.rank(); ++j)
        update(o, i) += factor * adapter.scale * double(adapter.b(j, o)) * double(adapter.a(j, i));
}

template <class T>
Matrix<double> update_of(const Adapter<T>& adapter) {
  Matrix<double> update(adapter.out(), adapter.in());
  add_update(adapter, 1, update);
  return update;
}

/// sum_i w_i s_i B_i^T A_i
template <class T>
Matrix<double> update_of(const std::vector<Adapter<T>>& adapters, const std::vector<double>& weights) {
  Matrix<double> update(adapters[0].out(), adapters[0].in());
  for (std::size_t i = 0; i < adapters.size(); ++i) add_update(adapters[i], weights[i], update);
  return update;
}

/// ||found - expected|| / ||expected||
inline double relative_distance(const Matrix<double>& found, const Matrix<double>& expected) {
  return support::norm(support::difference(found, expected)) / support::norm(expected);
}

}  // namespace mole::test
