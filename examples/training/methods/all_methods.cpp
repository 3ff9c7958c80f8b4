// SPDX-License-Identifier: MIT
#include "training/methods/all_methods.hpp"

#include "training/methods/block_experts.hpp"
#include "training/methods/single_ranks.hpp"

#include <cmath>
#include <iterator>

namespace training {

EqualRanks equal_ranks(const std::vector<Site>& sites) {
  double routers = 0, per_rank = 0;
  for (const Site& site : sites) {
    routers += double(router_parameters(site));
    per_rank += double(lora_parameters(site, 1));
  }
  const auto with_router = [&](mole::Index ranks) {
    return mole::Index(std::lround(double(ranks) + (per_rank > 0 ? routers / per_rank : 0)));
  };
  return {.active = with_router(chosen * expert_rank), .trainable = with_router(experts * expert_rank)};
}

std::vector<Method> all_methods(const std::vector<Site>& sites, const mole::ThreadPool& pool) {
  const Execution execution(pool);
  std::vector<Method> methods = methods_of_single_ranks(execution, equal_ranks(sites));
  std::vector<Method> others = methods_of_block_experts(execution);
  methods.insert(methods.end(), std::move_iterator(others.begin()), std::move_iterator(others.end()));
  return methods;
}

std::string names_of(const std::vector<Method>& methods) {
  std::string names;
  for (const Method& method : methods) names += (names.empty() ? "" : ", ") + method.name;
  return names;
}

}  // namespace training
