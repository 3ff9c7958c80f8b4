// SPDX-License-Identifier: MIT
// ArchitectureOf: the instruction set whose vectors an execution uses.
#pragma once

#include "mole/kernel/vector.hpp"

#include <type_traits>

namespace mole::kernel {

namespace detail {
template <class Execution>
struct ArchitectureOf {
  using type = void;
};
template <class Execution>
requires requires {
  typename Execution::Architecture;
}
struct ArchitectureOf<Execution> {
  // Vectors of one element do not count: so a user's own policy needs only its scalar form on any processor.
  using Arch = typename Execution::Architecture;
  using type = std::conditional_t<std::is_same_v<Arch, Scalar>, void, Arch>;
};
}  // namespace detail

/// The Architecture that an execution names; void if it names none, or one whose vectors are single elements.
template <class Execution>
using ArchitectureOf = typename detail::ArchitectureOf<std::remove_cvref_t<Execution>>::type;

}  // namespace mole::kernel
