// SPDX-License-Identifier: MIT
// ScratchVector: a vector of plain elements, within an arena or in memory of its own.
#pragma once

#include "mole/core/config.hpp"
#include "mole/core/error.hpp"

#include <algorithm>
#include <memory_resource>
#include <span>
#include <type_traits>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Contiguous elements. A vector with a given capacity stays within it, and throws Error(capacity) beyond; one without
/// grows in a memory resource. A copy has memory of its own.
template <class T>
class ScratchVector {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  explicit ScratchVector(std::pmr::memory_resource* memory = std::pmr::get_default_resource()) : memory_(memory) {}
  explicit ScratchVector(std::span<T> room) : data_(room.data()), capacity_(room.size()) {}

  ScratchVector(const ScratchVector& other) : ScratchVector() {
    make_room(other.size_);
    size_ = other.size_;
    std::copy_n(other.data_, size_, data_);
  }
  ScratchVector(ScratchVector&& other) noexcept : ScratchVector() { swap(other); }
  ScratchVector& operator=(ScratchVector other) noexcept {
    swap(other);
    return *this;
  }
  ~ScratchVector() { release(); }

  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  T* data() { return data_; }
  const T* data() const { return data_; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }
  const T* begin() const { return data_; }
  const T* end() const { return data_ + size_; }
  T& operator[](std::size_t i) { return data_[i]; }
  const T& operator[](std::size_t i) const { return data_[i]; }
  T& back() { return data_[size_ - 1]; }
  const T& back() const { return data_[size_ - 1]; }

  void clear() { size_ = 0; }
  /// New elements are `value`.
  void resize(std::size_t size, T value = T()) {
    make_room(size);
    if (size > size_) std::fill(end(), data_ + size, value);
    size_ = size;
  }
  void assign(std::size_t size, T value) {
    make_room(size);
    size_ = size;
    std::fill(begin(), end(), value);
  }
  void push_back(T value) {
    if (size_ == capacity_) make_room(size_ + 1);
    data_[size_++] = value;
  }

 private:
  void swap(ScratchVector& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
    std::swap(memory_, other.memory_);
  }

  void make_room(std::size_t size) {
    if (size <= capacity_) return;
    require(memory_ != nullptr, ErrorCode::capacity, "workspace: expected at most ", capacity_,
            " elements of an array, found ", size);
    const std::size_t larger = std::max(size, 2 * capacity_);
    T* const data = static_cast<T*>(memory_->allocate(larger * sizeof(T), alignof(T)));
    std::copy_n(data_, size_, data);
    release();
    data_ = data, capacity_ = larger;
  }
  void release() {
    if (memory_ && data_) memory_->deallocate(data_, capacity_ * sizeof(T), alignof(T));
  }

  T* data_ = nullptr;
  std::size_t size_ = 0, capacity_ = 0;
  std::pmr::memory_resource* memory_ = nullptr;  // null: stays within the room that it was given
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
