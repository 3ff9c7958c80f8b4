// SPDX-License-Identifier: MIT
// AdapterTable: the adapters that a server offers, changed while they serve.
#pragma once

#include "mole/core/error.hpp"
#include "mole/serve/adapter_generation.hpp"
#include "mole/serve/published.hpp"
#include "mole/serve/served_adapter.hpp"

#include <concepts>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Sizes of a linear layer that adapters change.
struct AdapterSite {
  Index in = 0, out = 0;
};

/// Adapters by the ids that a server gives them, from 0 on: the numbers that requests carry. (A handle of the table's
/// own would have to be looked up for each request by the id that it came with.)
///
/// A table serves all layers of a model, its sites, so that an adapter enters, changes and leaves in all of them at
/// once. A change publishes a new generation. Whoever holds a lease keeps the generation that it began with, and an
/// adapter that was replaced or removed is freed when the last lease on a generation that has it ends, by the thread
/// that ends it; a request that keeps its adapter to its own end holds what find() returned.
///
/// lease() and find() may be called by any number of threads at any time; they are as wait-free as Published. Writers
/// take their turn by a mutex, and never wait for readers. A change makes all of the new generation first, in
/// O(adapters), and throws before anything is published:
///     Error(capacity)       more than `max_adapters`, `max_rank` or `max_bytes`; too many generations leased
///     Error(unknown_id)     replace() and remove() of an id that the table does not have
///     Error(duplicate_id)   add() of an id that it has
///     Error(shape)          an adapter of other sites than the table's
///     Error(option)         an id below 0, or no adapter; for the constructor, sites or limits below 1
/// The table outlives its leases. `max_bytes` bounds the newest generation; what older ones still hold comes on top.
template <std::floating_point T>
class AdapterTable {
 public:
  using Scalar = T;
  using Generation = AdapterGeneration<T>;
  using Lease = typename Published<Generation>::Lease;

  struct Options {
    std::vector<AdapterSite> sites;  ///< at least one
    Index max_adapters = 256;
    Index max_rank = 64;                                              ///< of one adapter at one site
    std::size_t max_bytes = std::numeric_limits<std::size_t>::max();  ///< of A and B of all adapters
  };

  explicit AdapterTable(Options options)
      : options_(std::move(options)), published_(std::make_unique<const Generation>(1, Entries{})) {
    require(!options_.sites.empty(), ErrorCode::option, "AdapterTable: expected at least 1 site, found 0");
    for (const AdapterSite& site : options_.sites)
      require(site.in >= 1 && site.out >= 1, ErrorCode::option,
              "AdapterTable: expected in and out of at least 1 at each site, found ", site.in, " and ", site.out);
    require(options_.max_adapters >= 1 && options_.max_rank >= 1, ErrorCode::option,
            "AdapterTable: expected max_adapters and max_rank of at least 1, found ", options_.max_adapters, " and ",
            options_.max_rank);
  }

  const Options& options() const { return options_; }

  /// The newest generation, for as long as the lease lasts.
  Lease lease() const { return published_.lease(); }
  /// The adapter of the newest generation, for as long as the pointer lives; null where there is none.
  std::shared_ptr<const ServedAdapter<T>> find(int id) const {
    const Lease now = lease();
    return now->has(id) ? now->entries()[now->place_of(id)].adapter : nullptr;
  }
  /// Generations that are published or still leased.
  Index generations() const { return published_.in_use(); }

  void add(int id, std::shared_ptr<const ServedAdapter<T>> adapter) {
    check(id, adapter);
    change([&](Entries& entries, const Generation& now) {
      require(!now.has(id), ErrorCode::duplicate_id, "AdapterTable: expected a new id, found ", id,
              ", which the table has");
      require(Index(entries.size()) < options_.max_adapters, ErrorCode::capacity, "AdapterTable: expected at most ",
              options_.max_adapters, " adapters, found one more");
      entries.insert(entries.begin() + std::ptrdiff_t(now.place_of(id)), {id, std::move(adapter)});
    });
  }
  void add(int id, ServedAdapter<T> adapter) { add(id, std::make_shared<const ServedAdapter<T>>(std::move(adapter))); }

  void replace(int id, std::shared_ptr<const ServedAdapter<T>> adapter) {
    check(id, adapter);
    change([&](Entries& entries, const Generation& now) { known(id, entries, now).adapter = std::move(adapter); });
  }
  void replace(int id, ServedAdapter<T> adapter) {
    replace(id, std::make_shared<const ServedAdapter<T>>(std::move(adapter)));
  }

  void remove(int id) {
    change([&](Entries& entries, const Generation& now) {
      const auto& found = known(id, entries, now);
      entries.erase(entries.begin() + (&found - entries.data()));
    });
  }

 private:
  using Entries = std::vector<typename Generation::Entry>;

  static typename Generation::Entry& known(int id, Entries& entries, const Generation& now) {
    require(now.has(id), ErrorCode::unknown_id, "AdapterTable: expected an id that the table has, found ", id);
    return entries[now.place_of(id)];
  }

  /// Publishes what edit(entries, now) makes of a copy of the entries of now.
  template <class Edit>
  void change(Edit edit) {
    Lease now;  // ends after the lock: what that frees keeps no other writer waiting
    const std::lock_guard lock(writers_);
    now = lease();
    Entries entries;
    entries.reserve(now->entries().size() + 1);
    entries.assign(now->entries().begin(), now->entries().end());
    edit(entries, *now);
    auto next = std::make_unique<const Generation>(now->number() + 1, std::move(entries));
    require(next->bytes() <= options_.max_bytes, ErrorCode::capacity, "AdapterTable: expected at most ",
            options_.max_bytes, " bytes of adapters, found ", next->bytes());
    published_.publish(std::move(next));
  }

  void check(int id, const std::shared_ptr<const ServedAdapter<T>>& adapter) const {
    require(id >= 0, ErrorCode::option, "AdapterTable: expected an id of at least 0, found ", id);
    require(adapter != nullptr, ErrorCode::option, "AdapterTable: expected an adapter, found none");
    require_equal(ErrorCode::shape, "AdapterTable: sites of the adapter", Index(options_.sites.size()),
                  adapter->sites());
    for (Index s = 0; s < adapter->sites(); ++s) {
      const AdapterSite& site = options_.sites[std::size_t(s)];
      const Adapter<T>& found = adapter->site(s);
      require(found.rank() == 0 || (found.in() == site.in && found.out() == site.out), ErrorCode::shape,
              "AdapterTable: expected an adapter of ", site.in, " inputs and ", site.out, " outputs at site ", s,
              ", found one of ", found.in(), " and ", found.out());
    }
    require(adapter->max_rank() <= options_.max_rank, ErrorCode::capacity, "AdapterTable: expected at most ",
            options_.max_rank, " ranks of an adapter, found ", adapter->max_rank());
  }

  const Options options_;
  std::mutex writers_;
  Published<Generation> published_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
