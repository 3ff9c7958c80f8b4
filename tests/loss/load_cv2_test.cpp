// SPDX-License-Identifier: MIT
#include "mole/loss/load_cv2.hpp"

#include "core/error_code.hpp"
#include "loss_trace.hpp"
#include "mole/core/matrix.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace mole::test;

namespace {

double normal_probability(double z) {
  return std::erfc(-z / std::sqrt(2)) / 2;
}

/// Noisy logits with what they were made of.
struct Noisy {
  Trace<double> trace;
  Matrix<double> clean, deviation, d_clean, d_deviation;

  Noisy(Index tokens, Index experts, const Pass& pass = {})
      : trace(random_trace(tokens, experts, 0, pass)),
        clean(tokens, experts),
        deviation(tokens, experts),
        d_clean(tokens, experts),
        d_deviation(tokens, experts) {
    Rng rng(9);
    fill_uniform(clean.view(), 2, rng);
    fill_uniform(deviation.view(), 0.4, rng);
    for (double& d : deviation.elements()) d += 0.6;
  }
  NoisyLogits<double> made_of() { return {clean, deviation, d_clean, d_deviation}; }
};

}  // namespace

TEST_CASE("The load of an expert is how likely its clean logit passes what it has to be above", "[loss]") {
  Trace<double> trace = empty_trace(1, 3);
  Matrix<double> clean(1, 3);
  for (Index e = 0; e < 3; ++e) trace.logits()(0, e) = double(e), clean(0, e) = double(e) + 0.1;
  const auto cv = [](std::vector<double> loads) {
    return SquaredCv::of(3, true, 1e-10, [&](Index e) { return loads[std::size_t(e)]; }).value();
  };
  // Expert 2 is the best of k = 1: it has to be above 1, the others above 2.
  const LoadCv2Options options{.k = 1, .deviation = 0.5};
  CHECK(near(load_cv2(trace, {clean}, options),
             cv({normal_probability(-3.8), normal_probability(-1.8), normal_probability(2.2)})));
  LoadCv2Options tutel = options;
  tutel.threshold = LoadThreshold::kth;
  CHECK(near(load_cv2(trace, {clean}, tutel),
             cv({normal_probability(-3.8), normal_probability(-1.8), normal_probability(0.2)})));
}

TEST_CASE("Without noise an expert above what it has to be above counts 1, one below 0, and no gradient is infinite",
          "[loss]") {
  for (LoadThreshold threshold : {LoadThreshold::without_it, LoadThreshold::kth}) {
    Trace<double> trace = empty_trace(1, 4);
    Matrix<double> clean(1, 4), deviation(1, 4), d_clean(1, 4), d_deviation(1, 4);
    for (Index e = 0; e < 4; ++e) trace.logits()(0, e) = clean(0, e) = double(e);
    const double value = load_cv2(trace, {clean, deviation, d_clean, d_deviation}, {.k = 2, .threshold = threshold});
    // Tutel's threshold of the second best is its own logit.
    const double own = threshold == LoadThreshold::kth ? 0.5 : 1;
    const double loads[] = {0, 0, own, 1};
    CHECK(near(value, SquaredCv::of(4, true, 1e-10, [&](Index e) { return loads[e]; }).value()));
    CHECK(all_zero(d_clean.elements()));
    CHECK(all_zero(d_deviation.elements()));
    CHECK(all_zero(elements(trace.d_logits())));
  }
}

TEST_CASE("The load loss adds the gradients of its value, also through its thresholds", "[loss]") {
  const std::vector<std::uint8_t> mask{1, 0, 1, 1, 1, 1};
  for (LoadThreshold threshold : {LoadThreshold::without_it, LoadThreshold::kth})
    for (bool of_scores : {false, true})
      for (Index k : {1, 2, 4}) {
        CAPTURE(int(threshold), of_scores, k);
        Noisy noisy(6, 5, {.token_mask = mask});
        const LoadCv2Options options{.coefficient = 0.7, .k = k, .threshold = threshold, .of_scores = of_scores};
        load_cv2(noisy.trace, noisy.made_of(), options);
        const auto value = [&] { return load_cv2(noisy.trace, {noisy.clean, noisy.deviation}, options); };
        const std::vector<double> compared =
            copied(elements(of_scores ? noisy.trace.d_scores() : noisy.trace.d_logits()));
        CHECK(gradient_error(noisy.clean.elements(), noisy.d_clean.elements(), value) < gradient_tolerance);
        CHECK(gradient_error(noisy.deviation.elements(), noisy.d_deviation.elements(), value) < gradient_tolerance);
        CHECK(gradient_error(elements(of_scores ? noisy.trace.scores() : noisy.trace.logits()), compared, value) <
              gradient_tolerance);
        CHECK(all_zero(noisy.d_clean.view().row(1)));
      }
}

TEST_CASE("Where every expert is chosen each token counts 1, without a gradient", "[loss]") {
  for (Index k : {3, 7}) {
    Noisy noisy(4, 3);
    CHECK(load_cv2(noisy.trace, noisy.made_of(), {.k = k}) == 0);
    CHECK(all_zero(noisy.d_clean.elements()));
    CHECK(all_zero(elements(noisy.trace.d_logits())));
  }
}

TEST_CASE("Excluded experts have no load and no gradient, and are none of the k", "[loss]") {
  Noisy noisy(4, 3), whole(4, 4);
  for (Index n = 0; n < 4; ++n) {
    for (Index e = 0; e < 3; ++e) {
      const Index at = e < 1 ? e : e + 1;
      whole.trace.logits()(n, at) = noisy.trace.logits()(n, e);
      whole.clean(n, at) = noisy.clean(n, e), whole.deviation(n, at) = noisy.deviation(n, e);
    }
    whole.trace.logits()(n, 1) = -std::numeric_limits<double>::infinity();
    whole.clean(n, 1) = whole.deviation(n, 1) = std::nan("");
  }
  CHECK(load_cv2(whole.trace, whole.made_of()) == load_cv2(noisy.trace, noisy.made_of()));
  for (Index n = 0; n < 4; ++n) {
    CHECK(whole.d_clean(n, 0) == noisy.d_clean(n, 0));
    CHECK(whole.d_clean(n, 3) == noisy.d_clean(n, 2));
    CHECK(whole.d_clean(n, 1) == 0);
    CHECK(whole.trace.d_logits()(n, 1) == 0);
  }
}

TEST_CASE("The load loss refuses matrices and options that do not fit", "[loss]") {
  Noisy noisy(4, 3);
  const Matrix<double> other(3, 4);
  CHECK(code_of([&] { load_cv2(noisy.trace, {other}); }) == ErrorCode::shape);
  CHECK(code_of([&] { load_cv2(noisy.trace, {}); }) == ErrorCode::shape);
  CHECK(code_of([&] { load_cv2(noisy.trace, {noisy.clean, other}); }) == ErrorCode::shape);
  CHECK(code_of([&] { load_cv2(noisy.trace, {noisy.clean}, {.k = 0}); }) == ErrorCode::option);
  CHECK(code_of([&] { load_cv2(noisy.trace, {noisy.clean}, {.deviation = 0}); }) == ErrorCode::option);
  CHECK(code_of([&] { load_cv2(noisy.trace, {noisy.clean}, {.epsilon = -1}); }) == ErrorCode::option);
}
