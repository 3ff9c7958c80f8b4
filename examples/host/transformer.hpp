// SPDX-License-Identifier: MIT
#pragma once

// A small decoder-only transformer over bytes, whose linear layers a program may replace.

#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "host/cross_entropy.hpp"
#include "host/embedding.hpp"
#include "host/transformer_block.hpp"

namespace host {

/// Embedding, blocks, a final norm and a head of 256 logits; the loss is the mean cross-entropy of the next byte.
///
/// The same seed gives the same bits on any number of threads of `parallel`, provided Eigen's own threads are off
/// (they are unless the program is compiled for OpenMP). Memory is allocated when the number of sequences grows, not
/// per step, except for what Eigen's products take for packing.
template <class T>
class Transformer {
 public:
  explicit Transformer(const TransformerOptions& options = {}, std::uint64_t seed = 0, Parallel parallel = serial());

  [[nodiscard]] const TransformerOptions& options() const { return options_; }

  /// Room for batches of up to so many sequences. loss() calls it when it must.
  void reserve(Index sequences);

  /// The layer at a place of a block; assign another to replace it. It must keep in() and out().
  std::unique_ptr<Linear<T>>& linear(Index block, Place place) {
    return blocks_.at(static_cast<std::size_t>(block)).linear(place);
  }

  /// Mean loss in nats of predicting targets[n] from the bytes of its sequence up to inputs[n].
  ///
  ///   inputs, targets [S * context], S sequences one after the other
  ///
  /// Throws std::invalid_argument when the lengths differ or are not a positive multiple of the context.
  double loss(std::span<const std::uint8_t> inputs, std::span<const std::uint8_t> targets);

  /// The loss of every position of the last loss(), in nats, [S * context].
  [[nodiscard]] std::span<const double> token_losses() const { return cross_entropy_.losses(); }

  /// Adds the gradient of the last loss() into every parameter that is not frozen. Once per loss(): it uses up the
  /// activations. The pass ends at the lowest block that still has something trainable in or below it.
  void backward();

  void zero_gradients();

  /// Freezes every parameter of the host: no gradient is computed or stored for it any more.
  void freeze();

  /// Calls f(std::string_view name, T* value, T* gradient, Index size) for every parameter that is not frozen, always
  /// in the same order: "embedding.0", ..., "blocks.0.attention_norm.gain", ..., "blocks.0.qkv.weight", ...,
  /// "head.weight".
  template <class F>
  void for_each_tensor(F&& f);

  /// The same for every parameter of the host, to save and load; gradient is null where frozen. A layer that replaced
  /// one of the host's shows here what its visit() shows.
  template <class F>
  void walk_all(F&& f);

 private:
  void visit(const Visitor<T>& f);
  void forward();
  [[nodiscard]] bool trainable_below(std::size_t block) const;
  [[nodiscard]] Index tokens() const { return static_cast<Index>(inputs_.size()); }

  TransformerOptions options_;
  Parallel parallel_;
  Random random_;
  Embedding<T> embedding_;
  std::vector<TransformerBlock<T>> blocks_;
  RmsNorm<T> norm_;
  DenseLinear<T> head_;
  CrossEntropy<T> cross_entropy_;

