// SPDX-License-Identifier: MIT
// prompt_bank(): the Prompt Bank of Uni-Retrieval and Uni-RAG, trained prompts that a query finds by their keys.
#pragma once

#include "mole/base/no_base.hpp"
#include "mole/expert/biased_experts.hpp"
#include "mole/expert/low_rank.hpp"
#include "mole/factors/dense_factors.hpp"
#include "mole/gating/gate.hpp"
#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/weigh/raw.hpp"
#include "mole/layer/mixture_linear.hpp"
#include "mole/router/cosine_router.hpp"

#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Jia et al. 2025 (Uni-Retrieval), arXiv:2502.05863; its functions are released as CuriseJia/ACL25-Uni-Retrieval,
/// without a model that runs. Wu et al. 2025 (Uni-RAG), arXiv:2507.03868: 16 entries of 4 prompt tokens; it has no
/// code.
///
/// The release mixes all prompts softly: k = 0 and no temperature. The text takes the k nearest keys and puts their
/// prompts side by side: the entries of query n are work.routing.experts_of(n), their prompts rows of
/// layer.experts().bias(). The LoRA experts that Uni-RAG applies to prompts are a layer of their own, over prompt
/// tokens, with the routing of the query.
struct PromptBankOptions {
  Index in = 0;  ///< width of a query
  Index entries = 16;
  Index prompt = 0;  ///< numbers of a prompt: its tokens times their width
  Index k = 0;       ///< entries of each query, whose gates are not renormalized; 0: all
  double temperature = 1;
  double deviation = 0.02;  ///< of the initial prompts, and of the keys, whose lengths do not matter
};

/// y = sum over the k nearest keys of softmax_j(cos(x, key) / temperature) prompt_j.   x [N x in], y [N x prompt]
/// The keys are layer.router().parameters().prototypes, the prompts layer.experts().bias().
template <class T, class Generator, class Execution = DefaultExecution>
auto prompt_bank(const PromptBankOptions& options, Generator& generator, Execution execution = {}) {
  require(options.entries >= 1, ErrorCode::option, "prompt_bank: expected at least 1 entry, found ", options.entries);
  CosineRouter<T> keys({.in = options.in, .experts = options.entries, .deviation = options.deviation}, generator);
  BiasedExperts prompts(LowRank<DenseFactors<T>>({.in = options.in,
                                                  .out = options.prompt,
                                                  .experts = options.entries,
                                                  .ranks = std::vector<int>(std::size_t(options.entries), 0)},
                                                 generator));
  for (T& number : prompts.bias().elements()) number = T(options.deviation * standard_normal(generator));
  return MixtureLinear{
      std::move(keys),
      Gate{Softmax{.temperature = options.temperature}, TopK{.k = options.k == 0 ? options.entries : options.k}, Raw{}},
      std::move(prompts), NoBase<T>(options.in, options.prompt), std::move(execution)};
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
