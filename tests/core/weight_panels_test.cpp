// SPDX-License-Identifier: MIT
#include "mole/core/weight_panels.hpp"

#include "support/catch.hpp"
#include "support/random_matrix.hpp"

#include <array>
#include <cstdint>

using namespace mole;

TEMPLATE_TEST_CASE("WeightPanels hold a weight and its transpose, zeros behind the last row", "[core]", float, double) {
  constexpr Index width = panel_width<TestType>;
  STATIC_REQUIRE(width * Index(sizeof(TestType)) == 128);
  for (Index rows : {Index(0), Index(1), width - 1, width, width + 1, 2 * width + 3})
    for (Index cols : {0, 1, 5, 33}) {
      CAPTURE(rows, cols);
      const auto weight = support::random_matrix<TestType>(rows, cols, 1);
      const auto packed = WeightPanels<TestType>::of(weight), turned = WeightPanels<TestType>::of_transposed(weight);
      REQUIRE(packed.view().rows() == rows);
      REQUIRE(turned.view().rows() == cols);
      bool equal = true;
      for (Index r = 0; r < rows; ++r)
        for (Index c = 0; c < cols; ++c)
          equal &= packed.view()(r, c) == weight(r, c) && turned.view()(c, r) == weight(r, c);
      CHECK(equal);
      bool padded = true;
      for (Index r = rows; r < packed.view().panels() * width; ++r)
        for (Index c = 0; c < cols; ++c) padded &= packed.view().panel(r / width)[c * width + r % width] == 0;
      CHECK(padded);
      CHECK(WeightPanels<TestType>::bytes_for(rows, cols) ==
            std::size_t((rows + width - 1) / width * width * cols) * sizeof(TestType));
    }
}

TEST_CASE("WeightPanels begin on a line of the cache, in the memory they are given", "[core]") {
  alignas(64) std::array<std::byte, 8192> memory;
  std::pmr::monotonic_buffer_resource arena(memory.data(), memory.size(), std::pmr::null_memory_resource());
  const auto weight = support::random_matrix<float>(33, 9, 1);
  REQUIRE(WeightPanels<float>::bytes_for(33, 9) == 2 * 128 * 9);
  const auto packed = WeightPanels<float>::of(weight, &arena);
  const auto* const begin = reinterpret_cast<const std::byte*>(packed.view().panel(0));
  CHECK(begin >= memory.data());
  CHECK(begin + 2 * 128 * 9 <= memory.data() + memory.size());
  CHECK(reinterpret_cast<std::uintptr_t>(begin) % 64 == 0);
  CHECK(reinterpret_cast<std::uintptr_t>(WeightPanels<float>::of(weight).view().panel(0)) % 64 == 0);
}

TEST_CASE("WeightPanels of nothing are an empty view", "[core]") {
  CHECK_FALSE(WeightPanels<float>().view());
  CHECK_FALSE(WeightPanels<float>::of(View<const float>()).view());
}
