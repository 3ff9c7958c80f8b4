// SPDX-License-Identifier: MIT
// Numbers of experts from 1 to 1,024, and of chosen ones from 1 to all, against plain loops in double.
#include "mole/execution/simd.hpp"
#include "mole/gating/gate.hpp"
#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/weigh/renormalized.hpp"
#include "mole/testing/gating_laws.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

#include <cmath>
#include <numeric>

using namespace mole;
using support::random_matrix;

namespace {

constexpr Index expert_counts[] = {1, 2, 3, 7, 8, 64, 128, 129, 1024};

/// From 1 to all, with both sides of what is chosen in vectors.
std::vector<Index> chosen_counts(Index experts) {
  std::vector<Index> counts;
  for (Index k : {Index(1), Index(2), Index(3), Index(8), Index(16), Index(17), Index(64), Index(65), experts / 2,
                  experts - 1, experts})
    if (k >= 1 && k <= experts && std::find(counts.begin(), counts.end(), k) == counts.end()) counts.push_back(k);
  return counts;
}

/// Multiples of 1/16, many of them the same: rounding breaks no tie and makes none.
template <class T>
Matrix<T> some_logits(Index tokens, Index experts, std::uint64_t seed) {
  Rng rng(seed);
  Matrix<T> logits(tokens, experts);
  for (T& logit : logits.elements()) logit = T(rng() % 128) / 16 - 4;
  return logits;
}

struct Pair {
  int expert;
  double weight;
};

/// softmax, the k best by a stable sort of all, weights that sum to 1.
template <class T>
std::vector<Pair> best_of(std::span<const T> logits, Index k) {
  std::vector<int> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int i, int j) { return logits[std::size_t(i)] > logits[std::size_t(j)]; });
  std::vector<Pair> pairs;
  double sum = 0;
  for (Index j = 0; j < k; ++j) {
    const int e = order[std::size_t(j)];
    pairs.push_back({e, std::exp(double(logits[std::size_t(e)]))});
    sum += pairs.back().weight;
  }
  for (Pair& pair : pairs) pair.weight /= sum;
  return pairs;
}

template <class T, class Execution>
std::string broken_gate(Index tokens, Index experts, Index k) {
  laws::FirstFailure failure;
  const auto logits = some_logits<T>(tokens, experts, std::uint64_t(experts * 2000 + k));
  const auto trace = laws::routed<Execution>(Gate{Softmax{}, TopK{k}, Renormalized{}}, logits, experts);
  failure.expect(trace.routing.pairs() == tokens * k, "pairs ", trace.routing.pairs());
  for (Index n = 0; n < tokens; ++n) {
    const auto expected = best_of(logits.view().row(n), k);
    for (std::size_t j = 0; j < expected.size(); ++j) {
      const int e = trace.routing.experts_of(n)[j];
      const double weight = double(trace.routing.gates_of(n)[j]);
      failure.expect(e == expected[j].expert, "token ", n, ", choice ", j, ": expert ", e, ", not ",
                     expected[j].expert);
      failure.expect(std::abs(weight - expected[j].weight) < 16 * double(std::numeric_limits<T>::epsilon()), "token ",
                     n, ", choice ", j, ": weight ", weight, ", not ", expected[j].weight);
    }
  }
  return failure.text();
}

// ---- experts under a routing from outside

constexpr Index odd_in = 19, odd_out = 21;

template <class T>
auto outside_layer(Index experts, Index rank) {
  Rng rng(5);
  return support::with_random_b(ExpertLinear(
      LowRank<DenseFactors<T>>(
          {.in = odd_in, .out = odd_out, .experts = experts, .rank = rank, .alpha = 2 * double(rank)}, rng),
      DenseBase(random_matrix<T>(odd_out, odd_in, 6)), Simd<>{}));
}

