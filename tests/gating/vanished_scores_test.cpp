// SPDX-License-Identifier: MIT
// Shares of scores that have almost vanished, and scores of huge, tiny and offset logits, against long double.
#include "mole/mole.hpp"
#include "mole/testing/gating_laws.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <string>

using namespace mole;

namespace {

using Real = long double;
using Numbers = std::vector<Real>;

Real log_sigmoid(Real logit) {
  return logit < 0 ? logit - std::log1p(std::exp(logit)) : -std::log1p(std::exp(-logit));
}

/// What the chosen experts of a token should get: shares of 1, and d_logits for d_gates of 2 and zeros.
struct Expected {
  Numbers gates, d_logits;  // of the chosen; of all columns
  Real tolerance = 1;       // relative to the rounding of T
};

/// For scores of which log(score_e), up to a constant, and its derivative are known for each logit.
template <class T, class Log, class DLog>
Expected from_logs(std::span<const T> logits, std::span<const int> chosen, Log log, DLog d_log) {
  Expected expected{{}, Numbers(logits.size()), 1};
  Real most = -std::numeric_limits<Real>::infinity(), sum = 0, size = 1;
  for (int e : chosen) most = std::max(most, log(e));
  for (int e : chosen) {
    expected.gates.push_back(std::exp(log(e) - most));
    sum += expected.gates.back();
    size = std::max(size, std::abs(Real(logits[std::size_t(e)])));
  }
  for (Real& gate : expected.gates) gate /= sum;
  expected.tolerance = std::min<Real>(size, 200);  // of the logits: their own rounding moves gates by as much
  for (std::size_t j = 0; j < chosen.size(); ++j)
    expected.d_logits[std::size_t(chosen[j])] =
        expected.gates[j] * ((j == 0 ? 2 : 0) - 2 * expected.gates[0]) * d_log(chosen[j]);
  return expected;
}

struct SoftmaxShares {
  Real temperature = 1;

  template <class T>
  Expected operator()(std::span<const T> logits, std::span<const T>, std::span<const int> chosen) const {
    return from_logs(
        logits, chosen, [&](int e) { return Real(logits[std::size_t(e)]) / temperature; },
        [&](int) { return 1 / temperature; });
  }
};

struct SigmoidShares {
  template <class T>
  Expected operator()(std::span<const T> logits, std::span<const T>, std::span<const int> chosen) const {
    return from_logs(
        logits, chosen, [&](int e) { return log_sigmoid(logits[std::size_t(e)]); },
        [&](int e) { return 1 / (1 + std::exp(Real(logits[std::size_t(e)]))); });
  }
};

template <class T>
struct BiasedShares {
  std::vector<T> bias;

  Expected operator()(std::span<const T> logits, std::span<const T>, std::span<const int> chosen) const {
    const auto sigmoid = [&](int e) { return std::exp(log_sigmoid(logits[std::size_t(e)])); };
    return from_logs(
        logits, chosen,
        [&](int e) {
          const Real b = bias[std::size_t(e)];
          return b == 0 ? log_sigmoid(logits[std::size_t(e)]) : std::log(sigmoid(e) + b);
        },
        [&](int e) {
          const Real s = sigmoid(e), b = bias[std::size_t(e)];
          const Real rest = 1 / (1 + std::exp(Real(logits[std::size_t(e)])));
          return b == 0 ? rest : s * rest / (s + b);
        });
  }
};

struct MagnitudeShares {
  template <class T>
  Expected operator()(std::span<const T> logits, std::span<const T>, std::span<const int> chosen) const {
    const auto logit = [&](int e) { return Real(logits[std::size_t(e)]); };
    if (std::ranges::all_of(chosen, [&](int e) { return logit(e) == 0; })) return {Numbers(chosen.size()), {}};
    return from_logs(
        logits, chosen, [&](int e) { return std::log(std::abs(logit(e))); },
        [&](int e) { return logit(e) == 0 ? 0 : 1 / logit(e); });
  }
};

/// Of sparsegen, whose lambda is in the scores, if they have a column for it. The shares of scores that are nearly 0
/// are those of their rounding; where all are, nothing is expected but that they are finite.
struct SparseShares {
  Real lambda = 0;

