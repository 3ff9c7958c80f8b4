// SPDX-License-Identifier: MIT
// routing_contrastive(): the loss that pulls prototypes towards their own tokens and away from those of others.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/float_range.hpp"
#include "mole/core/matrix.hpp"
#include "mole/core/trace.hpp"
#include "mole/core/unit_vector.hpp"
#include "mole/loss/coefficient.hpp"

#include <algorithm>
#include <cmath>
#include <memory_resource>
#include <string_view>
#include <type_traits>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Options of routing_contrastive().
struct RoutingContrastiveOptions {
  double coefficient = 1;
  double temperature = 0.07;
  bool first_choice = false;  ///< a token is in the mean of its first expert only, not of all
  bool per_sequence = false;  ///< the loss of each sequence by itself; then the mean over the sequences
};

namespace detail {

/// The loss of the prototypes that have tokens among those from `first` to before `end`: A of them, in the order of
/// their experts. It is `coefficient` times as large.
template <class T>
class ContrastiveLoss {
 public:
  ContrastiveLoss(View<const T> x, View<const T> prototypes, const Trace<T>& trace,
                  const RoutingContrastiveOptions& options, Index first, Index end, double coefficient,
                  std::pmr::memory_resource* memory)
      : x_(x),
        prototypes_(prototypes),
        trace_(trace),
        first_(first),
        end_(end),
        first_choice_(options.first_choice),
        size_(count_active()),
        active_(memory),
        means_(size_, x.cols(), memory),
        d_cosines_(size_, size_, memory),
        d_mean_(1, size_ > 0 ? x.cols() : 0, memory) {
    if (size_ == 0) return;
    active_.reserve(std::size_t(size_));
    take_means();
    value_ = contrast(coefficient / double(size_), options.temperature);
  }

  double value() const { return value_; }

  /// d_c_i += (sum_j d_cos_ij m_j - <d_cos_i, cos_i> c_i) / ||c_i||, of directions m and c
  void add_prototype_gradient(View<T> d_prototypes) const {
    for (Index i = 0; i < size_; ++i) {
      const Active& a = active_[std::size_t(i)];
      const double own = a.prototype.inward(a.prototype_radial) * a.prototype.scale();
      for (Index c = 0; c < d_prototypes.cols(); ++c) {
        double sum = -own * double(prototypes_(a.expert, c));
        for (Index j = 0; j < size_; ++j) sum += d_cosines_(i, j) * means_(j, c);
        d_prototypes(a.expert, c) += T(a.prototype.d_scale() * sum);
      }
    }
  }

  /// d_m_j likewise, divided equally among its tokens
  void add_token_gradient(View<T> d_x) {
    for (Index j = 0; j < size_; ++j) {
      const Active& a = active_[std::size_t(j)];
      for (Index c = 0; c < d_x.cols(); ++c) {
        double sum = -a.mean.inward(a.mean_radial) * means_(j, c);
        for (Index i = 0; i < size_; ++i) {
          const Active& other = active_[std::size_t(i)];
          sum += d_cosines_(i, j) * other.prototype.scale() * double(prototypes_(other.expert, c));
        }
        d_mean_(0, c) = a.mean.d_scale() * sum / double(a.tokens);
      }
      for_each_token(a.expert, [&](Index n) {
        for (Index c = 0; c < d_x.cols(); ++c) d_x(n, c) += T(d_mean_(0, c));
      });
    }
  }

 private:
  struct Active {
    Index expert, tokens;
    UnitVector prototype, mean;
    double prototype_radial = 0, mean_radial = 0;  // sums of d_cos cos over the prototype's row and the mean's column
  };

  /// Calls f(n) for every token of the prototype of `expert`.
  template <class F>
  void for_each_token(Index expert, F&& f) const {
    for (int p : trace_.routing.pairs_of(expert)) {
      const Index n = trace_.routing.token(p);
      const bool belongs = n >= first_ && n < end_ && (!first_choice_ || p == trace_.routing.first_pair(n));
      if (belongs && trace_.pass.counts(n) && trace_.pass.forced_expert(n) < 0) f(n);
    }
  }
  Index tokens_of(Index expert) const {
    Index tokens = 0;
    for_each_token(expert, [&](Index) { ++tokens; });
    return tokens;
  }
  /// 0 if there is only one: the loss needs two to tell apart.
  Index count_active() const {
    Index active = 0;
    for (Index e = 0; e < prototypes_.rows(); ++e) active += tokens_of(e) > 0;
    return active < 2 ? 0 : active;
  }

  /// Fills active_, and means_ with the directions of the means.
  void take_means() {
    for (Index e = 0; e < prototypes_.rows(); ++e) {
      const Index tokens = tokens_of(e);
      if (tokens == 0) continue;
      const std::span<double> mean = means_.view().row(Index(active_.size()));
      for_each_token(e, [&](Index n) {
        for (Index c = 0; c < x_.cols(); ++c) mean[std::size_t(c)] += double(x_(n, c)) / double(tokens);
      });
      const UnitVector direction = UnitVector::of(std::span<const double>(mean));
      for (double& element : mean) element *= direction.scale();
      active_.push_back({e, tokens, UnitVector::of(prototypes_.row(e)), direction});
    }
  }

