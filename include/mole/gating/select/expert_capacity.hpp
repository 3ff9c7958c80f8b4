// SPDX-License-Identifier: MIT
// ExpertCapacity: a selection under an upper bound of tokens per expert.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/random.hpp"
#include "mole/core/state.hpp"
#include "mole/gating/select/select_policy.hpp"
#include "mole/gating/select/whole_call_select_policy.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Which pairs an expert keeps when more tokens choose it than its capacity allows.
enum class CapacityPriority {
  position,     ///< the first choices of all tokens, token by token, then their second ones ...
  token,        ///< token by token, all choices of a token alike
  probability,  ///< the largest scores
  batch,        ///< as position, tokens with the larger best score before others
  random,       ///< any of them in training, drawn by the key of the pass; as position in inference
};

/// How a capacity that is not fixed becomes an integer.
enum class CapacityRounding {
  up,              ///< ceil(factor * choices / E)
  down,            ///< floor(factor * choices / E)
  of_each_choice,  ///< k * floor(factor * ceil(T / E)), for T tokens with up to k choices
};

/// How many tokens an expert serves: its capacity.
struct CapacityOptions {
  double factor = 1;   ///< times an even share of the choices, made an integer by `rounding`
  Index min = 1;       ///< ... and not below this
  Index multiple = 1;  ///< ... then rounded up to a multiple of this
  Index fixed = 0;     ///< above 0: exactly this capacity
  CapacityPriority priority = CapacityPriority::position;
  CapacityRounding rounding = CapacityRounding::up;
  bool per_sequence = false;  ///< a capacity for each sequence instead of one for the call
};

/// The choices of another selection, up to the capacity of each expert: factor * choices / E pairs.
///
///   scores [N x (E + extra)]   ->   from 0 to max_chosen(E) experts per token
///
/// A pair beyond the capacity is dropped before the gates are made, so that Renormalized divides by what is left
/// (DeepSpeed top-2 and top-k); RenormalizedOverBest divides by all that were chosen (Tutel). A token that loses all of
/// its pairs keeps the base's output.
///
/// | published capacity            | priority                        | capacity, for T tokens of k choices    |
/// | ----------------------------- | ------------------------------- | -------------------------------------- |
/// | Switch, transformers; MixLoRA | position, per_sequence          | fixed                                  |
/// | Switch, the paper; MegaBlocks | token                           | down: floor(factor k T / E)            |
/// | DeepSpeed top-1               | random                          | up: ceil(factor T / E), from min up    |
/// | DeepSpeed top-2               | position                        | up: ceil(factor k T / E), from min up  |
/// | DeepSpeed top-k               | probability ("probs"), or token | the same                               |
/// | Tutel                         | position, or batch              | of_each_choice, multiple               |
/// | NLLB                          | position, or batch              | of_each_choice with factor 1           |
///
/// DeepSpeed draws in inference, too; here a call that does not train depends on no key. In Tutel and MegaBlocks a
/// factor of 0 makes buffers as large as the call needs, and in Tutel a negative one makes them no larger than that.
/// There are no buffers here: instead of 0 use the selection alone, instead of a negative factor its size. (Tutel reads
/// the need off the last token, so that with priority for batches its factor 0 drops pairs all the same.)
///
/// Throws Error(option) unless factor > 0, min >= 0, multiple >= 1 and fixed >= 0.  O(pairs log pairs).
/// Source: position: Lepikhin et al. 2020 (GShard), arXiv:2006.16668, Fedus et al. 2021 (Switch), arXiv:2101.03961;
/// probability: Liu et al. 2022, as in Megatron-LM; batch: Riquelme et al. 2021 (V-MoE), arXiv:2106.05974; random and
/// token: deepspeedai/DeepSpeed; of_each_choice, multiple: microsoft/Tutel.
template <class Select>
struct ExpertCapacity {
  Select select;
  CapacityOptions options;

  explicit ExpertCapacity(Select select_, CapacityOptions options_ = {})
      : select(std::move(select_)), options(options_) {}

  struct Scratch {
    ScratchVector<int> begin, expert, token, order;  // pairs, token by token
    ScratchVector<int> taken;                        // pairs of each expert so far
    ScratchVector<unsigned char> kept;
  };

  void check(Index experts) const {
    if constexpr (requires { select.check(experts); }) select.check(experts);
    require(options.factor > 0 && std::isfinite(options.factor) && options.min >= 0 && options.fixed >= 0,
            ErrorCode::option,
            "ExpertCapacity: expected a finite factor above 0 and capacities from 0 up, found factor = ",
            options.factor, ", min = ", options.min, ", fixed = ", options.fixed);
    require(options.multiple >= 1, ErrorCode::option, "ExpertCapacity: expected a multiple from 1 up, found ",
            options.multiple);
  }

  Index max_pairs(Index tokens, Index experts) const { return tokens * select.max_chosen(experts); }

  /// True only if every expert has capacity for every token.
  bool takes_all(Index experts) const {
    if constexpr (requires { select.takes_all(experts); })
      return select.takes_all(experts) && options.fixed == 0 && options.factor >= 1;
    return false;
  }

  /// The pairs that each expert may keep of so many choices of so many tokens, in a call or in a sequence.
  Index capacity(Index tokens, Index choices, Index experts) const {
    if (options.fixed > 0) return options.fixed;
    const double even = std::min(rounded(tokens, choices, experts), double(choices));
    const Index least = std::max(options.min, Index(even)), over = least % options.multiple;
    const Index up = options.multiple - over;  // where there is no number so large, more than anybody asks for
    return over == 0 || least > std::numeric_limits<Index>::max() - up ? least : least + up;
  }

