// SPDX-License-Identifier: MIT
// The precompiled header: what nearly every unit test includes and nearly no change touches.
#pragma once

#include "support/catch.hpp"

#include <Eigen/Core>
#include <xsimd/xsimd.hpp>

#include <algorithm>
#include <functional>
#include <memory_resource>
#include <string>
#include <vector>
