// SPDX-License-Identifier: MIT
// Kernels of gates on rows of numbers: softmax with its exponentials, and the k largest.
#include "bench/kernels/kernel_case.hpp"
#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/select_policy.hpp"
#include "mole/kernel/lanes.hpp"
#include "mole/kernel/largest_in_lanes.hpp"
#include "mole/kernel/vector_loops.hpp"
#include "tests/support/random_matrix.hpp"

#include <span>

namespace bench {

namespace {

using T = float;
using Arch = xsimd::default_arch;
using mole::Matrix;
using Lanes = mole::kernel::Lanes<Arch, T>;
using VectorLoops = mole::kernel::VectorLoops<Arch>;
using Vector = Lanes::Vector;

template <class V>
std::span<const V> constant(std::span<V> span) {
  return span;
}

/// Softmax of T rows of E logits, and its gradient.
struct Scores {
  Scores(Index tokens, Index experts)
      : logits(support::random_matrix<T>(tokens, experts, 1, 3)),
        scores(support::random_matrix<T>(tokens, experts, 2)),
        d_scores(support::random_matrix<T>(tokens, experts, 3)),
        d_logits(tokens, experts) {}

  template <class Loops>
  void forward_by(const Loops& loops) {
    for (Index n = 0; n < logits.rows(); ++n)
      softmax.forward(constant(logits.view().row(n)), scores.view().row(n), loops);
  }
  template <class Loops>
  void backward_by(const Loops& loops) {
    for (Index n = 0; n < logits.rows(); ++n)
      softmax.backward(constant(logits.view().row(n)), constant(scores.view().row(n)), constant(d_scores.view().row(n)),
                       d_logits.view().row(n), loops);
  }

  mole::Softmax softmax;
  Matrix<T> logits, scores, d_scores, d_logits;
};

/// As operations of an exponential counts its polynomial, one multiply-add for each of about six terms, and scaling;
/// besides it there are a maximum, a subtraction, a sum and two products.
constexpr double softmax_flops = 20;

struct SoftmaxRows : Scores {
  using Scores::Scores;

  void kernel() { forward_by(VectorLoops{}); }
  void plain() { forward_by(mole::kernel::ElementLoops{}); }
  Work work() const {
    return {0, softmax_flops * double(logits.size()), 2.0 * double(sizeof(T)) * double(logits.size())};
  }
};

struct SoftmaxGradient : Scores {
  using Scores::Scores;

  void kernel() { backward_by(VectorLoops{}); }
  void plain() { backward_by(mole::kernel::ElementLoops{}); }
  Work work() const {
    const double bytes = double(sizeof(T)) * double(logits.size());
    return {0, 6.0 * double(logits.size()), 4 * bytes, bytes};
  }
};

/// Of few experts: as many tokens at once as a vector has lanes.
struct SoftmaxLanes : Scores {
  using Scores::Scores;

  void kernel() {
    const auto experts = std::size_t(logits.cols());
    const std::span<Vector> all_in(in.data(), experts), all_out(out.data(), experts);
    for (Index n = 0; n < logits.rows(); n += Lanes::step) {
      const Index tokens = std::min(Lanes::step, logits.rows() - n);
      Lanes::gather(logits.view().row_data(n), logits.cols(), tokens, logits.cols(), in.data());
      softmax.forward(constant(all_in), all_out);
      Lanes::scatter(out.data(), tokens, scores.cols(), scores.view().row_data(n), scores.cols());
    }
  }
  void plain() { forward_by(mole::kernel::ElementLoops{}); }
  Work work() const {
    return {0, softmax_flops * double(logits.size()), 2.0 * double(sizeof(T)) * double(logits.size())};
  }

  std::vector<Vector> in = std::vector<Vector>(std::size_t(logits.cols())), out = in;
};

/// The k best of E scores for as many tokens as a vector has lanes: k comparisons a score.
struct LargestOfLanes {
  LargestOfLanes(Index k, Index experts)
      : scores(support::random_matrix<T>(Lanes::step, experts, 1)),
        in(std::size_t(experts)),
        largest(std::size_t(k)),
        position(std::size_t(k)),
        chosen(std::size_t(k)) {
    Lanes::gather(scores.data(), experts, Lanes::step, experts, in.data());
  }

  void kernel() {
    mole::kernel::LargestInLanes<Arch, T>{}(in.data(), scores.cols(), Index(chosen.size()), largest.data(),
                                            position.data());
  }
  void plain() {
    for (Index n = 0; n < scores.rows(); ++n)
      mole::choose_best(constant(scores.view().row(n)), scores.cols(), std::span<int>(chosen));
  }
  Work work() const {
    return {0, double(scores.size()) * double(chosen.size()), double(sizeof(T)) * double(scores.size())};
  }

  Matrix<T> scores;
  std::vector<Vector> in, largest, position;
  std::vector<int> chosen;
};

}  // namespace

std::vector<KernelCase> row_cases() {
  std::vector<KernelCase> cases;
  add_cases<SoftmaxRows, 2>(cases, "vector_loops/softmax", {"T", "E"}, {{16, 64}, {16, 1024}});
  add_cases<SoftmaxGradient, 2>(cases, "vector_loops/softmax_gradient", {"T", "E"}, {{16, 64}, {16, 1024}});
  add_cases<SoftmaxLanes, 2>(cases, "lanes/softmax", {"T", "E"}, {{16, 8}, {16, 64}});
  add_cases<LargestOfLanes, 2>(cases, "largest_in_lanes", {"k", "E"},
                               {{2, 8}, {8, 8}, {2, 64}, {8, 64}, {2, 1024}, {8, 1024}});
  return cases;
}

}  // namespace bench
