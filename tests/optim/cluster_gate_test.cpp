// SPDX-License-Identifier: MIT
#include "mole/optim/cluster_gate.hpp"

#include "support/catch.hpp"
#include "support/random_matrix.hpp"

#include <limits>

using namespace mole;

namespace {

/// Twelve environments, four around each of three points; expert e is the best on the points of order[e].
struct Environments {
  explicit Environments(const std::vector<int>& order) : contexts(12, 2), losses(12, 3), noise(12, 2) {
    const double points[3][2] = {{-4, 0}, {4, 1}, {0, 6}};
    const auto shift = support::random_matrix<double>(12, 2, 5, 0.5);
    for (Index n = 0; n < 12; ++n) {
      for (Index c = 0; c < 2; ++c) contexts(n, c) = points[n % 3][c] + shift(n, c);
      for (Index e = 0; e < 3; ++e) losses(n, e) = order[std::size_t(e)] == n % 3 ? 0.25 : 1 + double(n + e) / 100;
    }
  }
  bool update(ClusterGate& gate, LinearParameters<double>& router, std::uint64_t seed = 1) const {
    Rng rng(seed);
    return gate.update(contexts.view(), losses.view(), noise.view(), router, rng);
  }

  Matrix<double> contexts, losses, noise;
};

ClusterGate near_the_points(const ClusterGate::Options& options = {.experts = 3, .context = 2}) {
  Rng rng(2);
  ClusterGate gate(options, rng);
  const double start[] = {-3, 0, 3, 0, 0, 4};
  std::copy_n(start, 6, gate.centroids().data());
  return gate;
}

LinearParameters<double> untouched() {
  return {support::random_matrix<double>(3, 2, 6), Matrix<double>(1, 3)};
}

int best(const LinearParameters<double>& router, std::span<const double> x) {
  int best = 0;
  double most = -std::numeric_limits<double>::infinity();
  for (int e = 0; e < 3; ++e) {
    const double logit = router.weight(e, 0) * x[0] + router.weight(e, 1) * x[1] + router.bias(0, e);
    if (logit > most) most = logit, best = e;
  }
  return best;
}

}  // namespace

TEST_CASE("A ClusterGate sends each cluster to the expert that does best on it", "[optim]") {
  for (const std::vector<int>& order : {std::vector<int>{0, 1, 2}, {2, 0, 1}, {1, 2, 0}}) {
    const Environments environments(order);
    ClusterGate gate = near_the_points();
    auto router = untouched();
    REQUIRE(environments.update(gate, router));
    for (Index n = 0; n < 12; ++n) {
      const int expert = best(router, environments.contexts.view().row(n));
      CHECK(order[std::size_t(expert)] == n % 3);
      CHECK(gate.expert_of()[std::size_t(n)] == expert);
    }
  }
}

TEST_CASE("Losses in another order of experts give the router's rows in that order", "[optim]") {
  ClusterGate one = near_the_points(), other = near_the_points();
  auto first = untouched(), second = untouched();
  REQUIRE(Environments({0, 1, 2}).update(one, first));
  REQUIRE(Environments({1, 2, 0}).update(other, second));
  for (Index e = 0; e < 3; ++e) {
    for (Index c = 0; c < 2; ++c) CHECK(std::abs(second.weight((e + 2) % 3, c) - first.weight(e, c)) < 1e-13);
    CHECK(std::abs(second.bias(0, (e + 2) % 3) - first.bias(0, e)) < 1e-13);
  }
}

TEST_CASE("A ClusterGate's router leaves residuals that are orthogonal to all inputs, as least squares do", "[optim]") {
  const Environments environments({2, 0, 1});
  ClusterGate gate = near_the_points();
  auto router = untouched();
  REQUIRE(environments.update(gate, router));
  for (int e = 0; e < 3; ++e) {
    double with_input[3] = {0, 0, 0};
    for (Index n = 0; n < 12; ++n) {
      const double x[3] = {environments.contexts(n, 0), environments.contexts(n, 1), 1};
      const double residual = router.weight(e, 0) * x[0] + router.weight(e, 1) * x[1] + router.bias(0, e) -
                              (gate.expert_of()[std::size_t(n)] == e);
      for (int c = 0; c < 3; ++c) with_input[c] += residual * x[c];
    }
    for (double sum : with_input) CHECK(std::abs(sum) < 1e-12);
  }
}

