// SPDX-License-Identifier: MIT
#include "mole/core/memory/arena.hpp"

#include "core/error_code.hpp"
#include "mole/core/memory/memory_block.hpp"
#include "support/catch.hpp"

#include <cstdint>

using namespace mole;
using test::code_of;

namespace {

struct Parts {
  View<float> matrix;
  std::span<double> array;
  ScratchVector<int> vector;
};

Parts parts_of(Arena& arena, Index rows) {
  return {arena.matrix<float>(rows, 3), arena.array<double>(rows + 1), arena.vector<int>(2 * rows)};
}

bool at_a_line(const void* p) {
  return reinterpret_cast<std::uintptr_t>(p) % Arena::line == 0;
}

}  // namespace

TEST_CASE("An arena makes what it has measured, to the byte", "[core]") {
  for (Index rows : {0, 1, 5, 100}) {
    CAPTURE(rows);
    const std::size_t bytes = bytes_of([&](Arena& arena) { return parts_of(arena, rows); });
    MemoryBlock block(bytes, std::pmr::get_default_resource());
    std::ranges::fill(block.bytes(), std::byte(0xff));
    Arena arena(block.bytes());
    const Parts parts = parts_of(arena, rows);
    CHECK(arena.used() == bytes);
    CHECK(parts.matrix.rows() == rows);
    CHECK(parts.matrix.cols() == 3);
    CHECK(bool(parts.matrix) == (rows > 0));
    CHECK(parts.array.size() == std::size_t(rows + 1));
    CHECK(parts.vector.empty());
    for (double element : parts.array) CHECK(element == 0);
    CHECK(at_a_line(parts.matrix.data()));
    CHECK(at_a_line(parts.array.data()));
    CHECK(at_a_line(parts.vector.data()));
    CHECK((rows == 0 || static_cast<const void*>(parts.matrix.data()) != static_cast<const void*>(parts.array.data())));
  }
}

TEST_CASE("An arena whose block is too small says so", "[core]") {
  const std::size_t bytes = bytes_of([](Arena& arena) { return parts_of(arena, 7); });
  MemoryBlock block(bytes - Arena::line, std::pmr::get_default_resource());
  Arena arena(block.bytes());
  CHECK(code_of([&] { parts_of(arena, 7); }) == ErrorCode::capacity);
}

TEST_CASE("The layout tells arrays of other shapes and in another order apart, and knows the same ones", "[core]") {
  const auto layout = [](auto make) {
    Arena arena;
    make(arena);
    return arena.layout();
  };
  const auto wide = [](Arena& arena) { arena.matrix<float>(2, 3); };
  CHECK(layout(wide) == layout(wide));
  CHECK(layout(wide) != layout([](Arena& arena) { arena.matrix<float>(3, 2); }));
  CHECK(layout([](Arena& arena) { arena.array<int>(1), arena.array<int>(2); }) !=
        layout([](Arena& arena) { arena.array<int>(2), arena.array<int>(1); }));
}

TEST_CASE("A block takes its bytes from the resource and gives them back", "[core]") {
  std::vector<std::byte> buffer(1000);
  std::pmr::monotonic_buffer_resource memory(buffer.data(), buffer.size(), std::pmr::null_memory_resource());
  MemoryBlock first(128, &memory), second(std::move(first));
  CHECK(first.bytes().empty());
  CHECK(second.bytes().size() == 128);
  CHECK(at_a_line(second.bytes().data()));
  const std::byte* const place = second.bytes().data();
  MemoryBlock third;
  third = std::move(second);
  CHECK(third.bytes().data() == place);
  CHECK_THROWS_AS(MemoryBlock(5000, &memory), std::bad_alloc);
  CHECK(MemoryBlock(0, std::pmr::null_memory_resource()).bytes().empty());
}
