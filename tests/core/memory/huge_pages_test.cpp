// SPDX-License-Identifier: MIT
#include "mole/core/memory/huge_pages.hpp"

#include "mole/base/packed_base.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

#include <cstdint>
#include <cstring>

using namespace mole;

namespace {

/// Counts what is asked of it.
struct Upstream final : std::pmr::memory_resource {
  int allocations = 0, bytes = 0;

  void* do_allocate(std::size_t size, std::size_t alignment) override {
    ++allocations;
    bytes += int(size);
    return std::pmr::new_delete_resource()->allocate(size, alignment);
  }
  void do_deallocate(void* memory, std::size_t size, std::size_t alignment) override {
    bytes -= int(size);
    std::pmr::new_delete_resource()->deallocate(memory, size, alignment);
  }
  bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override { return this == &other; }
};

}  // namespace

TEST_CASE("Small memory comes from upstream, and goes back there", "[core]") {
  Upstream upstream;
  HugePages pages(&upstream);
  void* const memory = pages.allocate(1000, 64);
  CHECK(upstream.allocations == 1);
  CHECK(reinterpret_cast<std::uintptr_t>(memory) % 64 == 0);
  pages.deallocate(memory, 1000, 64);
  CHECK(upstream.bytes == 0);
}

TEST_CASE("Large memory is aligned to a huge page, and all of it is there", "[core]") {
  HugePages pages;
  const std::size_t size = (std::size_t(5) << 20) + 12345;
  auto* const memory = static_cast<unsigned char*>(pages.allocate(size, 64));
#if defined(__linux__)
  CHECK(reinterpret_cast<std::uintptr_t>(memory) % (std::size_t(2) << 20) == 0);
#endif
  std::memset(memory, 7, size);
  CHECK(memory[size - 1] == 7);
  pages.deallocate(memory, size, 64);
  CHECK(pages.is_equal(pages));
  CHECK_FALSE(pages.is_equal(HugePages()));
}

TEST_CASE("A packed base may live in huge pages", "[core]") {
  HugePages pages;
  const auto weight = support::random_matrix<float>(600, 700, 1);
  const PackedBase<float> base(weight, {.memory = &pages}), usual(weight);
  CHECK(base.weights().panels(599, 699) == weight(599, 699));
  CHECK(base.weights().transposed_panels(699, 599) == usual.weights().transposed_panels(699, 599));
}
