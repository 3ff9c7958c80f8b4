// SPDX-License-Identifier: MIT
// checked_product(), checked_int(): sizes that cannot wrap.
#pragma once

#include "mole/core/config.hpp"
#include "mole/core/error.hpp"

#include <limits>
#include <string_view>

#include "mole/core/macros_off.hpp"

namespace mole {

/// a * b * ... Throws Error(option), naming `what`, for a size below 0 and for a product that Index cannot hold.
template <class... More>
Index checked_product(std::string_view what, Index a, Index b, More... more) {
  require(a >= 0 && b >= 0 && (b == 0 || a <= std::numeric_limits<Index>::max() / b), ErrorCode::option, what,
          ": expected sizes of at least 0 whose product fits ", std::numeric_limits<Index>::digits, " bits, found ", a,
          " and ", b);
  if constexpr (sizeof...(more) > 0)
    return checked_product(what, a * b, more...);
  else
    return a * b;
}

/// `size` as the int that routings and ranks are counted in. Throws Error(option), naming `what`, outside of its range.
inline int checked_int(std::string_view what, Index size) {
  require(size >= 0 && size <= std::numeric_limits<int>::max(), ErrorCode::option, what, ": expected from 0 to ",
          std::numeric_limits<int>::max(), ", found ", size);
  return int(size);
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
