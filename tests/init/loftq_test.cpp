// SPDX-License-Identifier: MIT
#include "mole/init/loftq.hpp"

#include "init/init_checks.hpp"
#include "mole/base/nf4_base.hpp"

using namespace mole;
using namespace init_checks;

namespace {

/// To multiples of a half.
void round_coarsely(View<const double> from, View<double> to) {
  for (Index r = 0; r < from.rows(); ++r)
    for (Index c = 0; c < from.cols(); ++c) to(r, c) = std::round(2 * from(r, c)) / 2;
}

}  // namespace

TEST_CASE("loftq brings codes and adapter nearer to the weight than codes alone", "[init]") {
  Matrix<double> coded(out, in), alone(out, in);
  round_coarsely(weight, alone.view());
  const double before = norm(difference(weight, alone));
  for (int iterations : {1, 5}) {
    auto experts = experts_of(4);
    loftq_init(experts, weight, coded.view(), round_coarsely, {.iterations = iterations});
    CHECK(norm(difference(weight, weight_of(experts, coded))) < 0.7 * before);
    // the adapter is the best of its rank for these codes
    const auto rest = svd(difference(weight, coded)).s;
    double beyond = 0;
    for (std::size_t j = 4; j < rest.size(); ++j) beyond += rest[j] * rest[j];
    CHECK(norm(difference(weight, weight_of(experts, coded))) == Approx(std::sqrt(beyond)).epsilon(1e-9));
    if (iterations == 1) CHECK(support::same_bits(coded, alone));
  }
}

TEST_CASE("loftq starts an adapter on an NF4 base", "[init]") {
  const auto host = support::random_matrix<float>(out, in, 1);
  auto experts = experts_of<float>(4);
  Matrix<float> coded(out, in), without(out, in);
  const auto code = [](View<const float> from, View<float> to) { Nf4Base(from, {}).weight(to); };
  loftq_init(experts, host, coded.view(), code);
  code(host, without.view());
  const auto distance = [&](const Matrix<float>& from) {
    double squares = 0;
    for (Index r = 0; r < out; ++r)
      for (Index c = 0; c < in; ++c) squares += std::pow(double(host(r, c)) - double(from(r, c)), 2);
    return squares;
  };
  CHECK(distance(weight_of(experts, coded)) < 0.6 * distance(without));
}

TEST_CASE("loftq refuses what does not fit", "[init]") {
  check_refusals([](auto& experts, const Matrix<double>& from) {
    Matrix<double> coded(from.rows(), from.cols());
    loftq_init(experts, from, coded.view(), round_coarsely);
  });
  auto experts = experts_of(2);
  Matrix<double> coded(out, in);
  CHECK(test::code_of([&] { loftq_init(experts, weight, {}, round_coarsely); }) == ErrorCode::shape);
  Matrix<double> memory(out + 1, in);
  for (Index first : {0, 1}) {
    const View<double> shared = memory.view().middle_rows(first, out);
    CHECK(test::code_of([&] { loftq_init(experts, memory.view().top(out), shared, round_coarsely); }) ==
          ErrorCode::shape);
  }
  CHECK(test::code_of([&] { loftq_init(experts, weight, coded.view(), round_coarsely, {.iterations = 0}); }) ==
        ErrorCode::option);
}