  template <class T>
  Expected operator()(std::span<const T> logits, std::span<const T> scores, std::span<const int> chosen) const {
    const bool learned = scores.size() % 2 == 0;  // the tests have odd numbers of experts
    const std::size_t experts = scores.size() - learned;
    const Real spread = 1 - (learned ? Real(scores.back()) : lambda);
    Numbers sorted(logits.begin(), logits.begin() + std::ptrdiff_t(experts));
    std::ranges::sort(sorted, std::greater());
    const Real most = sorted[0];
    Real sum = 0, size = 0, tau = 0;
    for (Real logit : sorted) {
      if ((logit - most) * (size + 1) + spread <= sum + (logit - most)) break;
      sum += logit - most;
      tau = (sum - spread) / ++size;
    }
    const auto p = [&](int e) { return std::max<Real>(Real(logits[std::size_t(e)]) - most - tau, 0) / spread; };
    Expected expected{{}, Numbers(logits.size()), 1};
    Real total = 0, mean = 0, weighted = 0;
    for (int e : chosen) total += p(e);
    if (total < Real(1e-4)) return {{}, {}, 0};
    for (int e : chosen) expected.gates.push_back(p(e) / total);
    Numbers d_p(experts);
    for (std::size_t j = 0; j < chosen.size(); ++j)
      d_p[std::size_t(chosen[j])] = ((j == 0 ? 2 : 0) - 2 * expected.gates[0]) / total;
    for (std::size_t e = 0; e < experts; ++e)
      if (p(int(e)) > 0) mean += d_p[e] / size, weighted += d_p[e] * p(int(e));
    for (std::size_t e = 0; e < experts; ++e)
      if (p(int(e)) > 0) expected.d_logits[e] = (d_p[e] - mean) / spread;
    if (learned) expected.d_logits[experts] = (weighted - mean) / spread / (1 + std::exp(Real(logits[experts])));
    expected.tolerance = 1 / (total * total * std::min<Real>(spread, 1));
    return expected;
  }
};

/// Gates and d_logits of a gate, for a d_gate of 2 of the first choice of each token.
template <class T, class Execution, class Shares, class G>
void check_shares(const G& gate, const Matrix<T>& logits, Index experts, const Shares& shares) {
  gate.check(experts);
  auto trace = laws::routed<Execution>(gate, logits, experts);
  for (Index n = 0; n < trace.tokens(); ++n)
    if (!trace.routing.experts_of(n).empty()) trace.routing.of_token(trace.d_gate(), n)[0] = T(2);
  laws::Harness<G, Execution> harness(
      gate, CallSize{.tokens = logits.rows(), .pairs = logits.size(), .experts = experts, .columns = logits.cols()});
  gate.backward(trace, harness.call());
  for (Index n = 0; n < trace.tokens(); ++n) {
    const auto chosen = std::as_const(trace.routing).experts_of(n);
    const auto gates = trace.routing.gates_of(n);
    const std::span<const T> row = logits.view().row(n);
    std::string of_logits;
    for (T logit : row) of_logits += " " + std::to_string(logit);
    CAPTURE(n, of_logits);
    CHECK(laws::all_finite(std::span<const T>(gates)));
    CHECK(laws::all_finite(std::span<const T>(trace.d_logits().row(n))));
    if (chosen.empty()) continue;
    const Expected expected = shares(row, std::span<const T>(trace.scores().row(n)), chosen);
    const Real slack = 64 * expected.tolerance * std::numeric_limits<T>::epsilon();
    Real size = 1;  // of the gradient
    for (Real d : expected.d_logits) size = std::max(size, std::abs(d));
    for (std::size_t j = 0; j < expected.gates.size(); ++j) {
      CAPTURE(j, row[std::size_t(chosen[j])]);
      CHECK(std::abs(double(gates[j] - expected.gates[j])) <= double(slack));
    }
    for (std::size_t c = 0; c < expected.d_logits.size(); ++c) {
      CAPTURE(c, row[c]);
      CHECK(std::abs(double(trace.d_logits()(n, Index(c)) - expected.d_logits[c])) <= double(4 * slack * size));
    }
  }
}

/// Logits of every size, with every gap and offset; behind those of the experts, `extra` ones.
template <class T>
Matrix<T> hard_logits(Index experts, Index extra = 0) {
  std::vector<std::vector<T>> rows;
  const auto random = support::random_matrix<double>(1, experts, 3);
  for (double gap : {1e-30, 1e-3, 1.0, 10.0, 60.0, 88.0, 95.0, 104.0, 300.0, 708.0, 720.0, 1e4})
    for (double offset : {0.0, -88.0, -128.0, 1e3, -1e5, 1e7}) {
      auto& row = rows.emplace_back();
      for (Index e = 0; e < experts; ++e)
        row.push_back(T(offset + (e == 0 ? gap : e == 1 ? -gap : random(0, e) * gap / 8)));
    }
  for (double size : {1e-30, 1e10, 1e30, 1e38}) {
    auto& row = rows.emplace_back();
    for (Index e = 0; e < experts; ++e) row.push_back(T(random(0, e) * size));
  }
  Matrix<T> logits(Index(rows.size()), experts + extra);
  for (Index n = 0; n < logits.rows(); ++n) {
    std::ranges::copy(rows[std::size_t(n)], logits.view().row_data(n));
    for (Index c = experts; c < experts + extra; ++c) logits(n, c) = T(n % 7 - 3);
  }
  return logits;
}

/// Shares of a score, whichever of its experts are chosen.
template <class T, class Score, class Shares>
void check_score(const Score& score, const Shares& shares, std::initializer_list<Index> counts = {3, 9, 17}) {
  Index extra = 0;
  if constexpr (requires { Score::extra; }) extra = Score::extra;
  for (Index experts : counts)
    for (const std::vector<Index>& places : {std::vector<Index>{0, 1}, {0, 1, 2}, {1, 2}, {2}}) {
      const Gate gate{score, NthBest{places}, Renormalized{}};
      check_shares<T, Reference>(gate, hard_logits<T>(experts, extra), experts, shares);
      check_shares<T, Simd<>>(gate, hard_logits<T>(experts, extra), experts, shares);
    }
}

}  // namespace

