// SPDX-License-Identifier: MIT
#include "mole/surgery/combination.hpp"

#include "core/error_code.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

using namespace mole;
using namespace mole::test;

namespace {

Matrix<double> row_tensor(const std::vector<double>& numbers) {
  Matrix<double> tensor(1, Index(numbers.size()));
  std::ranges::copy(numbers, tensor.elements().begin());
  return tensor;
}

std::vector<double> combined_rows(const std::vector<std::vector<double>>& rows, const std::vector<double>& weights,
                                  const Combination& how) {
  std::vector<Matrix<double>> tensors;
  for (const auto& row : rows) tensors.push_back(row_tensor(row));
  const auto result = mole::detail::combined(std::move(tensors), weights, how);
  return {result.elements().begin(), result.elements().end()};
}

using Rows = std::vector<double>;

}  // namespace

TEST_CASE("Pruning by magnitude keeps the floor of density * size, of equal ones the first", "[surgery]") {
  const Combination half{.pruning = Pruning::magnitude, .density = 0.5};
  CHECK(combined_rows({{1, -4, 3, 2, 0.5}}, {1}, half) == Rows{0, -4, 3, 0, 0});
  CHECK(combined_rows({{2, -2, 2, 2}}, {1}, half) == Rows{2, -2, 0, 0});
  CHECK(combined_rows({{2, -2, 2, 2}}, {1}, {.pruning = Pruning::magnitude}) == Rows{2, -2, 2, 2});
  CHECK(combined_rows({{2, -2}}, {1}, {.pruning = Pruning::magnitude, .density = 0.3}) == Rows{0, 0});
  CHECK(combined_rows({{1, -4}, {5, 2}}, {2, -1}, half) == Rows{-5, -8});
}

TEST_CASE("The elected sign is that of the sum or of most, + for a draw, and its numbers are averaged", "[surgery]") {
  const std::vector<std::vector<double>> rows{{1, 1, 0, -1, 0}, {1, 1, 2, 1, 0}, {-5, -1, -2, 0, 0}};
  // sums -3, 1, 0, 0, 0; counts 1, 1, 0, 0, 0
  CHECK(combined_rows(rows, {1, 1, 1}, {.signs = SignElection::total}) == Rows{-5, 1, 2, 1, 0});
  CHECK(combined_rows(rows, {1, 1, 1}, {.signs = SignElection::frequency}) == Rows{1, 1, 2, 1, 0});
  // Weights do not vote, but count: (2 * 1 + 4 * 1) / 2 at the second place.
  CHECK(combined_rows(rows, {2, 4, -3}, {.signs = SignElection::total}) == Rows{15, 3, 8, 4, 0});
}

TEST_CASE("Random pruning keeps a share of the density, rescaled, the same for a seed alone", "[surgery]") {
  const auto tensor = support::random_matrix<double>(40, 50, 3);
  const auto dropped = [&](const Combination& how, std::uint64_t stream) {
    return mole::detail::combined({tensor}, {1}, how, stream);
  };
  const Combination how{.pruning = Pruning::random, .density = 0.3, .seed = 5};
  const Matrix<double> kept = dropped(how, 0);
  Index count = 0;
  for (std::size_t i = 0; i < 2000; ++i) {
    const double number = kept.elements()[i];
    CHECK((number == 0 || number == tensor.elements()[i] / 0.3));
    count += number != 0;
  }
  CHECK(std::abs(double(count) - 600) < 5 * std::sqrt(2000 * 0.3 * 0.7));
  CHECK(support::same_bits(kept, dropped(how, 0)));
  CHECK(!support::same_bits(kept, dropped(how, 1)));
  CHECK(!support::same_bits(kept, dropped({.pruning = Pruning::random, .density = 0.3, .seed = 6}, 0)));
  const Matrix<double> as_published =
      dropped({.pruning = Pruning::random, .density = 0.3, .rescale = false, .seed = 5}, 0);
  for (std::size_t i = 0; i < 2000; ++i)
    CHECK(as_published.elements()[i] == (kept.elements()[i] == 0 ? 0 : tensor.elements()[i]));
}

TEST_CASE("Tensors of several tasks are dropped independently", "[surgery]") {
  Matrix<double> ones(30, 30);
  fill(ones.view(), 1);
  const auto sum = mole::detail::combined({ones, ones}, {1, 1}, {.pruning = Pruning::random, .density = 0.5});
  std::array<Index, 3> counts{};
  for (double number : sum.elements()) ++counts[std::size_t(number / 2)];  // 0, 2 or 4
  for (std::size_t i = 0; i < 3; ++i) CHECK(std::abs(double(counts[i]) - (i == 1 ? 450 : 225)) < 75);
}

TEST_CASE("A density outside (0, 1] is refused, and a combination knows when it is a weighted sum", "[surgery]") {
  for (const double density : {0.0, -0.1, 1.1, std::nan("")})
    CHECK(code_of([&] { Combination{.density = density}.check("x"); }) == ErrorCode::option);
  CHECK(text_of([] { Combination{.density = 2}.check("x"); }) == "x: expected a density in (0, 1], found 2");
  CHECK(Combination{}.linear());
  CHECK(Combination{.pruning = Pruning::magnitude}.linear());
  CHECK(Combination{.density = 0.5}.linear());
  CHECK_FALSE(Combination{.pruning = Pruning::random, .density = 0.5}.linear());
  CHECK_FALSE(Combination{.signs = SignElection::total}.linear());
}
