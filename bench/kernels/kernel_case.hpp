// SPDX-License-Identifier: MIT
// KernelCase: a kernel and the plain loop that computes the same.
#pragma once

#include "bench/machine/work.hpp"
#include "mole/core/config.hpp"

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace bench {

using mole::Index;

/// Ways to compute one thing, on operands that they share.
struct KernelBodies {
  std::function<void()> kernel, plain;
  std::function<void()> eigen;  ///< empty where Eigen has no expression for it
  Work work;                    ///< its tokens are unused
};

/// What has a row for each of its bodies; operands are made when they are wanted.
struct KernelCase {
  std::string name;   ///< of the header, and of the way if it has several
  std::string sizes;  ///< "/T:16/d:768"
  bool has_eigen;
  std::function<KernelBodies()> make;
};

/// Adds a case for each row of sizes. Operands are constructed from the sizes, and offer kernel(), plain(), work() and
/// perhaps eigen().
template <class Operands, std::size_t N>
void add_cases(std::vector<KernelCase>& cases, const std::string& name, const std::array<const char*, N>& letters,
               const std::vector<std::array<Index, N>>& rows) {
  constexpr bool has_eigen = requires(Operands o) {
    o.eigen();
  };
  for (const std::array<Index, N>& row : rows) {
    std::string sizes;
    for (std::size_t i = 0; i < N; ++i) sizes.append("/").append(letters[i]).append(":").append(std::to_string(row[i]));
    cases.push_back({name, sizes, has_eigen, [row] {
                       const auto o = std::apply([](auto... size) { return std::make_shared<Operands>(size...); }, row);
                       KernelBodies bodies{[o] { o->kernel(); }, [o] { o->plain(); }, {}, o->work()};
                       if constexpr (has_eigen) bodies.eigen = [o] { o->eigen(); };
                       return bodies;
                     }});
  }
}

// ---- one function for each file of cases
std::vector<KernelCase> product_cases();
std::vector<KernelCase> rank_cases();
std::vector<KernelCase> layout_cases();
std::vector<KernelCase> coded_cases();
std::vector<KernelCase> row_cases();
std::vector<KernelCase> update_cases();

}  // namespace bench