  /// The value; replaces the cosines by their gradients share / tau (softmax_j(cos_i / tau) - [i = j]).
  double contrast(double share, double temperature) {
    double value = 0;
    for (Index i = 0; i < size_; ++i) {
      const std::span<double> row = d_cosines_.view().row(i);
      fill_cosines(i, row);
      const double own = row[std::size_t(i)], most = *std::max_element(row.begin(), row.end());
      double sum = 0;
      for (double cosine : row) sum += std::exp((cosine - most) / temperature);
      value += share * ((most - own) / temperature + std::log(sum));
      for (Index j = 0; j < size_; ++j) {
        const double cosine = row[std::size_t(j)], p = std::exp((cosine - most) / temperature) / sum;
        const double d_cosine = share / temperature * (p - (i == j));
        active_[std::size_t(i)].prototype_radial += d_cosine * cosine;
        active_[std::size_t(j)].mean_radial += d_cosine * cosine;
        row[std::size_t(j)] = d_cosine;
      }
    }
    return value;
  }

  void fill_cosines(Index i, std::span<double> row) const {
    const Active& a = active_[std::size_t(i)];
    for (Index j = 0; j < size_; ++j) {
      double sum = 0;
      for (Index c = 0; c < means_.cols(); ++c) sum += double(prototypes_(a.expert, c)) * means_(j, c);
      row[std::size_t(j)] = sum * a.prototype.scale();
    }
  }

  View<const T> x_, prototypes_;
  const Trace<T>& trace_;
  Index first_, end_;
  bool first_choice_;
  Index size_;  // A, or 0 if that is 1
  std::pmr::vector<Active> active_;
  Matrix<double> means_;      // [A x I], as directions
  Matrix<double> d_cosines_;  // [A x A]
  Matrix<double> d_mean_;     // [1 x I]
  double value_ = 0;
};

}  // namespace detail

/// coefficient * mean over prototypes i of  -log( exp(cos(c_i, m_i) / tau) / sum_j exp(cos(c_i, m_j) / tau) )
///
///   x [N x I], prototypes c [P x I], that of expert e in row e; m_e the mean of the tokens that chose e;
///   tau the temperature
///   d_x [N x I], d_prototypes [P x I], accumulated; an empty one is not wanted
///
/// Only prototypes with tokens take part; with fewer than two the loss is 0. A token of several experts is in each of
/// their means, or, on request, in that of the first in the order of its selection; masked tokens and those with an
/// expert in pass.forced (ProMoE's null tokens) are in none. Gates play no part, and the selection is a constant. A
/// mean or prototype of zeros has cosines of 0 and gets no gradient (UnitVector). Throws Error(option) unless the
/// temperature, and the size of a coefficient other than 0, are from 1e-30 to 1e30; Error(shape) if sizes disagree or
/// there are more prototypes than experts. Computed in double. O((pairs + A^2) I), for each sequence if these are
/// apart, for A prototypes with tokens; takes A (I + A) + I doubles and a few per prototype from `memory`, nothing when
/// A < 2. Source: ProMoE, ali-vilab/ProMoE, models/models_ProMoE_TC.py: coefficient 1 and temperature 0.07 in its
/// configurations, first_choice unless use_top_k_for_routing_contrastive; models_ProMoE_EC.py, in which experts choose:
/// per_sequence. A sequence in which no token counts is left out of the mean.
template <class T>
double routing_contrastive(View<const std::type_identity_t<T>> x, View<const std::type_identity_t<T>> prototypes,
                           const Trace<T>& trace, View<std::type_identity_t<T>> d_x,
                           View<std::type_identity_t<T>> d_prototypes, const RoutingContrastiveOptions& options = {},
                           std::pmr::memory_resource* memory = std::pmr::get_default_resource()) {
  detail::require_coefficient("routing_contrastive", options.coefficient);
  require(options.temperature > 0 && in_float_range(options.temperature), ErrorCode::option,
          "routing_contrastive: expected a temperature from 1e-30 to 1e30, found ", options.temperature);
  const auto equal = [](std::string_view what, Index expected, Index found) {
    require_equal(ErrorCode::shape, what, expected, found);
  };
  equal("routing_contrastive: rows of x", trace.tokens(), x.rows());
  equal("routing_contrastive: columns of the prototypes", x.cols(), prototypes.cols());
  require(prototypes.rows() <= trace.routing.experts(), ErrorCode::shape, "routing_contrastive: expected at most ",
          trace.routing.experts(), " prototypes, one per expert, found ", prototypes.rows());
  if (d_x) {
    equal("routing_contrastive: rows of d_x", x.rows(), d_x.rows());
    equal("routing_contrastive: columns of d_x", x.cols(), d_x.cols());
  }
  if (d_prototypes) {
    equal("routing_contrastive: rows of d_prototypes", prototypes.rows(), d_prototypes.rows());
    equal("routing_contrastive: columns of d_prototypes", prototypes.cols(), d_prototypes.cols());
  }

  const auto loss_of = [&](Index first, Index end, double coefficient) {
    detail::ContrastiveLoss<T> loss(x, prototypes, trace, options, first, end, coefficient, memory);
    if (d_prototypes) loss.add_prototype_gradient(d_prototypes);
    if (d_x) loss.add_token_gradient(d_x);
    return loss.value();
  };
  if (!options.per_sequence) return loss_of(0, trace.tokens(), options.coefficient);
  const Pass& pass = trace.pass;
  const auto for_each_sequence = [&](auto&& f) {
    for (Index s = 0; s < pass.sequences(); ++s)
      for (Index n = pass.first_of(s); n < pass.end_of(s, trace.tokens()); ++n)
        if (pass.counts(n) && pass.forced_expert(n) < 0) {
          f(pass.first_of(s), pass.end_of(s, trace.tokens()));
          break;
        }
  };
  double sequences = 0, value = 0;
  for_each_sequence([&](Index, Index) { ++sequences; });
  for_each_sequence([&](Index first, Index end) { value += loss_of(first, end, options.coefficient / sequences); });
  return value;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
