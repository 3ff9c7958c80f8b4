// SPDX-License-Identifier: MIT
// The precompiled header: what most unit tests include, whatever they are about.
#pragma once

#include "support/catch.hpp"
#include "support/compiled_kernels.hpp"

#include "mole/method/lora_mixture.hpp"

#include <Eigen/Core>

#include <algorithm>
#include <functional>
#include <memory_resource>
#include <string>
#include <vector>
