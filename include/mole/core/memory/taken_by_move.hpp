// SPDX-License-Identifier: MIT
// TakenByMove: a value of which a move leaves nothing behind.
#pragma once

#include <type_traits>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// A number or a pointer that is 0 again after it was moved from: what an object must forget together with its memory.
template <class T>
class TakenByMove {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  TakenByMove(T value = T()) : value_(value) {}
  TakenByMove(const TakenByMove&) = default;
  TakenByMove(TakenByMove&& other) noexcept : value_(std::exchange(other.value_, T())) {}
  TakenByMove& operator=(const TakenByMove&) = default;
  TakenByMove& operator=(TakenByMove&& other) noexcept {
    value_ = std::exchange(other.value_, T());
    return *this;
  }

  operator T() const { return value_; }

 private:
  T value_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
