// SPDX-License-Identifier: MIT
// Measures: the figures that goals are about, each measured against something else in alternating slices.
#pragma once

#include "mole/core/config.hpp"

#include <functional>
#include <string_view>

namespace bench {

/// What is measured: a layer case or a base, at one size.
struct Subject {
  std::string_view name;
  mole::Index tokens, d;
};

/// One round of slices; its figure. What is measured has been made and is warm.
using Round = std::function<double()>;
using Measure = Round (*)(const Subject&);

// ---- one thread, CPU time
Round share_of_flops(const Subject& subject);         ///< operations a second / those of bare multiply-adds
Round share_of_bandwidth(const Subject& subject);     ///< weight bytes a second / those of reading as large a buffer
Round share_of_roofline(const Subject& subject);      ///< the least possible time, by both of these / time
Round over_plain(const Subject& subject);             ///< forward / that of plain
Round both_ways_over_plain(const Subject& subject);   ///< (forward + backward) / 2 forwards of plain
Round times_faster_than_f32(const Subject& subject);  ///< forward of PackedBase / that of the base named
Round growth_with_experts(const Subject& subject);    ///< E = 1024 / E = 8 at k = 2, without routing
Round growth_with_ranks(const Subject& subject);      ///< R = 1024 / R = 64 at k = 8 of one rank, without routing

// ---- several threads, wall time
Round two_threads_over_one(const Subject& subject);   ///< speeds
Round five_threads_over_two(const Subject& subject);  ///< speeds
Round bare_arithmetic_on_two_threads();               ///< its speed / that on one: what the machine gives at best

}  // namespace bench
