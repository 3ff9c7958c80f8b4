// SPDX-License-Identifier: MIT
// CallOrder: which forward call a backward may follow.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/memory/taken_by_move.hpp"
#include "mole/core/routing.hpp"

#include <string_view>

#include "mole/core/macros_off.hpp"

namespace mole {

/// What the last forward call on a workspace was: of which layer, for which x, with which routing. A backward that does
/// not belong to it, or is the second one after it, throws Error(order), instead of computing from what another call
/// has left.
template <class T>
class CallOrder {
 public:
  /// A forward call begins; until it ends no backward may follow.
  void begin() { layer_ = nullptr; }
  /// Was the last forward call on this x?
  bool is_of(const View<const T>& x) const { return layer_ != nullptr && x_.rows() == x.rows() && same_memory(x); }
  /// It has ended.
  void end(const void* layer, const View<const T>& x, const Routing<T>& routing) {
    layer_ = layer, x_ = x, routing_ = routing.version();
  }

  /// Throws unless a backward may follow now.
  void check(std::string_view call, const void* layer, const View<const T>& x, const Routing<T>& routing) const {
    require(layer_ != nullptr, ErrorCode::order, call,
            ": expected a forward (or recompute) before each backward, found none since the last one");
    require(layer_ == layer, ErrorCode::order, call,
            ": expected the layer of the last forward on this workspace, found another (or it has moved)");
    require(x_.rows() == x.rows() && x_.cols() == x.cols(), ErrorCode::shape, call, ": expected an x of [", x_.rows(),
            " x ", x_.cols(), "], as in forward, found [", x.rows(), " x ", x.cols(), "]");
    require(same_memory(x), ErrorCode::order, call,
            ": expected the x of the last forward on this workspace, found other memory");
    require(routing.finished() && routing_ == routing.version(), ErrorCode::order, call,
            ": expected the routing of the last forward on this workspace, found another or a changed one");
  }
  /// Uses up the forward call.
  void spend() { layer_ = nullptr; }

 private:
  bool same_memory(const View<const T>& x) const {
    return x_.rows() == 0 || (x_.data() == x.data() && (x_.rows() == 1 || x_.stride() == x.stride()));
  }

  TakenByMove<const void*> layer_;
  View<const T> x_;
  std::uint64_t routing_ = 0;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
