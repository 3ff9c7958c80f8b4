// SPDX-License-Identifier: MIT
// The parameters, or the gradients, of a whole layer.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/parameters.hpp"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

namespace mole {

/// Which parts of a layer learn. A part that does not has empty gradients: neither computed nor touched.
struct Trainable {
  bool router = true;
  bool experts = true;
  bool base = false;
};

namespace detail {
/// "prefix.name" without allocating: an optimizer walks names on every step.
class QualifiedName {
 public:
  QualifiedName(std::string_view prefix, std::string_view name) : size_(prefix.size() + 1 + name.size()) {
    if (size_ > text_.size())
      throw Error(ErrorCode::option, "parameter name: expected at most " + std::to_string(text_.size()) +
                                         " characters, found " + std::to_string(size_) + " in " + std::string(name));
    auto end = std::copy(prefix.begin(), prefix.end(), text_.begin());
    *end++ = '.';
    std::copy(name.begin(), name.end(), end);
  }
  operator std::string_view() const { return {text_.data(), size_}; }

 private:
  std::array<char, 120> text_;
  std::size_t size_;
};
}  // namespace detail

/// The tensors of the three roles that can have any, named "router.weight", "experts.lora_A", "base.weight" and so on.
template <class Router, class Experts, class Base>
struct LayerParameters {
  ParametersOf<Router> router;
  ParametersOf<Experts> experts;
  ParametersOf<Base> base;

  template <class F, class... P>
  static void walk(F&& f, P&... p) {
    const auto within = [&f](std::string_view role) {
      return [&f, role](std::string_view name, auto&... tensors) { f(detail::QualifiedName(role, name), tensors...); };
    };
    ParametersOf<Router>::walk(within("router"), p.router...);
    ParametersOf<Experts>::walk(within("experts"), p.experts...);
    ParametersOf<Base>::walk(within("base"), p.base...);
  }
};

}  // namespace mole
