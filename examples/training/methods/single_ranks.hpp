// SPDX-License-Identifier: MIT
// Methods with one pair of A and B: plain LoRAs, LoRAs whose ranks have a gate, and those whose experts are ranks.
#pragma once

#include "training/methods/sizes.hpp"

#include <vector>

namespace training {

std::vector<Method> methods_of_single_ranks(const Execution& execution, const EqualRanks& ranks);

/// Those for tasks that arrive one after the other, with `rank` trainable ranks a task.
std::vector<Method> methods_of_tasks(const Execution& execution, mole::Index rank);

}  // namespace training
