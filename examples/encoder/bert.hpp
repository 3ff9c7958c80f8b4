// SPDX-License-Identifier: MIT
// Bert: an encoder of sentences, forward and backward, whose linear layers may be adapted.
#pragma once

#include "encoder/bert_block.hpp"
#include "encoder/bert_config.hpp"
#include "encoder/bert_weights.hpp"
#include "encoder/execution.hpp"
#include "encoder/token_batch.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace encoder {

/// The mean of a sequence's tokens after the last block, divided by its length as a vector.
///
/// Everything is frozen: backward() reaches what stands in the place of linear layers alone. The same seeds give the
/// same bits on any number of threads.
template <class T>
class Bert {
 public:
  Bert(BertWeights<T> weights, const BertConfig& config, Execution execution)
      : weights_(std::move(weights)), config_(config), execution_(std::move(execution)) {
    const mole::Index vocabulary = weights_.rows_of("embeddings.word_embeddings.weight");
    words_ = weights_.get("embeddings.word_embeddings.weight", vocabulary, config.width);
    positions_ = weights_.get("embeddings.position_embeddings.weight", config.positions, config.width);
    const mole::Index kinds = weights_.rows_of("embeddings.token_type_embeddings.weight");
    kind_ = weights_.get("embeddings.token_type_embeddings.weight", kinds, config.width).top(1);
    norm_ = weights_.norm("embeddings.LayerNorm", config);
    for (mole::Index i = 0; i < config.layers; ++i)
      blocks_.emplace_back(weights_, "encoder.layer." + std::to_string(i), config);
  }

  const BertConfig& config() const { return config_; }
  const Execution& execution() const { return execution_; }
  BertLinear<T>& linear(mole::Index block, Site site) { return blocks_[std::size_t(block)].linear(site); }

  /// embeddings [S x W] of the sequences of `batch`; an empty one has the embedding 0.
  /// Throws std::invalid_argument for a sequence that is too long, and for a token beyond the vocabulary.
  void forward(const TokenBatch& batch, mole::View<T> embeddings) { run(batch, embeddings, false); }

  /// As forward(), and keeps what backward() needs.
  void forward_for_backward(const TokenBatch& batch, mole::View<T> embeddings) { run(batch, embeddings, true); }

  /// d_embeddings [S x W], of the last forward_for_backward()
  void backward(const TokenBatch& batch, mole::View<const T> d_embeddings);

 private:
  void run(const TokenBatch& batch, mole::View<T> embeddings, bool keep);
  void check(const TokenBatch& batch) const;
  void embed(const TokenBatch& batch, mole::View<T> x) const;
  void reserve(mole::Index rows, std::size_t kept);
  static T length_of(std::span<const T> row) {
    return std::sqrt(std::inner_product(row.begin(), row.end(), row.begin(), T(0)));
  }
  mole::View<T> stream(std::size_t i, mole::Index rows) { return streams_[i].view().top(rows); }

  BertWeights<T> weights_;
  BertConfig config_;
  Execution execution_;
  mole::View<const T> words_, positions_, kind_;
  LayerNorm<T> norm_;
  std::vector<BertBlock<T>> blocks_;

  mole::Index rows_ = 0;                             // room for so many
  std::vector<mole::Matrix<T>> streams_;             // [N x W], before each block and after the last; else two in turn
  std::vector<typename BertBlock<T>::Saved> saved_;  // one a block, or one for all
  typename BertBlock<T>::Scratch scratch_;
  mole::Matrix<T> d_stream_, means_;  // [N x W], [S x W]
};

template <class T>
void Bert<T>::check(const TokenBatch& batch) const {
  for (mole::Index s = 0; s < batch.sequences(); ++s)
    if (batch.length(s) > config_.positions)
      throw std::invalid_argument("encoder: expected sequences of up to " + std::to_string(config_.positions) +
                                  " tokens, found " + std::to_string(batch.length(s)));
  for (int token : batch.tokens)
    if (token < 0 || token >= words_.rows())
      throw std::invalid_argument("encoder: expected tokens below " + std::to_string(words_.rows()) + ", found " +
                                  std::to_string(token));
}

