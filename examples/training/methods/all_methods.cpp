// SPDX-License-Identifier: MIT
#include "training/methods/all_methods.hpp"

#include "training/command_line.hpp"
#include "training/methods/block_experts.hpp"
#include "training/methods/connected_routers.hpp"
#include "training/methods/shared_pools.hpp"
#include "training/methods/single_adapters.hpp"
#include "training/methods/single_ranks.hpp"

#include <algorithm>
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
  for (std::vector<Method> others : {methods_of_block_experts(execution), methods_of_connected_routers(execution),
                                     methods_of_single_adapters(execution, equal_ranks(sites)),
                                     methods_of_shared_pools(execution, equal_ranks(sites))})
    methods.insert(methods.end(), std::move_iterator(others.begin()), std::move_iterator(others.end()));
  return methods;
}

std::vector<Method> task_methods(mole::Index rank, const mole::ThreadPool& pool) {
  return methods_of_tasks(Execution(pool), rank);
}

std::string names_of(const std::vector<Method>& methods) {
  std::string names;
  for (const Method& method : methods) names += (names.empty() ? "" : ", ") + method.name;
  return names;
}

std::vector<const Method*> choose(const std::string& program, const std::vector<Method>& methods,
                                  std::vector<std::string> names) {
  const auto named = [&](const std::string& name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  const bool all = named("all");
  std::vector<const Method*> result;
  for (const Method& method : methods) {
    if (all || named(method.name)) result.push_back(&method);
    std::erase(names, method.name);
  }
  std::erase(names, "all");
  if (!names.empty())
    throw Exit{2,
               program + ": --method: expected one of all, " + names_of(methods) + ", found " + names.front() + "\n"};
  return result;
}

}  // namespace training