TEMPLATE_TEST_CASE("Shares of softmax scores are right however small the scores are", "[gating]", float, double) {
  for (double temperature : {0.01, 0.7, 1.0, 30.0})
    check_score<TestType>(Softmax{.temperature = temperature}, SoftmaxShares{temperature});
  for (double divisor : {1e-10, 1.3, 1e10}) check_score<TestType>(Softmax{.divisor = divisor}, SoftmaxShares{});
  check_score<TestType>(SoftmaxWithThreshold{}, SoftmaxShares{});
  check_score<TestType>(MaskedSoftmax{{1, 1, 1}}, SoftmaxShares{}, {3});
  check_score<TestType>(MaskedSoftmax{{1, 0, 1, 1, 1, 1, 0, 1, 1}}, SoftmaxShares{}, {9});
}

TEST_CASE("Shares of vanished scores follow the sum and the temperature as those of others do", "[gating]") {
  const Gate gate{Softmax{.temperature = 0.5}, NthBest{{1, 2}}, Renormalized{2.5}};
  const auto trace_of = [&](double best) {
    const std::vector<double> row{best, 0.3, -0.2, -5};
    Matrix<double> logits(1, 4);
    std::ranges::copy(row, logits.data());
    auto trace = laws::routed(gate, logits, 4);
    trace.d_gate()[0] = 2;
    laws::Harness harness(gate, CallSize{.tokens = 1, .pairs = 2, .experts = 4, .columns = 4});
    gate.backward(trace, harness.call());
    return trace;
  };
  const auto vanished = trace_of(1000), usual = trace_of(6);
  for (Index j = 0; j < 2; ++j) CHECK(std::abs(vanished.routing.gate(j) - usual.routing.gate(j)) < 1e-9);
  for (Index e = 0; e < 4; ++e) CHECK(std::abs(vanished.d_logits()(0, e) - usual.d_logits()(0, e)) < 1e-9);
  CHECK(std::abs(usual.d_logits()(0, 1)) > 0.1);
}

TEMPLATE_TEST_CASE("Shares of sigmoid scores are right however small the scores are", "[gating]", float, double) {
  check_score<TestType>(Sigmoid{}, SigmoidShares{});
  for (Index experts : {3, 9, 17}) {
    BiasedSigmoid<TestType> biased(experts);
    check_score<TestType>(biased, SigmoidShares{}, {experts});
    for (std::size_t e = 0; e < biased.bias.size(); ++e)
      biased.bias[e] = std::array<TestType, 4>{0.1f, 0, 1e-3f, 1e-20f}[e % 4];
    check_score<TestType>(biased, BiasedShares<TestType>{biased.bias}, {experts});
  }
}

