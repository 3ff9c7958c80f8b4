// SPDX-License-Identifier: MIT
// BlockRotation: OFT's update, a rotation of the input that leaves angles between the weight's rows as they are.
#pragma once

#include "mole/core/dropout.hpp"
#include "mole/core/lasting_view.hpp"
#include "mole/core/matrix.hpp"
#include "mole/core/rank/scaling.hpp"
#include "mole/core/row.hpp"
#include "mole/maps/map_policy.hpp"

#include <algorithm>
#include <cmath>
#include <optional>
#include <random>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// How a skew-symmetric Q becomes a rotation.
enum class RotationForm {
  neumann,  ///< the first terms of a series, as released: nearly a rotation
  cayley,   ///< (1 - Q) (1 + Q)^-1, exactly a rotation
};

/// Of each expert, with R of blocks [b x b] on its diagonal:   delta = W R^T - W
///
///   oft_R [E I/b x b (b-1)/2], or [E x b (b-1)/2] if all blocks share one: the upper triangle of each Q, row by row
///
/// With the base's W x + b the layer gives W (R^T x) + b. W is the base's weight, in memory of the host, which must
/// outlive the layer, and is not trained; a coded base needs its decoded weight as floats, too. The series of t terms
/// is 1 + 2 Q + ... + 2 Q^(t-2) + Q^(t-1), whose last term has weight 1 as published; that of 3 terms is that of 4, and
/// 2 terms are 1 + 2 Q. It belongs to (1 + Q) (1 - Q)^-1, the inverse of the other form: a Q of one is -Q of the other.
///
/// A rotation costs I b products a token, and W x is computed again for what it changes. The blocks are made once a
/// forward, O(t I b^2). Scratch is twice [tokens x I], and (t + 4) I b numbers an expert, at least 8 I b for t > 2, 7 I
/// b in Cayley's form, and with b for I where blocks share one; no call allocates. At I = O = 4,096 and b = 32: 63,488
/// trained numbers, 496 with shared blocks.
///
/// Starts at Q = 0, so that the output of a fresh layer equals its base's. Throws Error(option) for sizes below 1,
/// fewer than 2 terms, or an I that is not a multiple of b; Error(shape) unless the weight is [O x I]. Source: Qiu et
/// al. 2023 (OFT), arXiv:2306.07280; Qiu et al. 2025 (the series), arXiv:2506.19847; huggingface/peft,
/// tuners/oft/layer.py.
template <class T>
class BlockRotation {
 public:
  using Scalar = T;
  static constexpr bool borrows = true;  // the weight

  struct Options {
    Index in = 0;
    Index out = 0;
    Index experts = 1;
    Index block = 32;                  ///< b
    bool shared_block = false;         ///< one Q for all blocks
    LastingView<const T> weight = {};  ///< W [O x I]
    RotationForm form = RotationForm::neumann;
    Index terms = 5;                   ///< of the series
    std::optional<double> alpha = {};  ///< of no effect: a rotation has no scale
    Scaling scaling = Scaling::fixed;
    Dropout dropout = {};  ///< on the input that is rotated
  };

