// SPDX-License-Identifier: MIT
#include "mole/serve/adapter_table.hpp"

#include "core/error_code.hpp"
#include "serve/random_adapters.hpp"
#include "support/catch.hpp"

#include <atomic>
#include <thread>

using namespace mole;
using namespace mole::test;

namespace {

constexpr std::size_t bytes_of_rank = 4 * (5 + 3);

ServedAdapter<float> small_adapter(Index rank, std::uint64_t seed = 1) {
  return ServedAdapter<float>(random_adapter(5, 3, rank, seed));
}

AdapterTable<float>::Options small_table() {
  return {.sites = {{.in = 5, .out = 3}}, .max_adapters = 3, .max_rank = 4, .max_bytes = 10 * bytes_of_rank};
}

/// The generation before and after a call that is refused with `code`.
template <class Call>
bool refused_unchanged(const AdapterTable<float>& table, ErrorCode code, Call call) {
  const auto before = table.lease();
  const bool refused = code_of(call) == code;
  return refused && table.lease()->number() == before->number();
}

}  // namespace

TEST_CASE("A table has the adapters that were added, replaced and removed, by ascending id", "[serve]") {
  AdapterTable<float> table(small_table());
  CHECK(table.lease()->entries().empty());
  CHECK(table.lease()->number() == 1);
  table.add(9, small_adapter(1));
  table.add(0, small_adapter(2));
  table.add(std::numeric_limits<int>::max(), ServedAdapter<float>(Adapter<float>{}));  // adds nothing: of any size
  CHECK(table.lease()->number() == 4);
  CHECK(table.lease()->bytes() == 3 * bytes_of_rank);
  const auto lease = table.lease();
  REQUIRE(lease->entries().size() == 3);
  CHECK(lease->entries()[0].id == 0);
  CHECK(lease->entries()[1].id == 9);
  CHECK(lease->find(9)->max_rank() == 1);
  CHECK(lease->find(8) == nullptr);
  CHECK(lease->find(-1) == nullptr);
  table.replace(9, small_adapter(4));
  table.remove(0);
  CHECK(table.find(9)->max_rank() == 4);
  CHECK(table.find(0) == nullptr);
  CHECK(lease->find(9)->max_rank() == 1);  // as it was
  CHECK(lease->find(0)->max_rank() == 2);
}

TEST_CASE("Each refused change has its code, and leaves the generation as it was", "[serve]") {
  AdapterTable<float> table(small_table());
  table.add(1, small_adapter(4));
  table.add(2, small_adapter(4));
  const auto refused = [&](ErrorCode code, auto call) { return refused_unchanged(table, code, call); };
  CHECK(refused(ErrorCode::duplicate_id, [&] { table.add(1, small_adapter(1)); }));
  CHECK(refused(ErrorCode::unknown_id, [&] { table.replace(3, small_adapter(1)); }));
  CHECK(refused(ErrorCode::unknown_id, [&] { table.remove(3); }));
  CHECK(refused(ErrorCode::unknown_id, [&] { table.remove(-1); }));
  CHECK(refused(ErrorCode::option, [&] { table.add(-1, small_adapter(1)); }));
  CHECK(refused(ErrorCode::option, [&] { table.add(-2, small_adapter(1)); }));
  CHECK(refused(ErrorCode::option, [&] { table.add(3, nullptr); }));
  CHECK(refused(ErrorCode::capacity, [&] { table.add(3, small_adapter(5)); }));      // ranks
  CHECK(refused(ErrorCode::capacity, [&] { table.replace(1, small_adapter(5)); }));  // ranks
  CHECK(refused(ErrorCode::capacity, [&] { table.add(3, small_adapter(3)); }));      // bytes
  CHECK(refused(ErrorCode::shape, [&] { table.add(3, ServedAdapter<float>(random_adapter(5, 4, 1, 1))); }));
  CHECK(refused(ErrorCode::shape, [&] { table.add(3, ServedAdapter<float>(random_adapter(3, 5, 1, 1))); }));
  CHECK(refused(ErrorCode::shape, [&] {
    table.add(3, ServedAdapter<float>(std::vector<Adapter<float>>(2, random_adapter(5, 3, 1, 1))));
  }));
  table.add(3, small_adapter(2));  // 10 ranks: the limit itself is allowed
  CHECK(refused(ErrorCode::capacity, [&] { table.add(4, small_adapter(0)); }));  // adapters
  CHECK(text_of([&] { table.add(4, small_adapter(0)); }) ==
        "AdapterTable: expected at most 3 adapters, found one more");
  CHECK(text_of([&] { table.replace(3, small_adapter(3)); }) ==
        "AdapterTable: expected at most 320 bytes of adapters, found 352");
  CHECK(text_of([&] { table.remove(7); }) == "AdapterTable: expected an id that the table has, found 7");
  table.replace(1, small_adapter(1));  // makes room
  table.replace(3, small_adapter(4));
  CHECK(table.lease()->bytes() == 9 * bytes_of_rank);
}

