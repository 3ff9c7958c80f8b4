// SPDX-License-Identifier: MIT
// PrefixMask: learns how many of its chosen experts each token needs.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/float_range.hpp"
#include "mole/core/routing.hpp"
#include "mole/core/token_random.hpp"
#include "mole/core/view.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>

#include "mole/core/macros_off.hpp"

namespace mole {

/// gate'_nj = m_nj gate_nj,   m_nj = sum of p_nc over c >= j,   p_n = softmax((logits_n + g_n) / temperature)
///
///   routing of N tokens, the experts of each best first; logits [N x K] of a small router: c keeps the c + 1 best
///   masked: another routing, overwritten
///
/// In training every expert stays, under a gate that its mask has scaled, with g from the standard Gumbel distribution,
/// a function of (seed, layer, step, token, stream). Otherwise the category of the largest logit, ties to fewer experts
/// and NaN last, keeps its experts whole and drops the others. The last `shared` experts of the routing are left alone.
/// Both directions belong between route() and apply(), apply_backward() and route_backward().
///
/// A reconstruction: the method's paper tells of a learned mask of any number of experts, its code was not at hand.
/// That the candidates are prefixes of the sorted experts is ours. Nothing is stored.  O(N K^2), no allocation beyond
/// what `masked` lacks.
/// Source: Huang et al. 2025 (MC#, OTP), arXiv:2510.10962, abstract; Jang et al. 2016, arXiv:1611.01144.
struct PrefixMask {
  double temperature = 1;
  double penalty = 0;  ///< times the mean over tokens that count of the sum of their masks
  Index shared = 0;
  std::uint64_t stream = 0;

  /// The penalty. Throws Error(shape) for logits of other than N rows, or a token of more than K experts; Error(option)
  /// for a temperature beyond float (in_float_range) or shared experts that are none.
  template <class T>
  double forward(const Routing<T>& routing, View<const std::type_identity_t<T>> logits, Routing<T>& masked,
                 const Pass& pass) const {
    check(routing, logits);
    masked.start(routing.experts());
    double sum = 0;
    for (Index n = 0; n < routing.tokens(); ++n) {
      const auto experts = routing.experts_of(n);
      const auto gates = routing.gates_of(n);
      const Token<T> token(*this, logits, pass, n);
      const Index last = pass.training ? logits.cols() - 1 : best_of(logits.row(n));
      Index j = 0;
      for (std::size_t i = 0; i < experts.size(); ++i) {
        const bool is_masked = experts[i] < routing.experts() - shared;
        const double mask = !is_masked ? 1 : pass.training ? token.mask(j) : double(j <= last);
        if (mask > 0 || pass.training) masked.push(experts[i], is_masked ? T(mask) * gates[i] : gates[i]);
        if (is_masked && pass.counts(n)) sum += mask;
        j += is_masked;
      }
      masked.end_token();
    }
    masked.finish();
    return penalty * sum / counted(routing, pass);
  }

