// SPDX-License-Identifier: MIT
#include "mole/serve/adapter_batch.hpp"

#include "core/error_code.hpp"
#include "serve/random_adapters.hpp"
#include "support/catch.hpp"

#include <limits>

using namespace mole;
using namespace mole::test;

namespace {

/// Adapters 10, 20, 30 of 1, 2 and 3 ranks, and 40 without ranks.
void fill_table(AdapterTable<float>& table) {
  for (int k = 1; k <= 4; ++k) table.add(10 * k, ServedAdapter<float>(random_adapter(2, 2, k % 4, std::uint64_t(k))));
}

/// Each row's adapter as the runs have it; null where there is none.
std::vector<const ServedAdapter<float>*> adapters_of_rows(const AdapterBatch<float>& batch) {
  std::vector<const ServedAdapter<float>*> adapters(std::size_t(batch.rows()));
  Index place = 0;
  for (const auto& run : batch.runs()) {
    CHECK(run.first == place);
    CHECK(run.count > 0);
    for (; place < run.first + run.count; ++place) {
      CHECK(batch.run_at(place) == &run - batch.runs().data());
      adapters[std::size_t(batch.order()[std::size_t(place)])] = run.adapter;
    }
  }
  CHECK(place == Index(batch.order().size()));
  return adapters;
}

}  // namespace

TEST_CASE("A batch has a run for each adapter, with its rows in ascending order", "[serve]") {
  AdapterTable<float> table({.sites = {{2, 2}}});
  fill_table(table);
  AdapterBatch<float> batch(9);
  CHECK(batch.rows() == 0);
  CHECK(batch.generation() == 0);
  const std::vector<int> ids{20, -1, 10, 20, 40, 10, 30, 20, -1};
  batch.begin(table, ids);
  CHECK(batch.rows() == 9);
  CHECK(batch.generation() == 5);
  CHECK(batch.runs().size() == 3);
  const auto found = adapters_of_rows(batch);
  for (std::size_t n = 0; n < ids.size(); ++n)
    CHECK(found[n] == (ids[n] == 40 ? nullptr : table.lease()->find(ids[n])));  // without ranks: as the base
  for (const auto& run : batch.runs())
    CHECK(std::ranges::is_sorted(batch.order().subspan(std::size_t(run.first), std::size_t(run.count))));
}

TEST_CASE("A batch keeps its generation until it ends", "[serve]") {
  AdapterTable<float> table({.sites = {{2, 2}}});
  fill_table(table);
  AdapterBatch<float> batch(2);
  const std::vector<int> ids{10, 20};
  batch.begin(table, ids);
  const auto* const old =
      batch.runs()[0].adapter == table.lease()->find(10) ? batch.runs()[0].adapter : batch.runs()[1].adapter;
  table.replace(10, ServedAdapter<float>(random_adapter(2, 2, 5, 9)));
  table.remove(20);
  CHECK(old->max_rank() == 1);
  CHECK(table.generations() == 2);
  const auto moved = std::move(batch);
  CHECK(moved.generation() == 5);
  CHECK(batch.rows() == 0);
  CHECK(batch.max_rows() == 0);
  batch = AdapterBatch<float>(2);
  batch.begin(table, std::vector<int>{10, 10});
  CHECK(batch.runs().size() == 1);
  CHECK(batch.runs()[0].adapter->max_rank() == 5);
  batch.end();
  CHECK(batch.generation() == 0);
  CHECK(table.generations() == 2);
}

TEST_CASE("Unknown ids are refused by row and number, and the batch has no rows then", "[serve]") {
  AdapterTable<float> table({.sites = {{2, 2}}});
  fill_table(table);
  AdapterBatch<float> batch(4);
  for (int unknown : {-2, 0, 11, 41, std::numeric_limits<int>::max(), std::numeric_limits<int>::min()}) {
    batch.begin(table, std::vector<int>{10, 20});
    CHECK(code_of([&] { batch.begin(table, std::vector<int>{10, -1, unknown}); }) == ErrorCode::unknown_id);
    CHECK(batch.rows() == 0);
    CHECK(batch.runs().empty());
    CHECK(batch.generation() == 0);
  }
  CHECK(text_of([&] {
          batch.begin(table, std::vector<int>{10, -1, 11});
        }) == "AdapterBatch: expected ids of adapters in the table, or -1 for the base, found 11 in row 2");
  CHECK(code_of([&] { batch.begin(table, std::vector<int>(5, -1)); }) == ErrorCode::capacity);
  CHECK(code_of([] { AdapterBatch<float>(-1); }) == ErrorCode::option);
  CHECK(table.generations() == 1);
}

TEST_CASE("Requests bring the adapters that they hold, whatever the table has now", "[serve]") {
  AdapterTable<float> table({.sites = {{2, 2}}});
  fill_table(table);
  const auto first = table.find(10);
  table.replace(10, ServedAdapter<float>(random_adapter(2, 2, 7, 9)));
  const auto second = table.find(10);
  AdapterBatch<float> batch(4);
  const std::vector<const ServedAdapter<float>*> adapters{second.get(), first.get(), nullptr, second.get()};
  batch.begin(adapters);
  CHECK(batch.generation() == 0);
  CHECK(batch.runs().size() == 2);
  CHECK(adapters_of_rows(batch) == adapters);
  CHECK(table.generations() == 1);
}
