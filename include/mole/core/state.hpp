// SPDX-License-Identifier: MIT
// StateSpan, for_each_state_within(): what a checkpoint holds of a policy besides its parameters.
#pragma once

#include "mole/core/parameters.hpp"

#include <concepts>
#include <cstdint>
#include <span>
#include <string_view>
#include <variant>

namespace mole {

/// Some numbers of a state: what a checkpoint can hold, bit for bit.
///
/// A policy with state offers one function
///     template <class F> void for_each_state(F&& f)   calling   f("name", std::span<U>) for each part of it
/// with spans of these types, in one order, of sizes that depend on its options alone. Whoever saves or restores a
/// layer reads or writes through them. A policy that keeps its state in another form hands out copies, and at the end
/// of its for_each_state takes in what f has changed; what it cannot take it refuses with an Error, and is as before.
/// What wraps other policies walks theirs, each within its name. State that is switched off is not visited.
using StateSpan = std::variant<std::span<float>, std::span<double>, std::span<std::int32_t>, std::span<std::int64_t>,
                               std::span<std::uint8_t>>;

/// The state of `policy`, its names behind `part`: "gating.select.bias". Nothing for a policy without any.
template <class Policy, class F>
void for_each_state_within(std::string_view part, Policy& policy, F& f) {
  const auto qualified = [&]<class U>(std::string_view name, std::span<U> numbers) {
    static_assert(std::constructible_from<StateSpan, std::span<U>>, "mole: state of a type that StateSpan has not");
    f(std::string_view(detail::QualifiedName(part, name)), numbers);
  };
  if constexpr (requires { policy.for_each_state(qualified); }) policy.for_each_state(qualified);
}

}  // namespace mole
