// SPDX-License-Identifier: MIT
// CompressedExperts: the best experts of a token run, the next best only rescale what those read.
#pragma once

#include "mole/core/matrix.hpp"
#include "mole/core/state.hpp"
#include "mole/expert/expert_policy.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// y_n += sum over the first `main` experts e of token n of gate_ne f_e(theta_n o x_n),
/// theta_n = sum over its other experts j of (gate_nj / their sum) c_j.
///
///   x [N x I], compressed c [E x I]; f_e and their parameters are those of Experts, any policy of that role
///
/// The order within a token is that of its routing, so the selection has to give the best first, as TopK does, and its
/// k is that of main and auxiliary experts together. Gates of the main experts are used as they are: what the auxiliary
/// ones had is not given to them. A token without auxiliary experts has theta = 1, where the release, whose slice of
/// the last 0 is everything, fails; auxiliary gates that sum to 0 count alike, and those whose sum is below 1e-18
/// (double: 1e-150) get no gradient. Gates are expected to be at least 0. A gate with shared experts will not do: they
/// are the last of a token, so they would be auxiliary. Nor will All, which keeps the order of indices.
///
/// Theta is computed as 1 + sum of share_j (c_j - 1), which is the same because shares sum to 1. So at c = 1, the
/// start, the result is that of `main` experts under the same gates, bit for bit.
///
/// A gated feed-forward block takes a pass per main expert, as its nonlinearity is not of the sum: three ExpertLinears
/// with `main` = 1, under a routing that has that expert first, with gate 1, then the auxiliary ones with theirs; the
/// caller multiplies by the main gate. Gate, up and down projection have rows 0, 2 and 1 of the release's three
/// vectors, the last without its tail. The release needs an inner width of at most the outer one; here each table has
/// its own. (The paper's text has one vector, on the block's input; its count of parameters, 2 I + F, is that of the
/// three.) At I = O = 4,096, 4,096 trained numbers an expert, and 16 KiB in float.
///
/// Exact gradients to c, through the shares to the auxiliary gates, and to x through both factors. Scratch: twice
/// [tokens x I], a routing, and the experts' own. Throws Error(option) if main < 1, Error(shape) for a c that does not
/// fit.
/// Source: He et al. 2025 (Compressed Experts), arXiv:2503.00634; the authors' modeling_olmoe.py, in
/// neilwen987/Compressed-Experts-ts.
template <ExpertPolicy Experts>
class CompressedExperts {
 public:
  using Scalar = typename Experts::Scalar;
  using T = Scalar;
  static constexpr bool borrows = borrows_parameters<Experts>;
  static constexpr bool pairs_interact = true;  // the auxiliary ones scale what the main ones read