TEST_CASE("A cluster takes the expert of its lowest median, of those that are left", "[optim]") {
  Environments environments({0, 1, 2});
  for (Index n = 0; n < 12; ++n)
    for (Index e = 0; e < 3; ++e) environments.losses(n, e) = 1 + double(e);  // all prefer 0, then 1
  // Cluster 0 has tokens 0, 3, 6 and 9: expert 2 has a lower mean than expert 0 there, but not a lower median.
  environments.losses(0, 2) = -1000;
  ClusterGate gate = near_the_points();
  auto router = untouched();
  REQUIRE(environments.update(gate, router));
  for (Index n = 0; n < 12; ++n) CHECK(gate.expert_of()[std::size_t(n)] == n % 3);
}

TEST_CASE("An empty cluster, and convergence in the last round, leave the router alone and the centroids anew",
          "[optim]") {
  const Environments environments({0, 1, 2});
  const auto check_skipped = [&](ClusterGate gate) {
    const auto before = untouched();
    auto router = untouched();
    CHECK_FALSE(environments.update(gate, router));
    CHECK(std::ranges::equal(router.weight.elements(), before.weight.elements()));
    CHECK(std::ranges::equal(router.bias.elements(), before.bias.elements()));
    CHECK(gate.expert_of().empty());
    for (double c : gate.centroids().elements()) CHECK(std::abs(c) <= 1e-3);
  };
  ClusterGate far = near_the_points();
  far.centroids()(1, 0) = 1000;
  check_skipped(far);
  // The first round moves the centroids, the second finds them where they are.
  check_skipped(near_the_points({.experts = 3, .context = 2, .max_rounds = 2}));
  ClusterGate enough = near_the_points({.experts = 3, .context = 2, .max_rounds = 3});
  auto router = untouched();
  CHECK(environments.update(enough, router));
}

TEST_CASE("A ClusterGate fits a router without a bias, and draws its noise if none is given", "[optim]") {
  const Environments environments({0, 1, 2});
  ClusterGate gate = near_the_points(), again = near_the_points(), other = near_the_points();
  LinearParameters<double> a{Matrix<double>(3, 2), {}}, b = a, c = a;
  Rng first(7), same(7), another(8);
  REQUIRE(gate.update(environments.contexts.view(), environments.losses.view(), a, first));
  REQUIRE(again.update(environments.contexts.view(), environments.losses.view(), b, same));
  REQUIRE(other.update(environments.contexts.view(), environments.losses.view(), c, another));
  CHECK(std::ranges::equal(a.weight.elements(), b.weight.elements()));
  CHECK_FALSE(std::ranges::equal(a.weight.elements(), c.weight.elements()));
  for (Index i = 0; i < 6; ++i) CHECK(std::abs(a.weight.data()[i] - c.weight.data()[i]) < 1e-3);
}

TEST_CASE("A ClusterGate's centroids are its state", "[optim]") {
  ClusterGate gate = near_the_points();
  int parts = 0;
  gate.for_each_state([&](std::string_view name, std::span<double> numbers) {
    CHECK(name == "centroids");
    REQUIRE(numbers.size() == 6);
    CHECK(numbers[0] == -3);
    numbers[0] = 8;
    ++parts;
  });
  CHECK(parts == 1);
  CHECK(gate.centroids()(0, 0) == 8);
}

TEST_CASE("A ClusterGate refuses what does not fit, and changes nothing then", "[optim]") {
  Rng rng(1);
  CHECK_THROWS_AS(ClusterGate({.experts = 0, .context = 2}, rng), Error);
  CHECK_THROWS_AS(ClusterGate({.experts = 2, .context = 2, .max_rounds = 0}, rng), Error);
  CHECK_THROWS_AS(ClusterGate({.experts = 2, .context = 2, .tolerance = -1}, rng), Error);
  Environments environments({0, 1, 2});
  ClusterGate gate = near_the_points();
  auto router = untouched();
  LinearParameters<double> small{Matrix<double>(2, 2), {}};
  CHECK_THROWS_AS(environments.update(gate, small), Error);
  environments.losses(3, 1) = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_AS(environments.update(gate, router), Error);
  CHECK(gate.centroids()(0, 0) == -3);
  CHECK(std::ranges::equal(router.weight.elements(), untouched().weight.elements()));
}
