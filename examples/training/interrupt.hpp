// SPDX-License-Identifier: MIT
// interrupted(): Ctrl-C as a flag that a loop polls.
#pragma once

#include <csignal>
#include <cstdlib>

namespace training {

namespace detail {
inline volatile std::sig_atomic_t interrupt_seen = 0;
}

/// The first Ctrl-C from now on is noted; the second ends the program as usual.
inline void note_interrupts() {
  std::signal(SIGINT, [](int signal) {
    detail::interrupt_seen = 1;
    std::signal(signal, SIG_DFL);
  });
}

/// Ctrl-C after the step that the environment names in INTERRUPT_AFTER_STEP: tests cannot hit a step by time.
inline void interrupt_after(long step) {
  const char* const named = std::getenv("INTERRUPT_AFTER_STEP");
  if (named != nullptr && std::atol(named) == step) std::raise(SIGINT);
}

inline bool interrupted() {
  return detail::interrupt_seen != 0;
}

/// Thrown by a loop that has saved its state after an interrupt.
struct Interrupted {};

}  // namespace training