TEMPLATE_TEST_CASE("Shares of magnitudes are right however large or small they are", "[gating]", float, double) {
  check_score<TestType>(Magnitude{}, MagnitudeShares{});
}

TEMPLATE_TEST_CASE("Shares of sparse scores are right wherever the logits are", "[gating]", float, double) {
  for (double lambda : {0.0, 0.5, -3.0}) check_score<TestType>(Sparsegen{lambda}, SparseShares{lambda});
  check_score<TestType>(LearnedSparsegen{}, SparseShares{});
}

TEST_CASE("Shares of scores at the ends of float are finite, and so is their gradient", "[gating]") {
  for (float size : {1e-45f, 1e-40f, 1e-38f, 1e-30f, 1e30f, 3.4e38f}) {
    const std::vector<float> scores{size, size, 0};
    const std::vector<int> chosen{0, 1};
    std::vector<float> gates(2), d_scores(3);
    const std::vector<float> d_gates{1, 0};
    Renormalized{}.forward(std::span<const float>(scores), std::span<const int>(chosen), std::span<float>(gates));
    Renormalized{}.backward(std::span<const float>(scores), std::span<const int>(chosen), std::span<const float>(gates),
                            std::span<const float>(d_gates), std::span<float>(d_scores));
    CAPTURE(size);
    CHECK(gates == std::vector<float>{0.5f, 0.5f});
    CHECK(std::isfinite(d_scores[0]));
    CHECK(d_scores[0] > 0);
    CHECK(d_scores[1] == -d_scores[0]);
  }
}

TEST_CASE("A temperature divides differences of logits, not logits", "[gating]") {
  const auto gates = [](double temperature, std::vector<float> numbers) {
    Matrix<float> logits(1, 3);
    std::ranges::copy(numbers, logits.view().row_data(0));
    const auto trace = laws::routed(Gate{Softmax{temperature}, NthBest{{1, 2}}, Renormalized{}}, logits, 3);
    return std::pair(trace.routing.gates()[0], trace.routing.gates()[1]);
  };
  const auto [a, b] = gates(0.7, {1000200, 1000000, 999999.5f});
  CHECK(std::abs(a - 0.67135f) < 1e-5f);
  CHECK(std::abs(b - 0.32865f) < 1e-5f);
  const auto [c, d] = gates(0.01, {30009, 30000, 30000 - 1.0f / 256});
  CHECK(std::abs(c - 0.59643f) < 1e-5f);
  CHECK(std::abs(d - 0.40357f) < 1e-5f);
}

TEST_CASE("The gates of smora() sum to k however negative the logits are", "[gating]") {
  const Gate gate{BiasedSigmoid<float>(4), TopK{2}, Renormalized{2}};
  for (float logit : {-87.5f, -88.5f, -90.0f, -720.0f}) {
    Matrix<float> logits(1, 4);
    for (Index e = 0; e < 4; ++e) logits(0, e) = logit - float(e / 2 * 5);
    auto trace = laws::routed<Reference>(gate, logits, 4);
    trace.d_gate()[0] = 20;
    laws::Harness harness(gate, CallSize{.tokens = 1, .pairs = 4, .experts = 4, .columns = 4});
    gate.backward(trace, harness.call());
    CAPTURE(logit);
    for (std::size_t j : {0u, 1u}) CHECK(trace.routing.gates()[j] == 1);
    const float expected[] = {10, -10, 0, 0};
    for (Index e = 0; e < 4; ++e) CHECK(trace.d_logits()(0, e) == expected[e]);
  }
}

TEST_CASE("Finite logits give the gradient of their shares, not NaN", "[gating]") {
  const Gate gate{Softmax{}, NthBest{{1, 2}}, Renormalized{}};
  Matrix<float> logits(1, 3);
  logits(0, 0) = 95;
  auto trace = laws::routed<Reference>(gate, logits, 3);
  trace.d_gate()[0] = 1;
  laws::Harness harness(gate, CallSize{.tokens = 1, .pairs = 3, .experts = 3, .columns = 3});
  gate.backward(trace, harness.call());
  CHECK(trace.d_logits()(0, 0) == 0);
  CHECK(trace.d_logits()(0, 1) == 0.25f);
  CHECK(trace.d_logits()(0, 2) == -0.25f);
}

