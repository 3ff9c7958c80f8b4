// SPDX-License-Identifier: MIT
#include "mole/surgery/weighted_adapter.hpp"

#include "core/error_code.hpp"
#include "support/catch.hpp"
#include "surgery/adapters.hpp"

#include <limits>

using namespace mole;

TEST_CASE("A weighted adapter borrows, and counts weight and scale", "[surgery]") {
  const auto adapters = test::random_adapters<float>({3}, {2.5});
  const WeightedAdapter<float> borrowed(adapters[0], -2);
  CHECK(borrowed.a.data() == adapters[0].a.data());
  CHECK(borrowed.b.data() == adapters[0].b.data());
  CHECK(borrowed.factor() == -5);
  CHECK(WeightedAdapter<float>(adapters[0]).factor() == 2.5);
  CHECK(borrowed.rank() == 3);
  CHECK(borrowed.in() == test::adapter_in);
  CHECK(borrowed.out() == test::adapter_out);
  static_assert(!std::constructible_from<WeightedAdapter<float>, Adapter<float>&&>);
}

TEST_CASE("Adapters that cannot be merged are refused, and the one at fault named", "[surgery]") {
  const auto text_of = [](auto change, double scale = 1) {
    auto adapters = test::random_adapters<double>({2, 3}, {1, 2});
    std::vector<double> weights{1, 1};
    change(adapters, weights);
    return test::text_of([&] { detail::check_adapters("merge", test::weighted(adapters, weights), scale); });
  };
  const auto nothing = [](auto&, auto&) {};
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK(text_of(nothing) == "");
  CHECK(text_of(nothing, 0) != "");
  CHECK(text_of(nothing, nan) != "");
  const auto names_the_second = [&](auto change) { return text_of(change).find("adapter 1") != std::string::npos; };
  CHECK(names_the_second([&](auto&, auto& weights) { weights[1] = nan; }));
  CHECK(names_the_second([&](auto& adapters, auto&) { adapters[1].scale = nan; }));
  CHECK(names_the_second([&](auto& adapters, auto&) { adapters[1].a(2, 4) = nan; }));
  CHECK(names_the_second([&](auto& adapters, auto&) { adapters[1].b(0, 1) = nan; }));
  CHECK(names_the_second([&](auto& adapters, auto&) { adapters[1].b = Matrix<double>(2, test::adapter_out); }));
  CHECK(names_the_second([&](auto& adapters, auto&) { adapters[1].a = Matrix<double>(3, 4); }));
  CHECK(names_the_second([&](auto& adapters, auto&) { adapters[1].b = Matrix<double>(3, 4); }));
  CHECK(test::code_of([] { detail::check_adapters<double>("merge", {}); }) == ErrorCode::option);
}
