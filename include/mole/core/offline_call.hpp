// SPDX-License-Identifier: MIT
// OfflineCall: the call of one policy outside of a layer, for merging and surgery.
#pragma once

#include "mole/core/call.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// Calls of `policy`, which must outlive it, on the caller's thread, in scratch of its own. Its execution has
/// parallel_for() alone.
///
///     OfflineCall offline(policy);
///     policy.prepare(offline.call());
template <class Policy>
class OfflineCall {
 public:
  struct OneThread {
    template <class F>
    void parallel_for(Index tasks, F&& f) const {
      for (Index i = 0; i < tasks; ++i) f(i);
    }
  };

  explicit OfflineCall(const Policy& policy) : scratch_(policy, CallSize{}) {}

  Call<OneThread, ScratchOf<Policy>> call() { return {execution_, pass_, *scratch_}; }

 private:
  OneThread execution_;
  Pass pass_;
  OwnedScratch<Policy> scratch_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
