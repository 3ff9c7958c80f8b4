// SPDX-License-Identifier: MIT
// LastMade: the operands that consecutive runs of one benchmark share.
#pragma once

#include <optional>
#include <string>
#include <utility>

namespace bench {

/// Keeps the last thing made: Google Benchmark calls a function anew for each guess at its number of iterations, and
/// making operands may take longer than all of them.
template <class Thing>
class LastMade {
 public:
  /// The thing of that name; make() if it is another than the last.
  template <class Make>
  const Thing& get(const std::string& name, Make make) {
    if (!thing_ || name != name_) {
      thing_.reset();  // before the next: there may be no memory for both
      thing_.emplace(make());
      name_ = name;
    }
    return *thing_;
  }

 private:
  std::string name_;
  std::optional<Thing> thing_;
};

}  // namespace bench
