// SPDX-License-Identifier: MIT
#include "mole/core/dropout.hpp"

#include "core/error_code.hpp"
#include "support/catch.hpp"
#include "support/guarded_matrix.hpp"
#include "support/seed.hpp"

#include <cmath>

using namespace mole;
using namespace mole::test;

namespace {

GuardedMatrix<double> ones(Index rows, Index cols) {
  GuardedMatrix<double> matrix(rows, cols, 0);
  fill(matrix.view(), 1);
  return matrix;
}

/// The elements that are kept, as a row of 0 and 1 for each token.
std::vector<std::vector<int>> mask(const Dropout& dropout, const Pass& pass, Index tokens = 3, Index cols = 64) {
  const GuardedMatrix<double> x = ones(tokens, cols);
  GuardedMatrix<double> out(tokens, cols, 0);
  dropout.forward(x.view(), out.view(), pass);
  std::vector<std::vector<int>> kept(static_cast<std::size_t>(tokens),
                                     std::vector<int>(static_cast<std::size_t>(cols), 0));
  for (Index n = 0; n < tokens; ++n)
    for (Index c = 0; c < cols; ++c) kept[std::size_t(n)][std::size_t(c)] = out(n, c) != 0;
  return kept;
}

const Pass usual{.training = true, .seed = 1, .layer = 2, .step = 3, .first_token = 5};

}  // namespace

TEST_CASE("Dropout acts in training, at a rate above 0", "[core]") {
  CHECK((Dropout{.rate = 0.1}.acts({.training = true})));
  CHECK_FALSE((Dropout{.rate = 0.1}.acts({.training = false})));
  CHECK_FALSE((Dropout{.rate = 0}.acts({.training = true})));
}

TEMPLATE_TEST_CASE("Dropout at rate 0 is exact, both ways", "[core]", float, double) {
  TestRng rng;
  const auto x = random_input<TestType>(5, 33, rng, {.padding = 2});
  auto out = random_output<TestType>(5, 33, rng, {.padding = 1, .before = 1, .after = 1});
  Dropout{.rate = 0}.forward(x.view(), out.view(), usual);
  bool equal = true;
  for (Index n = 0; n < 5; ++n)
    for (Index c = 0; c < 33; ++c) equal = equal && out(n, c) == x(n, c);
  CHECK(equal);
  CHECK(out.intact());

  GuardedMatrix<TestType> d_x(5, 33, TestType(0));
  Dropout{.rate = 0}.backward(x.view(), d_x.view(), usual);
  equal = true;
  for (Index n = 0; n < 5; ++n)
    for (Index c = 0; c < 33; ++c) equal = equal && d_x(n, c) == x(n, c);
  CHECK(equal);
}

TEST_CASE("A mask never changes", "[core]") {
  // From a few lines of Python, not from the library.
  const std::string expected = "10111110111111001101001100101111";
  const auto rows = mask({.rate = 0.5, .stream = 4}, usual, 1, 32);
  std::string found;
  for (int kept : rows[0]) found += kept ? '1' : '0';
  CHECK(found == expected);
}

TEST_CASE("A mask depends on seed, layer, step, stream and token", "[core]") {
  const Dropout dropout{.rate = 0.5, .stream = 4};
  const auto expected = mask(dropout, usual);
  CHECK(mask(dropout, usual) == expected);

  const auto changed = [&](auto change) {
    Pass pass = usual;
    change(pass);
    return mask(dropout, pass);
  };
  CHECK(changed([](Pass& b) { b.seed = 9; }) != expected);
  CHECK(changed([](Pass& b) { b.layer = 9; }) != expected);
  CHECK(changed([](Pass& b) { b.step = 9; }) != expected);
  CHECK(changed([](Pass& b) { b.first_token = 99; }) != expected);
  CHECK(mask({.rate = 0.5, .stream = 9}, usual) != expected);
  CHECK(expected[0] != expected[1]);

  // Swapping two of the numbers is another key, too.
  CHECK(changed([](Pass& b) { std::swap(b.layer, b.step); }) != expected);
  CHECK(changed([](Pass& b) { std::swap(b.seed, b.layer); }) != expected);
}

