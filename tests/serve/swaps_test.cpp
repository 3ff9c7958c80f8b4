// SPDX-License-Identifier: MIT
// Calls on several threads while adapters are added, replaced and removed all the time.
#include "core/error_code.hpp"
#include "mole/base/dense_base.hpp"
#include "mole/serve/multi_adapter_linear.hpp"
#include "support/catch.hpp"
#include "support/sanitizers.hpp"

#include <atomic>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

using namespace mole;
using namespace mole::test;

namespace {

/// Ten thousand, more under ThreadSanitizer, or what the environment says: .ci/sanitize has a million.
long swaps_to_do() {
  if (const char* const asked = std::getenv("MOLE_TEST_SWAPS")) return std::atol(asked);
  return MOLE_TEST_THREAD_SANITIZER ? 100'000 : 10'000;
}

/// Version `version` of an adapter for two layers of one number: it adds the version to one, and takes it from the
/// other.
std::shared_ptr<const ServedAdapter<float>> version(long version, std::atomic<long>& alive) {
  std::vector<Adapter<float>> sites(2, {Matrix<float>(1, 1), Matrix<float>(1, 1)});
  sites[0].a(0, 0) = sites[1].a(0, 0) = 1;
  sites[0].b(0, 0) = float(version), sites[1].b(0, 0) = -float(version);
  ++alive;
  return {new ServedAdapter<float>(std::move(sites)), [&alive](const ServedAdapter<float>* adapter) {
            delete adapter;
            --alive;
          }};
}

constexpr int adapters = 3, guest = 3;  // adapters 0, 1 and 2 are always there, 3 comes and goes

/// Calls until `running` is false; counts what must not be.
void serve(const AdapterTable<float>& table, const std::atomic<bool>& running, std::atomic<long>& calls,
           std::atomic<long>& refusals, std::atomic<long>& faults) {
  const Matrix<float> zero(1, 1);
  const MultiAdapterLinear first(DenseBase{zero}, 0), second(DenseBase{zero}, 1);
  auto first_work = first.workspace(5), second_work = second.workspace(5);
  AdapterBatch<float> batch(5);
  Matrix<float> x(5, 1), up(5, 1), down(5, 1);
  fill(x.view(), 1);
  float newest[adapters] = {};
  std::uint64_t generation = 0;
  for (long call = 0; running || call == 0; ++call) {
    const std::vector<int> ids{2, 0, -1, 1, call % 16 == 0 ? guest : 0};
    if (const auto code = code_of([&] { batch.begin(table, ids); })) {
      if (code != ErrorCode::unknown_id || ids[4] != guest) ++faults;
      ++refusals;
      continue;
    }
    if (batch.generation() < generation) ++faults;
    generation = batch.generation();
    first.forward(x, batch, up, first_work);
    second.forward(x, batch, down, second_work);
    batch.end();
    for (Index n = 0; n < 5; ++n) {
      if (up(n, 0) != -down(n, 0)) ++faults;  // half of a swap
      if ((up(n, 0) == 0) != (ids[std::size_t(n)] == -1)) ++faults;
      if (const int id = ids[std::size_t(n)]; id >= 0 && id < adapters) {
        if (up(n, 0) < newest[id]) ++faults;
        newest[id] = up(n, 0);
      }
    }
    ++calls;
  }
}

}  // namespace

TEST_CASE("Calls in flight meet whole generations, none older than the last, through any number of swaps",
          "[serve][threads]") {
  const long swaps = swaps_to_do();
  std::atomic<long> alive = 0;
  {
    AdapterTable<float> table({.sites = {{1, 1}, {1, 1}}});
    for (int id = 0; id < adapters; ++id) table.add(id, version(1, alive));
    std::atomic<bool> running = true;
    std::atomic<long> calls = 0, refusals = 0, faults = 0;
    std::vector<std::thread> readers;
    for (int r = 0; r < 2; ++r) readers.emplace_back([&] { serve(table, running, calls, refusals, faults); });
    while (calls < 2) std::this_thread::yield();
    for (long swap = 0; swap < swaps; ++swap) {
      const long next = 2 + swap % 16'000'000;  // whole numbers in a float
      if (swap % 8 == 3)
        table.add(guest, version(next, alive));
      else if (swap % 8 == 6)
        table.remove(guest);
      else
        table.replace(int(swap % adapters), version(next, alive));
    }
    running = false;
    for (std::thread& reader : readers) reader.join();
    INFO(swaps << " swaps, " << calls << " calls beside them, " << refusals << " refused");
    CHECK(faults == 0);
    CHECK(table.generations() == 1);
    CHECK(alive == Index(table.lease()->entries().size()));
    CHECK(table.lease()->number() == std::uint64_t(1 + adapters + swaps));
  }
  CHECK(alive == 0);
}
