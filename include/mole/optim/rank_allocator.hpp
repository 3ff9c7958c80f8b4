// SPDX-License-Identifier: MIT
// RankAllocator: AdaLoRA's budget, which leaves the ranks to the layers and experts that need them.
#pragma once

#include "mole/core/float_range.hpp"
#include "mole/core/matrix.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Sets the singular values E of the least important triplets of all layers to 0, more and more of them.
///
///   each step, from a parameter p and its gradient g, element by element:
///     I = |p g|,   mean = beta1 mean + (1 - beta1) I,   uncertainty = beta2 uncertainty + (1 - beta2) |I - mean|
///   score of a triplet = s(E_i) + mean over row i of A of s + mean over row i of B of s,   s = mean * uncertainty
///   budget(t) = target + (all - target) (1 - (t - warmup) / (steps - warmup - settling))^3, rounded down
///
/// A triplet whose score is not among the `budget` largest has its E set to 0; it may recover later. Nothing is set in
/// the first `warmup` steps, then every `interval` steps, and in each of the last `settling` steps, in which the means
/// stay; in the last step also if there are none of these. Equal scores at the threshold all go, as released; a NaN
/// goes first.
///
/// Call step() after each step of the optimizer, before gradients are cleared. For checkpoints: for_each_state().
/// Parameters of TripletFactors: lora_A [ranks x I], lora_B [ranks x O], lora_E [1 x ranks].  O(parameters) a step;
/// memory of two copies of them. Throws Error(option) for options out of range, Error(shape) for parameters or
/// gradients of other sizes than at first. Source: Zhang et al. 2023 (AdaLoRA), arXiv:2303.10512, sec. 3.2;
/// huggingface/peft, tuners/adalora/layer.py.
template <class Parameters>
class RankAllocator {
 public:
  using T = typename decltype(Parameters::lora_A)::Scalar;

  struct Options {
    Index target = 0;    ///< triplets of all layers together at the end
    Index steps = 0;     ///< of the whole training
    Index warmup = 0;    ///< steps before the budget falls; the release's tinit
    Index settling = 0;  ///< last steps, with the target for their budget; the release's tfinal
    Index interval = 1;  ///< steps between two settings; the release's deltaT
    double beta1 = 0.85, beta2 = 0.85;
  };
  struct Layer {
    Parameters* parameters;
    const Parameters* gradients;
  };
  /// What a step did.
  struct Allocation {
    Index budget = 0;
    bool set = false;  ///< were triplets set to 0, or might they have been?
  };

  /// For layers of these parameters, which are looked at for their sizes alone.
  RankAllocator(const Options& options, std::span<const Parameters* const> layers) : options_(options) {
    for (const Parameters* p : layers) {
      means_.push_back(*p), uncertainties_.push_back(*p);
      triplets_ += p->lora_E.size();
    }
    for (auto* averages : {&means_, &uncertainties_})
      for (Parameters& p : *averages)
        Parameters::for_each_tensor([](std::string_view, auto& tensor) { tensor.set_zero(); }, p);
    require(options.target >= 0 && options.target <= triplets_, ErrorCode::option,
            "RankAllocator: expected a target from 0 to ", triplets_, " triplets, found ", options.target);
    require(options.warmup >= 0 && options.settling >= 0 && options.warmup + options.settling < options.steps,
            ErrorCode::option, "RankAllocator: expected fewer steps of warmup and settling than steps, found ",
            options.warmup, " + ", options.settling, " of ", options.steps);
    require(options.interval >= 1, ErrorCode::option, "RankAllocator: expected an interval of at least 1, found ",
            options.interval);
    for (double beta : {options.beta1, options.beta2})
      require(beta >= 0 && beta < 1, ErrorCode::option, "RankAllocator: expected betas from 0 to less than 1, found ",
              beta);
  }

  Allocation step(std::span<const Layer> layers) {
    require_equal(ErrorCode::shape, "RankAllocator: layers", Index(means_.size()), Index(layers.size()));
    for (std::size_t l = 0; l < layers.size(); ++l)
      for (const Parameters* p : {static_cast<const Parameters*>(layers[l].parameters), layers[l].gradients})
        Parameters::for_each_tensor(
            [&](std::string_view name, const auto& tensor, const auto& mean) {
              require(tensor.rows() == mean.rows() && tensor.cols() == mean.cols(), ErrorCode::shape,
                      "RankAllocator: expected ", name, " [", mean.rows(), " x ", mean.cols(), "] in layer ", l,
                      " and its gradients, found [", tensor.rows(), " x ", tensor.cols(), "]");
            },
            *p, means_[l]);
    const std::int64_t t = ++step_;
    if (t < options_.steps - options_.settling)
      for (std::size_t l = 0; l < layers.size(); ++l) average(layers[l], means_[l], uncertainties_[l]);
    const Allocation allocation = allocation_at(t);
    if (allocation.set && allocation.budget < triplets_) set_to_zero(layers, triplets_ - allocation.budget);
    return allocation;
  }

