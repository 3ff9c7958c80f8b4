// SPDX-License-Identifier: MIT
// What MultiAdapterLinear refuses, and that nothing has been written then.
#include "core/error_code.hpp"
#include "mole/base/packed_base.hpp"
#include "mole/serve/multi_adapter_linear.hpp"
#include "serve/random_adapters.hpp"
#include "support/catch.hpp"
#include "support/guarded_matrix.hpp"
#include "support/seed.hpp"

#include <algorithm>

using namespace mole;
using namespace mole::test;
using support::random_matrix;
using support::same_bits;

namespace {

/// A base that needs scratch, and as much as it says.
struct ScratchBase {
  using Scalar = float;
  struct Scratch {
    View<float> rows;
  };
  Index width;

  Index in() const { return 6; }
  Index out() const { return 4; }
  Scratch scratch(const CallSize& size, Arena& arena) const { return {arena.matrix<float>(size.tokens, width)}; }
  void forward(View<const float> x, View<float> y, auto call) const {
    fill(call.scratch.rows.top(x.rows()), 2);
    for (Index n = 0; n < y.rows(); ++n)
      for (Index o = 0; o < y.cols(); ++o) y(n, o) = call.scratch.rows(n, width - 1);
  }
};

}  // namespace

TEST_CASE("Each wrong argument has its code, and nothing is written", "[serve]") {
  TestRng rng;
  Tenants<float> tenants(6, 4, {2, 3});
  const auto weight = random_matrix<float>(4, 6, 1), x = random_matrix<float>(3, 6, 3);
  const MultiAdapterLinear layer{PackedBase{weight}};
  auto work = layer.workspace(3), small = layer.workspace(2);
  auto y = random_output<float>(3, 4, rng);
  const auto before = y;
  const std::vector<int> ids{0, 1, -1};
  const auto refused = [&](ErrorCode code, auto call) {
    const bool right = code_of(call) == code;
    return right && same_bits(y.view(), before.view()) && tenants.table.generations() == 1;
  };
  const auto& table = tenants.table;
  CHECK(refused(ErrorCode::unknown_id, [&] { layer.forward(x, table, std::vector<int>{0, 1, 2}, y.view(), work); }));
  CHECK(refused(ErrorCode::unknown_id, [&] { layer.forward(x, table, std::vector<int>{0, -2, 1}, y.view(), work); }));
  CHECK(refused(ErrorCode::shape, [&] { layer.forward(x, table, std::vector<int>{0, 1}, y.view(), work); }));
  CHECK(refused(ErrorCode::capacity, [&] { layer.forward(x, table, std::vector<int>(4, 0), y.view(), work); }));
  CHECK(refused(ErrorCode::shape, [&] { layer.forward(x.view().middle_cols(0, 5), table, ids, y.view(), work); }));
  CHECK(refused(ErrorCode::shape, [&] { layer.forward(x, table, ids, y.view().middle_cols(0, 3), work); }));
  CHECK(refused(ErrorCode::shape, [&] { layer.forward(x, table, ids, y.view().top(2), work); }));
  CHECK(refused(ErrorCode::capacity, [&] { layer.forward(x, table, ids, y.view(), small); }));

  AdapterBatch<float> batch(3), other(3), empty(3);
  batch.begin(table, ids);
  CHECK(code_of([&] { layer.forward(x, batch, y.view(), small); }) == ErrorCode::capacity);
  batch.end();
  CHECK(refused(ErrorCode::shape, [&] { layer.forward(x, batch, y.view(), work); }));
  CHECK(refused(ErrorCode::shape, [&] { layer.forward(x, empty, y.view(), work); }));

  AdapterTable<float> wider({.sites = {{7, 4}}});
  wider.add(0, ServedAdapter<float>(random_adapter(7, 4, 2, 1)));
  CHECK(refused(ErrorCode::shape, [&] { layer.forward(x, wider, std::vector<int>{-1, -1, 0}, y.view(), work); }));
  const MultiAdapterLinear second(PackedBase{weight}, 1);
  auto second_work = second.workspace(3);
  CHECK(text_of([&] { second.forward(x, table, ids, y.view(), second_work); }) ==
        "MultiAdapterLinear: expected adapters with a site 1, found one of 1 sites");
  CHECK(code_of([&] { MultiAdapterLinear(PackedBase{weight}, -1); }) == ErrorCode::option);

  const MultiAdapterLinear narrow_scratch(ScratchBase{2}), wide_scratch(ScratchBase{20});
  auto narrow = narrow_scratch.workspace(3), own = wide_scratch.workspace(3);
  CHECK(refused(ErrorCode::order, [&] { wide_scratch.forward(x, table, ids, y.view(), narrow); }));
  Matrix<float> twos(3, 4);
  wide_scratch.forward(x, table, std::vector<int>(3, -1), twos, own);
  CHECK(std::ranges::all_of(twos.elements(), [](float element) { return element == 2; }));

  Matrix<float> wide(3, 10);
  const auto square = random_matrix<float>(6, 6, 1);
  const MultiAdapterLinear on_itself{PackedBase(square)};
  auto own_work = on_itself.workspace(3);
  CHECK(code_of([&] {
          on_itself.forward(wide.view().middle_cols(0, 6), table, std::vector<int>(3, -1),
                            wide.view().middle_cols(2, 6), own_work);
        }) == ErrorCode::shape);
}
