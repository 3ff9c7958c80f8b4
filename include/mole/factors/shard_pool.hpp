// SPDX-License-Identifier: MIT
// ShardPool: the trained pieces of which the A and B of many layers are put together.
#pragma once

#include "mole/core/checked_size.hpp"
#include "mole/core/matrix.hpp"
#include "mole/core/parameters.hpp"
#include "mole/core/random.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <span>
#include <string_view>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Shards of A and of B for the L layers of one type, say all q projections of a model.
///
///   pool_A [e L l x I/l]   pool_B [e L l x O/l]: a row is a shard, l of which make a row of A or of B
///
/// The budget e is the rank that a LoRA of as many trained numbers has: e L (I + O) for the whole model. p of each
/// layer's ranks are private: their shards are the last p L l rows, p l for each layer. The others are drawn from all
/// other rows, so layers share them.
///
/// A pool is trained once, not by the layers that use it: it has parameters and for_each_tensor() of its own, and each
/// layer's gradients name where those of the pool are added. Starts at A ~ U(-1/sqrt(I), 1/sqrt(I)) and B = 0.
/// Throws Error(option) for sizes below 1, an l that does not divide I and O, or ranks that the pool cannot serve.
/// Source: Wang et al. 2025 (MoS), arXiv:2410.00938; Forence1999/MoS, modules/Tied_LoRA.py.
template <class T>
class ShardPool {
 public:
  using Scalar = T;

  struct Options {
    Index in = 0;
    Index out = 0;
    Index layers = 1;        ///< L
    Index pool_rank = 8;     ///< e
    Index rank = 16;         ///< r of each layer
    Index private_rank = 1;  ///< p, of those r
    Index shards = 4;        ///< l, of each row of A and of B
  };

  struct Parameters {
    Matrix<T> pool_A, pool_B;

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      f("pool_A", p.pool_A...);
      f("pool_B", p.pool_B...);
    }
  };

  /// The rows of the pool that make a layer's ranks, l for each, in order.   a, b [r l]
  struct Table {
    std::vector<std::int32_t> a, b;
  };

  template <std::uniform_random_bit_generator Generator>
  ShardPool(const Options& options, Generator& generator) : options_(options) {
    for (const auto& [name, size] : {std::pair{"in", options.in},
                                     {"out", options.out},
                                     {"layers", options.layers},
                                     {"pool_rank", options.pool_rank},
                                     {"rank", options.rank},
                                     {"shards", options.shards}})
      require(size >= 1, ErrorCode::option, "ShardPool: expected ", name, " of at least 1, found ", size);
    require(options.in % options.shards == 0 && options.out % options.shards == 0, ErrorCode::option,
            "ShardPool: expected shards that divide the ", options.in, " inputs and ", options.out, " outputs, found ",
            options.shards);
    require(options.private_rank >= 0 && options.private_rank <= std::min(options.pool_rank, options.rank),
            ErrorCode::option, "ShardPool: expected a private rank from 0 to ",
            std::min(options.pool_rank, options.rank), ", found ", options.private_rank);
    const Index rows = checked_product("ShardPool: shards", options.pool_rank, options.layers, options.shards);
    checked_int("ShardPool: shards", rows);
    require((options.rank - options.private_rank) * options.shards <= shared_rows(), ErrorCode::option,
            "ShardPool: expected at most ", shared_rows() / options.shards, " shared ranks of a layer, found ",
            options.rank - options.private_rank);
    parameters_ = {Matrix<T>(rows, options.in / options.shards), Matrix<T>(rows, options.out / options.shards)};
    fill_uniform(parameters_.pool_A.view(), 1 / std::sqrt(double(options.in)), generator);
  }

  void check_sizes() const {
    for (const auto& [table, width] :
         {std::pair{&parameters_.pool_A, options_.in}, {&parameters_.pool_B, options_.out}}) {
      require_equal(ErrorCode::shape, "ShardPool: shards", options_.pool_rank * options_.layers * options_.shards,
                    table->rows());
      require_equal(ErrorCode::shape, "ShardPool: numbers of a shard", width / options_.shards, table->cols());
    }
  }
  /// Throws Error(shape), naming `who`, unless `p` has the sizes of this pool, or is empty where it is frozen.
  void check_gradients(const Parameters& p, std::string_view who) const {
    for (const auto& [gradient, parameter] :
         {std::pair{&p.pool_A, &parameters_.pool_A}, {&p.pool_B, &parameters_.pool_B}})
      require(gradient->empty() || (gradient->rows() == parameter->rows() && gradient->cols() == parameter->cols()),
              ErrorCode::shape, who, ": expected gradients of the pool [", parameter->rows(), " x ", parameter->cols(),
              "], found [", gradient->rows(), " x ", gradient->cols(), "]");
  }

  const Options& options() const { return options_; }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }
  Parameters gradients() const { return zeros_like(parameters_); }

  /// Calls f(name, parameter, other...) with one View per tensor, for the parameters and each of `others`.
  template <class F, class... Others>
  void for_each_tensor(F&& f, Others&... others) {
    detail::for_each_view<Parameters>(f, parameters_, others...);
  }

  /// Distinct shared rows for A and others for B, drawn uniformly, then the private ones of layer `layer`.
  template <std::uniform_random_bit_generator Generator>
  Table draw(Index layer, Generator& generator) const {
    require(layer >= 0 && layer < options_.layers, ErrorCode::option, "ShardPool: expected a layer from 0 to ",
            options_.layers - 1, ", found ", layer);
    Table table{draw_shared(generator), draw_shared(generator)};
    const Index count = options_.private_rank * options_.shards;
    for (Index i = 0; i < count; ++i) {
      const auto row = std::int32_t(shared_rows() + layer * count + i);
      table.a.push_back(row), table.b.push_back(row);
    }
    return table;
  }

 private:
  Index shared_rows() const { return (options_.pool_rank - options_.private_rank) * options_.layers * options_.shards; }

  template <class Generator>
  std::vector<std::int32_t> draw_shared(Generator& generator) const {
    std::vector<std::int32_t> rows(static_cast<std::size_t>(shared_rows()));
    std::iota(rows.begin(), rows.end(), 0);
    const auto chosen = std::size_t((options_.rank - options_.private_rank) * options_.shards);
    for (std::size_t i = 0; i < chosen; ++i)
      std::swap(rows[i], rows[i + std::size_t(unit_interval(generator()) * double(rows.size() - i))]);
    rows.resize(chosen);
    return rows;
  }

  Options options_;
  Parameters parameters_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