TEMPLATE_TEST_CASE("An offset of all logits changes no sparse score", "[gating]", float, double) {
  using T = TestType;
  for (double c : {0.0, 8192.0, 65536.0, 1048576.0, 3e7}) {
    std::vector<T> logits{T(c), T(c - 0.25), T(c - 5), 0}, scores(4);
    if (T(c) - logits[1] != T(0.25)) continue;  // the gap itself is lost
    LearnedSparsegen{}.forward(std::span<const T>(logits), std::span<T>(scores));
    CAPTURE(c);
    CHECK(std::abs(scores[0] + scores[1] + scores[2] - 1) <= 8 * std::numeric_limits<T>::epsilon());
    CHECK(scores[2] == 0);
  }
  for (const std::vector<T>& logits : {std::vector<T>{T(3e7), 0, 0, 0}, {T(3e38), 0, T(-3e38), 0}}) {
    for (double lambda : {0.0, 0.99, -1e30}) {
      std::vector<T> scores(4);
      Sparsegen{lambda}.forward(std::span<const T>(logits), std::span<T>(scores));
      CAPTURE(lambda);
      T sum = 0;
      for (T score : scores) sum += score;
      CHECK(std::abs(sum - 1) <= 8 * std::numeric_limits<T>::epsilon());
    }
  }
  std::vector<T> logits{1, 2, 3, -std::numeric_limits<T>::infinity()}, scores(4);  // lambda towards -infinity
  LearnedSparsegen{}.forward(std::span<const T>(logits), std::span<T>(scores));
  for (int e : {0, 1, 2}) CHECK(std::abs(scores[std::size_t(e)] - T(1) / 3) < T(1e-6));
}

TEMPLATE_TEST_CASE("A direction does not depend on the size of the logits", "[gating]", float, double) {
  using T = TestType;
  constexpr T infinity = std::numeric_limits<T>::infinity(), most = std::numeric_limits<T>::max();
  for (T size : {T(1e-20), T(1), T(1e20), T(1e37)}) {
    const std::vector<T> logits{T(0.6) * size, T(0.8) * size, -infinity};
    std::vector<T> scores(3), d_logits(3), d_scores{1, 0, 0};
    L2Normalized{.eps = 1e-30}.forward(std::span<const T>(logits), std::span<T>(scores));
    CHECK(std::abs(scores[0] - T(0.6)) < T(1e-6));
    CHECK(std::abs(scores[1] - T(0.8)) < T(1e-6));
    CHECK(scores[2] == -infinity);
    L2Normalized{.eps = 1e-30}.backward(std::span<const T>(logits), std::span<const T>(scores),
                                        std::span<const T>(d_scores), std::span<T>(d_logits));
    CHECK(std::abs(d_logits[0] * size - T(0.64)) < T(1e-5));
    CHECK(std::abs(d_logits[1] * size + T(0.48)) < T(1e-5));
  }
  const std::vector<T> logits{-most, -infinity};
  std::vector<T> scores(2);
  L2Normalized{}.forward(std::span<const T>(logits), std::span<T>(scores));
  CHECK(scores[0] == -1);
  CHECK(scores[1] == -infinity);
}

TEST_CASE("A group is valued alike wherever its NaN stands", "[gating]") {
  const GroupedTopK<float> select(1, 2, 1, std::vector<float>(4));
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  for (const std::vector<float>& scores : {std::vector<float>{.5f, nan, .45f, .45f}, {nan, .5f, .45f, .45f}}) {
    std::vector<int> chosen(1);
    select.select(scores, 4, chosen);
    CHECK(chosen[0] == 2);
  }
}

