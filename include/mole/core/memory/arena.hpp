// SPDX-License-Identifier: MIT
// Arena: hands out scratch arrays from one block of memory, or measures how large that block must be.
#pragma once

#include "mole/core/checked_size.hpp"
#include "mole/core/memory/scratch_vector.hpp"
#include "mole/core/view.hpp"

#include <cstdint>
#include <memory>
#include <span>
#include <type_traits>

#include "mole/core/macros_off.hpp"

namespace mole {

/// One description of scratch memory serves to measure it and to lay it out: the same function runs first on an arena
/// without memory, which adds up the sizes of its arrays, and then on a block of that size, which holds them all.
///
///     Scratch scratch(const CallSize& size, Arena& arena) const {
///       return {arena.matrix<T>(size.tokens, hidden_), arena.matrix<T>(size.tokens, hidden_)};
///     }
///
/// Arrays begin at cache lines of the block and are zero. While measuring they are empty.
class Arena {
 public:
  static constexpr std::size_t line = 64;  ///< alignment that a block needs

  /// Measures.
  Arena() = default;
  /// Hands out `block`, which begins at a cache line and must outlive the arrays.
  explicit Arena(std::span<std::byte> block) : block_(block), measuring_(false) {}

  /// Throws Error(capacity) when the block is used up, Error(option) for a size below 0 or beyond what Index can count.
  template <class T>
  std::span<T> array(Index count) {
    static_assert(std::is_trivially_copyable_v<T> && alignof(T) <= line);
    const std::size_t begin = used_, bytes = std::size_t(checked_product("workspace", count, Index(sizeof(T))));
    note(bytes);
    used_ += (bytes + line - 1) / line * line;
    require(used_ >= begin, ErrorCode::option, "workspace: expected sizes that can be added, found ", begin, " and ",
            bytes, " bytes");
    if (measuring_ || count == 0) return {};
    require(used_ <= block_.size(), ErrorCode::capacity, "Arena: expected a block of at least ", used_,
            " bytes, found ", block_.size());
    T* const first = reinterpret_cast<T*>(block_.data() + begin);
    std::uninitialized_value_construct_n(first, count);
    return {first, std::size_t(count)};
  }

  template <class T>
  View<T> matrix(Index rows, Index cols) {
    note(std::size_t(cols));
    return {array<T>(checked_product("workspace", rows, cols)).data(), rows, cols};
  }

  /// An empty vector that can grow to `capacity` elements.
  template <class T>
  ScratchVector<T> vector(Index capacity) {
    return ScratchVector<T>(array<T>(capacity));
  }

  std::size_t used() const { return used_; }
  /// A number that differs, almost certainly, for arrays of other sizes or in another order.
  std::uint64_t layout() const { return layout_; }

 private:
  void note(std::size_t size) { layout_ = (layout_ + size + 1) * 0x9e3779b97f4a7c15ull; }

  std::span<std::byte> block_;
  std::size_t used_ = 0;
  std::uint64_t layout_ = 0;
  bool measuring_ = true;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
