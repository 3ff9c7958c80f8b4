// SPDX-License-Identifier: MIT
// RandomBasis: NOLA's factors, sums of random matrices of which only the coefficients are trained.
#pragma once

#include "mole/core/dropout.hpp"
#include "mole/core/matrix.hpp"
#include "mole/core/random.hpp"
#include "mole/core/row.hpp"
#include "mole/factors/computed_tables.hpp"
#include "mole/factors/factor_policy.hpp"
#include "mole/kernel/architecture_of.hpp"
#include "mole/kernel/dot_products.hpp"
#include "mole/kernel/row_sums.hpp"
#include "mole/kernel/uniform_columns.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Which of NOLA's releases.
enum class NolaVariant {
  llm,  ///< bases U(-1, 1) / sqrt(m), a frozen random offset of A, coefficients start at 0
  vit,  ///< bases within 1/sqrt(r I) for A and 1/sqrt(r O) for B, no offset, coefficients start at 1/m
};

/// Of each expert:   A = A0 + sum_j alpha_j A_j,   B = sum_j beta_j B_j, with only alpha and beta trained.
///
///   coefficients_A [E x m of A]   coefficients_B [E x m of B]; A_j [r x I] and B_j [r x O] are the same for all
///   experts
///
/// The bases come from a seed: number by number from a counter, so that any thread can make any tile of them in any
/// order, and get the same bits. They are made anew in each forward and each backward, m r (I + O) numbers each time,
/// or kept in memory, of that many numbers, with `keep`. At I = O = 4,096, r = 8 and m = 512, 1,024 trained numbers,
/// one token of float takes 9 ms forward and as much backward on one thread (AVX-512), which parallel_for() shares;
/// kept, in 128 MiB, 11 and 12 ms: reading takes longer than making (UniformColumns). So `keep` is for processors
/// without vectors of 64-bit products, and for double. Scratch is 2 r (I + O) numbers an expert.
///
/// A fresh layer of variant llm has the output of its base, and its first gradient is of beta alone. State: the seed; a
/// checkpoint restores it, and with it the bases. Throws Error(option) for sizes below 1.
/// Source: Koohpayegani et al. 2024 (NOLA), arXiv:2310.02556; UCDvision/NOLA, gpt/src/model_nola.py and vit/NOLA.py.
template <class T>
class RandomBasis {
 public:
  using Scalar = T;
  using Scratch = ComputedTables<T>;

  struct Options {
    Index in = 0;
    Index out = 0;
    Index experts = 1;
    Index rank = 8;
    Index bases = 512;                     ///< m, of A and of B ...
    std::optional<Index> bases_of_B = {};  ///< ... or another number of B
    NolaVariant variant = NolaVariant::llm;
    std::optional<std::uint64_t> seed = {};  ///< unset: drawn from the generator
    bool keep = false;                       ///< keeps the bases in memory
    std::optional<double> alpha = {};        ///< unset: scale 1
    Scaling scaling = Scaling::alpha_over_rank;
    Dropout dropout = {};  ///< on the adapter's input
  };