TEST_CASE("Options beyond float are refused, with their range and value", "[gating]") {
  const auto refused = [](auto&& check) {
    try {
      check();
    } catch (const Error& error) {
      const std::string text = error.what();
      return error.code() == ErrorCode::option && text.find(": expected") < text.find(", found ");
    }
    return false;
  };
  const auto part_refused = [&](const auto& part) { return refused([&] { part.check(4); }); };
  constexpr double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
  for (double bad : {nan, 1e-50, 1e-31}) {
    CHECK(part_refused(Softmax{.temperature = bad}));
    CHECK(part_refused(Softmax{.divisor = bad}));
    CHECK(part_refused(SoftmaxOverChosen{.temperature = bad}));
    CHECK(part_refused(SoftmaxOverChosen{.min_score = bad}));
    CHECK(part_refused(SoftmaxWithThreshold{bad}));
    CHECK(part_refused(L2Normalized{bad}));
    CHECK(part_refused(LearnedSparsegen{bad}));
    CHECK(part_refused(Renormalized{bad}));
    CHECK(part_refused(Renormalized{-bad}));
    CHECK(part_refused(Raw{bad}));
    CHECK(part_refused(Threshold{bad}));
    CHECK(part_refused(Threshold{-bad}));
    CHECK(part_refused(RelativeThreshold{.ratio = bad}));
    CHECK(part_refused(TopP{.p = bad}));
  }
  for (double bad : {1e31, 1e39, 1e50, infinity, -infinity, nan}) {
    CHECK(part_refused(Softmax{.temperature = bad}));
    CHECK(part_refused(Softmax{.divisor = bad}));
    CHECK(part_refused(SoftmaxOverChosen{.temperature = bad}));
    CHECK(part_refused(SoftmaxWithThreshold{bad}));
    CHECK(part_refused(L2Normalized{bad}));
    CHECK(part_refused(LearnedSparsegen{bad}));
    CHECK(part_refused(Renormalized{bad}));
    CHECK(part_refused(Raw{bad}));
    CHECK(part_refused(RelativeThreshold{.ratio = bad}));
    CHECK(part_refused(Sparsegen{bad}));
  }
  for (double bad : {0.0, -1.0}) {
    CHECK(part_refused(Softmax{.temperature = bad}));
    CHECK(part_refused(Softmax{.divisor = bad}));
    CHECK(part_refused(SoftmaxOverChosen{.temperature = bad}));
    CHECK(part_refused(L2Normalized{bad}));
    CHECK(part_refused(LearnedSparsegen{bad}));
  }
  CHECK(part_refused(Renormalized{0}));
  CHECK(part_refused(LearnedSparsegen{1e-9}));
  for (double bad : {1.0, -1e31, nan, -infinity}) CHECK(part_refused(Sparsegen{bad}));
  for (double bad : {nan, infinity}) {
    CHECK(part_refused(ExpertChoice{.factor = bad}));
    CHECK(part_refused(ExpertCapacity{TopK{1}, {.factor = bad}}));
    CHECK(part_refused(EntropyHybrid{.entropy = {.order = bad}}));
    CHECK(part_refused(EntropyHybrid{.entropy = {.shift = bad}}));
  }
  for (double bad : {0.0, 1 + 1e-9, 1 - 1e-9, 1e-9, 1e9}) CHECK(part_refused(EntropyHybrid{.entropy = {.order = bad}}));
  CHECK(part_refused(EntropyHybrid{.entropy = {.offset = -1}}));
  Rng rng(1);
  CHECK_THROWS_AS(LowRank<DenseFactors<float>>({.in = 2, .out = 2, .alpha = nan}, rng), Error);
  CHECK_THROWS_AS(AdamW<float>({.epsilon = 1e-50}), Error);
  CHECK_THROWS_AS(AdamW<float>({.epsilon = nan}), Error);
  for (double bad : {nan, 0.0, 1e-50, 1e39})
    CHECK(refused([&] { CosineRouter<float>({.in = 2, .experts = 2, .deviation = bad}, rng); }));

  Trace<float> trace({.tokens = 1, .pairs = 2, .experts = 2, .columns = 3});
  trace.start(0, {});
  trace.routing.start(2);
  trace.routing.finish();
  trace.start_d_gate();
  const int types[] = {0};
  const Matrix<float> none(0, 2), prototypes(2, 2);
  const auto contrast = [&](const RoutingContrastiveOptions& options) {
    routing_contrastive<float>(none, prototypes, trace, {}, {}, options);
  };
  for (double bad : {nan, infinity, -infinity, 1e39, 1e-50, -1e-50}) {
    CHECK(refused([&] { load_balance(trace, {.coefficient = bad}); }));
    CHECK(refused([&] { localized_balance(trace, {.task_types = types, .blc_weight = bad}); }));
    CHECK(refused([&] { router_z(trace, {bad}); }));
    CHECK(refused([&] { router_entropy(trace, {.coefficient = bad}); }));
    CHECK(refused([&] { importance_cv2(trace, {.coefficient = bad}); }));
    CHECK(refused([&] { sparsity_target(trace, {.coefficient = bad, .k = 1}); }));
    CHECK(refused([&] { contrast({.coefficient = bad}); }));
    CHECK(refused([&] { contrast({.temperature = bad}); }));
    CHECK(refused([&] { router_entropy(trace, {.entropy = {.order = bad}}); }));
  }
  for (double bad : {nan, -0.1, infinity}) {
    CHECK(refused([&] { localized_balance(trace, {.task_types = types, .blc_alpha = bad}); }));
    CHECK(refused([&] { importance_cv2(trace, {.epsilon = bad}); }));
  }
  for (double fine : {0.0, -1.0, 1e-30, 1e30}) {
    load_balance(trace, {.coefficient = fine});
    localized_balance(trace, {.task_types = types, .blc_weight = fine});
    router_z(trace, {fine});
    router_entropy(trace, {.coefficient = fine});
    importance_cv2(trace, {.coefficient = fine});
    sparsity_target(trace, {.coefficient = fine, .k = 1});
    contrast({.coefficient = fine});
  }
}

