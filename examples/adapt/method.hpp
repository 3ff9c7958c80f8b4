// SPDX-License-Identifier: MIT
// The adapters that the program compares.
#pragma once

#include "mole/core/random.hpp"
#include "mole/execution/thread_pool.hpp"
#include "mole/layer/any_linear.hpp"

#include <functional>
#include <string>
#include <vector>

namespace adapt {

/// Sizes of one linear layer of the host.
struct LinearSize {
  mole::Index in, out;
};

/// A way to adapt every linear layer of a frozen model.
struct Method {
  std::string name;      // on the command line and in file names
  std::string title;     // in tables
  double learning_rate;  // tuned for this method; see the README for how
  double balance;        // coefficient of the balance loss
  bool routed;           // has a router worth a picture

  /// A fresh layer over the frozen `weight` [O x I], which it borrows.
  std::function<mole::AnyLinear<float>(mole::View<const float> weight, mole::Index max_tokens, mole::Rng& rng)> build;
  /// Parameters that one token touches in a layer of this size.
  std::function<mole::Index(LinearSize)> active;
};

/// All methods, for a host whose blocks have linear layers of `sizes`: the ranks of the plain LoRAs follow from them.
std::vector<Method> all_methods(const std::vector<LinearSize>& sizes, const mole::ThreadPool& pool);

/// The methods of a run without --method.
std::vector<std::string> default_methods();

}  // namespace adapt
