// SPDX-License-Identifier: MIT
// StateSpan, for_each_state_within(): what a checkpoint holds of a policy besides its parameters.
#pragma once

#include "mole/core/parameters.hpp"

#include <concepts>
#include <cstdint>
#include <span>
#include <string_view>
#include <variant>

#include "mole/core/macros_off.hpp"

namespace mole {

/// A span of numbers of a state, which a checkpoint holds bit for bit.
///
/// A policy with state offers one function
///
///     template <class F> void for_each_state(F&& f)
///
/// that calls f("name", std::span<U>) for each part of it, with spans of these types, in a fixed order and of sizes
/// that depend on its options alone. A layer is saved and restored by reading and writing through them. A policy that
/// stores its state in another form passes copies to f, then applies the changes; if they are invalid it throws Error
/// and stays unchanged. A policy that wraps others visits theirs, prefixed with the name of each. State that is
/// switched off is not visited.
using StateSpan = std::variant<std::span<float>, std::span<double>, std::span<std::int32_t>, std::span<std::int64_t>,
                               std::span<std::uint8_t>>;

/// The state of `policy`, its names prefixed with `part`: "gating.select.bias". Nothing for a policy without state.
template <class Policy, class F>
void for_each_state_within(std::string_view part, Policy& policy, F& f) {
  const auto qualified = [&]<class U>(std::string_view name, std::span<U> numbers) {
    static_assert(std::constructible_from<StateSpan, std::span<U>>,
                  "mole: state of a type that StateSpan does not hold");
    f(std::string_view(detail::QualifiedName(part, name)), numbers);
  };
  if constexpr (requires { policy.for_each_state(qualified); }) policy.for_each_state(qualified);
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
