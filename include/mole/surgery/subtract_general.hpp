// SPDX-License-Identifier: MIT
// subtract_general(): takes what adapters have learned of general text out of experts that have learned a task.
#pragma once

#include "mole/surgery/weighted_adapter.hpp"

#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// A_e -= mean of the general As, B_e -= mean of the general Bs, for every expert e of LowRank<DenseFactors>.
///
/// Factor by factor, as published: what an expert loses is not the mean update of the general adapters, since
/// (B_e - B)(A_e - A) has cross terms, and scales are left out. The experts and the adapters must come from the same
/// start, or the difference of their factors means little. A router made of the experts has to be made anew.
/// Throws Error(option) for no adapter, or experts that share an A; Error(shape) unless every expert and adapter has
/// the same rank; then nothing has changed.  Offline.
/// Source: Bagherifard et al. 2025 (GenKnowSub), arXiv:2505.10939, with one adapter; as released in huggingface/peft,
/// tuners/lora/arrow.py (use_gks), with the mean of several.
template <class Experts, class T = typename Experts::Scalar>
void subtract_general(Experts& experts, const std::vector<Adapter<T>>& general) {
  const char* const who = "subtract_general";
  require(!general.empty(), ErrorCode::option, who, ": expected at least 1 adapter, found 0");
  const auto& blocks = experts.blocks();
  require(!blocks.shared_down() || experts.experts() == 1, ErrorCode::option, who,
          ": expected experts with an A of their own, found one A for all");
  for (const Adapter<T>& adapter : general) {
    const auto require_size = [&](std::string_view what, const Matrix<T>& matrix, Index rows, Index cols) {
      require(matrix.rows() == rows && matrix.cols() == cols, ErrorCode::shape, who, ": expected a ", what, " of [",
              rows, " x ", cols, "], found [", matrix.rows(), " x ", matrix.cols(), "]");
    };
    for (Index e = 0; e < experts.experts(); ++e) {
      require_size("general A", adapter.a, blocks.size(e), experts.in());
      require_size("general B", adapter.b, blocks.size(e), experts.out());
    }
  }
  const auto subtract_mean = [&](View<T> from, auto factor_of) {
    for (Index j = 0; j < from.rows(); ++j)
      for (Index i = 0; i < from.cols(); ++i) {
        double sum = 0;
        for (const Adapter<T>& adapter : general) sum += double(factor_of(adapter)(j, i));
        from(j, i) = T(double(from(j, i)) - sum / double(general.size()));
      }
  };
  for (Index e = 0; e < experts.experts(); ++e) {
    auto& parameters = experts.parameters();
    subtract_mean(parameters.lora_A.view().middle_rows(blocks.down(e), blocks.size(e)),
                  [](const Adapter<T>& adapter) -> const Matrix<T>& { return adapter.a; });
    subtract_mean(parameters.lora_B.view().middle_rows(blocks.up(e), blocks.size(e)),
                  [](const Adapter<T>& adapter) -> const Matrix<T>& { return adapter.b; });
  }
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
