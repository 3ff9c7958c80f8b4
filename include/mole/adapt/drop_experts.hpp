// SPDX-License-Identifier: MIT
// drop_experts(): fewer experts for tokens that need or matter less, between route and apply.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/routing.hpp"
#include "mole/gating/select/select_policy.hpp"

#include <algorithm>
#include <span>
#include <type_traits>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Options of drop_experts(); shares are of the tokens, rounded down.
struct DropExpertsOptions {
  double ratio = 0.5;     ///< experts with a gate below ratio * (largest gate of the token) are dropped
  double lowest = 0;      ///< this share of the tokens, the least important, loses all experts
  double highest = 0.02;  ///< this share, the most important, keeps all, whatever the other rules say
  Index shared = 0;       ///< the last experts of the routing, which serve whom they serve
};

/// The routing of the tokens of one sequence, without experts that are not needed.
///
///   routing of N tokens, gates not negative; importance [N], or empty: no token is more important than another
///   kept: another routing, overwritten
///
/// The gates of the kept experts of a token are scaled so that their sum is what it was. Ties in importance go to the
/// earlier token; NaN is the least important. The host measures importance; the published one is
/// (sum over the keys of the attention of token t, mean over the heads) / (N - t) * (sum of |x_t|), in which the
/// attention adds to 1, so that later tokens count more.
///
/// For inference: there is no backward. Throws Error(option) unless ratio, lowest and highest are from 0 to 1 and
/// `shared` is a number of experts, Error(shape) for an importance of another size.  O(pairs + N log N), allocates N
/// integers, and what `kept` lacks.
/// Source: Huang et al. 2024 (MC-MoE), arXiv:2410.06270, as released (Aaronhuang-778/MC-MoE, ODP) for two experts: a
/// ratio of 0.40 to 0.62 for each layer. The ratio alone is RelativeThreshold, which can be trained with.
template <class T>
void drop_experts(const Routing<T>& routing, std::span<const std::type_identity_t<T>> importance, Routing<T>& kept,
                  const DropExpertsOptions& options = {}) {
  for (double share : {options.ratio, options.lowest, options.highest})
    require(share >= 0 && share <= 1, ErrorCode::option,
            "drop_experts: expected a ratio and shares from 0 to 1, found ", share);
  require(options.shared >= 0 && options.shared <= routing.experts(), ErrorCode::option,
          "drop_experts: expected from 0 to ", routing.experts(), " shared experts, found ", options.shared);
  if (!importance.empty())
    require_equal(ErrorCode::shape, "drop_experts: size of the importance", routing.tokens(), Index(importance.size()));

  enum Rule : unsigned char { by_ratio, all, none };
  std::vector<Rule> rule(std::size_t(routing.tokens()), by_ratio);
  if (!importance.empty()) {
    std::vector<int> order(rule.size());
    choose_best(std::span<const T>(importance), routing.tokens(), order);
    const auto count = [&](double share) { return std::ptrdiff_t(share * double(order.size())); };
    for (auto n = order.end() - count(options.lowest); n != order.end(); ++n) rule[std::size_t(*n)] = none;
    for (auto n = order.begin(); n != order.begin() + count(options.highest); ++n) rule[std::size_t(*n)] = all;
  }
  const Index scored = routing.experts() - options.shared;
  kept.start(routing.experts());
  for (Index n = 0; n < routing.tokens(); ++n) {
    const auto experts = routing.experts_of(n);
    const auto gates = routing.gates_of(n);
    T most = 0, sum = 0, kept_sum = 0;
    const auto for_each = [&](auto&& f) {
      for (std::size_t j = 0; j < experts.size(); ++j) f(experts[j], gates[j]);
    };
    for_each([&](int e, T gate) { most = e < scored ? std::max(most, gate) : most; });
    const auto keeps = [&](T gate) {
      return rule[std::size_t(n)] == all || (rule[std::size_t(n)] == by_ratio && gate >= T(options.ratio) * most);
    };
    for_each([&](int e, T gate) {
      if (e >= scored) return;
      sum += gate;
      if (keeps(gate)) kept_sum += gate;
    });
    for_each([&](int e, T gate) {
      if (e >= scored)
        kept.push(e, gate);
      else if (keeps(gate))
        kept.push(e, kept_sum == sum || kept_sum == 0 ? gate : gate / kept_sum * sum);
    });
    kept.end_token();
  }
  kept.finish();
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
