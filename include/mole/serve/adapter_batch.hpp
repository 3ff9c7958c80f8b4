// SPDX-License-Identifier: MIT
// AdapterBatch: which adapter each row of a batch has.
#pragma once

#include "mole/core/checked_size.hpp"
#include "mole/core/error.hpp"
#include "mole/core/memory/memory_block.hpp"
#include "mole/core/memory/taken_by_move.hpp"
#include "mole/serve/adapter_table.hpp"

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <functional>
#include <memory_resource>
#include <span>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The rows of a batch, sorted by adapter once for all layers of a model, and a lease on the generation that they use.
///
///   ids: one for each row, of an adapter in the table; -1 stands for the base alone
///
/// begin(table, ids) takes the newest generation and keeps it until end(), the next begin() or the object's end. All
/// layers that are given the batch compute with that generation, so that no request meets half of a swap.
///
/// begin(adapters) takes what the caller holds instead, null for the base: with it, a request that runs over many
/// batches keeps the version of its adapter that it began with (AdapterTable::find), beside others that have a newer
/// one. The adapters have to live until end().
///
/// Throws Error(unknown_id) for an id that is neither in the table nor -1, and names the row; Error(capacity) for more
/// than `max_rows` rows. The batch is then one without rows. O(rows log rows), and O(log adapters) where the id changes
/// from row to row. Allocates when it is made only; ending the last lease on an old generation frees. Move-only.
template <std::floating_point T>
class AdapterBatch {
 public:
  using Scalar = T;

  /// Rows of one adapter.
  struct Run {
    const ServedAdapter<T>* adapter;
    Index first, count;  ///< in order()
  };

  explicit AdapterBatch(Index max_rows, std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : max_rows_(checked_int("AdapterBatch: rows", max_rows)) {
    const auto lay_out = [this](Arena& arena) {
      places_ = arena.vector<Place>(max_rows_);
      order_ = arena.vector<int>(max_rows_);
      runs_ = arena.vector<Run>(max_rows_);
      return 0;
    };
    memory_ = MemoryBlock(bytes_of(lay_out), memory);
    Arena arena(memory_.bytes());
    lay_out(arena);
  }
  AdapterBatch(AdapterBatch&&) noexcept = default;
  AdapterBatch& operator=(AdapterBatch&&) noexcept = default;

  void begin(const AdapterTable<T>& table, std::span<const int> ids) {
    end();
    require_room(Index(ids.size()));
    auto lease = table.lease();
    int known = -1;
    const ServedAdapter<T>* adapter = nullptr;
    for (std::size_t n = 0; n < ids.size(); ++n) {
      if (ids[n] != known) {
        adapter = lease->find(ids[n]);
        known = ids[n];
        if (adapter == nullptr && known != -1) refuse(known, Index(n));
      }
      place(adapter, int(n));
    }
    lease_ = std::move(lease);
    sort(Index(ids.size()));
  }
  void begin(std::span<const ServedAdapter<T>* const> adapters) {
    end();
    require_room(Index(adapters.size()));
    for (std::size_t n = 0; n < adapters.size(); ++n) place(adapters[n], int(n));
    sort(Index(adapters.size()));
  }
  /// Gives the generation up.
  void end() noexcept {
    rows_ = 0;
    places_.clear(), order_.clear(), runs_.clear();
    lease_.end();
  }

  Index max_rows() const { return max_rows_; }
  Index rows() const { return rows_; }
  /// The number of the generation; 0 if it has none.
  std::uint64_t generation() const { return lease_ ? lease_->number() : 0; }

  /// The rows that have an adapter of any ranks, run by run, ascending within a run.
  std::span<const int> order() const { return {order_.data(), order_.size()}; }
  std::span<const Run> runs() const { return {runs_.data(), runs_.size()}; }
  /// The run to which the row at `place` of order() belongs.  O(log runs)
  Index run_at(Index place) const {
    const auto begins_after = [](Index here, const Run& run) { return here < run.first; };
    return std::upper_bound(runs_.begin(), runs_.end(), place, begins_after) - runs_.begin() - 1;
  }

 private:
  struct Place {
    const ServedAdapter<T>* adapter;
    int row;
  };

  void require_room(Index rows) const {
    require(rows <= max_rows_, ErrorCode::capacity, "AdapterBatch: made for ", Index(max_rows_), " rows, found ", rows);
  }
  [[noreturn]] MOLE_COLD void refuse(int id, Index row) {
    end();
    detail::fail_with(ErrorCode::unknown_id,
                      "AdapterBatch: expected ids of adapters in the table, or -1 for the base, found ", id, " in row ",
                      row);
  }
  void place(const ServedAdapter<T>* adapter, int row) {
    if (adapter != nullptr && adapter->max_rank() > 0) places_.push_back({adapter, row});
  }
  /// Where adapters lie in memory decides in which order they are computed, which no result depends on.
  void sort(Index rows) {
    std::sort(places_.begin(), places_.end(), [](const Place& a, const Place& b) {
      return a.adapter != b.adapter ? std::less<>{}(a.adapter, b.adapter) : a.row < b.row;
    });
    for (const Place& place : places_) {
      if (runs_.empty() || runs_.back().adapter != place.adapter)
        runs_.push_back({place.adapter, Index(order_.size()), 0});
      ++runs_.back().count;
      order_.push_back(place.row);
    }
    rows_ = rows;
  }

  MemoryBlock memory_;
  ScratchVector<Place> places_;
  ScratchVector<int> order_;
  ScratchVector<Run> runs_;
  TakenByMove<Index> max_rows_, rows_;
  typename AdapterTable<T>::Lease lease_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
