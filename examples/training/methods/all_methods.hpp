// SPDX-License-Identifier: MIT
// all_methods(): every trainable method of mole/method/, at comparable sizes.
#pragma once

#include "mole/execution/thread_pool.hpp"
#include "training/method.hpp"

#include <string>
#include <vector>

namespace training {

/// All methods for a host with these linear layers: the ranks of the plain LoRAs follow from them.
std::vector<Method> all_methods(const std::vector<Site>& sites, const mole::ThreadPool& pool);

/// The methods for tasks that arrive one after the other, with `rank` trainable ranks a task.
std::vector<Method> task_methods(mole::Index rank, const mole::ThreadPool& pool);

/// Their names, separated by commas: for --help, and for what is wrong with a --method.
std::string names_of(const std::vector<Method>& methods);

/// Those of `names`, each once, in the order of `methods`; "all" is all of them. Throws Exit in the name of `program`
/// for a name that none has.
std::vector<const Method*> choose(const std::string& program, const std::vector<Method>& methods,
                                  std::vector<std::string> names);

}  // namespace training
