// SPDX-License-Identifier: MIT
#include "mole/surgery/cluster_experts.hpp"

#include "core/error_code.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

using namespace mole;
using namespace mole::test;

namespace {
using Outputs = std::vector<View<const float>>;

/// Six experts of two kinds, e and e + 2 alike.
std::vector<Matrix<float>> outputs_of_two_kinds() {
  std::vector<Matrix<float>> outputs;
  for (std::uint64_t e = 0; e < 6; ++e) {
    Matrix<float> y = support::random_matrix<float>(7, 5, 1 + e % 2);
    const auto noise = support::random_matrix<float>(7, 5, 20 + e, 0.05);
    for (std::size_t k = 0; k < y.elements().size(); ++k) y.elements()[k] += noise.elements()[k];
    outputs.push_back(y);
  }
  return outputs;
}
}  // namespace

TEST_CASE("Experts with similar outputs are one cluster, by outputs and by similarities", "[surgery]") {
  const auto outputs = outputs_of_two_kinds();
  const Outputs views(outputs.begin(), outputs.end());
  for (const ExpertFeatures by : {ExpertFeatures::outputs, ExpertFeatures::similarity}) {
    const auto label = cluster_experts(views, {.clusters = 2, .by = by});
    REQUIRE(label.size() == 6);
    for (std::size_t e = 2; e < 6; ++e) CHECK(label[e] == label[e - 2]);
    CHECK(label[0] != label[1]);
  }
}

TEST_CASE("The similarity of experts is the mean cosine of their outputs", "[surgery]") {
  const auto a = support::random_matrix<double>(4, 3, 1), b = support::random_matrix<double>(4, 3, 2);
  const Matrix<double> zero(4, 3);
  const auto found = expert_similarity(std::vector<View<const double>>{a.view(), b.view(), zero.view()});
  double expected = 0;
  for (Index n = 0; n < 4; ++n) {
    double ab = 0, aa = 0, bb = 0;
    for (Index o = 0; o < 3; ++o) ab += a(n, o) * b(n, o), aa += a(n, o) * a(n, o), bb += b(n, o) * b(n, o);
    expected += ab / std::sqrt(aa * bb) / 4;
  }
  CHECK(std::abs(found(0, 1) - expected) < 1e-15);
  CHECK(found(1, 0) == found(0, 1));
  CHECK(std::abs(found(0, 0) - 1) < 1e-15);
  CHECK(found(2, 2) == 0);
  CHECK(found(0, 2) == 0);
}

TEST_CASE("The similarity of outputs is that of their directions, however large or small they are", "[surgery]") {
  const auto a = support::random_matrix<double>(4, 3, 1), b = support::random_matrix<double>(4, 3, 2);
  const auto expected = expert_similarity(std::vector<View<const double>>{a.view(), b.view()});
  for (double scale : {1e-300, 1e-170, 1e170, 1e300}) {
    CAPTURE(scale);
    Matrix<double> scaled = b;
    for (double& value : scaled.elements()) value *= scale;
    const auto found = expert_similarity(std::vector<View<const double>>{a.view(), scaled.view()});
    CHECK(support::largest_difference(found, expected) < 1e-14);
  }
}

TEST_CASE("Experts that cannot be clustered are refused", "[surgery]") {
  const auto outputs = outputs_of_two_kinds();
  Outputs views(outputs.begin(), outputs.end());
  CHECK(code_of([&] { cluster_experts(views, {.clusters = 7}); }) == ErrorCode::option);
  CHECK(code_of([&] { cluster_experts(views, {.clusters = 0}); }) == ErrorCode::option);
  CHECK(code_of([] { cluster_experts(Outputs{}, {}); }) == ErrorCode::option);
  views[3] = outputs[3].view().top(6);
  CHECK(code_of([&] { cluster_experts(views, {.clusters = 2}); }) == ErrorCode::shape);
  CHECK(text_of([&] { expert_similarity(views); }) ==
        "expert_similarity: outputs of expert 3: expected [7 x 5], found [6 x 5]");
}

TEST_CASE("Outputs that are no numbers, or of no token, are refused", "[surgery]") {
  auto outputs = outputs_of_two_kinds();
  const Outputs views(outputs.begin(), outputs.end());
  outputs[2](1, 3) = std::numeric_limits<float>::infinity();
  for (const ExpertFeatures by : {ExpertFeatures::outputs, ExpertFeatures::similarity})
    CHECK(code_of([&] { cluster_experts(views, {.clusters = 2, .by = by}); }) == ErrorCode::option);
  CHECK(code_of([&] { expert_similarity(views); }) == ErrorCode::option);
  const Matrix<float> none(0, 5);
  CHECK(code_of([&] { expert_similarity(Outputs{none.view(), none.view()}); }) == ErrorCode::option);
  CHECK(code_of([&] { cluster_experts(Outputs{none.view(), none.view()}, {}); }) == ErrorCode::option);
}
