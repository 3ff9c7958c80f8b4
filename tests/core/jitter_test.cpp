// SPDX-License-Identifier: MIT
#include "mole/core/jitter.hpp"

#include "core/error_code.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

using namespace mole;

TEST_CASE("Jitter multiplies by factors within its amount around 1, in training only", "[core]") {
  const Jitter jitter{.amount = 0.2, .stream = 3};
  const auto x = support::random_matrix<double>(30, 40, 1);
  Matrix<double> out(30, 40);
  const Pass pass{.training = true, .seed = 4};
  jitter.forward<double>(x.view(), out.view(), pass);
  double least = 2, largest = 0, mean = 0;
  for (std::size_t i = 0; i < x.elements().size(); ++i) {
    const double factor = out.elements()[i] / x.elements()[i];
    least = std::min(least, factor), largest = std::max(largest, factor), mean += factor / 1200;
  }
  CHECK((least >= 0.8 && least < 0.81));
  CHECK((largest <= 1.2 && largest > 1.19));
  CHECK(std::abs(mean - 1) < 0.014);
  jitter.forward<double>(x.view(), out.view(), {.training = false, .seed = 4});
  CHECK(support::same_bits(out, x));
  Jitter{}.forward<double>(x.view(), out.view(), pass);
  CHECK(support::same_bits(out, x));
}

TEST_CASE("Jitter's gradient passes the factors of forward, and adds", "[core]") {
  const Jitter jitter{.amount = 0.5, .stream = 3};
  Matrix<double> ones(4, 9), factors(4, 9), d_x(4, 9);
  fill(ones.view(), 1.0);
  const Pass pass{.training = true, .step = 4};
  jitter.forward<double>(ones.view(), factors.view(), pass);
  const auto d_out = support::random_matrix<double>(4, 9, 2);
  fill(d_x.view(), 10.0);
  jitter.backward<double>(d_out.view(), d_x.view(), pass);
  for (std::size_t i = 0; i < d_x.elements().size(); ++i)
    CHECK(d_x.elements()[i] == 10 + factors.elements()[i] * d_out.elements()[i]);
}

TEST_CASE("Jitter in place, and of a batch in pieces, has the same bits", "[core]") {
  const Jitter jitter{.amount = 0.1};
  auto x = support::random_matrix<float>(7, 5, 1);
  Matrix<float> out(7, 5), piece(3, 5);
  jitter.forward<float>(x.view(), out.view(), {.training = true});
  jitter.forward<float>(x.view().middle_rows(4, 3), piece.view(), {.training = true, .first_token = 4});
  CHECK(support::same_bits(piece.view(), out.view().middle_rows(4, 3)));
  jitter.forward<float>(x.view(), x.view(), {.training = true});
  CHECK(support::same_bits(x, out));
}

TEST_CASE("Jitter of 1 or more, or below 0, is refused", "[core]") {
  CHECK(test::code_of([] { Jitter{.amount = 1}.check("test"); }) == ErrorCode::option);
  CHECK(test::code_of([] { Jitter{.amount = -0.1}.check("test"); }) == ErrorCode::option);
  CHECK_NOTHROW(Jitter{.amount = 0.999}.check("test"));
}
