// SPDX-License-Identifier: MIT
#include "mole/core/parameters.hpp"

#include "mole/core/linear_parameters.hpp"
#include "support/catch.hpp"

#include <string>

using namespace mole;

namespace {

struct Trained {
  using Parameters = LinearParameters<float>;
  Parameters& parameters() { return held; }
  const Parameters& parameters() const { return held; }
  Parameters held{Matrix<float>(2, 3), Matrix<float>(1, 2)};
};
struct Plain {};

}  // namespace

TEST_CASE("Parameters and gradients are walked in lockstep by name", "[core]") {
  LinearParameters<float> values{Matrix<float>(2, 3), Matrix<float>(1, 2)}, gradients = values;
  values.bias(0, 1) = 4;
  gradients.bias(0, 1) = 5;
  std::string names;
  float product = 0;
  LinearParameters<float>::for_each_tensor(
      [&](std::string_view name, auto& value, auto& gradient) {
        names += std::string(name) + " ";
        if (name == "bias") product = value(0, 1) * gradient(0, 1);
      },
      values, gradients);
  CHECK(names == "weight bias ");
  CHECK(product == 20);
}

TEST_CASE("A policy with parameters hands them out, one without hands out nothing", "[core]") {
  Trained trained;
  const Trained& constant = trained;
  CHECK(&parameters_of(trained) == &trained.held);
  CHECK(&parameters_of(constant) == &trained.held);
  STATIC_REQUIRE(std::is_same_v<ParametersOf<Trained>, LinearParameters<float>>);
  STATIC_REQUIRE(std::is_same_v<ParametersOf<Plain>, NoParameters>);
  Plain plain;
  int tensors = 0;
  auto& none = parameters_of(plain);
  NoParameters::for_each_tensor([&](std::string_view, auto&) { ++tensors; }, none);
  CHECK(tensors == 0);
  CHECK_FALSE(any_wanted(none));
}

TEST_CASE("Zeros have the shapes of the parameters and memory of their own", "[core]") {
  LinearParameters<float> values{Matrix<float>(2, 3), {}};
  values.weight(1, 1) = 7;
  auto zeros = zeros_like(values);
  CHECK(zeros.weight.rows() == 2);
  CHECK(zeros.weight.cols() == 3);
  CHECK(zeros.weight(1, 1) == 0);
  CHECK(zeros.bias.empty());
  CHECK(values.weight(1, 1) == 7);

  zeros.weight(0, 0) = 3;
  set_zero(zeros);
  CHECK(zeros.weight(0, 0) == 0);
}

TEST_CASE("Gradients are wanted as long as one tensor is not frozen", "[core]") {
  LinearParameters<float> gradients;
  CHECK_FALSE(any_wanted(gradients));
  gradients.bias = Matrix<float>(1, 2);
  CHECK(any_wanted(gradients));
}

TEST_CASE("Names behind a prefix may be as long as they like", "[core]") {
  LinearParameters<float> values{Matrix<float>(2, 3), Matrix<float>(1, 2)};
  for (int size : {1, 112, 113, 114, 119, 120, 121, 500}) {
    const std::string part(std::size_t(size), 'p');
    std::string names;
    auto collect = [&](std::string_view name, auto&) { names += std::string(name) + " "; };
    for_each_tensor_within<LinearParameters<float>>(part, collect, values);
    CHECK(names == part + ".weight " + part + ".bias ");
  }
}