TEMPLATE_TEST_CASE(
    "Options at the ends of their ranges make numbers that are finite, and the same as of float's double", "[gating]",
    Reference, Simd<>) {
  const auto close_in_double = [](const auto& gate_of_float, const auto& gate_of_double) {
    const auto logits = support::random_matrix<float>(6, gate_of_float.columns(4), 3, 2);
    Matrix<double> same(logits.rows(), logits.cols());
    for (Index n = 0; n < logits.rows(); ++n)
      for (Index c = 0; c < logits.cols(); ++c) same(n, c) = double(logits(n, c));
    gate_of_float.check(4);
    const auto found = laws::choices(laws::routed<TestType>(gate_of_float, logits, 4));
    const auto expected = laws::choices(laws::routed<TestType>(gate_of_double, same, 4));
    for (std::size_t n = 0; n < found.size(); ++n) {
      REQUIRE(found[n].size() == expected[n].size());
      for (std::size_t j = 0; j < found[n].size(); ++j) {
        CHECK(found[n][j].first == expected[n][j].first);
        CHECK(std::abs(double(found[n][j].second) / expected[n][j].second - 1) < 1e-4);
      }
    }
  };
  const auto close = [&](const auto& gate) { close_in_double(gate, gate); };
  for (double end : {1e-10, 1e10}) {
    close(Gate{Softmax{.divisor = end}, All{}, Raw{}});
    close(Gate{Softmax{.divisor = end}, TopK{2}, Renormalized{}});
  }
  for (double end : {1e-30, 1e30}) {
    close(Gate{Softmax{}, TopK{2}, Renormalized{end}});
    close(Gate{Softmax{}, TopK{2}, Renormalized{-end}});
    close(Gate{Softmax{}, TopK{2}, Raw{end}});
    close(Gate{L2Normalized{end}, TopK{1}, Raw{}});
  }
  close(Gate{Softmax{.temperature = 1e-30}, TopK{1}, Raw{}});
  close(Gate{Softmax{.temperature = 1e30}, All{}, Raw{}});
  close(Gate{Identity{}, TopK{1}, SoftmaxOverChosen{.temperature = 1e-30}});
  close(Gate{Identity{}, TopK{2}, SoftmaxOverChosen{.temperature = 1e30}});
  close(Gate{LearnedSparsegen{1e30}, All{}, Raw{}});
  close(Gate{LearnedSparsegen{1e-6}, Threshold{.strict = true}, Raw{}});
  close(Gate{SoftmaxWithThreshold{1e-30}, LearnedThreshold{}, Shifted{}});
  close(Gate{Sparsegen{}, Threshold{1e-30}, Raw{}});
  close(Gate{Sparsegen{}, RelativeThreshold{.ratio = 1e-30, .k = 4}, Raw{}});
  close(Gate{Sparsegen{}, TopP{.p = 1e-30, .strict = false}, Raw{}});
}

TEST_CASE("A huge capacity is one for every token, and a published one is not rounded up twice", "[gating]") {
  Matrix<float> logits(100, 10);
  for (Index n = 0; n < 100; ++n) logits(n, 0) = 1;
  const auto load_with = [&](double factor) {
    return laws::routed(Gate{Softmax{}, ExpertCapacity{TopK{1}, {.factor = factor}}, Raw{}}, logits, 10)
        .routing.load(0);
  };
  CHECK(load_with(1e300) == 100);
  CHECK(load_with(1.1) == 11);  // ceil(T / E f)
  const ExpertChoice all{.factor = 1e300};
  CHECK(all.takes_all(10));
  CHECK(laws::routed(Gate{Softmax{}, all, Raw{}}, logits, 10).routing.pairs() == 1000);
}
