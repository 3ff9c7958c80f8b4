// SPDX-License-Identifier: MIT
// DiagonalBases: the frozen random matrices of RandLoRA, which all layers of a model share.
#pragma once

#include "mole/core/matrix.hpp"
#include "mole/core/random.hpp"
#include "mole/kernel/architecture_of.hpp"
#include "mole/kernel/uniform_columns.hpp"

#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The distribution of the entries of random bases. The variance is 1 in each case.
enum class BasisDistribution {
  uniform,
  ternary,         ///< -s, 0, s with probability 1/6, 2/3, 1/6
  sparse_ternary,  ///< -s and s with probability 1/(2 sqrt(D)) each, where D is the largest small side
};

/// One matrix A, and a stack of matrices B_b, for the largest layer of a model; a smaller one reads the first columns
/// of A, the first bases, and the first columns of each.
///
///   A [r x largest small side]   B_b [r x largest large side], of a layer's I and O
///
/// All numbers follow from the seed, one by one: a tile that any thread makes at any time has the same bits. `keep`
/// holds them in memory, r numbers for each column of each basis: 64.5 MiB of float for layers of 4,096 x 4,096 and
/// r = 32. Without, a forward makes A once and each B_b once per expert in use; a backward makes the B_b again. Where
/// vectors can make them (UniformColumns: float, from AVX2 on), that takes less time than reading them from memory: at
/// 2,048 x 2,048 a token takes 2.4 ms forward instead of 3.2, and 512 tokens as long.
/// Throws Error(option) for sizes below 1, Error(shape) for matrices that do not fit each other.
template <class T>
class DiagonalBases {
 public:
  using Scalar = T;

  struct Options {
    Index rank = 32;       ///< r
    Index small_side = 0;  ///< the largest min(I, O) of a layer
    Index large_side = 0;  ///< the largest max(I, O)
    Index bases = 0;       ///< 0: as many as give full rank, small_side / r, rounded up
    BasisDistribution distribution = BasisDistribution::uniform;
    bool keep = true;  ///< in memory
    std::uint64_t seed = 0;
  };

  explicit DiagonalBases(const Options& options) : options_(options) {
    require(options.rank >= 1 && options.small_side >= 1 && options.large_side >= options.small_side, ErrorCode::option,
            "DiagonalBases: expected a rank and sides of at least 1, the small one first, found rank = ", options.rank,
            ", sides ", options.small_side, " and ", options.large_side);
    require(options.bases >= 0, ErrorCode::option, "DiagonalBases: expected at least 0 bases, found ", options.bases);
    if (options_.bases == 0) options_.bases = bases_for(options.small_side);
    if (options_.distribution == BasisDistribution::uniform)
      chance_ = 1, size_ = std::sqrt(3.0);
    else
      chance_ =
          options_.distribution == BasisDistribution::ternary ? 1.0 / 6 : 0.5 / std::sqrt(double(options.small_side)),
      size_ = 1 / std::sqrt(2 * chance_);
    if (!options_.keep) return;
    Matrix<T> a(options_.rank, options_.small_side);
    Matrix<T> b(checked_product("DiagonalBases: rows", options_.bases, options_.rank), options_.large_side);
    make_rows<void>(0, 0, a.view());
    make_rows<void>(1, 0, b.view());
    a_ = std::move(a), b_ = std::move(b);
  }

  /// From matrices in memory.   a [r x small side]   b [bases r x large side], one basis below the other
  DiagonalBases(Matrix<T> a, Matrix<T> b) : a_(std::move(a)), b_(std::move(b)) {
    require(a_.rows() >= 1 && a_.cols() >= 1 && b_.rows() >= 1 && b_.rows() % a_.rows() == 0 && b_.cols() >= a_.cols(),
            ErrorCode::shape, "DiagonalBases: expected A [r x small side] and B [bases r x large side], found [",
            a_.rows(), " x ", a_.cols(), "] and [", b_.rows(), " x ", b_.cols(), "]");
    options_ = {.rank = a_.rows(), .small_side = a_.cols(), .large_side = b_.cols(), .bases = b_.rows() / a_.rows()};
  }

  const Options& options() const { return options_; }
  bool in_memory() const { return !a_.empty(); }

  /// How many bases give a layer of this min(I, O) full rank.
  Index bases_for(Index small_side) const { return (small_side + options_.rank - 1) / options_.rank; }

  /// The first `columns` of A, in memory or made in `made`.   made [r x columns]
  View<const T> a(Index columns, View<T> made, const auto& execution) const {
    if (!a_.empty()) return a_.view().middle_cols(0, columns);
    make_rows_on(execution, 0, 0, made);
    return made;
  }

  /// The first `columns` of the rows of basis b, in memory or made in `made`.   made [r x columns]
  View<const T> b(Index basis, Index columns, View<T> made, const auto& execution) const {
    const Index r = options_.rank;
    if (!b_.empty()) return b_.view().middle_rows(basis * r, r).middle_cols(0, columns);
    make_rows_on(execution, 1, basis * r, made);
    return made;
  }

  /// A number that differs, almost certainly, for other numbers or sizes; the same whether they are kept or not. Reads
  /// all of matrices that were given.
  std::uint64_t fingerprint() const {
    std::uint64_t print = mix_bits(mix_bits(options_.seed) ^ std::uint64_t(options_.distribution));
    for (const Index size : {options_.rank, options_.small_side, options_.large_side, options_.bases})
      print = mix_bits(print ^ std::uint64_t(size));
    if (chance_ == 0)
      for (const Matrix<T>* given : {&a_, &b_})
        for (T element : given->elements()) print = mix_bits(print ^ std::bit_cast<std::uint64_t>(double(element)));
    return print;
  }

 private:
  template <class Execution>
  void make_rows_on(const Execution& execution, std::uint64_t stream, Index first, View<T> to) const {
    execution.parallel_for(to.rows(), [&](Index k) {
      make_rows<kernel::ArchitectureOf<Execution>>(stream, first + k, to.middle_rows(k, 1));
    });
  }

  template <class Arch>
  void make_rows(std::uint64_t stream, Index first, View<T> to) const {
    const double bound = options_.distribution == BasisDistribution::uniform ? size_ : 1.0;
    for (Index k = 0; k < to.rows(); ++k) {
      // Mixed twice: of sums, stream 1 of a seed would be stream 0 of the next.
      const std::uint64_t row = mix_bits(mix_bits(mix_bits(options_.seed) + stream) + std::uint64_t(first + k));
      if constexpr (!std::is_void_v<Arch>)
        kernel::UniformColumns<Arch, T>{}(row, 0, bound, to.row_data(k), to.cols());
      else
        fill_uniform_columns(row, 0, bound, to.row(k));
      if (options_.distribution == BasisDistribution::uniform) continue;
      for (T& element : to.row(k))
        element = T(double(element) < 2 * chance_ - 1 ? -size_ : double(element) >= 1 - 2 * chance_ ? size_ : 0.0);
    }
  }

  Options options_;
  double chance_ = 0, size_ = 0;  // of a number that is not 0, of either sign, and its size; 0: matrices were given
  Matrix<T> a_, b_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
