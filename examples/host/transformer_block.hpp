// SPDX-License-Identifier: MIT
#pragma once

// One block of the transformer: attention, then an MLP, each behind a norm and beside a residual path.

#include <array>
#include <cmath>
#include <memory>
#include <string>

#include "host/attention.hpp"
#include "host/dense_linear.hpp"
#include "host/gelu.hpp"
#include "host/place.hpp"
#include "host/rms_norm.hpp"
#include "host/transformer_options.hpp"

namespace host {

/// Gradients of the activations within a block. All blocks share one.
template <class T>
struct BlockScratch {
  Matrix<T> d_width;   // [N x W]
  Matrix<T> d_hidden;  // [N x H]
  Matrix<T> d_qkv;     // [N x 3W]

  void reserve(Index tokens, const TransformerOptions& options) {
    d_width.resize(tokens, options.width);
    d_hidden.resize(tokens, options.hidden);
    d_qkv.resize(tokens, 3 * options.width);
  }
};

/// middle = x + o(attention(qkv(norm(x)))),  y = middle + down(gelu(up(norm(middle)))).  x, y [N x W]
template <class T>
class TransformerBlock {
 public:
  TransformerBlock(const TransformerOptions& options, Random& random, const Parallel& parallel);

  /// Room for so many tokens, a multiple of the context. Forward and backward then allocate nothing themselves.
  void reserve(Index tokens);

  std::unique_ptr<Linear<T>>& linear(Place place) { return linears_[static_cast<std::size_t>(place)]; }
  [[nodiscard]] bool trainable() const;
  void visit(const std::string& prefix, const Visitor<T>& f);

  void forward(ConstView<T> x, View<T> y);

  /// d <- (dy/dx)^T d, in place, and all parameter gradients. d [N x W], x is what the last forward got.
  /// Without `d_x_wanted` the pass ends in the parameters of qkv, and what it leaves in d means nothing.
  void backward(ConstView<T> x, View<T> d, bool d_x_wanted, BlockScratch<T>& scratch);

 private:
  void backward_mlp(View<T> d, BlockScratch<T>& scratch);
  void backward_attention(ConstView<T> x, View<T> d, bool d_x_wanted, BlockScratch<T>& scratch);
  void add(ConstView<T> residual, View<T> y) const;

  RmsNorm<T> attention_norm_;
  Attention<T> attention_;
  RmsNorm<T> mlp_norm_;
  Gelu<T> gelu_;
  std::array<std::unique_ptr<Linear<T>>, places.size()> linears_;
  Parallel parallel_;

