// SPDX-License-Identifier: MIT
// What nearly every unit test includes and nobody edits.
#pragma once

#include "support/catch.hpp"

#include <Eigen/Core>
#include <xsimd/xsimd.hpp>

#include <algorithm>
#include <functional>
#include <memory_resource>
#include <string>
#include <vector>
