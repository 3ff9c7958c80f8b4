// SPDX-License-Identifier: MIT
#include "mole/surgery/concatenate_adapters.hpp"

#include "core/error_code.hpp"
#include "mole/mole.hpp"
#include "support/catch.hpp"
#include "support/tolerance.hpp"
#include "surgery/adapters.hpp"

using namespace mole;
using namespace mole::test;

TEMPLATE_TEST_CASE("Concatenated adapters add the weighted sum of their updates", "[surgery]", float, double) {
  using T = TestType;
  const std::vector<double> weights{0.5, -1.25, 2};
  for (const double scale : {1.0, 0.25}) {
    const auto adapters = random_adapters<T>({3, 1, 4}, {2, 0.5, 1});
    const MergedAdapter<T> merged = concatenate_adapters(weighted(adapters, weights), scale);
    CHECK(merged.adapter.rank() == 8);
    CHECK(merged.adapter.scale == scale);
    CHECK(relative_distance(update_of(merged.adapter), update_of(adapters, weights)) < Tolerance<T>::sum(8));
    CHECK(merged.error < Tolerance<T>::sum(8));
  }
}

TEMPLATE_TEST_CASE("One adapter of weight 1, concatenated, is itself bit for bit", "[surgery]", float, double) {
  using T = TestType;
  auto adapters = random_adapters<T>({5}, {0.3});
  adapters[0].a(2, 3) = -T(0);
  const auto merged = concatenate_adapters(weighted(adapters, {1}), 0.3).adapter;
  CHECK(support::same_bits(merged.a, adapters[0].a));
  CHECK(support::same_bits(merged.b, adapters[0].b));
  CHECK(merged.scale == adapters[0].scale);
}

TEST_CASE("A concatenated adapter is a layer that adds what the others did together", "[surgery]") {
  const auto adapters = random_adapters<double>({2, 3}, {2, 0.5});
  const auto merged = concatenate_adapters(weighted(adapters, {1, 1})).adapter;
  const LowRank experts(DenseFactors<double>(RankBlocks::uniform(1, merged.rank()), {merged.a, merged.b}),
                        {merged.scale});
  Matrix<double> delta(adapter_out, adapter_in);
  experts.add_delta(0, 1, delta.view());
  CHECK(support::largest_difference(delta, update_of(adapters, {1, 1})) < 1e-14);
}

TEST_CASE("Adapters without ranks concatenate to nothing, exactly", "[surgery]") {
  const auto adapters = random_adapters<double>({0, 0}, {1, 1});
  const auto merged = concatenate_adapters(weighted(adapters, {1, 1}));
  CHECK(merged.adapter.rank() == 0);
  CHECK(merged.adapter.in() == adapter_in);
  CHECK(merged.error == 0);
}

TEST_CASE("Adapters that do not fit each other are not concatenated", "[surgery]") {
  const auto adapters = random_adapters<double>({2, 2}, {1, 1});
  const auto refused = [](ErrorCode code, const std::string& text, const std::vector<WeightedAdapter<double>>& all,
                          double scale = 1) {
    CHECK(code_of([&] { concatenate_adapters(all, scale); }) == code);
    CHECK(text_of([&] { concatenate_adapters(all, scale); }) == "concatenate_adapters: " + text);
  };
  refused(ErrorCode::option, "expected at least 1 adapter, found 0", {});
  refused(ErrorCode::option, "expected a scale other than 0, found 0", weighted(adapters, {1, 1}), 0);
  refused(ErrorCode::option, "weight of adapter 1: expected a number, found inf",
          weighted(adapters, {1, std::numeric_limits<double>::infinity()}));
  auto broken = adapters;
  broken[1].b(1, 4) = std::nan("");
  CHECK(text_of([&] {
          concatenate_adapters(weighted(broken, {1, 1}));
        }).starts_with("concatenate_adapters: expected finite numbers in B of adapter 1, found "));
  const auto wide = random_adapters<double>({2}, {1}, 1, 12, adapter_out);
  const auto tall = random_adapters<double>({2}, {1}, 1, adapter_in, 10);
  refused(ErrorCode::shape, "inputs of adapter 1: expected 11, found 12", {{adapters[0]}, {wide[0]}});
  refused(ErrorCode::shape, "outputs of adapter 1: expected 9, found 10", {{adapters[0]}, {tall[0]}});
  refused(ErrorCode::shape, "rows of B of adapter 0, as many as of A: expected 2, found 1",
          {{adapters[0].a.view(), adapters[0].b.view().top(1), 1.0}});
}