TEST_CASE("A mask depends on nothing else", "[core]") {
  const Dropout dropout{.rate = 0.5, .stream = 4};
  const auto expected = mask(dropout, usual);
  const std::vector<std::uint8_t> token_mask{1, 0, 1};
  const std::vector<Index> begin{0, 2};
  Pass pass = usual;
  pass.token_mask = token_mask;
  pass.sequence_begin = begin;
  CHECK(mask(dropout, pass) == expected);

  // Values, scalar type, strides and width of x; and in place.
  TestRng rng;
  auto x = random_input<float>(3, 40, rng, {.padding = 7});
  dropout.forward(View<const float>(x.view()), x.view(), usual);
  bool same = true;
  for (Index n = 0; n < 3; ++n)
    for (Index c = 0; c < 40; ++c) same = same && (x(n, c) != 0) == (expected[std::size_t(n)][std::size_t(c)] == 1);
  CHECK(same);
}

TEST_CASE("A batch that arrives in pieces sees the mask of the whole", "[core]") {
  const Dropout dropout{.rate = 0.3, .stream = 1};
  const auto whole = mask(dropout, usual, 10);
  for (Index begin : {0, 1, 4, 9}) {
    Pass piece = usual;
    piece.first_token += std::uint64_t(begin);
    CHECK(mask(dropout, piece, 1)[0] == whole[std::size_t(begin)]);
  }
}

TEST_CASE("A higher rate drops what a lower one drops, and more", "[core]") {
  const auto low = mask({.rate = 0.2, .stream = 1}, usual)[0], high = mask({.rate = 0.6, .stream = 1}, usual)[0];
  bool nested = true;
  for (std::size_t c = 0; c < low.size(); ++c) nested = nested && high[c] <= low[c];
  CHECK(nested);
  CHECK(low != high);
}

TEST_CASE("The kept fraction is 1 - rate, and what is kept is divided by it", "[core]") {
  TestRng rng;
  for (double rate : {0.05, 0.5, 0.9}) {
    const Index tokens = 200, cols = 500;
    const GuardedMatrix<double> x = ones(tokens, cols);
    GuardedMatrix<double> out(tokens, cols, 0);
    const Pass pass{.training = true, .seed = rng()};
    Dropout{.rate = rate}.forward(x.view(), out.view(), pass);
    double kept = 0;
    bool scaled = true;
    for (Index n = 0; n < tokens; ++n)
      for (double element : out.view().row(n)) {
        kept += element != 0;
        scaled = scaled && (element == 0 || std::abs(element * (1 - rate) - 1) < 1e-15);
      }
    CAPTURE(rate, kept);
    CHECK(scaled);
    const double deviation = std::sqrt(rate * (1 - rate) / (tokens * cols));
    CHECK(std::abs(kept / (tokens * cols) - (1 - rate)) < 5 * deviation);
  }
}

TEMPLATE_TEST_CASE("Backward is the transpose of forward, and accumulates", "[core]", float, double) {
  TestRng rng;
  const Dropout dropout{.rate = 0.4, .stream = 2};
  const auto d_out = random_input<TestType>(6, 50, rng, {.padding = 3});
  const GuardedMatrix<double> x = ones(6, 50);
  GuardedMatrix<double> factor(6, 50, 0);  // the diagonal of the linear map
  dropout.forward(x.view(), factor.view(), usual);
  auto d_x = random_output<TestType>(6, 50, rng, {.padding = 1, .before = 1, .after = 1});
  const auto before = d_x;
  dropout.backward(d_out.view(), d_x.view(), usual);
  bool equal = true;
  for (Index n = 0; n < 6; ++n)
    for (Index c = 0; c < 50; ++c)
      equal = equal && d_x(n, c) == TestType(before(n, c) + d_out(n, c) * TestType(factor(n, c)));
  CHECK(equal);
  CHECK(d_x.intact());
}

TEST_CASE("A rate outside [0, 1) is refused by name", "[core]") {
  for (double rate : {-0.1, 1.0, 2.0, std::nan("")}) {
    const Dropout dropout{.rate = rate};
    CHECK(code_of([&] { dropout.check("LowRank"); }) == ErrorCode::option);
  }
  CHECK(text_of([] { Dropout{.rate = 1.5}.check("LowRank"); }) ==
        "LowRank: dropout rate expected in [0, 1), found 1.5");
  CHECK_NOTHROW((Dropout{.rate = 0}.check("LowRank")));
  CHECK_NOTHROW((Dropout{.rate = 0.999}.check("LowRank")));
}
