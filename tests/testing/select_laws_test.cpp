// SPDX-License-Identifier: MIT
#include "mole/testing/select_laws.hpp"

#include "support/catch.hpp"
#include "testing/unsaid.hpp"

using namespace mole;
using test::unsaid;

namespace {

enum class SelectFault {
  none,
  negative_room,
  too_many,
  writes_behind,
  changes,
  invalid,
  twice,
  takes_all,
  worst_first,
  higher_index,
  lanes
};

/// The two best, with a fault; also in lanes.
struct FaultySelect {
  SelectFault fault = SelectFault::none;
  mutable int calls = 0;

  Index max_chosen(Index) const { return fault == SelectFault::negative_room ? -1 : 2; }
  bool takes_all(Index) const { return fault == SelectFault::takes_all; }

  Index select(std::span<const double> scores, Index experts, std::span<int> chosen) const {
    choose_best(scores, experts, chosen);
    ++calls;
    if (fault == SelectFault::writes_behind) chosen.data()[chosen.size()] = 0;
    if (fault == SelectFault::changes && calls % 2 == 0) chosen[1] = chosen[1] == 0 ? 1 : 0;
    if (fault == SelectFault::invalid) chosen[1] = int(experts);
    if (fault == SelectFault::twice) chosen[1] = chosen[0];
    if (fault == SelectFault::worst_first) std::swap(chosen[0], chosen[1]);
    if (fault == SelectFault::higher_index && scores[0] == scores[1]) chosen[0] = 1, chosen[1] = int(experts) - 1;
    return fault == SelectFault::too_many ? 3 : 2;
  }

  template <class V, class Arch = typename V::arch_type>
  V select(std::span<const V> scores, Index experts, std::span<V> chosen) const {
    std::array<V, std::size_t(kernel::LargestInLanes<Arch, double>::most)> best;
    kernel::LargestInLanes<Arch, double>{}(scores.data(), experts, 2, best.data(), chosen.data());
    return V(fault == SelectFault::lanes ? 1.0 : 2.0);
  }
};
static_assert(SelectPolicy<FaultySelect, double>);
static_assert(LaneSelectPolicy<FaultySelect, kernel::Vector<kernel::DefaultArchitecture, double>>);

std::string broken(SelectFault fault, const laws::SelectLawOptions& options = {}) {
  return laws::broken_select_law(FaultySelect{fault}, 5, options);
}

}  // namespace

TEST_CASE("The laws of selections name the one that is broken", "[testing]") {
  CHECK(broken(SelectFault::none) == "");
  CHECK(unsaid(broken(SelectFault::negative_room), {"selection from 5 experts, seed 61", "at least 0, found -1"}) ==
        "");
  CHECK(unsaid(broken(SelectFault::too_many), {"token 0: expected from 0 to max_chosen = 2 experts, found 3"}) == "");
  CHECK(unsaid(broken(SelectFault::writes_behind), {"token 0: expected nothing beyond 2 experts to be written"}) == "");
  CHECK(unsaid(broken(SelectFault::changes), {"token 0: expected the same choice a second time, found another"}) == "");
  CHECK(unsaid(broken(SelectFault::invalid), {"token 0: expected experts from 0 to 4, found 5"}) == "");
  CHECK(unsaid(broken(SelectFault::twice), {"token 0: expected distinct experts, found", "twice"}) == "");
  CHECK(unsaid(broken(SelectFault::takes_all), {"token 0: expected all experts where takes_all() says so, found 2"}) ==
        "");
  CHECK(unsaid(broken(SelectFault::lanes), {"token 0 in lane 0: expected the choice of the scalar form"}) == "");
}

TEST_CASE("The laws of selections ask for the order of selections unless the options say otherwise", "[testing]") {
  CHECK(unsaid(broken(SelectFault::worst_first), {"token 0: expected the best first, ties to the lower index"}) == "");
  CHECK(unsaid(broken(SelectFault::higher_index),
               {"expected the lower index of equal scores, found expert 1 chosen and not 0"}) == "");
  CHECK(unsaid(broken(SelectFault::higher_index, {.best_first = false, .lower_of_equals = false}), {"in lane 0"}) ==
        "");
  CHECK(unsaid(broken(SelectFault::worst_first, {.best_first = false}), {"in lane 0"}) == "");
}