/// k experts a token, a stride apart, so that all are met; `one` gives every token the last expert alone.
template <class T>
Routing<T> some_routing(Index tokens, Index experts, Index k, bool one) {
  Routing<T> routing;
  routing.start(experts);
  for (Index n = 0; n < tokens; ++n) {
    for (Index j = 0; j < (one ? 1 : k); ++j)
      routing.push(one ? int(experts - 1) : int((n * 7 + j) % experts), T(0.25) + T((j + n) % 5) / 8);
    routing.end_token();
  }
  routing.finish();
  return routing;
}

/// Everything that a layer makes of a batch.
struct Results {
  Results(Index tokens, Index ranks, Index pairs)
      : y(tokens, odd_out), d_x(tokens, odd_in), d_a(ranks, odd_in), d_b(ranks, odd_out), d_gate(std::size_t(pairs)) {}

  Matrix<double> y, d_x, d_a, d_b;
  std::vector<double> d_gate;
};

/// The formulae, pair by pair.
template <class Layer, class T>
Results plain_results(const Layer& layer, Index rank, const Matrix<T>& x, const Matrix<T>& d_y,
                      const Routing<T>& routing) {
  const auto& p = layer.experts().parameters();
  Results results(x.rows(), p.lora_A.rows(), routing.pairs());
  for (Index n = 0; n < x.rows(); ++n) {
    for (Index o = 0; o < odd_out; ++o)
      for (Index i = 0; i < odd_in; ++i) {
        const double w = double(layer.base().weight()(o, i));
        results.y(n, o) += w * double(x(n, i));
        results.d_x(n, i) += w * double(d_y(n, o));
      }
    for (Index pair = routing.first_pair(n); pair < routing.first_pair(n + 1); ++pair) {
      const double weight = double(routing.gate(pair)), scale = 2;
      for (Index r = 0; r < rank; ++r) {
        const Index row = routing.expert(pair) * rank + r;
        double z = 0, u = 0;
        for (Index i = 0; i < odd_in; ++i) z += double(p.lora_A(row, i)) * double(x(n, i));
        for (Index o = 0; o < odd_out; ++o) u += double(p.lora_B(row, o)) * double(d_y(n, o));
        results.d_gate[std::size_t(pair)] += scale * z * u;
        for (Index o = 0; o < odd_out; ++o) {
          results.y(n, o) += scale * weight * z * double(p.lora_B(row, o));
          results.d_b(row, o) += scale * weight * z * double(d_y(n, o));
        }
        for (Index i = 0; i < odd_in; ++i) {
          results.d_x(n, i) += scale * weight * u * double(p.lora_A(row, i));
          results.d_a(row, i) += scale * weight * u * double(x(n, i));
        }
      }
    }
  }
  return results;
}

template <class T>
std::string broken_experts(Index tokens, Index experts, Index rank, Index k, bool one) {
  const auto layer = outside_layer<T>(experts, rank);
  const auto x = random_matrix<T>(tokens, odd_in, 8), d_y = random_matrix<T>(tokens, odd_out, 9);
  const auto routing = some_routing<T>(tokens, experts, k, one);
  Matrix<T> y(tokens, odd_out), d_x(tokens, odd_in);
  std::vector<T> d_gate(std::size_t(routing.pairs()));
  auto work = layer.workspace(tokens);
  auto gradients = layer.gradients();
  layer.apply(x, routing, y, work);
  layer.apply_backward(x, routing, d_y, d_gate, d_x, gradients, work);

  const Results expected = plain_results(layer, rank, x, d_y, routing);
  laws::FirstFailure failure;
  const auto compare = [&](const char* name, std::span<const T> found, std::span<const double> wanted) {
    double largest = 1;
    for (double v : wanted) largest = std::max(largest, std::abs(v));
    for (std::size_t i = 0; i < wanted.size(); ++i)
      failure.expect(std::abs(double(found[i]) - wanted[i]) < 64 * double(std::numeric_limits<T>::epsilon()) * largest,
                     name, "[", i, "] is ", found[i], ", not ", wanted[i]);
  };
  compare("y", y.elements(), expected.y.elements());
  compare("d_x", d_x.elements(), expected.d_x.elements());
  compare("d_A", gradients.experts.lora_A.elements(), expected.d_a.elements());
  compare("d_B", gradients.experts.lora_B.elements(), expected.d_b.elements());
  compare("d_gate", d_gate, expected.d_gate);
  return failure.text();
}

}  // namespace

