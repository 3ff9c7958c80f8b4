// SPDX-License-Identifier: MIT
// LayerShape: what tells a layer's workspace from those of layers that lay out their memory differently.
#pragma once

#include "mole/core/error.hpp"

#include <atomic>
#include <cstdint>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// A number for the sizes of a layer's parts, measured once, and in every call from when the caller has a reference
/// through which they may change. Nobody has one to the parts of a copy. Of a layer that was moved from there is none:
/// Error(order). Threads may ask for it together.
class LayerShape {
 public:
  /// Who has measured: an ExpertLinear its two parts, or the MixtureLinear around it all four.
  enum class Of : std::uint64_t { experts = 1, whole = 2 };

  LayerShape() = default;
  LayerShape(const LayerShape& other) noexcept : number_(other.known()) {}
  LayerShape(LayerShape&& other) noexcept : number_(other.known()) { other.leave(); }
  LayerShape& operator=(const LayerShape& other) noexcept {
    number_ = is_referred_to() ? changing : other.known();
    return *this;
  }
  LayerShape& operator=(LayerShape&& other) noexcept {
    *this = std::as_const(other);
    other.leave();
    return *this;
  }

  void may_change() { number_ = changing; }

  /// The number, from `measure()` where it is not known, or always. Never 0; differs, almost certainly, for other
  /// sizes.
  template <class Measure>
  std::uint64_t number(Of layer, bool always, const Measure& measure) const {
    const std::uint64_t number = number_.load(std::memory_order_relaxed);
    return (number & 3) == std::uint64_t(layer) && !always ? number : measured(layer, number, measure);
  }

 private:
  template <class Measure>
  MOLE_COLD std::uint64_t measured(Of layer, std::uint64_t number, const Measure& measure) const {
    require(number != gone && number != gone_changing, ErrorCode::order,
            "layer: expected a layer with parts, found one that was moved from");
    const std::uint64_t anew = measure() << 2 | std::uint64_t(layer);
    if (number == unknown) number_.store(anew, std::memory_order_relaxed);
    return anew;
  }

  /// Numbers that stand for a state; measured ones end in the bits of Of.
  static constexpr std::uint64_t unknown = 0, changing = 3, gone = 7, gone_changing = 11;

  /// Of a copy: nobody refers to its parts.
  std::uint64_t known() const {
    const std::uint64_t number = number_.load(std::memory_order_relaxed);
    return number == changing ? unknown : number == gone_changing ? gone : number;
  }
  bool is_referred_to() const { return number_ == changing || number_ == gone_changing; }
  /// References to the parts of this object stay.
  void leave() { number_ = is_referred_to() ? gone_changing : gone; }

  mutable std::atomic<std::uint64_t> number_ = unknown;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
