// SPDX-License-Identifier: MIT
// ShardFactors: MoS's factors, put together from the shards of a pool that many layers share.
#pragma once

#include "mole/core/dropout.hpp"
#include "mole/core/matrix.hpp"
#include "mole/factors/computed_tables.hpp"
#include "mole/factors/factor_policy.hpp"
#include "mole/factors/shard_pool.hpp"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Of each expert:   row q of A is shards a[q l] ... a[q l + l - 1] of pool_A, one behind the other; B likewise.
///
/// The tables a and b are drawn once for each expert, fixed, and the same for every token. There is nothing to train in
/// a layer: training moves the pool, whose gradient is added to where the layer's gradients point:
///
///     gradients.experts.pool = &pool_gradients;   null, as gradients() makes it, is a frozen pool
///
/// Layers that run backward at the same time need pool gradients of their own. At I = O = 4,096, 32 layers, e = 8 and
/// r = 16: 2,097,152 trained numbers for all layers, which is a LoRA of rank 8; 1 MiB of scratch a layer and expert in
/// float.
///
/// `layer` says whose private shards an expert has; experts of one layer have those of layer, layer + 1 ... so the
/// pool's `layers` count experts. State: the tables. Throws Error(option) without a pool or for layers beyond it.
/// Source: Wang et al. 2025 (MoS), arXiv:2410.00938; Forence1999/MoS, modules/Tied_LoRA.py.
template <class T>
class ShardFactors {
 public:
  using Scalar = T;
  static constexpr bool borrows = true;  // the pool
  using Scratch = ComputedTables<T>;
  using Table = typename ShardPool<T>::Table;

  struct Options {
    std::shared_ptr<const ShardPool<T>> pool = {};
    Index layer = 0;
    Index experts = 1;
    std::optional<double> alpha = {};  ///< unset: scale 1
    Scaling scaling = Scaling::alpha_over_rank;
    Dropout dropout = {};  ///< on the adapter's input
  };

  /// None of its own.
  struct Parameters {
    typename ShardPool<T>::Parameters* pool = nullptr;  ///< of gradients: those of the pool; null = frozen

    template <class F, class... P>
    static void for_each_tensor(F&&, P&...) {}
  };

  template <std::uniform_random_bit_generator Generator>
  ShardFactors(const Options& options, Generator& generator) : pool_(options.pool) {
    require(pool_ != nullptr, ErrorCode::option, "ShardFactors: expected a pool, found none");
    blocks_ = RankBlocks::uniform(options.experts, pool_->options().rank);
    for (Index e = 0; e < options.experts; ++e) tables_.push_back(pool_->draw(options.layer + e, generator));
  }

  /// Of given tables, one for each expert. Throws Error(shape) for tables of another size, Error(option) for rows that
  /// the pool does not have.
  ShardFactors(std::shared_ptr<const ShardPool<T>> pool, std::vector<Table> tables)
      : pool_(std::move(pool)), tables_(std::move(tables)) {
    require(pool_ != nullptr, ErrorCode::option, "ShardFactors: expected a pool, found none");
    blocks_ = RankBlocks::uniform(Index(tables_.size()), pool_->options().rank);
    for (const Table& table : tables_) check(table);
  }

  void check_sizes() const { pool_->check_sizes(); }
  void check_gradients(const Parameters& gradients) const {
    if (gradients.pool != nullptr) pool_->check_gradients(*gradients.pool, "ShardFactors");
  }

  Index in() const { return pool_->options().in; }
  Index out() const { return pool_->options().out; }
  const RankBlocks& blocks() const { return blocks_; }
  const std::shared_ptr<const ShardPool<T>>& pool() const { return pool_; }
  const std::vector<Table>& tables() const { return tables_; }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }

  template <class F>
  void for_each_state(F&& f) {
    std::vector<Table> tables = tables_;
    for (std::size_t e = 0; e < tables.size(); ++e) {
      f(std::string_view("shards_of_A." + std::to_string(e)), std::span<std::int32_t>(tables[e].a));
      f(std::string_view("shards_of_B." + std::to_string(e)), std::span<std::int32_t>(tables[e].b));
    }
    for (const Table& table : tables) check(table);
    tables_ = std::move(tables);
  }

  Scratch scratch(const CallSize&, Arena& arena) const { return Scratch::both(blocks_, in(), out(), arena); }

  FactorViews<const T> factors(Scratch& scratch) const { return {scratch.a, scratch.b}; }
  FactorViews<T> gradient_views(Parameters& gradients, Scratch& scratch) const {
    if (gradients.pool == nullptr) return {};
    return scratch.zeroed(!gradients.pool->pool_A.empty(), !gradients.pool->pool_B.empty());
  }

  void prepare(auto call) const {
    call.execution.parallel_for(blocks_.ranks_up(), [&, &s = call.scratch](Index row) {
      for_each_shard(row, pool_->parameters().pool_A.view(), true, s.a,
                     [](auto shard, auto piece) { std::ranges::copy(shard, piece.begin()); });
      for_each_shard(row, pool_->parameters().pool_B.view(), false, s.b,
                     [](auto shard, auto piece) { std::ranges::copy(shard, piece.begin()); });
    });
  }

  /// On one thread: rows may share shards.
  void contract(Parameters& gradients, auto call) const {
    if (gradients.pool == nullptr) return;
    const auto add = [](std::span<T> shard, std::span<T> piece) {
      for (std::size_t i = 0; i < shard.size(); ++i) shard[i] += piece[i];
    };
    for (Index row = 0; row < blocks_.ranks_up(); ++row) {
      if (!gradients.pool->pool_A.empty())
        for_each_shard(row, gradients.pool->pool_A.view(), true, call.scratch.d_a, add);
      if (!gradients.pool->pool_B.empty())
        for_each_shard(row, gradients.pool->pool_B.view(), false, call.scratch.d_b, add);
    }
  }

 private:
  /// Calls f(shard, piece) for each shard of row `row` of A or B, `piece` being its place in the row.
  template <class Pool, class F>
  void for_each_shard(Index row, View<Pool> pool, bool of_a, View<T> table, F f) const {
    const Table& rows = tables_[std::size_t(row / pool_->options().rank)];
    const Index shards = pool_->options().shards, first = row % pool_->options().rank * shards;
    const auto width = std::size_t(pool.cols());
    for (Index i = 0; i < shards; ++i)
      f(pool.row((of_a ? rows.a : rows.b)[std::size_t(first + i)]),
        table.row(row).subspan(std::size_t(i) * width, width));
  }

  void check(const Table& table) const {
    const auto& options = pool_->options();
    const Index shards = pool_->parameters().pool_A.rows();
    for (const std::vector<std::int32_t>* rows : {&table.a, &table.b}) {
      require_equal(ErrorCode::shape, "ShardFactors: shards of an expert", options.rank * options.shards,
                    Index(rows->size()));
      for (std::int32_t row : *rows)
        require(row >= 0 && row < shards, ErrorCode::option, "ShardFactors: expected shards from 0 to ", shards - 1,
                ", found ", row);
    }
  }

  std::shared_ptr<const ShardPool<T>> pool_;
  std::vector<Table> tables_;
  RankBlocks blocks_ = RankBlocks::uniform(1, 1);
  Parameters parameters_;
};

static_assert(ComputedFactorPolicy<ShardFactors<float>>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