  Index steps_taken() const { return Index(step_); }
  const std::vector<Parameters>& means() const { return means_; }
  const std::vector<Parameters>& uncertainties() const { return uncertainties_; }

  template <class F>
  void for_each_state(F&& f) {
    f("step", std::span<std::int64_t>(&step_, 1));
    for (std::size_t l = 0; l < means_.size(); ++l) {
      const auto visit = [&](const char* what, Parameters& averages) {
        Parameters::for_each_tensor(
            [&](std::string_view name, auto& tensor) {
              f(std::string_view(std::to_string(l) + "." + what + "." + std::string(name)), tensor.elements());
            },
            averages);
      };
      visit("mean", means_[l]);
      visit("uncertainty", uncertainties_[l]);
    }
  }

 private:
  Allocation allocation_at(std::int64_t t) const {
    if (t <= options_.warmup) return {triplets_, false};
    if (t > options_.steps - options_.settling || t == options_.steps) return {options_.target, true};
    const double left = 1 - double(t - options_.warmup) / double(options_.steps - options_.settling - options_.warmup);
    const double budget = double(triplets_ - options_.target) * (left * left * left) + double(options_.target);
    return {Index(budget), t % options_.interval == 0};
  }

  void average(const Layer& layer, Parameters& means, Parameters& uncertainties) const {
    const T keep1 = T(options_.beta1), add1 = T(1 - options_.beta1);
    const T keep2 = T(options_.beta2), add2 = T(1 - options_.beta2);
    Parameters::for_each_tensor(
        [&](std::string_view, const auto& p, const auto& g, auto& mean, auto& uncertainty) {
          for (std::size_t i = 0; i < p.elements().size(); ++i) {
            const T importance = std::abs(p.elements()[i] * g.elements()[i]);
            T& m = mean.elements()[i];
            T& u = uncertainty.elements()[i];
            m = keep1 * m + add1 * importance;
            u = keep2 * u + add2 * std::abs(importance - m);
          }
        },
        static_cast<const Parameters&>(*layer.parameters), *layer.gradients, means, uncertainties);
  }

  /// The triplets of the `count` lowest scores, and all that are no better than the last of them.
  void set_to_zero(std::span<const Layer> layers, Index count) {
    std::vector<std::vector<T>> scores;
    std::vector<T> all;
    for (std::size_t l = 0; l < layers.size(); ++l) {
      scores.push_back(scores_of(means_[l], uncertainties_[l]));
      all.insert(all.end(), scores.back().begin(), scores.back().end());
    }
    const auto last = all.begin() + (count - 1);
    std::nth_element(all.begin(), last, all.end());
    for (std::size_t l = 0; l < layers.size(); ++l)
      for (std::size_t i = 0; i < scores[l].size(); ++i)
        if (scores[l][i] <= *last) layers[l].parameters->lora_E.elements()[i] = 0;
  }

  static std::vector<T> scores_of(const Parameters& mean, const Parameters& uncertainty) {
    std::vector<T> scores;
    const auto mean_of_row = [](const Matrix<T>& m, const Matrix<T>& u, Index i) {
      T sum = 0;
      for (Index c = 0; c < m.cols(); ++c) sum += m(i, c) * u(i, c);
      return sum / T(std::max<Index>(1, m.cols()));
    };
    for (Index i = 0; i < mean.lora_E.size(); ++i) {
      const T score = mean.lora_E.elements()[std::size_t(i)] * uncertainty.lora_E.elements()[std::size_t(i)] +
                      mean_of_row(mean.lora_A, uncertainty.lora_A, i) + mean_of_row(mean.lora_B, uncertainty.lora_B, i);
      scores.push_back(std::isnan(score) ? -std::numeric_limits<T>::infinity() : score);
    }
    return scores;
  }

  Options options_;
  std::vector<Parameters> means_, uncertainties_;
  Index triplets_ = 0;
  std::int64_t step_ = 0;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