TEST_CASE("Tables without sites or limits are refused", "[serve]") {
  const auto refused = [](AdapterTable<float>::Options options) {
    return code_of([&] { AdapterTable<float> table(options); }) == ErrorCode::option;
  };
  CHECK(refused({.sites = {}}));
  CHECK(refused({.sites = {{.in = 5, .out = 3}, {.in = 0, .out = 3}}}));
  CHECK(refused({.sites = {{.in = 5, .out = -3}}}));
  CHECK(refused({.sites = {{.in = 5, .out = 3}}, .max_adapters = 0}));
  CHECK(refused({.sites = {{.in = 5, .out = 3}}, .max_rank = 0}));
}

TEST_CASE("An adapter is freed when the last lease on a generation that has it ends", "[serve]") {
  AdapterTable<float> table(small_table());
  auto made = std::make_shared<const ServedAdapter<float>>(small_adapter(2));
  const std::weak_ptr<const ServedAdapter<float>> watched = made;
  table.add(1, std::move(made));
  auto early = table.lease();
  table.add(2, small_adapter(1));
  auto late = table.lease();
  table.remove(1);
  CHECK(table.generations() == 3);
  early.end();
  CHECK_FALSE(watched.expired());
  auto held = table.find(1);
  CHECK(held == nullptr);
  CHECK(late->find(1) != nullptr);
  late.end();
  CHECK(watched.expired());
  CHECK(table.generations() == 1);
  held = table.find(2);
  table.remove(2);
  CHECK(held->max_rank() == 1);  // a request that keeps its adapter
}

TEST_CASE("What is freed by a change may change the table itself", "[serve]") {
  AdapterTable<float> table(small_table());
  table.add(2, small_adapter(1));
  const auto free = [&](const ServedAdapter<float>* adapter) {
    delete adapter;
    table.remove(2);
  };
  table.add(1, std::shared_ptr<const ServedAdapter<float>>(new ServedAdapter<float>(small_adapter(1)), free));
  table.remove(1);
  CHECK(table.lease()->entries().empty());
}

TEST_CASE("Writers on several threads lose no change of each other", "[serve][threads]") {
  auto options = small_table();
  options.max_adapters = 1000, options.max_bytes = std::size_t(-1);
  AdapterTable<float> table(options);
  std::atomic<int> ready = 0;
  std::vector<std::thread> writers;
  for (int w = 0; w < 3; ++w)
    writers.emplace_back([&, w] {
      for (++ready; ready < 3;) std::this_thread::yield();
      for (int i = 0; i < 100; ++i) {
        table.add(3 * i + w, small_adapter(1));
        if (i % 2 == 1) table.remove(3 * i + w);
        if (i % 4 == 0) table.replace(3 * i + w, small_adapter(2));
      }
    });
  for (std::thread& writer : writers) writer.join();
  const auto now = table.lease();
  CHECK(now->entries().size() == 150);
  CHECK(now->number() == 1 + 3 * (100 + 50 + 25));
  CHECK(now->bytes() == 3 * (25 * 2 + 25) * bytes_of_rank);
}
