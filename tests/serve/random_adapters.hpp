// SPDX-License-Identifier: MIT
// random_adapter(), Tenants, expected_rows(): adapters of random numbers, and what a batch of them gives in plain
// loops.
#pragma once

#include "mole/serve/multi_adapter_linear.hpp"
#include "support/random_matrix.hpp"

#include <limits>
#include <memory>
#include <vector>

namespace mole::test {

template <class T = float>
Adapter<T> random_adapter(Index in, Index out, Index rank, std::uint64_t seed) {
  return {support::random_matrix<T>(rank, in, seed), support::random_matrix<T>(rank, out, seed + 1'000'000),
          0.25 + double(seed % 7) / 8};
}

/// With NaN everywhere: nothing of it may reach a row of another adapter.
template <class T = float>
Adapter<T> poison(Index in, Index out, Index rank) {
  Adapter<T> adapter{Matrix<T>(rank, in), Matrix<T>(rank, out)};
  fill(adapter.a.view(), std::numeric_limits<T>::quiet_NaN());
  fill(adapter.b.view(), std::numeric_limits<T>::quiet_NaN());
  return adapter;
}

/// y_n = W x_n + b + scale B^T (A x_n), in long double; null stands for the base.
template <class T>
Matrix<long double> expected_rows(const Matrix<T>& weight, const Matrix<T>& bias, const Matrix<T>& x,
                                  const std::vector<const Adapter<T>*>& adapters) {
  using Wide = long double;
  Matrix<Wide> y(x.rows(), weight.rows());
  for (Index n = 0; n < x.rows(); ++n) {
    for (Index o = 0; o < y.cols(); ++o) {
      y(n, o) = bias.empty() ? Wide(0) : Wide(bias(0, o));
      for (Index i = 0; i < x.cols(); ++i) y(n, o) += Wide(weight(o, i)) * Wide(x(n, i));
    }
    const Adapter<T>* const adapter = adapters[std::size_t(n)];
    for (Index k = 0; adapter != nullptr && k < adapter->rank(); ++k) {
      Wide h = 0;
      for (Index i = 0; i < x.cols(); ++i) h += Wide(adapter->a(k, i)) * Wide(x(n, i));
      for (Index o = 0; o < y.cols(); ++o) y(n, o) += Wide(adapter->scale) * h * Wide(adapter->b(k, o));
    }
  }
  return y;
}

/// A table of one site with an adapter k of rank ranks[k] for each.
template <class T>
struct Tenants {
  Tenants(Index in, Index out, const std::vector<Index>& ranks)
      : table({.sites = {{in, out}}, .max_adapters = 1000, .max_rank = 200}) {
    for (std::size_t k = 0; k < ranks.size(); ++k)
      table.add(int(k), ServedAdapter<T>(random_adapter<T>(in, out, ranks[k], k)));
  }
  std::vector<const Adapter<T>*> adapters(const std::vector<int>& ids) const {
    std::vector<const Adapter<T>*> found;
    const auto now = table.lease();
    for (int id : ids) found.push_back(id < 0 ? nullptr : &now->find(id)->site(0));
    return found;
  }
  AdapterTable<T> table;
};

}  // namespace mole::test
