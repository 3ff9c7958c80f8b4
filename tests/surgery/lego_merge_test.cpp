// SPDX-License-Identifier: MIT
#include "mole/surgery/lego_merge.hpp"

#include "core/error_code.hpp"
#include "support/catch.hpp"
#include "support/tolerance.hpp"
#include "surgery/adapters.hpp"

using namespace mole;
using namespace mole::test;

TEMPLATE_TEST_CASE("With a cluster for each rank and no reweighting ranks add the weighted sum", "[surgery]", float,
                   double) {
  using T = TestType;
  const auto adapters = random_adapters<T>({3, 1, 4}, {2, 0.5, 1});
  const std::vector<double> weights{0.5, -1.25, 2};
  const auto merged = lego_merge(weighted(adapters, weights), {.clusters = 8, .reweight_output = false, .scale = 0.5});
  CHECK(relative_distance(update_of(merged.adapter), update_of(adapters, weights)) < Tolerance<T>::sum(8));
  CHECK(merged.error < Tolerance<T>::sum(8));  // a rank alone has the norm of its cluster
  const auto equal = random_adapters<T>({4, 4}, {1, 1});
  const auto scaled = lego_merge(weighted(equal, {1, 1}), {.clusters = 8, .reweight_parameters = false});
  Matrix<double> expected = update_of(equal, {1, 1});
  for (double& value : expected.elements()) value /= std::sqrt(2.0);
  CHECK(relative_distance(update_of(scaled.adapter), expected) < Tolerance<T>::sum(8));
}

TEST_CASE("Copies of one adapter merge to it, whatever clusters see of ranks", "[surgery]") {
  const auto one = random_adapters<double>({4}, {1});
  for (const LegoNorm norm : {LegoNorm::largest, LegoNorm::euclidean})
    for (const bool normalized : {false, true}) {
      const auto merged = lego_merge<double>({{one[0]}, {one[0]}, {one[0]}}, {.normalized = normalized, .norm = norm});
      CHECK(merged.adapter.rank() == 4);
      CHECK(relative_distance(update_of(merged.adapter), update_of(one[0])) < 1e-13);
      CHECK(std::abs(merged.error - 2.0 / 3) < 1e-13);  // the sum is three times it
      for (std::size_t j = 0; j < 8; ++j) CHECK(merged.label[j] == merged.label[j + 4]);
    }
}

TEST_CASE("The order of adapters and of their ranks does not change what ranks merge to", "[surgery]") {
  const auto adapters = random_adapters<double>({4, 5}, {1, 2});
  const auto expected = update_of(lego_merge(weighted(adapters, {1, 1}), {.clusters = 3}).adapter);
  CHECK(relative_distance(update_of(lego_merge<double>({{adapters[1]}, {adapters[0]}}, {.clusters = 3}).adapter),
                          expected) < 1e-13);
  Adapter<double> turned = adapters[1];
  turned.a = support::permuted(turned.a, support::reversed(5));
  turned.b = support::permuted(turned.b, support::reversed(5));
  CHECK(relative_distance(update_of(lego_merge<double>({{adapters[0]}, {turned}}, {.clusters = 3}).adapter), expected) <
        1e-13);
}

TEST_CASE("A reweighted mean has the mean norm of its ranks", "[surgery]") {
  const auto adapters = random_adapters<double>({4, 4}, {1, 1});
  for (const LegoNorm norm : {LegoNorm::largest, LegoNorm::euclidean}) {
    const auto merged = lego_merge(weighted(adapters, {1, 1}), {.clusters = 2, .norm = norm, .reweight_output = false});
    REQUIRE(merged.adapter.rank() == 2);
    for (int c = 0; c < 2; ++c) {
      double expected = 0, count = 0;
      const auto norm_of_rank = [&](const Adapter<double>& adapter, Index j) {
        double sum = 0, largest = 0;
        for (const Matrix<double>* m : {&adapter.a, &adapter.b})
          for (Index i = 0; i < m->cols(); ++i) {
            sum += (*m)(j, i) * (*m)(j, i);
            largest = std::max(largest, std::abs((*m)(j, i)));
          }
        return norm == LegoNorm::largest ? largest : std::sqrt(sum);
      };
      for (Index j = 0; j < 8; ++j)
        if (merged.label[std::size_t(j)] == c) {
          expected += norm_of_rank(adapters[std::size_t(j / 4)], j % 4);
          ++count;
        }
      CHECK(std::abs(norm_of_rank(merged.adapter, c) - expected / count) < 1e-13);
    }
  }
}

TEST_CASE("A rank and its other sign fall together only if signs are made canonical", "[surgery]") {
  const auto one = random_adapters<double>({3}, {1});
  Adapter<double> other = one[0];
  for (Matrix<double>* m : {&other.a, &other.b})
    for (double& value : m->elements()) value = -value;
  const std::vector<WeightedAdapter<double>> both{{one[0]}, {other}};
  const auto apart = lego_merge(both), together = lego_merge(both, {.canonical_sign = true});
  CHECK(relative_distance(update_of(together.adapter), update_of(one[0])) < 1e-13);
  CHECK(relative_distance(update_of(apart.adapter), update_of(one[0])) > 0.1);
}

TEST_CASE("A rank that is only scaled differently falls together with itself if normalized", "[surgery]") {
  const auto one = random_adapters<double>({3}, {1});
  Adapter<double> other = one[0];
  for (double& value : other.a.elements()) value *= 40;
  for (double& value : other.b.elements()) value /= 40;
  const auto merged = lego_merge<double>({{one[0]}, {other}});
  for (std::size_t j = 0; j < 3; ++j) CHECK(merged.label[j] == merged.label[j + 3]);
  const auto raw = lego_merge<double>({{one[0]}, {other}}, {.normalized = false});
  CHECK(std::vector<int>(raw.label.begin(), raw.label.begin() + 3) !=
        std::vector<int>(raw.label.begin() + 3, raw.label.end()));
}

TEST_CASE("One adapter is clustered to fewer ranks; what cannot be clustered is refused", "[surgery]") {
  const auto adapters = random_adapters<double>({5, 2}, {1, 1});
  CHECK(lego_merge<double>({{adapters[0]}}, {.clusters = 2}).adapter.rank() == 2);
  CHECK(lego_merge(weighted(adapters, {1, 1})).adapter.rank() == 5);
  CHECK(code_of([] { lego_merge<double>({}); }) == ErrorCode::option);
  CHECK(code_of([&] { lego_merge<double>({{adapters[1]}}, {.clusters = 3}); }) == ErrorCode::option);
  CHECK(code_of([&] { lego_merge<double>({{adapters[1]}}, {.clusters = -1}); }) == ErrorCode::option);
  CHECK(code_of([&] { lego_merge<double>({{adapters[1]}}, {.scale = 0}); }) == ErrorCode::option);
  const auto none = random_adapters<double>({0}, {1});
  CHECK(code_of([&] { lego_merge(weighted(none, {1})); }) == ErrorCode::option);
}
