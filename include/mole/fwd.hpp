// SPDX-License-Identifier: MIT
// Forward declarations, for headers of a host that only name types of mole.
#pragma once

#include <cstddef>

#include "mole/core/macros_off.hpp"

namespace mole {

using Index = std::ptrdiff_t;

class Error;
class Rng;
struct Pass;
struct Reference;
class ThreadPool;
template <class T>
class View;
template <class T>
class Matrix;
template <class T>
class Routing;
template <class T>
class Trace;
template <class T>
class AnyLinear;

}  // namespace mole

#include "mole/core/macros_on.hpp"