  struct Parameters {
    Matrix<T> coefficients_A, coefficients_B;

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      f("coefficients_A", p.coefficients_A...);
      f("coefficients_B", p.coefficients_B...);
    }
  };

  /// Bases in memory.   a [m of A x r I], b [m of B x r O]: a row is a matrix, row by row; offsets [r x I], [r x O], or
  /// empty
  struct Bases {
    Matrix<T> a, b, offset_a, offset_b;
  };

  template <std::uniform_random_bit_generator Generator>
  RandomBasis(const Options& options, Generator& generator)
      : options_(options), blocks_(RankBlocks::uniform(options.experts, options.rank)) {
    make_parameters();
    set_seed(options.seed ? *options.seed : generator());
  }

  /// From bases in memory; options say what is not in them. Throws Error(shape) if they do not fit each other.
  RandomBasis(Options options, Bases bases)
      : options_(std::move(options)),
        blocks_(RankBlocks::uniform(options_.experts, options_.rank)),
        given_(true),
        kept_(std::make_shared<const Bases>(std::move(bases))) {
    options_.bases = kept_->a.rows(), options_.bases_of_B = kept_->b.rows();
    require_equal(ErrorCode::shape, "RandomBasis: numbers of a basis of A", options_.rank * options_.in,
                  kept_->a.cols());
    require_equal(ErrorCode::shape, "RandomBasis: numbers of a basis of B", options_.rank * options_.out,
                  kept_->b.cols());
    for (const auto& [offset, width] : {std::pair{&kept_->offset_a, options_.in}, {&kept_->offset_b, options_.out}})
      if (!offset->empty())
        require_equal(ErrorCode::shape, "RandomBasis: numbers of an offset", options_.rank * width, offset->size());
    make_parameters();
  }

  void check_sizes() const {
    require_equal(ErrorCode::shape, "RandomBasis: rows of the coefficients of A", blocks_.experts(),
                  parameters_.coefficients_A.rows());
    require_equal(ErrorCode::shape, "RandomBasis: coefficients of A", options_.bases,
                  parameters_.coefficients_A.cols());
    require_equal(ErrorCode::shape, "RandomBasis: rows of the coefficients of B", blocks_.experts(),
                  parameters_.coefficients_B.rows());
    require_equal(ErrorCode::shape, "RandomBasis: coefficients of B", bases_of_b(), parameters_.coefficients_B.cols());
  }

  Index in() const { return options_.in; }
  Index out() const { return options_.out; }
  const RankBlocks& blocks() const { return blocks_; }
  std::uint64_t seed() const { return seed_; }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }

  /// Reinitializes, as the constructor does. Given bases stay.
  template <std::uniform_random_bit_generator Generator>
  void reset(Generator& generator) {
    start();
    if (!given_) set_seed(options_.seed ? *options_.seed : generator());
  }

  template <class F>
  void for_each_state(F&& f) {
    if (given_) return;
    auto seed = std::int64_t(seed_);
    f("seed", std::span<std::int64_t>(&seed, 1));
    if (std::uint64_t(seed) != seed_) set_seed(std::uint64_t(seed));
  }

  Scratch scratch(const CallSize&, Arena& arena) const { return Scratch::both(blocks_, in(), out(), arena); }

  FactorViews<const T> factors(Scratch& scratch) const { return {scratch.a, scratch.b}; }
  FactorViews<T> gradient_views(Parameters& gradients, Scratch& scratch) const {
    return scratch.zeroed(!gradients.coefficients_A.empty(), !gradients.coefficients_B.empty());
  }

  void prepare(auto call) const {
    using Arch = kernel::ArchitectureOf<decltype(call.execution)>;
    const Index tiles_a = rank() * tiles(in()), tiles_b = rank() * tiles(out());
    call.execution.parallel_for(tiles_a + tiles_b, [&, &s = call.scratch](Index task) {
      const bool of_a = task < tiles_a;
      sum_bases<Arch>(of_a ? a_of(s.a, parameters_.coefficients_A) : b_of(s.b, parameters_.coefficients_B),
                      of_a ? task : task - tiles_a);
    });
  }

  /// d_alpha_j = <d_A, A_j>
  void contract(Parameters& gradients, auto call) const {
    using Arch = kernel::ArchitectureOf<decltype(call.execution)>;
    const Index tasks_a = groups(gradients.coefficients_A.cols()), tasks_b = groups(gradients.coefficients_B.cols());
    call.execution.parallel_for(tasks_a + tasks_b, [&, &s = call.scratch](Index task) {
      if (task < tasks_a)
        add_products<Arch>(a_of<const T>(s.d_a, parameters_.coefficients_A), task, gradients.coefficients_A);
      else
        add_products<Arch>(b_of<const T>(s.d_b, parameters_.coefficients_B), task - tasks_a, gradients.coefficients_B);
    });
  }

 private:
  /// Makes the coefficients. Throws Error(option) for sizes below 1.
  void make_parameters() {
    require(options_.in >= 1 && options_.out >= 1 && options_.rank >= 1, ErrorCode::option,
            "RandomBasis: expected in, out and rank of at least 1, found in = ", options_.in, ", out = ", options_.out,
            ", rank = ", options_.rank);
    require(options_.bases >= 1 && bases_of_b() >= 1, ErrorCode::option,
            "RandomBasis: expected at least 1 basis of A and of B, found ", options_.bases, " and ", bases_of_b());
    parameters_ = {Matrix<T>(options_.experts, options_.bases), Matrix<T>(options_.experts, bases_of_b())};
    start();
  }
  /// Sets them to what a fresh layer has.
  void start() {
    const bool vit = options_.variant == NolaVariant::vit;
    fill(parameters_.coefficients_A.view(), T(vit ? 1 / double(options_.bases) : 0));
    fill(parameters_.coefficients_B.view(), T(vit ? 1 / double(bases_of_b()) : 0));
  }

  static constexpr Index tile = 512;    ///< columns, and
  static constexpr Index together = 8;  ///< bases that are made at once, in the nearest cache
  static constexpr auto tiles_size = std::size_t(together) * std::size_t(tile);
  using Tiles = std::array<T, tiles_size>;
  static constexpr Index products = 4;  ///< experts whose products with those bases are computed at once
  static Index tiles(Index columns) { return (columns + tile - 1) / tile; }
  static Index groups(Index bases) { return (bases + together - 1) / together; }

  /// A or B: the table or its gradient, and what its bases are made from.
  template <class U>
  struct Side {
    View<U> table;  // [E r x columns]
    const Matrix<T>& coefficients;
    const Matrix<T>* kept;
    const Matrix<T>* offset;
    double bound, offset_bound;  // of random ones; an offset_bound of 0 is no offset
    std::uint64_t stream;
  };
  template <class U = T>
  Side<U> a_of(View<U> table, const Matrix<T>& coefficients) const {
    const bool vit = options_.variant == NolaVariant::vit;
    return {table,
            coefficients,
            kept_ ? &kept_->a : nullptr,
            kept_ && !kept_->offset_a.empty() ? &kept_->offset_a : nullptr,
            1 / std::sqrt(double(vit ? rank() * in() : options_.bases)),
            vit || kept_ ? 0 : 1 / std::sqrt(double(in())),
            0};
  }
  template <class U = T>
  Side<U> b_of(View<U> table, const Matrix<T>& coefficients) const {
    const bool vit = options_.variant == NolaVariant::vit;
    return {table,
            coefficients,
            kept_ ? &kept_->b : nullptr,
            kept_ && !kept_->offset_b.empty() ? &kept_->offset_b : nullptr,
            1 / std::sqrt(double(vit ? rank() * out() : bases_of_b())),
            0,
            1};
  }

  Index rank() const { return options_.rank; }
  Index bases_of_b() const { return options_.bases_of_B.value_or(options_.bases); }

  /// Numbers of U(-bound, bound) for the columns from `first` on, an even one, of row k of matrix j.
  template <class Arch>
  void draw(std::uint64_t stream, Index j, Index k, Index first, double bound, std::span<T> to) const {
    // Mixed twice: of sums, B of a seed would be A of the next.
    const std::uint64_t row = mix_bits(mix_bits(mix_bits(seed_) + stream) + std::uint64_t(j * rank() + k));
    if constexpr (!std::is_void_v<Arch>)
      kernel::UniformColumns<Arch, T>{}(row, first, bound, to.data(), Index(to.size()));
    else
      fill_uniform_columns(row, first, bound, to);
  }

  /// Columns of row k of up to `together` bases from j on, in memory or made in `made`.
  template <class Arch, class U>
  void bases(const Side<U>& side, Index j, Index k, Index first, Index columns, std::span<const T*> rows,
             Tiles& made) const {
    for (const T*& row : rows) {
      if (side.kept != nullptr) {
        row = side.kept->view().row_data(j) + k * side.table.cols() + first;
      } else {
        const std::span<T> to(made.data() + (&row - rows.data()) * tile, std::size_t(columns));
        draw<Arch>(side.stream, j, k, first, side.bound, to);
        row = to.data();
      }
      ++j;
    }
  }

  /// A tile of a row of A_e = A0 + sum_j alpha_ej A_j, for all experts e.
  template <class Arch>
  void sum_bases(const Side<T>& side, Index task) const {
    const Index k = task / tiles(side.table.cols()), first = task % tiles(side.table.cols()) * tile;
    const Index columns = std::min(tile, side.table.cols() - first), count = side.coefficients.cols();
    Tiles made;
    const std::span<T> offset = std::span<T>(made).first(std::size_t(columns));
    const auto of_expert = [&](Index e) { return side.table.row_data(e * rank() + k) + first; };
    std::ranges::fill(offset, T(0));
    if (side.offset != nullptr)
      std::ranges::copy_n(side.offset->data() + k * side.table.cols() + first, columns, offset.begin());
    else if (side.offset_bound > 0)
      draw<Arch>(side.stream, count, k, first, side.offset_bound, offset);
    for (Index e = 0; e < blocks_.experts(); ++e) std::ranges::copy(offset, of_expert(e));
    for (Index j = 0; j < count; j += together) {
      std::array<const T*, std::size_t(together)> of_group;
      const std::span<const T*> rows = std::span(of_group).first(std::size_t(std::min(together, count - j)));
      bases<Arch>(side, j, k, first, columns, rows, made);
      for (Index e = 0; e < blocks_.experts(); ++e) {
        const T* const factors = side.coefficients.view().row_data(e) + j;
        if constexpr (!std::is_void_v<Arch>)
          kernel::RowSums<Arch, T>{}(factors, rows.data(), Index(rows.size()), columns, of_expert(e));
        else
          for (std::size_t i = 0; i < rows.size(); ++i) detail::add_scaled(factors[i], rows[i], of_expert(e), columns);
      }
    }
  }

  /// sums[i][e] = <rows_i, d_e>.   d [count x columns], its rows `stride` apart
  template <class Arch>
  static void multiply(std::span<const T* const> rows, const T* d, Index stride, Index count, Index columns,
                       T (&sums)[std::size_t(together)][std::size_t(products)]) {
    if constexpr (!std::is_void_v<Arch>) {
      std::array<T*, std::size_t(together)> to;
      std::ranges::copy(sums, to.begin());
      kernel::DotProducts<Arch, T>{}(rows.data(), Index(rows.size()), d, stride, count, columns, to.data());
    } else {
      for (std::size_t i = 0; i < rows.size(); ++i)
        for (Index e = 0; e < count; ++e) sums[i][e] = detail::dot(rows[i], d + e * stride, columns);
    }
  }

  /// gradient_ej += <d_table_e, basis j>, for the bases of a group
  template <class Arch>
  void add_products(const Side<const T>& side, Index group, Matrix<T>& gradient) const {
    Tiles made;
    std::array<const T*, std::size_t(together)> of_group;
    const Index j = group * together;
    const std::span<const T*> rows = std::span(of_group).first(std::size_t(std::min(together, gradient.cols() - j)));
    for (Index k = 0; k < rank(); ++k)
      for (Index first = 0; first < side.table.cols(); first += tile) {
        const Index columns = std::min(tile, side.table.cols() - first);
        bases<Arch>(side, j, k, first, columns, rows, made);
        for (Index e = 0, experts; e < blocks_.experts(); e += experts) {
          experts = std::min(products, blocks_.experts() - e);
          T sums[std::size_t(together)][std::size_t(products)];
          const T* const d = side.table.row_data(e * rank() + k) + first;
          multiply<Arch>(rows, d, rank() * side.table.stride(), experts, columns, sums);
          for (Index i = 0; i < Index(rows.size()); ++i)
            for (Index f = 0; f < experts; ++f) gradient(e + f, j + i) += sums[i][f];
        }
      }
  }

  void set_seed(std::uint64_t seed) {
    seed_ = seed;
    kept_ = nullptr;
    if (!options_.keep) return;
    Bases bases{Matrix<T>(options_.bases, rank() * in()), Matrix<T>(bases_of_b(), rank() * out()),
                Matrix<T>(options_.variant == NolaVariant::llm ? rank() : 0, in()), Matrix<T>()};
    const auto a = a_of(View<const T>(), parameters_.coefficients_A);
    const auto b = b_of(View<const T>(), parameters_.coefficients_B);
    const auto fill_rows = [&](const auto& side, Index j, double bound, Index width, std::span<T> matrix) {
      for (Index k = 0; k < rank(); ++k)
        draw<void>(side.stream, j, k, 0, bound, matrix.subspan(std::size_t(k * width), std::size_t(width)));
    };
    for (Index j = 0; j < bases.a.rows(); ++j) fill_rows(a, j, a.bound, in(), bases.a.view().row(j));
    for (Index j = 0; j < bases.b.rows(); ++j) fill_rows(b, j, b.bound, out(), bases.b.view().row(j));
    if (!bases.offset_a.empty()) fill_rows(a, bases.a.rows(), a.offset_bound, in(), bases.offset_a.elements());
    kept_ = std::make_shared<const Bases>(std::move(bases));
  }

  Options options_;
  RankBlocks blocks_;
  bool given_ = false;
  std::uint64_t seed_ = 0;
  std::shared_ptr<const Bases> kept_;
  Parameters parameters_;
};

static_assert(ComputedFactorPolicy<RandomBasis<float>>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
