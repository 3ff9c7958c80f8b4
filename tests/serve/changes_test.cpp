// SPDX-License-Identifier: MIT
// A table and a layer against a plain map of adapters.
#include "core/error_code.hpp"
#include "mole/base/packed_base.hpp"
#include "mole/serve/multi_adapter_linear.hpp"
#include "serve/random_adapters.hpp"
#include "support/catch.hpp"
#include "support/seed.hpp"
#include "support/tolerance.hpp"

#include <algorithm>
#include <map>

using namespace mole;
using namespace mole::test;
using support::random_matrix;

TEST_CASE("Any sequence of changes serves what a plain map of adapters would", "[serve]") {
  TestRng rng;
  const auto draw = [&](int bound) { return int(rng() % std::uint64_t(bound)); };
  const auto weight = random_matrix<float>(9, 11, 1);
  const MultiAdapterLinear layer{PackedBase{weight}};
  auto work = layer.workspace(12);
  AdapterTable<float> table({.sites = {{11, 9}}, .max_adapters = 6, .max_rank = 5});
  std::map<int, Adapter<float>> model;
  int served = 0, refused = 0;
  for (int step = 0; step < 3000; ++step) {
    const int id = draw(8), rank = draw(7);
    const auto adapter = random_adapter(11, 9, rank, std::uint64_t(step));
    const bool known = model.contains(id), fits = rank <= 5;
    switch (draw(4)) {
      case 0: {
        const auto code = code_of([&] { table.add(id, ServedAdapter<float>(adapter)); });
        REQUIRE(code == (!fits                ? std::optional(ErrorCode::capacity)
                         : known              ? std::optional(ErrorCode::duplicate_id)
                         : model.size() == 6u ? std::optional(ErrorCode::capacity)
                                              : std::nullopt));
        if (!code) model.emplace(id, adapter);
        break;
      }
      case 1: {
        const auto code = code_of([&] { table.replace(id, ServedAdapter<float>(adapter)); });
        REQUIRE(code == (!fits    ? std::optional(ErrorCode::capacity)
                         : !known ? std::optional(ErrorCode::unknown_id)
                                  : std::nullopt));
        if (!code) model.at(id) = adapter;
        break;
      }
      case 2:
        if (draw(2) == 0) {
          REQUIRE(code_of([&] { table.remove(id); }).has_value() != known);
          model.erase(id);
        }
        break;
      default: {
        const auto x = random_matrix<float>(draw(13), 11, std::uint64_t(step));
        std::vector<int> ids;
        std::vector<const Adapter<float>*> adapters;
        for (Index n = 0; n < x.rows(); ++n) {
          ids.push_back(draw(30) == 0 ? draw(9) : -1);
          if (!model.empty() && draw(4) > 0) ids.back() = std::next(model.begin(), draw(int(model.size())))->first;
          adapters.push_back(model.contains(ids.back()) ? &model.at(ids.back()) : nullptr);
        }
        const bool all_known = std::ranges::all_of(ids, [&](int one) { return one == -1 || model.contains(one); });
        Matrix<float> y(x.rows(), 9);
        const auto code = code_of([&] { layer.forward(x, table, ids, y, work); });
        REQUIRE(code == (all_known ? std::nullopt : std::optional(ErrorCode::unknown_id)));
        ++(all_known ? served : refused);
        if (!all_known) break;
        const auto expected = expected_rows(weight, {}, x, adapters);
        REQUIRE(difference(y.view(), expected.view()) <= Tolerance<float>::layer * 30);
        break;
      }
    }
    REQUIRE(table.lease()->entries().size() == model.size());
    REQUIRE(table.generations() == 1);
  }
  CHECK(served > 300);
  CHECK(refused > 3);
}
