// SPDX-License-Identifier: MIT
// What makes or changes parameters: the optimizer's step, and bases from a counter.
#include "bench/kernels/kernel_case.hpp"
#include "mole/core/random.hpp"
#include "mole/kernel/adamw_update.hpp"
#include "mole/kernel/uniform_columns.hpp"
#include "tests/support/random_matrix.hpp"

#include <cmath>

namespace bench {

namespace {

using T = float;
using mole::Matrix;

/// A or B of E experts of r ranks.
struct AdamWStep {
  AdamWStep(Index experts, Index rank, Index d)
      : p(support::random_matrix<T>(experts * rank, d, 1)),
        g(support::random_matrix<T>(experts * rank, d, 2)),
        m(experts * rank, d),
        v(experts * rank, d) {}

  void kernel() { update(p.data(), g.data(), m.data(), v.data(), p.size()); }
  void plain() {
    const auto u = update;
    T* const to = p.data();
    T* const first = m.data();
    T* const second = v.data();
    for (Index i = 0; i < p.size(); ++i) {
      const T d = g.data()[i];
      first[i] = u.beta1 * first[i] + u.rest1 * d;
      second[i] = u.beta2 * second[i] + u.rest2 * d * d;
      to[i] -= u.rate * first[i] / (std::sqrt(second[i]) * u.root_scale + u.epsilon) + u.decay * to[i];
    }
  }
  /// Reads p, g, m, v and writes all but g; 14 operations a number, the root and the division one each.
  Work work() const {
    const double bytes = double(sizeof(T)) * double(p.size());
    return {0, 14.0 * double(p.size()), 7 * bytes, 3 * bytes};
  }

  mole::kernel::AdamWUpdate<xsimd::default_arch, T> update{.beta1 = T(0.9),
                                                           .rest1 = T(0.1),
                                                           .beta2 = T(0.999),
                                                           .rest2 = T(0.001),
                                                           .rate = T(1e-3),
                                                           .decay = T(1e-5),
                                                           .root_scale = T(1.5),
                                                           .epsilon = T(1e-8)};
  Matrix<T> p, g, m, v;
};

/// A tile of a random basis, as RandomBasis and DiagonalBases make it: two products of 64 bits for two numbers.
struct UniformTile {
  explicit UniformTile(Index columns) : to(1, columns) {}

  void kernel() { mole::kernel::UniformColumns<xsimd::default_arch, T>{}(row++, 0, 0.7, to.data(), to.cols()); }
  void plain() { mole::fill_uniform_columns(row++, 0, 0.7, to.view().row(0)); }
  Work work() const {
    const double bytes = double(sizeof(T)) * double(to.cols());
    return {0, 5.0 * double(to.cols()), bytes, bytes};
  }

  Matrix<T> to;
  std::uint64_t row = 1;
};

}  // namespace

std::vector<KernelCase> update_cases() {
  std::vector<KernelCase> cases;
  add_cases<AdamWStep, 3>(cases, "adamw_update", {"E", "r", "d"},
                          {{1, 8, 768}, {8, 8, 768}, {64, 8, 768}, {1, 8, 2048}, {8, 8, 2048}, {64, 8, 2048}});
  add_cases<UniformTile, 1>(cases, "uniform_columns", {"cols"}, {{64}, {512}});
  return cases;
}

}  // namespace bench
