// SPDX-License-Identifier: MIT
#include "mole/core/entropy.hpp"

#include "support/catch.hpp"

#include <vector>

using namespace mole;

namespace {

double normalized(const Entropy& entropy, const std::vector<double>& p) {
  return entropy(std::span<const double>(p)) / entropy.largest(Index(p.size()));
}

const std::vector<double> example{0.6439142598879722, 0.23688281808991013, 0.08714431874203257, 0.03205860328008499};

}  // namespace

TEST_CASE("Entropy gives the published numbers", "[core]") {
  const auto near = [](double a, double b) { return std::abs(a - b) < 1e-8; };
  const auto tsallis = [](double order, double shift = 0) { return Entropy{.order = order, .shift = shift}; };
  CHECK(near(Entropy{}(std::span<const double>(example)), 0.947536964));
  CHECK(near(normalized(Entropy{}, example), 0.683503439));
  CHECK(near(tsallis(1.1)(std::span<const double>(example)), 0.877033097));
  CHECK(near(tsallis(1.1).largest(4), 1.294494367));
  CHECK(near(normalized(tsallis(1.1), example), 0.677510169));
  CHECK(near(normalized(tsallis(1.2), example), 0.673774086));
  CHECK(near(normalized(tsallis(1.5), example), 0.673076291));
  CHECK(near(tsallis(2)(std::span<const double>(example)), 0.520639070));
  CHECK(near(normalized(tsallis(2), example), 0.694185427));
  CHECK(near(normalized(tsallis(1.1, 1e-5), example), 0.677228458));
  CHECK(near(normalized(tsallis(2, 1e-5), example), 0.694158760));
  const Entropy renyi{.family = EntropyFamily::renyi, .order = 2};
  CHECK(near(renyi(std::span<const double>(example)), 0.735301458));
  CHECK(near(normalized(renyi, example), 0.530407884));
}

TEST_CASE("Entropy is largest for even probabilities and 0 for certainty", "[core]") {
  for (const EntropyFamily family : {EntropyFamily::tsallis, EntropyFamily::renyi})
    for (const double order : {0.5, 1.0, 1.1, 2.0, 3.0})
      for (const std::size_t experts : {2u, 3u, 8u}) {
        const Entropy entropy{.family = family, .order = order};
        std::vector<double> p(experts, 1.0 / double(experts));
        CHECK(std::abs(normalized(entropy, p) - 1) < 1e-12);
        std::fill(p.begin(), p.end(), 0.0);
        p[1] = 1;
        CHECK(std::abs(entropy(std::span<const double>(p))) < 1e-15);
      }
}

TEST_CASE("Entropy's derivatives are its differences", "[core]") {
  for (const EntropyFamily family : {EntropyFamily::tsallis, EntropyFamily::renyi})
    for (const auto& [order, offset] :
         {std::pair(0.5, 1e-10), {1.0, 1e-10}, {1.1, 1e-10}, {1.1, 0.5}, {2.0, 1e-10}, {2.0, 0.5}}) {
      const Entropy entropy{.family = family, .order = order, .shift = 1e-5, .offset = offset};
      std::vector<double> p = example;
      std::vector<double> d(p.size());
      entropy.derivatives(std::span<const double>(p), [&](std::size_t e, double value) { d[e] = value; });
      for (std::size_t e = 0; e < p.size(); ++e) {
        const double before = p[e];
        p[e] = before + 1e-6;
        const double above = entropy(std::span<const double>(p));
        p[e] = before - 1e-6;
        const double below = entropy(std::span<const double>(p));
        p[e] = before;
        CHECK(std::abs((above - below) / 2e-6 - d[e]) < 1e-7);
      }
    }
}
