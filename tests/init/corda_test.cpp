// SPDX-License-Identifier: MIT
#include "mole/init/corda.hpp"

#include "init/init_checks.hpp"

using namespace mole;
using namespace init_checks;

namespace {

/// x^T x of tokens that use the first inputs most.
Matrix<double> covariance_of_tokens() {
  auto x = support::random_matrix<double>(40, in, 3);
  Matrix<double> sum(in, in);
  for (Index n = 0; n < x.rows(); ++n)
    for (Index i = 0; i < in; ++i)
      for (Index j = 0; j < in; ++j) sum(i, j) += x(n, i) * x(n, j) / double((i + 1) * (j + 1));
  return sum;
}

/// |(W - W') C'|, which the directions of most weight keep smallest.
double error_on_inputs(const Matrix<double>& residual, const Matrix<double>& covariance) {
  return norm(detail::product(residual, detail::damped_inverse("test", covariance).damped));
}

}  // namespace

TEST_CASE("corda gives back the weight, and takes what matters most or least to the inputs", "[init]") {
  const auto covariance = covariance_of_tokens();
  Matrix<double> first(out, in), last(out, in);
  auto instruction = experts_of(3), knowledge = experts_of(3);
  corda_init(instruction, weight, covariance, first.view());
  corda_init(knowledge, weight, covariance, last.view(), {.mode = CordaMode::knowledge});
  CHECK(support::largest_difference(weight_of(instruction, first), weight) < 1e-11);
  CHECK(support::largest_difference(weight_of(knowledge, last), weight) < 1e-11);
  const auto sigma = svd(detail::product(weight, detail::damped_inverse("test", covariance).damped)).s;
  const auto rest = [&](std::size_t begin, std::size_t end) {
    double squares = 0;
    for (std::size_t j = begin; j < end; ++j) squares += sigma[j] * sigma[j];
    return std::sqrt(squares);
  };
  CHECK(error_on_inputs(first, covariance) == Approx(rest(3, 9)).epsilon(1e-9));
  CHECK(error_on_inputs(last, covariance) == Approx(rest(0, 6)).epsilon(1e-9));
}

TEST_CASE("corda of inputs that are all alike is pissa's directions", "[init]") {
  Matrix<double> identity(in, in), residual(out, in);
  for (Index i = 0; i < in; ++i) identity(i, i) = 1;
  auto experts = experts_of(3);
  corda_init(experts, weight, identity, residual.view());
  const auto sigma = svd(weight).s;
  double rest = 0;
  for (std::size_t j = 3; j < sigma.size(); ++j) rest += sigma[j] * sigma[j];
  CHECK(norm(residual) == Approx(std::sqrt(rest)).epsilon(1e-11));
}

TEST_CASE("corda refuses what does not fit", "[init]") {
  const auto covariance = covariance_of_tokens();
  check_refusals([&](auto& experts, const Matrix<double>& from) { corda_init(experts, from, covariance, {}); });
  auto experts = experts_of(2);
  CHECK(test::code_of([&] { corda_init(experts, weight, Matrix<double>(in, out), {}); }) == ErrorCode::shape);
  CHECK(test::code_of([&] { corda_init(experts, weight, Matrix<double>(in, in), {}); }) == ErrorCode::option);
}
