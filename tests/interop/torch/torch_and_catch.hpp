// SPDX-License-Identifier: MIT
// libtorch, and Catch2, both of which have a macro CHECK: this one is Catch2's.
#pragma once

#include <torch/torch.h>

#undef CHECK
#include "support/catch.hpp"