  Index reserved_ = 0;                // tokens
  std::vector<std::uint8_t> inputs_;  // of the last loss()
  std::vector<std::uint8_t> targets_;
  std::vector<Matrix<T>> stream_;  // [layers + 1] of [N x W]: the residual path before each block and after the last
  Matrix<T> normed_;               // [N x W]
  Matrix<T> logits_;               // [N x 256]; probabilities after loss(), gradient after backward()
  Matrix<T> d_stream_;             // [N x W]
  BlockScratch<T> scratch_;
};

template <class T>
Transformer<T>::Transformer(const TransformerOptions& options, std::uint64_t seed, Parallel parallel)
    : options_((options.check(), options)),
      parallel_(std::move(parallel)),
      random_(seed),
      embedding_(options.width, options.context, random_, parallel_),
      norm_(options.width, parallel_),
      head_(options.width, 256, parallel_),
      cross_entropy_(parallel_),
      stream_(static_cast<std::size_t>(options.layers) + 1) {
  blocks_.reserve(static_cast<std::size_t>(options.layers));
  for (Index i = 0; i < options.layers; ++i) blocks_.emplace_back(options_, random_, parallel_);
  head_.weight().draw(random_, 0.02);
}

template <class T>
void Transformer<T>::reserve(Index sequences) {
  const Index tokens = sequences * options_.context;
  if (tokens <= reserved_) return;
  for (TransformerBlock<T>& block : blocks_) block.reserve(tokens);
  for (Matrix<T>& m : stream_) m.resize(tokens, options_.width);
  norm_.reserve(tokens);
  cross_entropy_.reserve(tokens);
  normed_.resize(tokens, options_.width);
  logits_.resize(tokens, 256);
  d_stream_.resize(tokens, options_.width);
  scratch_.reserve(tokens, options_);
  inputs_.reserve(static_cast<std::size_t>(tokens));
  targets_.reserve(static_cast<std::size_t>(tokens));
  reserved_ = tokens;
}

template <class T>
double Transformer<T>::loss(std::span<const std::uint8_t> inputs, std::span<const std::uint8_t> targets) {
  const auto context = static_cast<std::size_t>(options_.context);
  if (inputs.empty() || inputs.size() != targets.size() || inputs.size() % context != 0) {
    throw std::invalid_argument(
        "transformer: inputs and targets must be equally many, in whole sequences of the context");
  }
  reserve(static_cast<Index>(inputs.size() / context));
  inputs_.assign(inputs.begin(), inputs.end());
  targets_.assign(targets.begin(), targets.end());
  forward();
  return cross_entropy_.forward(rows(logits_, 0, tokens()), targets_);
}

template <class T>
void Transformer<T>::forward() {
  const auto first = [this](Matrix<T>& m) { return rows(m, 0, tokens()); };
  const auto seen = [this](const Matrix<T>& m) { return rows(m, 0, tokens()); };
  embedding_.forward(inputs_, first(stream_.front()));
  for (std::size_t i = 0; i < blocks_.size(); ++i) blocks_[i].forward(seen(stream_[i]), first(stream_[i + 1]));
  norm_.forward(seen(stream_.back()), first(normed_));
  head_.forward(seen(normed_), first(logits_));
}

template <class T>
void Transformer<T>::backward() {
  const auto first = [this](Matrix<T>& m) { return rows(m, 0, tokens()); };
  const auto seen = [this](const Matrix<T>& m) { return rows(m, 0, tokens()); };
  auto d_stream = first(d_stream_);
  auto d_normed = first(scratch_.d_width);

  cross_entropy_.backward(first(logits_), targets_);
  d_normed.setZero();
  head_.backward(seen(normed_), seen(logits_), d_normed);
  d_stream.setZero();
  norm_.backward(seen(stream_.back()), read_only(d_normed), d_stream);
  for (std::size_t i = blocks_.size(); i-- > 0;) {
    const bool below = trainable_below(i);
    if (!below && !blocks_[i].trainable()) return;
    blocks_[i].backward(seen(stream_[i]), d_stream, below, scratch_);
  }
  embedding_.backward(inputs_, read_only(d_stream));  // does nothing when frozen
}

template <class T>
bool Transformer<T>::trainable_below(std::size_t block) const {
  for (std::size_t i = 0; i < block; ++i) {
    if (blocks_[i].trainable()) return true;
  }
  return embedding_.trainable();
}

template <class T>
void Transformer<T>::zero_gradients() {
  visit([](const std::string&, Parameter<T>& parameter) { parameter.gradient.setZero(); });
}

template <class T>
void Transformer<T>::freeze() {
  visit([](const std::string&, Parameter<T>& parameter) { parameter.freeze(); });
}

template <class T>
template <class F>
void Transformer<T>::for_each_tensor(F&& f) {
  visit([&](const std::string& name, Parameter<T>& parameter) {
    if (parameter.frozen()) return;
    f(std::string_view(name), parameter.value.data(), parameter.gradient.data(), parameter.value.size());
  });
}

template <class T>
template <class F>
void Transformer<T>::walk_all(F&& f) {
  visit([&](const std::string& name, Parameter<T>& parameter) {
    T* gradient = parameter.frozen() ? nullptr : parameter.gradient.data();
    f(std::string_view(name), parameter.value.data(), gradient, parameter.value.size());
  });
}

template <class T>
void Transformer<T>::visit(const Visitor<T>& f) {
  embedding_.visit("embedding", f);
  for (std::size_t i = 0; i < blocks_.size(); ++i) blocks_[i].visit("blocks." + std::to_string(i), f);
  norm_.visit("norm", f);
  head_.visit("head", f);
}

}  // namespace host
