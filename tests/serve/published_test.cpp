// SPDX-License-Identifier: MIT
#include "mole/serve/published.hpp"

#include "core/error_code.hpp"
#include "support/catch.hpp"

#include <atomic>
#include <thread>
#include <vector>

using namespace mole;
using namespace mole::test;

namespace {

/// A number that counts how many of its kind there are.
struct Counted {
  explicit Counted(long value_) : value(value_) { ++alive; }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;
  ~Counted() {
    value = -1;
    --alive;
  }
  static inline std::atomic<int> alive = 0;
  long value;
};

std::unique_ptr<const Counted> counted(long value) {
  return std::make_unique<const Counted>(value);
}

}  // namespace

TEST_CASE("A lease keeps the value that it began with, until it ends", "[serve]") {
  {
    Published<Counted> published(counted(1));
    auto first = published.lease();
    published.publish(counted(2));
    auto second = published.lease();
    auto third = published.lease();
    published.publish(counted(3));
    CHECK(first->value == 1);
    CHECK(second->value == 2);
    CHECK((*third).value == 2);
    CHECK(published.lease()->value == 3);
    CHECK(Counted::alive == 3);
    CHECK(published.in_use() == 3);
    second.end();
    CHECK(Counted::alive == 3);
    third.end();
    CHECK(Counted::alive == 2);
    CHECK(first->value == 1);
    first = published.lease();  // ends the one before
    CHECK(Counted::alive == 1);
    CHECK(first->value == 3);
  }
  CHECK(Counted::alive == 0);
}

TEST_CASE("What nobody has leased is destroyed when it is replaced", "[serve]") {
  Published<Counted> published(counted(0));
  for (int i = 1; i < 5000; ++i) {
    published.publish(counted(i));
    if (i % 3 == 0) CHECK(published.lease()->value == i);
    CHECK(Counted::alive == 1);
  }
}

TEST_CASE("A lease that is moved from has no value, and ends once", "[serve]") {
  Published<Counted> published(counted(7));
  Published<Counted>::Lease none;
  CHECK_FALSE(none);
  auto lease = published.lease();
  auto other = std::move(lease);
  CHECK_FALSE(lease);
  CHECK(other->value == 7);
  lease = std::move(other);
  CHECK(lease);
  auto& same = lease;
  lease = std::move(same);
  CHECK(lease->value == 7);
  published.publish(counted(8));
  lease.end();
  lease.end();
  CHECK(Counted::alive == 1);
}

TEST_CASE("More replaced values than there are places for are refused, and nothing has changed", "[serve]") {
  Published<Counted> published(counted(0));
  std::vector<Published<Counted>::Lease> leases;
  for (int i = 1; i <= 1023; ++i) {
    leases.push_back(published.lease());
    published.publish(counted(i));
  }
  CHECK(code_of([&] { published.publish(counted(-5)); }) == ErrorCode::capacity);
  CHECK(published.lease()->value == 1023);
  CHECK(Counted::alive == 1024);
  CHECK(leases[500]->value == 500);
  leases.back().end();  // the place before the newest
  published.publish(counted(1024));
  CHECK(published.lease()->value == 1024);
  CHECK(leases[1]->value == 1);
  leases.clear();
  CHECK(Counted::alive == 1);
}

TEST_CASE("Readers of what is replaced all the time see whole values, each no older than the last",
          "[serve][threads]") {
  {
    Published<Counted> published(counted(0));
    std::atomic<bool> running = true;
    std::atomic<int> faults = 0;
    std::atomic<long> reads = 0;
    std::vector<std::thread> readers;
    for (int r = 0; r < 3; ++r)
      readers.emplace_back([&, r] {
        long last = 0;
        Published<Counted>::Lease kept;
        for (long i = 0; running || i == 0; ++i) {
          auto lease = published.lease();
          if (lease->value < last) ++faults;
          last = lease->value;
          if ((i + r) % 5 == 0) kept = std::move(lease);
          if (kept && (kept->value < 0 || kept->value > last)) ++faults;
          ++reads;
        }
      });
    while (reads < 3) std::this_thread::yield();
    for (long i = 1; i <= 10'000; ++i) published.publish(counted(i));
    running = false;
    for (std::thread& reader : readers) reader.join();
    CHECK(faults == 0);
    CHECK(Counted::alive == 1);
    CHECK(published.lease()->value == 10'000);
  }
  CHECK(Counted::alive == 0);
}
