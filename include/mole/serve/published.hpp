// SPDX-License-Identifier: MIT
// Published: a value that is replaced while others read it, and readers never wait.
#pragma once

#include "mole/core/config.hpp"
#include "mole/core/error.hpp"

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// An immutable value, replaced as a whole. A reader holds a lease on the value of the moment in which it began, and
/// keeps it whatever is published meanwhile.
///
/// Progress: a lease begins with one atomic addition and ends with another. There is no lock, no loop and no
/// allocation, so readers are wait-free where the processor adds atomically in one instruction (x86-64, ARM from 8.1
/// on) and lock-free elsewhere; a reader or a writer that the system has put to sleep delays nobody.
/// std::atomic<std::shared_ptr> promises less: in libstdc++ a reader spins on a bit that another thread holds.
/// publish() is for one writer at a time, and waits for no reader.
///
/// A value that was replaced is destroyed by whoever ends its last lease, or by publish() if there is none. Up to 1023
/// replaced values may be leased at once; a publish() beyond that throws Error(capacity), and nothing has changed. One
/// value may have 2^54 leases. Leases end before the object does.
///
/// How: one word holds the place of the value and how many leases it has had; a place counts those that have ended.
/// Who replaces the value takes the word, and adds the first number to the second: the value is of no more use when
/// the sum comes to 0.  (Split reference counts: Williams, C++ Concurrency in Action, section 7.2.4.)
template <class T>
class Published {
  struct Place;

 public:
  /// Ends with the object, or by end(). Move-only; an empty one has no value.
  class Lease {
   public:
    Lease() = default;
    Lease(Lease&& other) noexcept : place_(std::exchange(other.place_, nullptr)) {}
    Lease& operator=(Lease&& other) noexcept {
      if (this == &other) return *this;
      end();
      place_ = std::exchange(other.place_, nullptr);
      return *this;
    }
    ~Lease() { end(); }

    void end() noexcept {
      if (place_ != nullptr) std::exchange(place_, nullptr)->add(-1);
    }
    explicit operator bool() const { return place_ != nullptr; }
    const T& operator*() const { return *place_->value.load(std::memory_order_relaxed); }
    const T* operator->() const { return &**this; }

   private:
    friend Published;
    explicit Lease(Place& place) : place_(&place) {}

    Place* place_ = nullptr;
  };

  explicit Published(std::unique_ptr<const T> first) : places_(new Place[std::size_t(places)]) {
    places_[0].value.store(first.release(), std::memory_order_relaxed);
  }
  Published(const Published&) = delete;
  Published& operator=(const Published&) = delete;
  ~Published() {
    take(current_.load(std::memory_order_acquire));
    MOLE_ASSERT(in_use() == 0);  // a lease outlives what it is a lease of
  }

  Lease lease() const { return Lease(places_[current_.fetch_add(one_lease, std::memory_order_acquire) % places]); }

  void publish(std::unique_ptr<const T> next) {
    const std::uint64_t free = free_place();
    Place& place = places_[free];
    place.value.store(next.release(), std::memory_order_relaxed);
    last_ = free;
    take(current_.exchange(free, std::memory_order_acq_rel));
  }

  /// Values that are published or still leased, at some moment of the call.
  Index in_use() const {
    Index count = 0;
    for (std::uint64_t p = 0; p < places; ++p)
      if (places_[p].value.load(std::memory_order_acquire) != nullptr) ++count;
    return count;
  }

 private:
  static constexpr std::uint64_t places = 1024, one_lease = places;
  static_assert(std::atomic<std::uint64_t>::is_always_lock_free && std::atomic<std::int64_t>::is_always_lock_free);

  struct Place {
    std::atomic<const T*> value = nullptr;  // null: the place is free
    std::atomic<std::int64_t> leases = 0;   // minus those that have ended; from when the value is replaced, those left

    void add(std::int64_t count) noexcept {
      if (leases.fetch_add(count, std::memory_order_acq_rel) + count != 0) return;
      delete value.load(std::memory_order_relaxed);
      value.store(nullptr, std::memory_order_release);
    }
  };

  /// Of a word that was current: from now on the value of its place has no lease but those that it had.
  void take(std::uint64_t word) { places_[word % places].add(std::int64_t(word / places)); }

  std::uint64_t free_place() const {
    for (std::uint64_t p = 1; p < places; ++p)
      if (const std::uint64_t place = (last_ + p) % places;
          places_[place].value.load(std::memory_order_acquire) == nullptr)
        return place;
    detail::fail_with(ErrorCode::capacity, "Published: expected leases on at most ", places - 1,
                      " replaced values at once, found one more");
  }

  const std::unique_ptr<Place[]> places_;
  std::uint64_t last_ = 0;                                      // the writer's
  alignas(64) mutable std::atomic<std::uint64_t> current_ = 0;  // place + places * leases
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