  struct Parameters {
    Matrix<T> oft_R;

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      f("oft_R", p.oft_R...);
    }
  };

  struct Scratch {
    View<T> blocks, d_blocks;  // R - 1, and its gradient, one below the other [E n b x b]
    View<T> steps;             // what a block is made of: some [b x b] for each
    View<T> turned, d_turned;  // x R - x and its gradient [tokens x I]
  };

  template <std::uniform_random_bit_generator Generator>
  BlockRotation(const Options& options, Generator&) : options_(options) {
    require(options.in >= 1 && options.out >= 1 && options.experts >= 1 && options.block >= 1, ErrorCode::option,
            "BlockRotation: expected in, out, experts and block of at least 1, found in = ", options.in,
            ", out = ", options.out, ", experts = ", options.experts, ", block = ", options.block);
    require(options.terms >= 2, ErrorCode::option, "BlockRotation: expected at least 2 terms, found ", options.terms);
    require(options.in % options.block == 0, ErrorCode::option,
            "BlockRotation: expected inputs that are a multiple of ", options.block, ", found ", options.in);
    parameters_.oft_R = Matrix<T>(rows(), numbers_of_block());
    check_sizes();
  }

  void check_sizes() const {
    require(parameters_.oft_R.rows() == rows() && parameters_.oft_R.cols() == numbers_of_block(), ErrorCode::shape,
            "BlockRotation: expected an oft_R of [", rows(), " x ", numbers_of_block(), "], found [",
            parameters_.oft_R.rows(), " x ", parameters_.oft_R.cols(), "]");
    require(weight().rows() == out() && weight().cols() == in(), ErrorCode::shape,
            "BlockRotation: expected a weight of [", out(), " x ", in(), "], found [", weight().rows(), " x ",
            weight().cols(), "]");
  }

  Index experts() const { return options_.experts; }
  Index in() const { return options_.in; }
  Index out() const { return options_.out; }
  double scale(double, Scaling, Index) const { return 1; }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }

  /// No rotation, as the constructor does; draws nothing.
  template <std::uniform_random_bit_generator Generator>
  void reset(Generator&) {
    parameters_.oft_R.set_zero();
  }

  Scratch scratch(const CallSize& size, Arena& arena) const {
    const Index all = checked_product("BlockRotation: rows", rows(), block());
    return {arena.matrix<T>(all, block()), arena.matrix<T>(all, block()),
            arena.matrix<T>(checked_product("BlockRotation: rows", all, steps_of_block()), block()),
            arena.matrix<T>(size.tokens, in()), arena.matrix<T>(size.tokens, in())};
  }

  void prepare(auto call) const {
    call.execution.parallel_for(rows(), [&, &s = call.scratch](Index row) {
      const Steps steps{s.steps, row * steps_of_block(), block()};
      const View<T> q = steps[0];
      const T* numbers = parameters_.oft_R.view().row_data(row);
      for (Index i = 0; i < block(); ++i) {
        q(i, i) = 0;
        for (Index j = i + 1; j < block(); ++j, ++numbers) q(i, j) = *numbers, q(j, i) = -*numbers;
      }
      if (options_.form == RotationForm::neumann)
        expand(steps);
      else
        invert(steps);
      copy(View<const T>(steps[1]), s.blocks.middle_rows(row * block(), block()));
    });
  }

  /// y = W (x R - x)
  void map(Index expert, View<const T> x, View<T> y, auto call) const {
    call.execution.product_nt(turned(expert, x, call), weight(), y);
  }

  void begin_backward(Parameters&, auto call) const { fill(call.scratch.d_blocks, T(0)); }

  /// With d = d_y W:   d_R += x^T d,   d_x += d (R - 1)^T
  void map_backward(Index expert, View<const T> x, View<const T> d_y, View<T> d_x, Parameters& gradients,
                    auto call) const {
    const Scratch& s = call.scratch;
    const View<T> d = s.d_turned.top(x.rows());
    fill(d, T(0));
    call.execution.product_nn(d_y, weight(), d);
    if (!gradients.oft_R.empty())  // rows of R, of which blocks that share one have several inputs
      call.execution.parallel_for(blocks_of_expert() * block(), [&](Index row) {
        for (Index i = row; i < in(); i += blocks_of_expert() * block())
          add_gradient_of_input(expert, i, x, View<const T>(d), s);
      });
    if (!d_x) return;
    call.execution.parallel_for(x.rows(), [&](Index t) {
      for (Index i = 0; i < in(); ++i)
        d_x(t, i) += detail::dot(d.row_data(t) + i / block() * block(), block_row(expert, i, s), block());
    });
  }

  void contract(Parameters& gradients, auto call) const {
    if (gradients.oft_R.empty()) return;
    call.execution.parallel_for(rows(), [&, &s = call.scratch](Index row) {
      const Steps steps{s.steps, row * steps_of_block(), block()};
      const View<T> d = s.d_blocks.middle_rows(row * block(), block());
      if (detail::is_zero(d.row_data(0), block() * block())) return;
      const View<const T> d_q =
          options_.form == RotationForm::neumann ? expand_backward(steps, d) : invert_backward(steps, d);
      T* to = gradients.oft_R.view().row_data(row);
      for (Index i = 0; i < block(); ++i)
        for (Index j = i + 1; j < block(); ++j) *to++ += T(d_q(i, j) - d_q(j, i));
    });
  }

  void add_delta(Index expert, T factor, View<T> w, auto call) const {
    require(experts() == 1 || !overlap(weight(), View<const T>(w)), ErrorCode::not_mergeable,
            "BlockRotation: expected a copy of the weight to merge several experts into, found the weight itself");
    std::vector<T> row(static_cast<std::size_t>(in()));
    for (Index o = 0; o < out(); ++o) {
      std::copy_n(weight().row_data(o), in(), row.begin());
      for (Index i = 0; i < in(); ++i)
        w(o, i) +=
            factor * detail::dot(row.data() + i / block() * block(), block_row(expert, i, call.scratch), block());
    }
  }

 private:
  View<const T> weight() const { return options_.weight; }
  /// The matrices [b x b] of a block. 0: Q. 1: R - 1. The series has H_1 ... H_last from 2 on, then one to work with;
  /// Cayley's form S = (1 + Q)^-1, then two to work with.
  struct Steps {
    View<T> all;
    Index first, block;
    View<T> operator[](Index number) const { return all.middle_rows((first + number) * block, block); }
  };
  /// Powers of the series; 2 terms are 1 + 2 Q, 3 are 4.
  Index powers() const { return options_.terms == 2 ? 1 : std::max<Index>(options_.terms, 4) - 1; }
  Index steps_of_block() const { return options_.form == RotationForm::neumann ? powers() + 3 : 5; }
  T coefficient(Index power) const { return T(power == powers() && powers() > 1 ? 1 : 2); }

  /// to += factor * a b, one of the two turned or none.   [b x b]
  enum class Turned { no, yes };
  static void add_product(View<const T> a, Turned a_turned, View<const T> b, Turned b_turned, T factor, View<T> to) {
    const Index size = to.rows();
    for (Index i = 0; i < size; ++i)
      for (Index k = 0; k < size; ++k)
        if (b_turned == Turned::yes)
          to(i, k) += factor * detail::dot(a.row_data(i), b.row_data(k), size);
        else
          detail::add_scaled(factor * (a_turned == Turned::yes ? a(k, i) : a(i, k)), b.row_data(k), to.row_data(i),
                             size);
  }

  /// R - 1 = H_0, by Horner's rule:   H_p = Q (c_p+1 + H_p+1),   H_last = 0
  void expand(const Steps& steps) const {
    fill(steps[powers() + 1], T(0));
    for (Index p = powers(); p-- > 0;) {
      const View<T> inner = steps[p + 2], outer = steps[p + 1];
      for (Index i = 0; i < block(); ++i) inner(i, i) += coefficient(p + 1);
      fill(outer, T(0));
      add_product(steps[0], Turned::no, inner, Turned::no, 1, outer);
    }
  }
  /// With H_p+1 as expand() left it, c_p+1 included:   d_Q += d_H_p H_p+1^T,   d_H_p+1 = Q^T d_H_p. Overwrites d.
  View<const T> expand_backward(const Steps& steps, View<T> d) const {
    const View<T> d_q = steps[powers() + 2];
    fill(d_q, T(0));
    for (Index p = 0; p < powers(); ++p) {
      add_product(d, Turned::no, steps[p + 2], Turned::yes, 1, d_q);
      const View<T> next = steps[p + 1];  // which nobody needs any more
      fill(next, T(0));
      add_product(steps[0], Turned::yes, d, Turned::no, 1, next);
      copy(View<const T>(next), d);
    }
    return d_q;
  }

  /// S = (1 + Q)^-1 by elimination, which is safe: 1 + Q has no singular value below 1.   R - 1 = -2 Q S
  void invert(const Steps& steps) const {
    const View<T> left = steps[3], inverse = steps[2];
    copy(View<const T>(steps[0]), left);
    fill(inverse, T(0));
    for (Index i = 0; i < block(); ++i) left(i, i) += 1, inverse(i, i) = 1;
    for (Index pivot = 0; pivot < block(); ++pivot) {
      Index best = pivot;
      for (Index i = pivot; i < block(); ++i)
        if (std::abs(left(i, pivot)) > std::abs(left(best, pivot))) best = i;
      if (best != pivot)
        for (const View<T> side : {left, inverse}) std::ranges::swap_ranges(side.row(pivot), side.row(best));
      const T divisor = left(pivot, pivot);
      for (const View<T> side : {left, inverse})
        for (T& element : side.row(pivot)) element /= divisor;
      for (Index i = 0; i < block(); ++i) {
        const T factor = left(i, pivot);
        for (const View<T> side : {left, inverse})
          if (i != pivot) detail::add_scaled(-factor, View<const T>(side).row_data(pivot), side.row_data(i), block());
      }
    }
    fill(steps[1], T(0));
    add_product(steps[0], Turned::no, inverse, Turned::no, -2, steps[1]);
  }
  /// d_R = -(1 + R) d_Q S, so that   d_Q = -(1 + R)^T d S^T
  View<const T> invert_backward(const Steps& steps, View<const T> d) const {
    const View<T> one_and_r = steps[1], half = steps[3], d_q = steps[4];
    for (Index i = 0; i < block(); ++i) one_and_r(i, i) += 2;
    fill(half, T(0));
    add_product(d, Turned::no, steps[2], Turned::yes, 1, half);
    fill(d_q, T(0));
    add_product(one_and_r, Turned::yes, half, Turned::no, -1, d_q);
    return d_q;
  }

  Index block() const { return options_.block; }
  Index numbers_of_block() const { return block() * (block() - 1) / 2; }
  Index blocks_of_expert() const { return options_.shared_block ? 1 : in() / block(); }
  Index rows() const { return checked_product("BlockRotation: blocks", experts(), blocks_of_expert()); }
  Index row_of_block(Index expert, Index i) const {
    return expert * blocks_of_expert() + (options_.shared_block ? 0 : i / block());
  }
  /// Row of R - 1 that input i is multiplied by, within its block.
  const T* block_row(Index expert, Index i, const Scratch& s) const {
    return s.blocks.row_data(row_of_block(expert, i) * block() + i % block());
  }

  View<const T> turned(Index expert, View<const T> x, auto call) const {
    const Scratch& s = call.scratch;
    const View<T> result = s.turned.top(x.rows());
    call.execution.parallel_for(x.rows(), [&](Index t) {
      std::ranges::fill(result.row(t), T(0));
      for (Index i = 0; i < in(); ++i)
        detail::add_scaled(x(t, i), block_row(expert, i, s), result.row_data(t) + i / block() * block(), block());
    });
    return result;
  }

  void add_gradient_of_input(Index expert, Index i, View<const T> x, View<const T> d, const Scratch& s) const {
    T* const to = s.d_blocks.row_data(row_of_block(expert, i) * block() + i % block());
    for (Index t = 0; t < x.rows(); ++t)
      detail::add_scaled(x(t, i), d.row_data(t) + i / block() * block(), to, block());
  }

  Options options_;
  Parameters parameters_;
};

static_assert(TrainableMapPolicy<BlockRotation<float>> && LinearMapPolicy<BlockRotation<float>>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
