// SPDX-License-Identifier: MIT
// BertBlock: attention, then a feed-forward block, each beside a residual path and before a norm.
#pragma once

#include "encoder/bert_linear.hpp"
#include "encoder/bert_weights.hpp"
#include "encoder/gelu.hpp"
#include "encoder/layer_norm.hpp"
#include "encoder/self_attention.hpp"
#include "encoder/site.hpp"

#include <array>
#include <string>

namespace encoder {

/// middle = norm(x + output(attention(query(x), key(x), value(x)))),   y = norm(middle + down(gelu(up(middle))))
///
///   x, y [N x W]
template <class T>
class BertBlock {
 public:
  /// What backward needs of forward, besides x.
  struct Saved {
    mole::Matrix<T> q, k, v, attended, first_sum, middle, second_sum;  // [N x W]
    mole::Matrix<T> up, active;                                        // [N x H]
    typename SelfAttention<T>::Shares shares;

    void reserve(mole::Index rows, const BertConfig& config) {
      for (mole::Matrix<T>* m : {&q, &k, &v, &attended, &first_sum, &middle, &second_sum})
        *m = mole::Matrix<T>(rows, config.width);
      for (mole::Matrix<T>* m : {&up, &active}) *m = mole::Matrix<T>(rows, config.hidden);
    }
  };
  /// Gradients within a block. All blocks share one.
  struct Scratch {
    mole::Matrix<T> d_middle, d_attended, d_q, d_k, d_v;  // [N x W]
    mole::Matrix<T> d_active;                             // [N x H]

    void reserve(mole::Index rows, const BertConfig& config) {
      for (mole::Matrix<T>* m : {&d_middle, &d_attended, &d_q, &d_k, &d_v}) *m = mole::Matrix<T>(rows, config.width);
      d_active = mole::Matrix<T>(rows, config.hidden);
    }
  };

  /// `name` as in "encoder.layer.0"
  BertBlock(BertWeights<T>& weights, const std::string& name, const BertConfig& config)
      : attention_(config.heads),
        first_norm_(weights.norm(name + ".attention.output.LayerNorm", config)),
        second_norm_(weights.norm(name + ".output.LayerNorm", config)) {
    for (Site site : sites) {
      const std::string layer = name + "." + std::string(name_of(site));
      const mole::Index in = site == Site::down ? config.hidden : config.width;
      const mole::Index out = site == Site::up ? config.hidden : config.width;
      linear(site) = {.weight = weights.get(layer + ".weight", out, in), .bias = weights.get(layer + ".bias", 1, out)};
    }
  }

  BertLinear<T>& linear(Site site) { return linears_[std::size_t(site)]; }
  const BertLinear<T>& linear(Site site) const { return linears_[std::size_t(site)]; }

  void forward(const TokenBatch& batch, mole::View<const T> x, mole::View<T> y, Saved& saved,
               const Execution& execution) const {
    const mole::Index rows = x.rows();
    const auto apply = [&](Site site, mole::View<const T> from, mole::Matrix<T>& to) {
      linear(site).forward(from, to.view().top(rows), execution);
      return mole::View<const T>(to.view().top(rows));
    };
    const auto q = apply(Site::query, x, saved.q), k = apply(Site::key, x, saved.k), v = apply(Site::value, x, saved.v);
    const mole::View<T> attended = saved.attended.view().top(rows), middle = saved.middle.view().top(rows);
    attention_.forward(batch, q, k, v, attended, saved.shares, execution);
    apply(Site::output, attended, saved.first_sum);
    add(x, saved.first_sum.view().top(rows), execution);
    first_norm_.forward(saved.first_sum.view().top(rows), middle, execution);

    const auto up = apply(Site::up, middle, saved.up);
    gelu<T>(up, saved.active.view().top(rows), execution);
    apply(Site::down, saved.active.view().top(rows), saved.second_sum);
    add(middle, saved.second_sum.view().top(rows), execution);
    second_norm_.forward(saved.second_sum.view().top(rows), y, execution);
  }

  /// d <- (dy/dx)^T d, in place, and the gradients of what is adapted.   d [N x W]; x and `saved` are of the last
  /// forward. Without `d_x_wanted` d is of no use afterwards.
  void backward(const TokenBatch& batch, mole::View<const T> x, mole::View<T> d, bool d_x_wanted, const Saved& saved,
                Scratch& scratch, const Execution& execution) const {
    const mole::Index rows = x.rows();
    const auto top = [rows](auto& matrix) { return matrix.view().top(rows); };
    const mole::View<T> d_active = top(scratch.d_active), d_middle = top(scratch.d_middle);
    const mole::View<T> d_attended = top(scratch.d_attended);

    second_norm_.backward(top(saved.second_sum), d, execution);
    mole::fill(d_active, T(0));
    linear(Site::down).backward(top(saved.active), d, d_active, execution);
    gelu_backward<T>(top(saved.up), d_active, execution);
    mole::fill(d_middle, T(0));
    linear(Site::up).backward(top(saved.middle), d_active, d_middle, execution);
    add(d, d_middle, execution);  // the residual path

    first_norm_.backward(top(saved.first_sum), d_middle, execution);
    mole::fill(d_attended, T(0));
    linear(Site::output).backward(top(saved.attended), d_middle, d_attended, execution);
    attention_.backward(batch, top(saved.q), top(saved.k), top(saved.v), d_attended, top(scratch.d_q), top(scratch.d_k),
                        top(scratch.d_v), saved.shares, execution);
    if (d_x_wanted) copy(d_middle, d);  // the residual path
    const mole::View<T> d_x = d_x_wanted ? d : mole::View<T>();
    linear(Site::query).backward(x, top(scratch.d_q), d_x, execution);
    linear(Site::key).backward(x, top(scratch.d_k), d_x, execution);
    linear(Site::value).backward(x, top(scratch.d_v), d_x, execution);
  }

  bool adapted() const {
    for (const BertLinear<T>& linear : linears_)
      if (linear.backward_instead) return true;
    return false;
  }

 private:
  /// sum += x
  static void add(mole::View<const T> x, mole::View<T> sum, const Execution& execution) {
    for_each_row(execution, x.rows(), [&](mole::Index n) {
      for (mole::Index c = 0; c < x.cols(); ++c) sum(n, c) += x(n, c);
    });
  }
  static void copy(mole::View<const T> from, mole::View<T> to) {
    for (mole::Index n = 0; n < from.rows(); ++n) std::copy_n(from.row_data(n), from.cols(), to.row_data(n));
  }

  SelfAttention<T> attention_;
  LayerNorm<T> first_norm_, second_norm_;
  std::array<BertLinear<T>, sites.size()> linears_;
};

}  // namespace encoder