  /// After forward() in training:   d_gate += m d_masked,   d_logits += what p says.
  ///   d_masked, d_gate: one per pair   d_logits [N x K]; empty ones are not wanted
  template <class T>
  void backward(const Routing<T>& routing, View<const std::type_identity_t<T>> logits,
                std::span<const std::type_identity_t<T>> d_masked, std::span<std::type_identity_t<T>> d_gate,
                View<std::type_identity_t<T>> d_logits, const Pass& pass) const {
    check(routing, logits);
    require(pass.training, ErrorCode::order, "PrefixMask: expected a pass in training, found another");
    require_equal(ErrorCode::shape, "PrefixMask: gradients of masked gates", routing.pairs(), Index(d_masked.size()));
    if (!d_gate.empty())
      require_equal(ErrorCode::shape, "PrefixMask: gradients of gates", routing.pairs(), Index(d_gate.size()));
    require(!d_logits || (d_logits.rows() == logits.rows() && d_logits.cols() == logits.cols()), ErrorCode::shape,
            "PrefixMask: expected d_logits of [", logits.rows(), " x ", logits.cols(), "], found [", d_logits.rows(),
            " x ", d_logits.cols(), "]");
    const double share = penalty / counted(routing, pass);
    for (Index n = 0; n < routing.tokens(); ++n) {
      const auto experts = routing.experts_of(n);
      const auto gates = routing.gates_of(n);
      const auto from = routing.of_token(d_masked, n);
      const Token<T> token(*this, logits, pass, n);
      // With D_c = the sum of d_m over j <= c:   d_logit_c = p_c (D_c - sum_c' p_c' D_c') / temperature
      double mean = 0;
      Index j = 0;
      const auto d_mask = [&](std::size_t i) {
        return (gates[i] == 0 ? 0.0 : double(gates[i]) * double(from[i])) + (pass.counts(n) ? share : 0);
      };
      for (std::size_t i = 0; i < experts.size(); ++i) {
        const bool is_masked = experts[i] < routing.experts() - shared;
        if (!d_gate.empty()) routing.of_token(d_gate, n)[i] += T(is_masked ? token.mask(j) : 1) * from[i];
        if (is_masked) mean += token.mask(j++) * d_mask(i);
      }
      if (!d_logits) continue;
      double sum = 0;
      std::size_t i = 0;
      for (Index c = 0; c < logits.cols(); ++c) {
        while (i < experts.size() && experts[i] >= routing.experts() - shared) ++i;
        if (i < experts.size()) sum += d_mask(i++);
        d_logits(n, c) += T(token.share(c) * (sum - mean) / temperature);
      }
    }
  }

 private:
  /// p and m of a token.
  template <class T>
  class Token {
   public:
    Token(const PrefixMask& owner, View<const T> logits, const Pass& pass, Index n)
        : owner_(owner), logits_(logits.row(n)), random_(pass, owner.stream, n), draws_(pass.training) {
      for (Index c = 0; c < categories(); ++c) most_ = std::max(most_, logit(c));
      for (Index c = 0; c < categories(); ++c) sum_ += std::exp(logit(c) - most_);
    }
    double share(Index c) const { return std::exp(logit(c) - most_) / sum_; }
    double mask(Index j) const {
      double sum = 0;
      for (Index c = j; c < categories(); ++c) sum += share(c);
      return sum;
    }

   private:
    Index categories() const { return Index(logits_.size()); }
    double logit(Index c) const {
      return (double(logits_[std::size_t(c)]) + (draws_ ? random_.gumbel(c) : 0)) / owner_.temperature;
    }

    const PrefixMask& owner_;
    std::span<const T> logits_;
    TokenRandom random_;
    bool draws_;
    double most_ = -std::numeric_limits<double>::infinity(), sum_ = 0;
  };

  template <class T>
  static Index best_of(std::span<const T> logits) {
    std::size_t best = 0;
    for (std::size_t c = 1; c < logits.size(); ++c)
      if (logits[c] > logits[best] || (std::isnan(logits[best]) && !std::isnan(logits[c]))) best = c;
    return Index(best);
  }

  template <class T>
  static double counted(const Routing<T>& routing, const Pass& pass) {
    Index tokens = 0;
    for (Index n = 0; n < routing.tokens(); ++n) tokens += pass.counts(n);
    return double(std::max<Index>(1, tokens));
  }

  template <class T>
  void check(const Routing<T>& routing, View<const T> logits) const {
    require(temperature > 0 && in_float_range(temperature), ErrorCode::option,
            "PrefixMask: expected a temperature from 1e-30 to 1e30, found ", temperature);
    require(shared >= 0 && shared <= routing.experts(), ErrorCode::option, "PrefixMask: expected from 0 to ",
            routing.experts(), " shared experts, found ", shared);
    require_equal(ErrorCode::shape, "PrefixMask: rows of the logits", routing.tokens(), logits.rows());
    for (Index n = 0; n < routing.tokens(); ++n) {
      Index found = 0;
      for (int e : routing.experts_of(n)) found += e < routing.experts() - shared;
      require(found <= logits.cols(), ErrorCode::shape, "PrefixMask: expected at most ", logits.cols(),
              " experts of a token, one for each logit, found ", found);
    }
  }
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
