// SPDX-License-Identifier: MIT
// MultiAdapterLinear: a linear layer that serves an adapter of its own to each row.
#pragma once

#include "mole/base/base_policy.hpp"
#include "mole/core/error.hpp"
#include "mole/core/view.hpp"
#include "mole/execution/default_execution.hpp"
#include "mole/serve/adapter_batch.hpp"
#include "mole/serve/adapter_rows.hpp"
#include "mole/serve/adapter_table.hpp"

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <memory_resource>
#include <span>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The memory of a MultiAdapterLinear's calls: one for each call in flight. Move-only.
template <class Base>
struct MultiAdapterWorkspace {
  using T = typename Base::Scalar;

  AdapterBatch<T> batch;  ///< of forward(x, table, ids, y, work)
  ScratchOf<Base> base_scratch;
  std::uint64_t layout;  ///< of the base's scratch
  MemoryBlock memory;    ///< that it lies in
};

/// y_n = base(x_n) + scale B^T (A x_n), with scale, A and B of the adapter of row n, at this layer's site
///
///   x [N x I], y [N x O], overwritten; N rows of as many requests, with hundreds of adapters of any ranks among them
///
/// Rows are sorted by adapter, so that the matrices of an adapter are read once for all of its rows, and those of
/// adapters that no row has are not touched: they may hold NaN. A row without an adapter has the base's bits. The bits
/// of a row depend on its x and its adapter alone, not on other rows, their order, the other adapters of the table, or
/// the number of threads, if those of the base do not: PackedBase under Simd, for one, and DenseBase under Reference.
///
/// Forward only. The layer is const, and threads share it, each with a workspace. Which adapters there are is the
/// argument of a call, not the layer's: see AdapterBatch, of which one serves all layers of a model.
///
/// forward() checks all of its arguments before it writes to y: Error(shape) for tensors, a batch or an adapter that do
/// not fit, Error(capacity) for a workspace that is too small, Error(order) for one of another base; and for ids what
/// AdapterBatch::begin() throws. Allocates in workspace() only, but in ThroughEigen and what a base allocates.
template <class Base, class Execution = DefaultExecution>
class MultiAdapterLinear {
 public:
  using Scalar = typename Base::Scalar;
  using T = Scalar;
  using Workspace = MultiAdapterWorkspace<Base>;

  static_assert(BasePolicy<Base, Execution>, "mole: Base does not model BasePolicy (mole/base/base_policy.hpp)");
  static_assert(ExecutionPolicy<Execution, T>,
                "mole: Execution does not model ExecutionPolicy (mole/execution/execution_policy.hpp)");

  /// `site`: which part of each adapter is for this layer. Throws Error(option) for one below 0.
  explicit MultiAdapterLinear(Base base, Index site = 0, Execution execution = {})
      : base_(std::move(base)), site_(site), execution_(std::move(execution)) {
    require(site >= 0, ErrorCode::option, "MultiAdapterLinear: expected a site of at least 0, found ", site);
    detail::check_sizes(base_);
    layout_ = layout();
  }

  Index in() const { return base_.in(); }
  Index out() const { return base_.out(); }
  Index site() const { return site_; }
  const Base& base() const { return base_; }
  const Execution& execution() const { return execution_; }

  /// For calls of up to `max_rows` rows.
  Workspace workspace(Index max_rows, std::pmr::memory_resource* memory = std::pmr::get_default_resource()) const {
    Workspace work{AdapterBatch<T>(max_rows, memory), {}, layout_, {}};
    const auto make = [&](Arena& arena) { return scratch_for(base_, CallSize{.tokens = max_rows}, arena); };
    work.memory = MemoryBlock(bytes_of(make), memory);
    Arena arena(work.memory.bytes());
    work.base_scratch = make(arena);
    return work;
  }

