// SPDX-License-Identifier: MIT
#include "mole/core/token_random.hpp"

#include "support/catch.hpp"

#include <set>
#include <vector>

using namespace mole;

TEST_CASE("Draws of a token depend on each part of its key, and on nothing else", "[core]") {
  const Pass pass{.training = true, .seed = 1, .layer = 2, .step = 3, .first_token = 5};
  const auto draw = [](Pass changed, std::uint64_t stream, Index token, Index number) {
    return TokenRandom(changed, stream, token).bits(number);
  };
  std::set<std::uint64_t> seen{draw(pass, 7, 4, 0)};
  const auto is_new = [&](std::uint64_t bits) { return seen.insert(bits).second; };
  Pass seed = pass, layer = pass, step = pass, later = pass;
  ++seed.seed, ++layer.layer, ++step.step;
  CHECK(is_new(draw(seed, 7, 4, 0)));
  CHECK(is_new(draw(layer, 7, 4, 0)));
  CHECK(is_new(draw(step, 7, 4, 0)));
  CHECK(is_new(draw(pass, 8, 4, 0)));
  CHECK(is_new(draw(pass, 7, 5, 0)));
  CHECK(is_new(draw(pass, 7, 4, 1)));
  later.first_token = 7, later.training = false;
  CHECK(draw(later, 7, 2, 0) == draw(pass, 7, 4, 0));
}

TEST_CASE("Uniform, normal and Gumbel draws have their means, variances and correlations", "[core]") {
  constexpr Index tokens = 400, draws = 100;
  struct Moments {
    double mean = 0, square = 0, cube = 0, neighbors = 0;
  };
  const auto moments = [](auto draw, double center) {
    Moments m;
    for (Index n = 0; n < tokens; ++n) {
      const TokenRandom random({.seed = 3}, 1, n);
      for (Index d = 0; d < draws; ++d) {
        const double v = draw(random, d) - center, next = draw(random, d + 1) - center;
        m.mean += v, m.square += v * v, m.cube += v * v * v, m.neighbors += v * next;
      }
    }
    for (double* sum : {&m.mean, &m.square, &m.cube, &m.neighbors}) *sum /= double(tokens * draws);
    return m;
  };
  const Moments uniform = moments([](auto& r, Index d) { return r.uniform(d); }, 0.5);
  CHECK(std::abs(uniform.mean) < 0.006);  // four standard errors, and more
  CHECK(std::abs(uniform.square - 1.0 / 12) < 0.002);
  CHECK(std::abs(uniform.neighbors) < 0.002);
  const Moments normal = moments([](auto& r, Index d) { return r.normal(d); }, 0);
  CHECK(std::abs(normal.mean) < 0.02);
  CHECK(std::abs(normal.square - 1) < 0.03);
  CHECK(std::abs(normal.cube) < 0.08);
  CHECK(std::abs(normal.neighbors) < 0.02);
  const Moments gumbel = moments([](auto& r, Index d) { return r.gumbel(d); }, 0.57721566490153286);
  CHECK(std::abs(gumbel.mean) < 0.026);
  CHECK(std::abs(gumbel.square - 1.6449340668482264) < 0.06);
  CHECK(std::abs(gumbel.neighbors) < 0.035);
}

TEST_CASE("The best of logits with Gumbel noise is a sample of their softmax", "[core]") {
  const double logits[] = {2, 1, 0, -1}, softmax[] = {0.643914, 0.236883, 0.087144, 0.032059};
  double counts[4] = {};
  constexpr Index tokens = 40000;
  for (Index n = 0; n < tokens; ++n) {
    const TokenRandom random({.seed = 8}, 2, n);
    Index best = 0;
    double highest = -1e9;
    for (Index e = 0; e < 4; ++e)
      if (const double noisy = logits[e] + random.gumbel(e); noisy > highest) highest = noisy, best = e;
    ++counts[best];
  }
  for (int e = 0; e < 4; ++e) CHECK(std::abs(counts[e] / tokens - softmax[e]) < 0.01);
}
