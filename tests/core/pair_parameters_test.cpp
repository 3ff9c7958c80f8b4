// SPDX-License-Identifier: MIT
#include "mole/core/pair_parameters.hpp"

#include "mole/core/matrix.hpp"
#include "support/catch.hpp"

#include <string>
#include <vector>

using namespace mole;

namespace {
struct PairedPart {
  struct Parameters {
    Matrix<float> weight;
    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      f("weight", p.weight...);
    }
  };
  Parameters& parameters() { return own; }
  const Parameters& parameters() const { return own; }
  Parameters own;
};
struct PartWithoutAny {};
}  // namespace

TEST_CASE("The parameters of a pair are those of its parts, in place, under their names", "[core]") {
  PairedPart one{{Matrix<float>(2, 3)}}, two{{Matrix<float>(4, 1)}};
  using Pair = PairParameters<PairedPart, PairedPart>;
  auto in_place = detail::pair_in_place(one, two);
  std::vector<std::string> names;
  Pair::for_each_tensor(
      [&](std::string_view name, Matrix<float>& tensor) {
        names.emplace_back(name);
        fill(tensor.view(), 7);
      },
      in_place);
  CHECK(names == std::vector<std::string>{"first.weight", "second.weight"});
  CHECK(one.own.weight(1, 2) == 7);
  CHECK(two.own.weight(3, 0) == 7);

  const Pair copies = detail::pair_in_place(std::as_const(one), std::as_const(two));
  one.own.weight(1, 2) = 0;
  CHECK(copies.first.weight(1, 2) == 7);
  CHECK(copies.second.weight.rows() == 4);
}

TEST_CASE("A part of a pair may have no parameters", "[core]") {
  PairedPart one{{Matrix<float>(2, 3)}};
  PartWithoutAny none;
  int tensors = 0;
  auto in_place = detail::pair_in_place(none, one);
  PairParameters<PartWithoutAny, PairedPart>::for_each_tensor([&](std::string_view, auto&) { ++tensors; }, in_place);
  CHECK(tensors == 1);
}
