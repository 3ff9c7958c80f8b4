// SPDX-License-Identifier: MIT
// base_fingerprint(): a short name for the weight of a base, which tells whether an adapter was made for it.
#pragma once

#include "mole/base/base_policy.hpp"
#include "mole/io/layer/layer_fields.hpp"

#include <bit>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>

#include "mole/core/macros_off.hpp"

namespace mole {

/// A hash of the sizes and numbers of a weight W [O x I], from O, I and then W row by row:
///
///   h = (h ^ bits) 0x9e3779b97f4a7c15,   h = h ^ (h >> 32),   bits: of the number as a double, of O and I as they are
///
/// A weight has the same fingerprint as floats, as doubles and in any storage that decodes to the same numbers. Weights
/// that differ in one number have different ones; no protection against who makes a weight for a fingerprint.
/// None for a base whose weight cannot be read: a function, or no base at all.  O(I O), 0.2 s for 10^8 numbers.
template <BasePolicy Base>
std::optional<std::uint64_t> base_fingerprint(const Base& base) {
  std::uint64_t hash = 0;
  const auto add = [&](std::uint64_t bits) {
    hash = (hash ^ bits) * 0x9e3779b97f4a7c15u;
    hash ^= hash >> 32;
  };
  const auto of = [&](const auto& element) {
    add(std::uint64_t(base.out()));
    add(std::uint64_t(base.in()));
    for (Index o = 0; o < base.out(); ++o)
      for (Index i = 0; i < base.in(); ++i) add(std::bit_cast<std::uint64_t>(double(element(o, i))));
    return hash;
  };
  if constexpr (LinearBasePolicy<Base>)
    return of(base.weights());
  else if constexpr (requires { base.code()(Index(), Index()); })
    return of(base.code());
  else
    return std::nullopt;
}

namespace detail {
inline std::string fingerprint_text(std::optional<std::uint64_t> fingerprint) {
  if (!fingerprint) return "unknown";
  char digits[17];
  std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(*fingerprint));
  return digits;
}

/// Throws Error(file) unless the description is of that base, or of none that could be compared.
inline void check_base(const LayerFieldsReader& fields, std::optional<std::uint64_t> fingerprint, bool other_base) {
  const std::string found = fingerprint_text(fingerprint), trained = fields.text("base");
  if (trained != "unknown" && found != trained && !other_base)
    throw fields.error(found + (fingerprint ? ", of the weight of" : ", as no weight can be read of") +
                           " the base that is given, or other_base,",
                       "base", trained);
}
}  // namespace detail

}  // namespace mole

#include "mole/core/macros_on.hpp"