  template <class F>
  void for_each_state(F&& f) {
    for_each_state_within("select", select, f);
  }

  Scratch scratch(const CallSize& size, Arena& arena) const {
    return {arena.vector<int>(size.tokens + 1), arena.vector<int>(size.pairs),
            arena.vector<int>(size.pairs),      arena.vector<int>(size.pairs),
            arena.vector<int>(size.experts),    arena.vector<unsigned char>(size.pairs)};
  }

  template <class T, class Emit>
  void select_whole_call(View<const T> scores, Index experts, const Pass& pass, Emit&& emit, Scratch& scratch) const {
    const Index sequences = options.per_sequence ? pass.sequences() : 1;
    for (Index s = 0; s < sequences; ++s) {
      const Index first = options.per_sequence ? pass.first_of(s) : 0;
      const Index end = options.per_sequence ? pass.end_of(s, scores.rows()) : scores.rows();
      const Index tokens = choose(scores, experts, pass, emit, first, end, scratch);
      keep(scores, experts, pass, first, tokens, scratch);
      for (std::size_t p = 0; p < scratch.expert.size(); ++p)
        if (scratch.kept[p]) emit(scratch.token[p], scratch.expert[p]);
    }
  }

 private:
  /// The choices of tokens [first, end) that are up to the selection, and how many tokens these are.
  template <class T, class Emit>
  Index choose(View<const T> scores, Index experts, const Pass& pass, const Emit& emit, Index first, Index end,
               Scratch& scratch) const {
    const auto slots = std::size_t(select.max_chosen(experts));
    scratch.begin.assign(1, 0);
    scratch.expert.clear();
    scratch.token.clear();
    Index tokens = 0;
    for (Index n = first; n < end; ++n) {
      const std::size_t before = scratch.expert.size();
      if (pass.chooses(n)) {
        ++tokens;
        scratch.expert.resize(before + slots);
        const std::span<int> chosen(scratch.expert.data() + before, slots);
        const Index count = select.select(scores.row(n), experts, chosen);
        const auto kept =
            std::remove_if(chosen.begin(), chosen.begin() + count, [&](int e) { return emit.excludes(n, e); });
        scratch.expert.resize(before + std::size_t(kept - chosen.begin()));
      }
      scratch.token.resize(scratch.expert.size(), int(n));
      scratch.begin.push_back(int(scratch.expert.size()));
    }
    return tokens;
  }

  template <class T>
  void keep(View<const T> scores, Index experts, const Pass& pass, Index first, Index tokens, Scratch& scratch) const {
    const Index pairs = Index(scratch.expert.size());
    put_in_order(scores, pass, first, scratch);
    const Index capacity = this->capacity(tokens, pairs, experts);
    scratch.taken.assign(std::size_t(experts), 0);
    scratch.kept.assign(std::size_t(pairs), 0);
    for (int p : scratch.order)
      scratch.kept[std::size_t(p)] = scratch.taken[std::size_t(scratch.expert[std::size_t(p)])]++ < capacity;
  }

  /// The pairs, those that are kept before others first.
  template <class T>
  void put_in_order(View<const T> scores, const Pass& pass, Index first, Scratch& scratch) const {
    scratch.order.resize(scratch.expert.size());
    for (int p = 0; p < int(scratch.order.size()); ++p) scratch.order[std::size_t(p)] = p;
    const auto token = [&](int p) { return scratch.token[std::size_t(p)]; };
    const auto expert = [&](int p) { return scratch.expert[std::size_t(p)]; };
    const auto best = [&](int p) { return scratch.begin[std::size_t(token(p) - first)]; };
    const auto slot = [&](int p) { return p - best(p); };
    const auto score = [&](int p) { return scores(token(p), expert(p)); };
    const auto sort = [&](auto before) { std::sort(scratch.order.begin(), scratch.order.end(), before); };
    const auto draw = [&, key = key_of(pass)](int p) {
      return mix_bits(mix_bits(key ^ (pass.first_token + std::uint64_t(token(p)))) ^ std::uint64_t(expert(p)));
    };
    switch (options.priority) {
      case CapacityPriority::token:
        return;
      case CapacityPriority::probability:
        return sort([&](int p, int q) { return chosen_before(score(p), p, score(q), q); });
      case CapacityPriority::batch:
        return sort([&](int p, int q) {
          return slot(p) != slot(q) ? slot(p) < slot(q) : chosen_before(score(best(p)), p, score(best(q)), q);
        });
      case CapacityPriority::random:
        if (pass.training) return sort([&](int p, int q) { return draw(p) != draw(q) ? draw(p) < draw(q) : p < q; });
        [[fallthrough]];
      case CapacityPriority::position:
        return sort([&](int p, int q) { return slot(p) != slot(q) ? slot(p) < slot(q) : p < q; });
    }
  }

  /// In the order in which it is written, whatever a compiler may reorder: 100 / 10 * 1.1 is 11, not a little more.
  double rounded(Index tokens, Index choices, Index experts) const {
#if defined(__clang__)
#pragma clang fp reassociate(off)
#endif
    if (options.rounding == CapacityRounding::of_each_choice)
      return double(select.max_chosen(experts)) *
             std::floor(std::ceil(double(tokens) / double(experts)) * options.factor);
    const double share = double(choices) / double(experts) * options.factor;
    return options.rounding == CapacityRounding::up ? std::ceil(share) : std::floor(share);
  }

  static std::uint64_t key_of(const Pass& pass) {
    constexpr std::uint64_t stream = 0x6361706163697479;  // of no dropout
    return mix_bits(mix_bits(mix_bits(mix_bits(pass.seed) ^ pass.layer) ^ pass.step) ^ stream);
  }
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
