// SPDX-License-Identifier: MIT
// PolicyDescription: how the options of a policy are written to a file, and a policy is made of them again.
#pragma once

#include "mole/io/layer/layer_fields.hpp"

#include <concepts>
#include <string>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Specialized for each policy that a layer's file can describe; a user's own is a specialization more:
///
///     template <>
///     struct mole::PolicyDescription<MyScore> {
///       static constexpr const char* name = "MyScore";
///       static void write(const MyScore& score, LayerFieldsWriter& to) { to.set("slope", score.slope); }
///       static MyScore read(const LayerFieldsReader& from) { return {.slope = from.number("slope")}; }
///     };
///
/// `write` has all that is neither a parameter nor state, and the sizes that both need; `read` makes a policy of these
/// sizes, whose parameters and state are then read from the tensors.
template <class Policy>
struct PolicyDescription;

/// A policy that a layer file can name, write and read.
template <class P>
concept DescribedPolicy = requires(const P& policy, LayerFieldsWriter& to, const LayerFieldsReader& from) {
  {std::string(PolicyDescription<P>::name)};
  PolicyDescription<P>::write(policy, to);
  { PolicyDescription<P>::read(from) } -> std::same_as<P>;
};

namespace detail {
template <class Policy>
LayerFieldsWriter described(const Policy& policy) {
  LayerFieldsWriter fields;
  fields.set("type", PolicyDescription<Policy>::name);
  PolicyDescription<Policy>::write(policy, fields);
  return fields;
}

template <class Policy>
Policy policy_of(const LayerFieldsReader& outer, const std::string& part) {
  const LayerFieldsReader fields = outer.part(part);
  if (const std::string type = fields.text("type"); type != PolicyDescription<Policy>::name)
    throw outer.error(std::string("type ") + PolicyDescription<Policy>::name, part, type);
  Policy policy = PolicyDescription<Policy>::read(fields);
  fields.end();
  return policy;
}

template <class Policy>
struct PlainDescription {
  static void write(const Policy&, LayerFieldsWriter&) {}
  static Policy read(const LayerFieldsReader&) { return {}; }
};
}  // namespace detail

}  // namespace mole

#include "mole/core/macros_on.hpp"
