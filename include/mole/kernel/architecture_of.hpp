// SPDX-License-Identifier: MIT
// ArchitectureOf: the instruction set whose vectors an execution uses.
#pragma once

#include "mole/kernel/vector.hpp"

#include <type_traits>

#include "mole/core/macros_off.hpp"

namespace mole::kernel {

namespace detail {
template <class Execution>
auto architecture_type() {
  if constexpr (requires { requires !std::is_same_v<typename Execution::Architecture, Scalar>; })
    return std::type_identity<typename Execution::Architecture>();
  else
    return std::type_identity<void>();
}
}  // namespace detail

/// The Architecture that an execution names; void if it names none, or one whose vectors are single elements, so that a
/// user's own policy needs only its scalar form on any processor.
template <class Execution>
using ArchitectureOf = typename decltype(detail::architecture_type<std::remove_cvref_t<Execution>>())::type;

}  // namespace mole::kernel

#include "mole/core/macros_on.hpp"