  // What backward needs of forward; the names say whose input each is.
  Matrix<T> to_qkv_;        // [N x W]
  Matrix<T> to_attention_;  // [N x 3W]
  Matrix<T> to_o_;          // [N x W]
  Matrix<T> middle_;        // [N x W]
  Matrix<T> to_up_;         // [N x W]
  Matrix<T> to_gelu_;       // [N x H]
  Matrix<T> to_down_;       // [N x H]
};

template <class T>
TransformerBlock<T>::TransformerBlock(const TransformerOptions& options, Random& random, const Parallel& parallel)
    : attention_norm_(options.width, parallel),
      attention_(options.width, options.heads, options.context, parallel),
      mlp_norm_(options.width, parallel),
      gelu_(parallel),
      parallel_(parallel) {
  const auto dense = [&](Index in, Index out, double deviation) {
    auto layer = std::make_unique<DenseLinear<T>>(in, out, parallel);
    layer->weight().draw(random, deviation);
    return layer;
  };
  // Two branches per block add to the residual path; the scale keeps its variance independent of the depth (GPT-2).
  const double branch = 0.02 / std::sqrt(2.0 * static_cast<double>(options.layers));
  linear(Place::qkv) = dense(options.width, 3 * options.width, 0.02);
  linear(Place::o) = dense(options.width, options.width, branch);
  linear(Place::up) = dense(options.width, options.hidden, 0.02);
  linear(Place::down) = dense(options.hidden, options.width, branch);
}

template <class T>
void TransformerBlock<T>::reserve(Index tokens) {
  const Index width = linear(Place::qkv)->in();
  const Index hidden = linear(Place::up)->out();
  attention_norm_.reserve(tokens);
  attention_.reserve(tokens);
  mlp_norm_.reserve(tokens);
  gelu_.reserve(tokens, hidden);
  for (Matrix<T>* m : {&to_qkv_, &to_o_, &middle_, &to_up_}) m->resize(tokens, width);
  to_attention_.resize(tokens, 3 * width);
  for (Matrix<T>* m : {&to_gelu_, &to_down_}) m->resize(tokens, hidden);
}

template <class T>
bool TransformerBlock<T>::trainable() const {
  for (const auto& layer : linears_) {
    if (layer->trainable()) return true;
  }
  return attention_norm_.trainable() || mlp_norm_.trainable();
}

template <class T>
void TransformerBlock<T>::visit(const std::string& prefix, const Visitor<T>& f) {
  attention_norm_.visit(prefix + ".attention_norm", f);
  mlp_norm_.visit(prefix + ".mlp_norm", f);
  for (const Place place : places) linear(place)->visit(prefix + "." + std::string(name(place)), f);
}

template <class T>
void TransformerBlock<T>::forward(ConstView<T> x, View<T> y) {
  const Index tokens = x.rows();
  const auto first = [tokens](Matrix<T>& m) { return rows(m, 0, tokens); };
  const auto seen = [tokens](const Matrix<T>& m) { return rows(m, 0, tokens); };

  attention_norm_.forward(x, first(to_qkv_));
  linear(Place::qkv)->forward(seen(to_qkv_), first(to_attention_));
  attention_.forward(first(to_attention_), first(to_o_));
  linear(Place::o)->forward(seen(to_o_), first(middle_));
  add(x, first(middle_));

  mlp_norm_.forward(seen(middle_), first(to_up_));
  linear(Place::up)->forward(seen(to_up_), first(to_gelu_));
  gelu_.forward(seen(to_gelu_), first(to_down_));
  linear(Place::down)->forward(seen(to_down_), y);
  add(seen(middle_), y);
}

template <class T>
void TransformerBlock<T>::backward(ConstView<T> x, View<T> d, bool d_x_wanted, BlockScratch<T>& scratch) {
  backward_mlp(d, scratch);
  backward_attention(x, d, d_x_wanted, scratch);
}

template <class T>
void TransformerBlock<T>::backward_mlp(View<T> d, BlockScratch<T>& scratch) {
  const Index tokens = d.rows();
  const auto seen = [tokens](const Matrix<T>& m) { return rows(m, 0, tokens); };
  auto d_hidden = rows(scratch.d_hidden, 0, tokens);
  auto d_normed = rows(scratch.d_width, 0, tokens);

  d_hidden.setZero();
  linear(Place::down)->backward(seen(to_down_), read_only(d), d_hidden);
  gelu_.backward(seen(to_gelu_), d_hidden);
  d_normed.setZero();
  linear(Place::up)->backward(seen(to_up_), read_only(d_hidden), d_normed);
  mlp_norm_.backward(seen(middle_), read_only(d_normed), d);  // the residual path is d itself
}

template <class T>
void TransformerBlock<T>::backward_attention(ConstView<T> x, View<T> d, bool d_x_wanted, BlockScratch<T>& scratch) {
  const Index tokens = d.rows();
  const auto seen = [tokens](const Matrix<T>& m) { return rows(m, 0, tokens); };
  auto d_width = rows(scratch.d_width, 0, tokens);  // first for the output of the attention, then for the norm's
  auto d_qkv = rows(scratch.d_qkv, 0, tokens);

  d_width.setZero();
  linear(Place::o)->backward(seen(to_o_), read_only(d), d_width);
  attention_.backward(seen(to_attention_), seen(to_o_), read_only(d_width), d_qkv);
  if (!d_x_wanted && !attention_norm_.trainable()) {
    linear(Place::qkv)->backward(seen(to_qkv_), read_only(d_qkv), no_view<T>());
    return;
  }
  d_width.setZero();
  linear(Place::qkv)->backward(seen(to_qkv_), read_only(d_qkv), d_width);
  attention_norm_.backward(x, read_only(d_width), d);
}

template <class T>
void TransformerBlock<T>::add(ConstView<T> residual, View<T> y) const {
  for_pieces(parallel_, y.rows(), row_piece,
             [&](Index begin, Index count) { rows(y, begin, count) += rows(residual, begin, count); });
}

}  // namespace host
