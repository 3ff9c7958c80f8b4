// SPDX-License-Identifier: MIT
#include "mole/loss/orthogonality.hpp"

#include "core/error_code.hpp"
#include "mole/factors/triplet_factors.hpp"
#include "mole/testing/central_differences.hpp"
#include "mole/testing/random_matrix.hpp"
#include "support/catch.hpp"

using namespace mole;

namespace {

using Triplets = TripletFactors<double>::Parameters;

Triplets random_triplets(Index ranks_a, Index ranks_b) {
  return {laws::random_matrix<double>(ranks_a, 7, 1), laws::random_matrix<double>(ranks_b, 9, 2),
          laws::random_matrix<double>(1, ranks_b, 3)};
}

}  // namespace

TEST_CASE("orthogonality is the mean distance of each expert's A and B from orthonormal rows", "[loss]") {
  Triplets none;
  const auto distance = [](const Matrix<double>& m, Index first, Index rows) {
    double square = 0;
    for (Index i = first; i < first + rows; ++i)
      for (Index j = first; j < first + rows; ++j) {
        double sum = i == j ? -1 : 0;
        for (Index c = 0; c < m.cols(); ++c) sum += m(i, c) * m(j, c);
        square += sum * sum;
      }
    return std::sqrt(square);
  };
  const std::vector<int> ranks{1, 2};
  for (bool shared : {false, true}) {
    const RankBlocks blocks = RankBlocks::ragged(ranks, shared);
    const Triplets p = random_triplets(blocks.ranks_down(), 3);
    const double of_a = shared ? distance(p.lora_A, 0, 2) : distance(p.lora_A, 0, 1) + distance(p.lora_A, 1, 2);
    const double of_b = distance(p.lora_B, 0, 1) + distance(p.lora_B, 1, 2);
    const double expected = (of_a + of_b) / (shared ? 3 : 4);
    CHECK(std::abs(orthogonality(blocks, p, none, {.coefficient = 1}) - expected) < 1e-14);
    CHECK(std::abs(orthogonality(blocks, p, none) - expected / 2) < 1e-14);
  }
}

TEST_CASE("orthogonality adds the gradient of its value to what is wanted", "[loss]") {
  for (bool shared : {false, true}) {
    const RankBlocks blocks = RankBlocks::uniform(2, 2, shared);
    Triplets p = random_triplets(blocks.ranks_down(), 4), gradients = zeros_like(p), none;
    fill(gradients.lora_A.view(), 1), fill(gradients.lora_E.view(), 1);
    orthogonality(blocks, p, gradients, {.coefficient = 0.7});
    for (double d : gradients.lora_E.elements()) CHECK(d == 1);
    for (double& d : gradients.lora_A.elements()) d -= 1;
    const auto value = [&] { return orthogonality(blocks, p, none, {.coefficient = 0.7}); };
    CHECK(laws::gradient_error(p.lora_A.elements(), gradients.lora_A.elements(), value) < 1e-9);
    CHECK(laws::gradient_error(p.lora_B.elements(), gradients.lora_B.elements(), value) < 1e-9);
  }
}

TEST_CASE("Orthonormal rows cost nothing and have no gradient", "[loss]") {
  Triplets p{Matrix<double>(2, 3), Matrix<double>(2, 4), Matrix<double>(1, 2)};
  p.lora_A(0, 1) = p.lora_A(1, 2) = p.lora_B(0, 3) = p.lora_B(1, 0) = 1;
  Triplets gradients = zeros_like(p);
  CHECK(orthogonality(RankBlocks::uniform(1, 2), p, gradients) == 0);
  for (const Matrix<double>* d : {&gradients.lora_A, &gradients.lora_B})
    for (double element : d->elements()) CHECK(element == 0);
  CHECK(test::code_of([&] { orthogonality(RankBlocks::uniform(1, 2), p, gradients, {.coefficient = std::nan("")}); }) ==
        ErrorCode::option);
}

TEST_CASE("orthogonality refuses blocks, parameters and gradients of different layers", "[loss]") {
  const Triplets p = random_triplets(3, 3);
  Triplets of_other = zeros_like(random_triplets(2, 2));
  CHECK(test::code_of([&] { orthogonality(RankBlocks::uniform(1, 3), p, of_other); }) == ErrorCode::shape);
  Triplets gradients = zeros_like(p);
  CHECK(test::code_of([&] { orthogonality(RankBlocks::uniform(2, 3), p, gradients); }) == ErrorCode::shape);
  CHECK(test::code_of([&] { orthogonality(RankBlocks::uniform(2, 3, true), p, gradients); }) == ErrorCode::shape);
}
