// SPDX-License-Identifier: MIT
// A user's own factors: A is a fixed random projection, only B learns.
#include <mole/layer/check_gradients.hpp>
#include <mole/mole.hpp>

#include <cstdio>
#include <optional>

/// A frozen and random, B trained.
class FrozenDown {
 public:
  using Scalar = double;
  using T = Scalar;
  struct Options {
    mole::Index in = 0, out = 0, experts = 1, rank = 8;
    std::optional<double> alpha = {};
    mole::Scaling scaling = mole::Scaling::alpha_over_rank;
    mole::Dropout dropout = {};
  };
  struct Parameters {
    mole::Matrix<T> lora_B;

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      f("lora_B", p.lora_B...);
    }
  };

  FrozenDown(const Options& options, mole::Rng& rng)
      : blocks_(mole::RankBlocks::uniform(options.experts, options.rank)),
        a_(blocks_.ranks_down(), options.in),
        parameters_{mole::Matrix<T>(blocks_.ranks_up(), options.out)} {
    fill_uniform(a_.view(), 1, rng);
  }

  mole::Index in() const { return a_.cols(); }
  mole::Index out() const { return parameters_.lora_B.cols(); }
  const mole::RankBlocks& blocks() const { return blocks_; }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }

  mole::FactorViews<const T> factors(mole::NoScratch&) const { return {a_, parameters_.lora_B}; }
  mole::FactorViews<T> gradient_views(Parameters& gradients, mole::NoScratch&) const { return {{}, gradients.lora_B}; }

 private:
  mole::RankBlocks blocks_;
  mole::Matrix<T> a_;
  Parameters parameters_;
};
static_assert(mole::FactorPolicy<FrozenDown>);

int main() {
  mole::Rng rng(1);
  mole::Matrix<double> weights(6, 5);
  fill_uniform(weights.view(), 1, rng);
  mole::MixtureLinear layer{mole::LinearRouter<double>{{.in = 5, .experts = 4}, rng},
                            mole::Gate{mole::Softmax{}, mole::TopK{.k = 2}, mole::Renormalized{}},
                            mole::LowRank<FrozenDown>{{.in = 5, .out = 6, .experts = 4, .rank = 2, .alpha = 4}, rng},
                            mole::DenseBase{weights}};
  fill_uniform(layer.experts().parameters().lora_B.view(), 1, rng);  // B = 0 would hide a wrong gradient
  const mole::GradientReport report = mole::check_gradients(layer);
  std::printf("worst relative difference %.0e, %td numbers checked\n", report.worst, report.checked);
  return report.passed(1e-7) ? 0 : 1;
}
