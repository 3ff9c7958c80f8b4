// SPDX-License-Identifier: MIT
// moelora(): MOELoRA, LoRA experts mixed by the task of a token.
#pragma once

#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/all.hpp"
#include "mole/gating/weigh/raw.hpp"
#include "mole/method/lora_mixture.hpp"
#include "mole/router/label_router.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// Liu et al. 2023 (MOELoRA), arXiv:2310.18339; as carried by pUmpKin-Co/MTL-LoRA, src/adapter/moelora.py, where the
/// softmax may be left out: Gate{Identity{}, All{}, Raw{}}.
struct MoeloraOptions {
  Index experts = 8;
  Index tasks = 2;
  Index task_width = 64;  ///< of the embedding of a task
  Index total_rank = 16;  ///< of all experts together
  double alpha = 32;      ///< over total_rank, not over the rank of an expert
  double dropout = 0.1;   ///< on the adapters' input
};

/// y = W x + b + (alpha / total_rank) sum_e p_e B_e A_e x,  p = softmax(R t), t the embedding of the token's task,
/// which the pass names: layer.forward(x, y, work, {.labels = task_of_token}). Throws Error(option) unless total_rank
/// is a multiple of the experts.
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
auto moelora(const MoeloraOptions& options, Base base, Generator& generator, Execution execution = {}) {
  using T = typename Base::Scalar;
  require(options.experts >= 1 && options.total_rank >= 1 && options.total_rank % options.experts == 0,
          ErrorCode::option, "moelora: expected a total_rank that is a multiple of the experts, found ",
          options.total_rank, " ranks of ", options.experts, " experts");
  const struct {
    Index experts, rank;
    double alpha, dropout;
  } mixture{options.experts, options.total_rank / options.experts, options.alpha / double(options.experts),
            options.dropout};
  LabelRouter router(LinearRouter<T>({.in = options.task_width, .experts = options.experts}, generator), options.tasks,
                     generator);
  return lora_mixture(mixture, std::move(router), Gate{Softmax{}, All{}, Raw{}}, std::move(base), generator,
                      std::move(execution));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
