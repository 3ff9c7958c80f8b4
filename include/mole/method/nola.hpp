// SPDX-License-Identifier: MIT
// nola(): NOLA, a LoRA whose matrices are sums of random ones.
#pragma once

#include "mole/base/dense_base.hpp"
#include "mole/expert/low_rank.hpp"
#include "mole/factors/random_basis.hpp"
#include "mole/method/one_adapter.hpp"

#include <cstdint>
#include <optional>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Koohpayegani et al. 2024 (NOLA), arXiv:2310.02556; released as UCDvision/NOLA, whose code for language models and
/// whose code for vision differ: see NolaVariant. The default is the former, whose fresh layer leaves the base as it
/// is. The latter has rank 1, m = 1024, and the scale 1 / rank, which is an alpha of 1. The sample in the release's
/// readme lacks the factor 1 / sqrt(m); its training code has it.
struct NolaOptions {
  Index rank = 8;
  Index bases = 512;  ///< m, of A and of B
  double alpha = 8;
  NolaVariant variant = NolaVariant::llm;
  std::optional<std::uint64_t> seed = {};  ///< of the bases; unset: drawn from the generator
  bool keep = false;                       ///< keeps the bases in memory
  double dropout = 0;                      ///< on the adapter's input
};

/// y = W x + b + (alpha / rank) B A x,   A = A0 + sum_j alpha_j A_j,   B = sum_j beta_j B_j.
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
auto nola(const NolaOptions& options, Base base, Generator& generator, Execution execution = {}) {
  using T = typename Base::Scalar;
  LowRank<RandomBasis<T>> experts({.in = base.in(),
                                   .out = base.out(),
                                   .rank = options.rank,
                                   .bases = options.bases,
                                   .variant = options.variant,
                                   .seed = options.seed,
                                   .keep = options.keep,
                                   .alpha = options.alpha,
                                   .dropout = {.rate = options.dropout, .stream = 1}},
                                  generator);
  return one_adapter(std::move(experts), std::move(base), std::move(execution));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
