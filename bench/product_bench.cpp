// SPDX-License-Identifier: MIT
// The dense products, beside Eigen's expressions on the same operands and beside plain loops.
#include "bench/support/counters.hpp"
#include "bench/support/seconds_per_run.hpp"
#include "mole/execution/reference.hpp"
#include "mole/execution/simd.hpp"
#include "mole/execution/through_eigen.hpp"
#include "tests/support/random_matrix.hpp"

namespace {

using T = float;
using mole::Matrix;

/// Operands of a layer of d inputs and d outputs: x, y [T x d], w [d x d].
struct Operands {
  explicit Operands(const benchmark::State& state)
      : tokens(state.range(0)),
        d(state.range(1)),
        x(support::random_matrix<T>(tokens, d, 1)),
        y(support::random_matrix<T>(tokens, d, 2)),
        w(support::random_matrix<T>(d, d, 3)) {}

  /// A product that reads and writes `elements` numbers.
  support::Work work(double elements) const {
    return {double(tokens), 2.0 * double(tokens) * double(d) * double(d), double(sizeof(T)) * elements};
  }
  double activations() const { return double(x.size()); }
  double weights() const { return double(w.size()); }

  mole::Index tokens, d;
  Matrix<T> x, y, w;
};

/// y = x w^T
template <class Execution>
void product_nt(benchmark::State& state) {
  Operands o(state);
  const double seconds =
      support::seconds_per_run(state, [&] { Execution{}.template product_nt<T>(o.x.view(), o.w.view(), o.y.view()); });
  support::set_counters<T>(state, o.work(2 * o.activations() + o.weights()), seconds);
}

/// x += y w
template <class Execution>
void product_nn(benchmark::State& state) {
  Operands o(state);
  const double seconds =
      support::seconds_per_run(state, [&] { Execution{}.template product_nn<T>(o.y.view(), o.w.view(), o.x.view()); });
  support::set_counters<T>(state, o.work(3 * o.activations() + o.weights()), seconds);
}

/// w += y^T x
template <class Execution>
void product_tn(benchmark::State& state) {
  Operands o(state);
  const double seconds =
      support::seconds_per_run(state, [&] { Execution{}.template product_tn<T>(o.y.view(), o.x.view(), o.w.view()); });
  support::set_counters<T>(state, o.work(2 * o.activations() + 2 * o.weights()), seconds);
}

using Family = benchmark::internal::Benchmark;

void all_sizes(Family* family) {
  family->ArgNames({"T", "d"})->ArgsProduct({{1, 8, 16, 64, 512, 2048}, {128, 768, 2048}});
}
void some_sizes(Family* family) {
  family->ArgNames({"T", "d"})->ArgsProduct({{1, 16, 512}, {128, 768}});
}
void one_size(Family* family) {
  family->ArgNames({"T", "d"})->Args({16, 128});
}

BENCHMARK(product_nt<mole::Simd<>>)->Name("product_nt/simd")->Apply(all_sizes);
BENCHMARK(product_nt<mole::ThroughEigen>)->Name("product_nt/eigen")->Apply(all_sizes);
BENCHMARK(product_nt<mole::Reference>)->Name("product_nt/reference")->Apply(one_size);

BENCHMARK(product_nn<mole::Simd<>>)->Name("product_nn/simd")->Apply(some_sizes);
BENCHMARK(product_nn<mole::ThroughEigen>)->Name("product_nn/eigen")->Apply(some_sizes);
BENCHMARK(product_nn<mole::Reference>)->Name("product_nn/reference")->Apply(one_size);

BENCHMARK(product_tn<mole::Simd<>>)->Name("product_tn/simd")->Apply(some_sizes);
BENCHMARK(product_tn<mole::ThroughEigen>)->Name("product_tn/eigen")->Apply(some_sizes);
BENCHMARK(product_tn<mole::Reference>)->Name("product_tn/reference")->Apply(one_size);

}  // namespace
