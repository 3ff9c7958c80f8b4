// SPDX-License-Identifier: MIT
#include "mole/core/memory/cache_line_memory.hpp"

#include "mole/core/matrix.hpp"
#include "support/catch.hpp"

#include <algorithm>
#include <cstdint>

using namespace mole;

namespace {

/// Knows how much of it is out.
struct Counted final : std::pmr::memory_resource {
  std::size_t bytes = 0;

  void* do_allocate(std::size_t size, std::size_t alignment) override {
    bytes += size;
    return std::pmr::new_delete_resource()->allocate(size, alignment);
  }
  void do_deallocate(void* memory, std::size_t size, std::size_t alignment) override {
    bytes -= size;
    std::pmr::new_delete_resource()->deallocate(memory, size, alignment);
  }
  bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override { return this == &other; }
};

bool begins_a_line(const void* memory, std::size_t line = 64) {
  return reinterpret_cast<std::uintptr_t>(memory) % line == 0;
}

}  // namespace

TEST_CASE("Arrays begin at a line of the cache, or at what is asked beyond", "[core]") {
  CacheLineMemory& memory = *CacheLineMemory::shared();
  for (std::size_t alignment : {1u, 8u, 64u, 128u, 4096u})
    for (std::size_t bytes : {1u, 63u, 64u, 1000u}) {
      void* const array = memory.allocate(bytes, alignment);
      CHECK(begins_a_line(array, std::max<std::size_t>(64, alignment)));
      std::fill_n(static_cast<unsigned char*>(array), bytes, 7);
      memory.deallocate(array, bytes, alignment);
    }
}

TEST_CASE("What the default resource gave goes back to it, whoever is the default by then", "[core]") {
  Counted counted;
  auto* const usual = std::pmr::set_default_resource(&counted);
  void* const array = CacheLineMemory::shared()->allocate(100, 8);
  CHECK(counted.bytes >= 164);
  std::pmr::set_default_resource(usual);
  CacheLineMemory::shared()->deallocate(array, 100, 8);
  CHECK(counted.bytes == 0);
}

TEST_CASE("Matrices begin at a line, copies and what is moved too, unless their memory is the caller's", "[core]") {
  for (Index cols : {1, 3, 17, 100}) {
    const Matrix<float> matrix(3, cols), copy = matrix;
    Matrix<float> assigned, moved;
    assigned = matrix;
    moved = Matrix<float>(5, cols);
    for (const auto* one : {&matrix, &copy, &std::as_const(assigned), &std::as_const(moved)})
      CHECK(begins_a_line(one->data()));
  }
}