  struct Parameters {
    Matrix<T> compressed;
    ParametersOf<Experts> experts;

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      f("compressed", p.compressed...);
      for_each_tensor_within<ParametersOf<Experts>>("main", f, p.experts...);
    }
  };
  /// The parameters in place; converts to Parameters, to make gradients of the same shapes. Main is a reference, or
  /// itself the parts of experts that wrap others.
  template <class Table, class Main>
  struct Parts {
    Table& compressed;
    Main experts;
    operator Parameters() const { return {compressed, experts}; }
    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      Parameters::for_each_tensor(f, p...);
    }
  };

  struct Scratch {
    View<T> scaled, d_scaled;  // theta o x [tokens x I]
    Routing<T> routing;        // of the main experts
    std::span<T> d_gate;       // of its pairs
    ScratchOf<Experts> experts;
  };

  CompressedExperts(Experts experts, Index main)
      : experts_(std::move(experts)), compressed_(experts_.experts(), experts_.in()), main_(main) {
    require(main >= 1, ErrorCode::option, "CompressedExperts: expected at least 1 main expert, found ", main);
    fill(compressed_.view(), T(1));
  }

  /// Reinitializes the experts; the vectors start at 1.
  template <std::uniform_random_bit_generator Generator>
  requires requires(Experts& experts, Generator& generator) { experts.reset(generator); }
  void reset(Generator& generator) {
    experts_.reset(generator);
    fill(compressed_.view(), T(1));
  }

  void check_sizes() const {
    detail::check_sizes(experts_);
    require(compressed_.rows() == experts() && compressed_.cols() == in(), ErrorCode::shape,
            "CompressedExperts: expected vectors of [", experts(), " x ", in(), "], found [", compressed_.rows(), " x ",
            compressed_.cols(), "]");
  }
  void check_gradients(const Parameters& gradients) const { detail::check_gradients(experts_, gradients.experts); }

  Index experts() const { return experts_.experts(); }
  Index in() const { return experts_.in(); }
  Index out() const { return experts_.out(); }
  Index main() const { return main_; }
  Experts& main_experts() { return experts_; }
  const Experts& main_experts() const { return experts_; }
  auto parameters() {
    return Parts<Matrix<T>, decltype(parameters_of(experts_))>{compressed_, parameters_of(experts_)};
  }
  auto parameters() const {
    return Parts<const Matrix<T>, decltype(parameters_of(experts_))>{compressed_, parameters_of(experts_)};
  }
  template <class F>
  void for_each_state(F&& f) {
    for_each_state_within("main", experts_, f);
  }

  Scratch scratch(const CallSize& size, Arena& arena) const {
    return {arena.matrix<T>(size.tokens, in()), arena.matrix<T>(size.tokens, in()), Routing<T>(size, arena),
            arena.array<T>(size.pairs), scratch_for(experts_, size, arena)};
  }

  void forward(View<const T> x, View<const T>, const Routing<T>& routing, View<T> y, auto call) const {
    Scratch& s = call.scratch;
    choose_main(routing, s.routing);
    call.execution.parallel_for(x.rows(), [&](Index n) {
      const Auxiliary auxiliary(*this, routing, n);
      if (auxiliary.empty()) return std::ranges::copy(x.row(n), s.scaled.row(n).begin()), void();
      auxiliary.theta(s.scaled.row(n));
      for (Index i = 0; i < in(); ++i) s.scaled.row_data(n)[i] *= x.row_data(n)[i];
    });
    experts_.forward(View<const T>(s.scaled.top(x.rows())), {}, s.routing, y, call.with(s.experts));
  }

  /// With d_scaled from the experts:   d_x += theta o d_scaled,   d_theta = x o d_scaled,   d_c_j += share_j d_theta,
  /// d_gate_j += (d_share_j - sum of share_k d_share_k) / (sum of the gates),   d_share_j = <d_theta, c_j - 1>
  void backward(View<const T> x, const Routing<T>& routing, View<const T> d_y, std::span<T> d_gate, View<T> d_x,
                Parameters& gradients, auto call) const requires TrainableExpertPolicy<Experts> {
    Scratch& s = call.scratch;
    const bool needs_scaled = d_x || !d_gate.empty() || !gradients.compressed.empty();
    const View<T> d_scaled = needs_scaled ? s.d_scaled.top(x.rows()) : View<T>();
    if (d_scaled) fill(d_scaled, T(0));
    const auto d_main = d_gate.empty() ? std::span<T>() : s.d_gate.first(std::size_t(s.routing.pairs()));
    std::ranges::fill(d_main, T(0));
    experts_.backward(View<const T>(s.scaled.top(x.rows())), s.routing, d_y, d_main, d_scaled, gradients.experts,
                      call.with(s.experts));
    if (!d_scaled) return;
    call.execution.parallel_for(x.rows(), [&](Index n) {
      if (!d_main.empty()) {
        const auto from = s.routing.of_token(d_main, n);
        for (std::size_t j = 0; j < from.size(); ++j) routing.of_token(d_gate, n)[j] += from[j];
      }
      const Auxiliary auxiliary(*this, routing, n);
      if (d_x) add_feature_gradient(auxiliary, d_scaled.row(n), s.scaled.row(n), d_x.row(n));
      if (!auxiliary.empty()) theta_backward(auxiliary, x.row(n), d_scaled.row(n), d_gate);
    });
    if (!gradients.compressed.empty()) add_vector_gradients(routing, d_scaled, gradients.compressed, call);
  }

 private:
  /// The auxiliary experts of a token, and their shares.
  class Auxiliary {
   public:
    Auxiliary(const CompressedExperts& owner, const Routing<T>& routing, Index token)
        : owner_(owner), routing_(routing), end_(routing.first_pair(token + 1)) {
      first_ = std::min(end_, routing.first_pair(token) + owner.main_);
      for (Index p = first_; p < end_; ++p) sum_ += routing.gate(p);
    }
    bool empty() const { return first_ == end_; }
    Index first() const { return first_; }
    Index end() const { return end_; }
    T sum() const { return sum_; }
    T share(Index pair) const { return sum_ == 0 ? T(1) / T(end_ - first_) : routing_.gate(pair) / sum_; }
    /// c - 1 of the pair's expert.
    T change(Index pair, Index i) const { return owner_.compressed_(routing_.expert(pair), i) - 1; }
    void theta(std::span<T> theta) const {
      std::ranges::fill(theta, T(1));
      for (Index p = first_; p < end_; ++p) {
        const T share_of_p = share(p), *const c = owner_.compressed_.view().row_data(routing_.expert(p));
        for (std::size_t i = 0; i < theta.size(); ++i) theta[i] += share_of_p * (c[i] - 1);
      }
    }

   private:
    const CompressedExperts& owner_;
    const Routing<T>& routing_;
    Index first_, end_;
    T sum_ = 0;
  };

  void choose_main(const Routing<T>& routing, Routing<T>& of_main) const {
    of_main.start(experts());
    for (Index n = 0; n < routing.tokens(); ++n) {
      const Index end = std::min(routing.first_pair(n + 1), routing.first_pair(n) + main_);
      for (Index p = routing.first_pair(n); p < end; ++p) of_main.push(routing.expert(p), routing.gate(p));
      of_main.end_token();
    }
    of_main.finish();
  }

  /// d_x += theta o d_scaled, in `theta`, which may be overwritten.
  void add_feature_gradient(const Auxiliary& auxiliary, std::span<const T> d_scaled, std::span<T> theta,
                            std::span<T> d_x) const {
    auxiliary.theta(theta);
    for (std::size_t i = 0; i < d_x.size(); ++i) d_x[i] += theta[i] * d_scaled[i];
  }

  /// Leaves d_theta in place of d_scaled.
  void theta_backward(const Auxiliary& auxiliary, std::span<const T> x, std::span<T> d_scaled,
                      std::span<T> d_gate) const {
    for (std::size_t i = 0; i < d_scaled.size(); ++i) d_scaled[i] *= x[i];
    constexpr T least = sizeof(T) == sizeof(float) ? T(1e-18) : T(1e-150);  // as Renormalized's
    if (d_gate.empty() || std::abs(auxiliary.sum()) < least) return;
    const auto d_share = [&](Index p) {
      T d = 0;
      for (Index i = 0; i < in(); ++i) d += d_scaled[std::size_t(i)] * auxiliary.change(p, i);
      return d;
    };
    T mean = 0;
    for (Index p = auxiliary.first(); p < auxiliary.end(); ++p) mean += auxiliary.share(p) * d_share(p);
    for (Index p = auxiliary.first(); p < auxiliary.end(); ++p)
      d_gate[std::size_t(p)] += (d_share(p) - mean) / auxiliary.sum();
  }

  /// One thread has some columns of all tokens, so that sums over tokens have one order.
  void add_vector_gradients(const Routing<T>& routing, View<const T> d_theta, Matrix<T>& gradient, auto call) const {
    constexpr Index width = 64;
    call.execution.parallel_for((in() + width - 1) / width, [&](Index chunk) {
      const Index first = chunk * width, end = std::min(in(), first + width);
      for (Index n = 0; n < routing.tokens(); ++n) {
        const Auxiliary auxiliary(*this, routing, n);
        for (Index p = auxiliary.first(); p < auxiliary.end(); ++p) {
          T* const to = gradient.view().row_data(routing.expert(p));
          const T share = auxiliary.share(p);
          for (Index i = first; i < end; ++i) to[i] += share * d_theta.row_data(n)[i];
        }
      }
    });
  }

  Experts experts_;
  Matrix<T> compressed_;
  Index main_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