  /// Each row with the adapter that `batch` has for it.
  void forward(View<const T> x, const AdapterBatch<T>& batch, View<T> y, Workspace& work) const {
    check(x, batch, y, work);
    const Pass pass;
    base_.forward(x, y, Call<Execution, ScratchOf<Base>>{execution_, pass, work.base_scratch});
    add_adapters(x, batch, y);
  }
  /// Each row with the adapter of its id in the newest generation of `table`.
  void forward(View<const T> x, const AdapterTable<T>& table, std::span<const int> ids, View<T> y,
               Workspace& work) const {
    work.batch.begin(table, ids);
    const Ended ended{work.batch};
    forward(x, work.batch, y, work);
  }

 private:
  struct Ended {
    AdapterBatch<T>& batch;
    ~Ended() { batch.end(); }
  };

  std::uint64_t layout() const {
    Arena measure;
    static_cast<void>(scratch_for(base_, CallSize{.tokens = 3}, measure));
    return measure.layout();
  }

  void check(const View<const T>& x, const AdapterBatch<T>& batch, const View<T>& y, const Workspace& work) const {
    require_equal(ErrorCode::shape, "MultiAdapterLinear: columns of x", in(), x.cols());
    require_equal(ErrorCode::shape, "MultiAdapterLinear: rows of the batch, one for each of x", x.rows(), batch.rows());
    require(y.rows() == x.rows() && y.cols() == out(), ErrorCode::shape, "MultiAdapterLinear: expected a y of [",
            x.rows(), " x ", out(), "], found [", y.rows(), " x ", y.cols(), "]");
    require(!overlap<T>(x, y), ErrorCode::shape,
            "MultiAdapterLinear: expected y in other memory than x, found both in the same");
    require(x.rows() <= work.batch.max_rows(), ErrorCode::capacity, "MultiAdapterLinear: workspace made for ",
            work.batch.max_rows(), " rows, x has ", x.rows());
    require(work.layout == layout_, ErrorCode::order,
            "MultiAdapterLinear: expected a workspace of this layer, found that of another base");
    for (const auto& run : batch.runs()) {
      require(site_ < run.adapter->sites(), ErrorCode::shape, "MultiAdapterLinear: expected adapters with a site ",
              site_, ", found one of ", run.adapter->sites(), " sites");
      const Adapter<T>& adapter = run.adapter->site(site_);
      require(adapter.rank() == 0 || (adapter.in() == in() && adapter.out() == out()), ErrorCode::shape,
              "MultiAdapterLinear: expected adapters of ", in(), " inputs and ", out(), " outputs at site ", site_,
              ", found one of ", adapter.in(), " and ", adapter.out());
    }
  }

  /// Runs and parts of runs, in tasks of about equal work.
  void add_adapters(const View<const T>& x, const AdapterBatch<T>& batch, const View<T>& y) const {
    const Index rows = Index(batch.order().size());
    if (rows == 0) return;
    const Index per_task = rows_of_a_task(batch);
    execution_.parallel_for((rows + per_task - 1) / per_task, [&](Index task) {
      const Index begin = task * per_task, end = std::min(rows, begin + per_task);
      AdapterRows<Execution, T> some;
      Index place = begin;
      for (Index r = batch.run_at(begin); place < end; ++r) {
        const auto& run = batch.runs()[std::size_t(r)];
        for (const Index last = std::min(end, run.first + run.count); place < last;) {
          const Index count = std::min(some.most_rows, last - place);
          for (Index q = 0; q < count; ++q) {
            const Index n = batch.order()[std::size_t(place + q)];
            some.x[std::size_t(q)] = x.row_data(n);
            some.y[std::size_t(q)] = y.row_data(n);
          }
          some.add(count, run.adapter->site(site_));
          place += count;
        }
      }
    });
  }

  /// As many as are worth a thread, and whole tiles of them.
  Index rows_of_a_task(const AdapterBatch<T>& batch) const {
    const Index rows = Index(batch.order().size());
    if (execution_.threads() == 1) return rows;
    double ranks = 0;
    for (const auto& run : batch.runs()) ranks += double(run.count * run.adapter->site(site_).rank());
    return SimdCosts::items_per_task(2.0 * double(in() + out()) * ranks / double(rows), 12);
  }

  Base base_;
  Index site_;
  Execution execution_;
  std::uint64_t layout_ = 0;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
