// SPDX-License-Identifier: MIT
// All of mole for programs of libtorch; not part of mole.hpp, since only its users have libtorch.
#pragma once

#include "mole/interop/torch/replace_linear.hpp"
#include "mole/interop/torch/torch_linear.hpp"
