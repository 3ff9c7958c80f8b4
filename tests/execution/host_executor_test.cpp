// SPDX-License-Identifier: MIT
#include "mole/execution/host_executor.hpp"

#include "core/error_code.hpp"
#include "mole/execution/simd.hpp"
#include "support/catch.hpp"
#include "support/execution_checks.hpp"

#include <functional>
#include <stdexcept>

using namespace mole;
using namespace mole::test;

namespace {

/// A host's loop that counts its calls and runs tasks last to first.
struct HostLoop {
  int* calls;
  void operator()(Index tasks, const std::function<void(Index)>& f) const {
    ++*calls;
    for (Index i = tasks; i-- > 0;) f(i);
  }
};

}  // namespace

TEST_CASE("A host's loop gets every task of two and more, and is not troubled for less", "[execution]") {
  int calls = 0;
  const HostExecutor executor(3, HostLoop{&calls});
  CHECK(executor.threads() == 3);
  for (Index tasks : {0, 1, 2, 9}) {
    std::vector<int> seen(std::size_t(tasks), 0);
    calls = 0;
    executor.parallel_for(tasks, [&](Index i) { ++seen[std::size_t(i)]; });
    CAPTURE(tasks);
    CHECK(calls == (tasks > 1 ? 1 : 0));
    CHECK(seen == std::vector<int>(std::size_t(tasks), 1));
  }
}

TEST_CASE("A host without a loop, or without a thread, is refused when it is made", "[execution]") {
  int calls = 0;
  CHECK(code_of([] { HostExecutor(1, {}); }) == ErrorCode::option);
  CHECK(code_of([&] { HostExecutor(0, HostLoop{&calls}); }) == ErrorCode::option);
  CHECK(code_of([&] { HostExecutor(1, HostLoop{&calls}); }) == std::nullopt);
}

TEST_CASE("A host's loop takes const and moved functions and function pointers", "[execution]") {
  int calls = 0;
  static int sum;
  sum = 0;
  const HostExecutor executor(1, HostLoop{&calls});
  const auto constant = [](Index i) { sum += int(i); };
  executor.parallel_for(4, constant);
  executor.parallel_for(4, +constant);
  executor.parallel_for(4, [&, count = 0](Index i) mutable { sum += int(i) + 100 * (++count == 4); });
  CHECK(sum == 3 * 6 + 100);
}

TEST_CASE("An exception of a task passes through a host's loop", "[execution]") {
  int calls = 0;
  const HostExecutor executor(1, HostLoop{&calls});
  const auto task = [](Index i) {
    if (i == 1) throw std::runtime_error("task");
  };
  CHECK_THROWS_AS(executor.parallel_for(3, task), std::runtime_error);
}

TEST_CASE("Simd on a host's loop computes the bits that it computes alone", "[execution]") {
  int calls = 0;
  const Simd execution{HostExecutor(2, HostLoop{&calls})};
  const Rng start(test_seed());
  DenseCase<float> found(200, 100, 333, 0, start), expected(200, 100, 333, 0, start);
  found.compute(execution);
  expected.compute(Simd<>{});
  CHECK(calls == 8);  // one a product
  CHECK(difference(found.y.view(), expected.y.view()) == 0);
  CHECK(difference(found.d_x.view(), expected.d_x.view()) == 0);
  CHECK(difference(found.d_w.view(), expected.d_w.view()) == 0);
}
