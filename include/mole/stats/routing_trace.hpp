// SPDX-License-Identifier: MIT
// RoutingTrace: recorded routings of many calls, for inspection or replay.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/routing.hpp"

#include <algorithm>
#include <span>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Records routings, call after call, and returns each of them bit for bit.
///
///   record(routing) after each call, or after each layer of it     replay(call) -> a routing for layer.apply()
///
/// The pairs keep their order, so results of a replayed routing have the same bits as those of the recorded one.
/// write_routing_trace() and read_routing_trace() of io/routing_trace_file.hpp store it in a file.
/// Throws Error(shape) for a routing before finish(), Error(option) for a call that was not recorded.
/// Both O(pairs). record() allocates as a vector does, replay(call, routing) what the routing has no room for.
template <class T>
class RoutingTrace {
 public:
  using Scalar = T;

  void record(const Routing<T>& routing) {
    require(routing.finished(), ErrorCode::shape, "RoutingTrace: expected a routing after finish(), found one before");
    calls_.push_back({routing.experts(), Index(count_.size()), Index(expert_.size())});
    for (Index n = 0; n < routing.tokens(); ++n) {
      const std::span<const int> experts = routing.experts_of(n);
      count_.push_back(int(experts.size()));
      expert_.insert(expert_.end(), experts.begin(), experts.end());
    }
    weight_.insert(weight_.end(), routing.gates().begin(), routing.gates().end());
  }

  Index calls() const { return Index(calls_.size()); }
  Index experts(Index call) const { return at(call).experts; }
  Index tokens(Index call) const { return end_of(call).first_token - at(call).first_token; }
  Index pairs(Index call) const { return end_of(call).first_pair - at(call).first_pair; }

  Routing<T> replay(Index call) const {
    Routing<T> routing;
    replay(call, routing);
    return routing;
  }
  /// The same, reusing the memory of `routing`.
  void replay(Index call, Routing<T>& routing) const {
    const std::size_t first = std::size_t(at(call).first_pair), size = std::size_t(pairs(call));
    routing.start(experts(call),
                  std::span(count_).subspan(std::size_t(at(call).first_token), std::size_t(tokens(call))));
    for (Index n = 0, p = Index(first); n < routing.tokens(); ++n)
      for (int& expert : routing.experts_to_fill(n)) expert = expert_[std::size_t(p++)];
    std::copy_n(weight_.begin() + std::ptrdiff_t(first), size, routing.gates().begin());
    routing.finish();
  }

  void clear() {
    calls_.clear();
    count_.clear();
    expert_.clear();
    weight_.clear();
  }

 private:
  /// Where a call begins; it ends where the next one begins.
  struct Start {
    Index experts, first_token, first_pair;
  };

  const Start& at(Index call) const {
    require(call >= 0 && call < calls(), ErrorCode::option, "RoutingTrace: expected one of ", calls(),
            " recorded calls, found number ", call);
    return calls_[std::size_t(call)];
  }
  Start end_of(Index call) const {
    return call + 1 < calls() ? calls_[std::size_t(call + 1)] : Start{0, Index(count_.size()), Index(expert_.size())};
  }

  std::vector<Start> calls_;
  std::vector<int> count_;   // experts of each token of all calls
  std::vector<int> expert_;  // of each pair
  std::vector<T> weight_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
