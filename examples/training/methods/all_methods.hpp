// SPDX-License-Identifier: MIT
// Every trainable method of mole/method/, at sizes that can be compared.
#pragma once

#include "training/method.hpp"
#include "mole/execution/thread_pool.hpp"

#include <string>
#include <vector>

namespace training {

/// All methods for a host with these linear layers: the ranks of the plain LoRAs follow from them.
std::vector<Method> all_methods(const std::vector<Site>& sites, const mole::ThreadPool& pool);

/// Their names, separated by commas: for --help, and for what is wrong with a --method.
std::string names_of(const std::vector<Method>& methods);

}  // namespace training
