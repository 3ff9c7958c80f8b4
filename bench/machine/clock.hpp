// SPDX-License-Identifier: MIT
// Clock: CPU time of a thread, or wall time, in seconds.
#pragma once

#include <ctime>

namespace bench {

/// Seconds since some fixed moment.
using Clock = double (*)();

namespace detail {
template <clockid_t id>
double seconds_of_clock() {
  timespec now;
  clock_gettime(id, &now);
  return double(now.tv_sec) + 1e-9 * double(now.tv_nsec);
}
}  // namespace detail

/// CPU time of the calling thread, which neighbors cannot add to: for what runs on one thread.
inline constexpr Clock thread_clock = detail::seconds_of_clock<CLOCK_THREAD_CPUTIME_ID>;
/// Time that passes: for what runs on several.
inline constexpr Clock wall_clock = detail::seconds_of_clock<CLOCK_MONOTONIC>;

}  // namespace bench
