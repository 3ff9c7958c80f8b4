// SPDX-License-Identifier: MIT
// GrowingBank: MoRAM's factors, rank-1 atoms of which only the newest are trained.
#pragma once

#include "mole/core/dropout.hpp"
#include "mole/core/random.hpp"
#include "mole/factors/factor_policy.hpp"
#include "mole/factors/lora_parameters.hpp"

#include <cmath>
#include <optional>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

namespace detail {
/// The newest rows of a bank's table, in place of a matrix for for_each_tensor.
template <class T>
struct NewestRows {
  View<T> rows;

  bool empty() const { return !rows; }
  View<T> view() const { return rows; }
};
}  // namespace detail

/// A bank of rank-1 experts that grows by one range of atoms per task; all ranges but the last are frozen.
///
///   A [atoms x I], B [atoms x O]: one table each, oldest atoms first      lora_A, lora_B [newest atoms x I or O]
///
/// Each range starts at A ~ U(-1/sqrt(I), 1/sqrt(I)) and B = 0. Parameters, gradients and moments are those of the
/// newest range alone: a frozen atom costs its share of y and of d_x, and its bits never change. for_each_state()
/// visits the frozen rows for a checkpoint, which a bank made with the same `ranks` can read.
///
/// parameters() returns views of the newest rows, as they are parts of larger tables; these convert to Parameters,
/// which owns copies, to make gradients and moments of the same shapes.
///
/// LowRank::append() grows the experts together with their scales: each range may have its own. Throws Error(option)
/// for sizes below 1. append() copies the tables.
/// Source: Lu et al. 2025 (MoRA, later MoRAM), arXiv:2506.21035; Artificer-AI-Lab/MoRAM, XTAIL/loralib/moram.py.
template <class T>
class GrowingBank {
 public:
  using Scalar = T;
  using Parameters = LoraParameters<T>;

  struct Options {
    Index in = 0;
    Index out = 0;
    std::vector<int> ranks = {16};     ///< atoms of each range, oldest first; the last one learns
    std::optional<double> alpha = {};  ///< unset: scale 1
    Scaling scaling = Scaling::fixed;  ///< an atom has one rank, so alpha_over_rank equals alpha, too
    Dropout dropout = {};              ///< on the adapter's input
  };

  template <std::uniform_random_bit_generator Generator>
  GrowingBank(const Options& options, Generator& generator) : blocks_(RankBlocks::uniform(1, 1)) {
    require(options.in >= 1 && options.out >= 1 && !options.ranks.empty(), ErrorCode::option,
            "GrowingBank: expected in and out of at least 1 and a range, found in = ", options.in,
            ", out = ", options.out, ", ", options.ranks.size(), " ranges");
    a_ = Matrix<T>(0, options.in), b_ = Matrix<T>(0, options.out);
    for (int ranks : options.ranks) append(ranks, generator);
  }

  /// Appends a new range of atoms; those before are frozen from now on.
  template <std::uniform_random_bit_generator Generator>
  void append(Index ranks, Generator& generator) {
    require(ranks >= 1, ErrorCode::option, "GrowingBank: expected a range of at least 1 atom, found ", ranks);
    Matrix<T> a = stacked(a_, Matrix<T>(ranks, in())), b = stacked(b_, Matrix<T>(ranks, out()));
    RankBlocks blocks = RankBlocks::uniform(a.rows(), 1);
    ranges_.push_back(int(ranks));  // the last that may run out of memory
    a_ = std::move(a), b_ = std::move(b), blocks_ = std::move(blocks);
    fill_uniform(newest(a_.view()), 1 / std::sqrt(double(in())), generator);
  }

  Index in() const { return a_.cols(); }
  Index out() const { return b_.cols(); }
  const RankBlocks& blocks() const { return blocks_; }
  const std::vector<int>& ranges() const { return ranges_; }  ///< atoms of each range, as Options::ranks
  Index frozen() const { return a_.rows() - ranges_.back(); }

  auto parameters() { return Newest<T>{{newest(a_.view())}, {newest(b_.view())}}; }
  auto parameters() const { return Newest<const T>{{newest(a_.view())}, {newest(b_.view())}}; }

  /// The frozen rows of both tables, if any.
  template <class F>
  void for_each_state(F&& f) {
    if (frozen() == 0) return;
    f("frozen_A", a_.elements().first(std::size_t(frozen() * in())));
    f("frozen_B", b_.elements().first(std::size_t(frozen() * out())));
  }

  FactorViews<const T> factors(NoScratch&) const { return {a_, b_}; }
  FactorViews<T> gradient_views(Parameters& gradients, NoScratch&) const {
    return {gradients.lora_A, gradients.lora_B};
  }

 private:
  template <class U>
  struct Newest {
    detail::NewestRows<U> lora_A, lora_B;

    operator Parameters() const { return {copied(lora_A.rows), copied(lora_B.rows)}; }
  };

  template <class U>
  View<U> newest(View<U> table) const {
    return table.middle_rows(frozen(), ranges_.back());
  }
  static Matrix<T> copied(View<const T> rows) {
    Matrix<T> matrix(rows.rows(), rows.cols());
    copy(rows, matrix.view());
    return matrix;
  }

  RankBlocks blocks_;
  std::vector<int> ranges_;
  Matrix<T> a_, b_;
};

static_assert(FactorPolicy<GrowingBank<float>>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
