// SPDX-License-Identifier: MIT
// Bases of reduced storage against DenseBase, with the same weight: y = x W^T and d_x += d_y W. The counter `plain` is
// the time over that of DenseBase, in alternating slices.
//
// Tried without success: tiles of eight rows for one token (more pointers than registers; g++ 12 kept the sums in
// memory). What helped: four rows per tile, unrolled with constants, and prefetching the next rows one tile ahead.
#include "bench/layers/counters.hpp"
#include "bench/machine/alternation.hpp"
#include "bench/machine/seconds_per_run.hpp"
#include "mole/base/bf16_base.hpp"
#include "mole/base/dense_base.hpp"
#include "mole/base/half_base.hpp"
#include "mole/base/int8_block_base.hpp"
#include "mole/base/int8_row_base.hpp"
#include "mole/base/nf4_base.hpp"
#include "mole/base/q8_base.hpp"
#include "mole/execution/simd.hpp"
#include "tests/support/random_matrix.hpp"

namespace {

using mole::Matrix;

/// A base of d inputs and d outputs, T tokens, and a call of the default execution.
template <class Base>
struct Operands {
  template <class Make>
  Operands(const benchmark::State& state, Make make)
      : tokens(state.range(0)),
        d(state.range(1)),
        weight(support::random_matrix<float>(d, d, 1)),
        x(support::random_matrix<float>(tokens, d, 2)),
        y(support::random_matrix<float>(tokens, d, 3)),
        base(make(weight)) {}

  mole::Call<mole::Simd<>, mole::NoScratch> call() { return {execution, pass, scratch}; }

  /// Reads the weight as it is stored, and `activations` floats of x and y.
  bench::Work work(double activations) const {
    double weight_bytes = double(sizeof(float)) * double(d) * double(d);
    if constexpr (requires { base.bytes(); }) weight_bytes = double(base.bytes());
    return {double(tokens), 2.0 * double(tokens) * double(d) * double(d),
            weight_bytes + double(sizeof(float)) * activations * double(tokens) * double(d)};
  }

  mole::Index tokens, d;
  Matrix<float> weight, x, y;
  Base base;
  mole::Simd<> execution;
  mole::Pass pass;
  mole::NoScratch scratch;
};

/// Sets the counters of a body that `work` describes, relative to those of a DenseBase.
void report(benchmark::State& state, const bench::Work& work, const std::function<void()>& body,
            const std::function<void()>& dense) {
  const double seconds = bench::seconds_per_run(state, body);
  bench::set_counters<float>(state, work, seconds);
  state.counters["plain"] = bench::alternating_ratio(body, dense, seconds * double(state.iterations()) / 5);
}

const auto dense = [](const Matrix<float>& w) { return mole::DenseBase(w.view()); };

/// y = base(x)
template <class Make>
void forward(benchmark::State& state, Make make) {
  Operands<decltype(make(Matrix<float>()))> o(state, make);
  Operands<decltype(dense(Matrix<float>()))> plain(state, dense);
  const auto body_of = [](auto& one) {
    return [&one] {
      auto call = one.call();
      one.base.forward(one.x, one.y.view(), call);
    };
  };
  report(state, o.work(2), body_of(o), body_of(plain));
}

/// x += d base / d x, of y
template <class Make>
void backward(benchmark::State& state, Make make) {
  Operands<decltype(make(Matrix<float>()))> o(state, make);
  Operands<decltype(dense(Matrix<float>()))> plain(state, dense);
  const auto body_of = [](auto& one) {
    return [&one] {
      auto call = one.call();
      mole::NoParameters none;
      one.base.backward(one.x, one.y, one.x.view(), none, call);
    };
  };
  report(state, o.work(3), body_of(o), body_of(plain));
}

using Family = benchmark::internal::Benchmark;

void all_sizes(Family* family) {
  family->ArgNames({"T", "d"})->ArgsProduct({{1, 4, 16, 64, 512}, {768, 2048, 4096}});
}
void some_sizes(Family* family) {
  family->ArgNames({"T", "d"})->ArgsProduct({{1, 16, 512}, {768, 2048}});
}

const auto bf16 = [](const Matrix<float>& w) { return mole::Bf16Base(w); };
const auto half = [](const Matrix<float>& w) { return mole::HalfBase(w); };
const auto int8_row = [](const Matrix<float>& w) { return mole::Int8RowBase(w); };
const auto int8_block = [](const Matrix<float>& w) { return mole::Int8BlockBase(w); };
const auto q8_0 = [](const Matrix<float>& w) { return mole::Q8Base(w); };
const auto nf4 = [](const Matrix<float>& w) { return mole::Nf4Base(w); };
const auto nf4_double = [](const Matrix<float>& w) { return mole::Nf4Base(w, {}, {.double_quantized = true}); };

BENCHMARK_CAPTURE(forward, f32, dense)->Apply(all_sizes);
BENCHMARK_CAPTURE(forward, bf16, bf16)->Apply(all_sizes);
BENCHMARK_CAPTURE(forward, half, half)->Apply(some_sizes);
BENCHMARK_CAPTURE(forward, int8_row, int8_row)->Apply(all_sizes);
BENCHMARK_CAPTURE(forward, int8_block, int8_block)->Apply(some_sizes);
BENCHMARK_CAPTURE(forward, q8_0, q8_0)->Apply(some_sizes);
BENCHMARK_CAPTURE(forward, nf4, nf4)->Apply(all_sizes);
BENCHMARK_CAPTURE(forward, nf4_double, nf4_double)->Apply(some_sizes);

BENCHMARK_CAPTURE(backward, f32, dense)->Apply(some_sizes);
BENCHMARK_CAPTURE(backward, bf16, bf16)->Apply(some_sizes);
BENCHMARK_CAPTURE(backward, half, half)->Apply(some_sizes);
BENCHMARK_CAPTURE(backward, int8_row, int8_row)->Apply(some_sizes);
BENCHMARK_CAPTURE(backward, int8_block, int8_block)->Apply(some_sizes);
BENCHMARK_CAPTURE(backward, q8_0, q8_0)->Apply(some_sizes);
BENCHMARK_CAPTURE(backward, nf4, nf4)->Apply(some_sizes);
BENCHMARK_CAPTURE(backward, nf4_double, nf4_double)->Apply(some_sizes);

}  // namespace