template <class T>
void Bert<T>::reserve(mole::Index rows, std::size_t kept) {
  const std::size_t streams = kept + 1;
  if (rows <= rows_ && streams_.size() >= streams && saved_.size() >= kept) return;
  rows_ = std::max(rows, rows_);
  streams_.resize(std::max(streams, streams_.size()));
  for (mole::Matrix<T>& stream : streams_) stream = mole::Matrix<T>(rows_, config_.width);
  saved_.resize(std::max(kept, saved_.size()));
  for (auto& saved : saved_) saved.reserve(rows_, config_);
}

template <class T>
void Bert<T>::embed(const TokenBatch& batch, mole::View<T> x) const {
  for (mole::Index s = 0; s < batch.sequences(); ++s)
    for (mole::Index i = 0; i < batch.length(s); ++i) {
      const mole::Index n = batch.first(s) + i, token = batch.tokens[std::size_t(n)];
      for (mole::Index c = 0; c < x.cols(); ++c) x(n, c) = words_(token, c) + positions_(i, c) + kind_(0, c);
    }
  norm_.forward(x, x, execution_);
}

template <class T>
void Bert<T>::run(const TokenBatch& batch, mole::View<T> embeddings, bool keep) {
  check(batch);
  const std::size_t kept = keep ? blocks_.size() : 1;
  const mole::Index rows = batch.rows();
  reserve(rows, kept);
  std::size_t at = 0;
  embed(batch, stream(at, rows));
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    const std::size_t next = keep ? i + 1 : 1 - at;
    blocks_[i].forward(batch, stream(at, rows), stream(next, rows), saved_[keep ? i : 0], execution_);
    at = next;
  }

  means_ = mole::Matrix<T>(batch.sequences(), config_.width);
  for (mole::Index s = 0; s < batch.sequences(); ++s) {
    const std::span<T> mean = means_.view().row(s);
    const T share = T(1) / T(std::max<mole::Index>(batch.length(s), 1));
    for (mole::Index i = 0; i < batch.length(s); ++i)
      for (mole::Index c = 0; c < config_.width; ++c)
        mean[std::size_t(c)] += share * stream(at, rows)(batch.first(s) + i, c);
    const T scale = T(1) / std::max(length_of(mean), T(1e-12));
    for (mole::Index c = 0; c < config_.width; ++c) embeddings(s, c) = mean[std::size_t(c)] * scale;
  }
}

template <class T>
void Bert<T>::backward(const TokenBatch& batch, mole::View<const T> d_embeddings) {
  const mole::Index rows = batch.rows();
  if (d_stream_.rows() < rows_) {
    d_stream_ = mole::Matrix<T>(rows_, config_.width);
    scratch_.reserve(rows_, config_);
  }
  const mole::View<T> d = d_stream_.view().top(rows);
  for (mole::Index s = 0; s < batch.sequences(); ++s) {
    // e = m / |m|:   d_m = (d_e - e <e, d_e>) / |m|, shared among the tokens
    const std::span<const T> mean = means_.view().row(s);
    const T length = std::max(length_of(mean), T(1e-12)), count = T(batch.length(s));
    const T along = std::inner_product(mean.begin(), mean.end(), d_embeddings.row(s).begin(), T(0)) / (length * length);
    for (mole::Index i = 0; i < batch.length(s); ++i)
      for (mole::Index c = 0; c < config_.width; ++c)
        d(batch.first(s) + i, c) = (d_embeddings(s, c) - along * mean[std::size_t(c)]) / (length * count);
  }
  std::size_t lowest = 0;
  while (lowest < blocks_.size() && !blocks_[lowest].adapted()) ++lowest;
  for (std::size_t i = blocks_.size(); i-- > lowest;)
    blocks_[i].backward(batch, stream(i, rows), d, i > lowest, saved_[i], scratch_, execution_);
}

/// f(linear, name) for all linear layers, bottom first; the name is that of its tensors in a checkpoint.
template <class T, class F>
void for_each_linear(Bert<T>& bert, F f) {
  for (mole::Index block = 0; block < bert.config().layers; ++block)
    for (Site site : sites)
      f(bert.linear(block, site), "encoder.layer." + std::to_string(block) + "." + std::string(name_of(site)));
}

/// Nothing stands in the place of linear layers any more.
template <class T>
void restore_linears(Bert<T>& bert) {
  for_each_linear(bert, [](BertLinear<T>& linear, const std::string&) {
    linear.forward_instead = {};
    linear.backward_instead = {};
  });
}

}  // namespace encoder
