// SPDX-License-Identifier: MIT
// AdapterGeneration: the adapters that a table holds at one moment, by their ids.
#pragma once

#include "mole/serve/served_adapter.hpp"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// What an AdapterTable publishes: an immutable list, sorted by id. Each change of the table makes a new one, of the
/// next number, which shares all adapters that stay.
template <class T>
class AdapterGeneration {
 public:
  struct Entry {
    int id;
    std::shared_ptr<const ServedAdapter<T>> adapter;
  };

  /// `entries` ascend by id.
  AdapterGeneration(std::uint64_t number, std::vector<Entry> entries) : number_(number), entries_(std::move(entries)) {
    for (const Entry& entry : entries_) bytes_ += entry.adapter->bytes();
  }

  std::uint64_t number() const { return number_; }
  std::span<const Entry> entries() const { return entries_; }
  /// Of all adapters.
  std::size_t bytes() const { return bytes_; }

  /// The first entry whose id is not below `id`.  O(log adapters)
  std::size_t place_of(int id) const {
    const auto before = [](const Entry& entry, int other) { return entry.id < other; };
    return std::size_t(std::lower_bound(entries_.begin(), entries_.end(), id, before) - entries_.begin());
  }
  bool has(int id) const { return find(id) != nullptr; }
  /// Null where there is none.
  const ServedAdapter<T>* find(int id) const {
    const std::size_t place = place_of(id);
    return place < entries_.size() && entries_[place].id == id ? entries_[place].adapter.get() : nullptr;
  }

 private:
  std::uint64_t number_;
  std::vector<Entry> entries_;
  std::size_t bytes_ = 0;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