TEMPLATE_TEST_CASE("A gate of 1 to 1,024 experts chooses and weighs as a sort of them all", "[composition]", float,
                   double) {
  for (const Index experts : expert_counts)
    for (const Index k : chosen_counts(experts))
      for (const Index tokens : {0, 1, 33}) {
        INFO("experts " << experts << ", chosen " << k << ", tokens " << tokens);
        CHECK(broken_gate<TestType, Reference>(tokens, experts, k) == "");
        CHECK(broken_gate<TestType, Simd<>>(tokens, experts, k) == "");
      }
}

TEMPLATE_TEST_CASE("1 to 1,024 experts compute what the formulae say, forward and backward", "[composition]", float,
                   double) {
  for (const Index experts : expert_counts)
    for (const Index k : chosen_counts(experts))
      for (const Index tokens : {0, 1, 5, 70}) {
        INFO("experts " << experts << ", chosen " << k << ", tokens " << tokens);
        CHECK(broken_experts<TestType>(tokens, experts, 1, k, false) == "");
        CHECK(broken_experts<TestType>(tokens, experts, 3, k, false) == "");
        if (k == 1) CHECK(broken_experts<TestType>(tokens, experts, 3, k, true) == "");
      }
}

TEST_CASE("Blocks of ranks are experts", "[composition]") {
  const Index tokens = 37, experts = 6, rank = 4;
  const auto blocks = outside_layer<double>(experts, rank);
  auto ranks = outside_layer<double>(experts * rank, 1);
  ranks.experts().parameters() = blocks.experts().parameters();
  const auto routing = some_routing<double>(tokens, experts, 2, false);
  Routing<double> repeated;
  repeated.start(experts * rank);
  for (Index n = 0; n < tokens; ++n) {
    for (std::size_t j = 0; j < routing.experts_of(n).size(); ++j)
      for (Index r = 0; r < rank; ++r) repeated.push(int(routing.experts_of(n)[j] * rank + r), routing.gates_of(n)[j]);
    repeated.end_token();
  }
  repeated.finish();

  const auto x = random_matrix<double>(tokens, odd_in, 8), d_y = random_matrix<double>(tokens, odd_out, 9);
  const auto results = [&](const auto& layer, const Routing<double>& by) {
    Results all(tokens, experts * rank, by.pairs());
    auto work = layer.workspace(tokens);
    auto gradients = layer.gradients();
    layer.apply(x, by, all.y, work);
    layer.apply_backward(x, by, d_y, all.d_gate, all.d_x, gradients, work);
    all.d_a = gradients.experts.lora_A, all.d_b = gradients.experts.lora_B;
    return all;
  };
  const Results one = results(blocks, routing), other = results(ranks, repeated);
  CHECK(support::largest_difference(one.y, other.y) < 1e-13);
  CHECK(support::largest_difference(one.d_x, other.d_x) < 1e-13);
  CHECK(support::largest_difference(one.d_a, other.d_a) < 1e-13);
  CHECK(support::largest_difference(one.d_b, other.d_b) < 1e-13);
  for (std::size_t pair = 0; pair < one.d_gate.size(); ++pair) {
    double sum = 0;
    for (std::size_t r = 0; r < std::size_t(rank); ++r) sum += other.d_gate[pair * std::size_t(rank) + r];
    CHECK(std::abs(sum - one.d_gate[pair]) < 1e-13);
  }
}
