// SPDX-License-Identifier: MIT
// PlainPeer: the plain layer as other libraries compute it.
#pragma once

#include "mole/core/config.hpp"

#include <functional>
#include <string>
#include <vector>

namespace bench {

/// y = x W^T by another library on one thread, on tensors of its own. Eigen is always there, OpenBLAS and oneDNN where
/// CMake found them; OpenBLAS' name says for which processor it computes, as it may not know this one: see its
/// OPENBLAS_CORETYPE. oneDNN gets its weight packed once, as mole does; the others have no such form.
struct PlainPeer {
  std::string name;
  std::function<void()> (*forward)(mole::Index tokens, mole::Index d);
};

const std::vector<PlainPeer>& plain_peers();

}  // namespace bench
