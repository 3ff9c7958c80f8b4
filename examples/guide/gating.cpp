// SPDX-License-Identifier: MIT
// A user's own score, selection and weighing in one gate.
#include <mole/layer/check_gradients.hpp>
#include <mole/mole.hpp>

#include <cmath>
#include <cstdio>

/// score = log(1 + exp(logit)).
struct Softplus {
  template <class T>
  void forward(std::span<const T> logits, std::span<T> scores) const {
    for (std::size_t e = 0; e < logits.size(); ++e) scores[e] = std::log1p(std::exp(logits[e]));
  }
  template <class T>
  void backward(std::span<const T> logits, std::span<const T>, std::span<const T> d_scores,
                std::span<T> d_logits) const {
    for (std::size_t e = 0; e < logits.size(); ++e) d_logits[e] += d_scores[e] / (1 + std::exp(-logits[e]));
  }
};
static_assert(mole::ScorePolicy<Softplus, double>);

/// The best expert of each half.
struct BestOfHalves {
  mole::Index max_chosen(mole::Index) const { return 2; }

  template <class T>
  mole::Index select(std::span<const T> scores, mole::Index experts, std::span<int> chosen) const {
    const auto half = std::size_t(experts / 2);
    mole::choose_best(scores.first(half), mole::Index(half), chosen.first(1));
    mole::choose_best(scores.subspan(half), experts - mole::Index(half), chosen.subspan(1, 1));
    chosen[1] += int(half);
    if (scores[std::size_t(chosen[1])] > scores[std::size_t(chosen[0])]) std::swap(chosen[0], chosen[1]);
    return 2;
  }
};
static_assert(mole::SelectPolicy<BestOfHalves, double>);

/// gate = score^2.
struct Squared {
  template <class T>
  void forward(std::span<const T> scores, std::span<const int> chosen, std::span<T> gates) const {
    for (std::size_t j = 0; j < chosen.size(); ++j) {
      const T score = scores[std::size_t(chosen[j])];
      gates[j] = score * score;
    }
  }
  template <class T>
  void backward(std::span<const T> scores, std::span<const int> chosen, std::span<const T>, std::span<const T> d_gates,
                std::span<T> d_scores) const {
    for (std::size_t j = 0; j < chosen.size(); ++j) {
      const auto e = std::size_t(chosen[j]);
      d_scores[e] += 2 * scores[e] * d_gates[j];
    }
  }
};
static_assert(mole::WeighPolicy<Squared, double>);

int main() {
  mole::Rng rng(1);
  mole::Matrix<double> weights(6, 5);
  fill_uniform(weights.view(), 1, rng);
  mole::MixtureLinear layer{
      mole::LinearRouter<double>{{.in = 5, .experts = 4}, rng}, mole::Gate{Softplus{}, BestOfHalves{}, Squared{}},
      mole::LowRank<mole::DenseFactors<double>>{{.in = 5, .out = 6, .experts = 4, .rank = 2}, rng},
      mole::DenseBase{weights}};
  fill_uniform(layer.experts().parameters().lora_B.view(), 1, rng);  // B = 0 would hide a wrong gradient
  const mole::GradientReport report = mole::check_gradients(layer);
  std::printf("worst relative difference %.0e, %td numbers checked\n", report.worst, report.checked);
  return report.passed(1e-7) ? 0 : 1;
}
