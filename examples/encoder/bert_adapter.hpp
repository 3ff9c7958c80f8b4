// SPDX-License-Identifier: MIT
// BertAdapter: a method's layers in the places of an encoder's linear layers.
#pragma once

#include "encoder/bert.hpp"
#include "training/method_layers.hpp"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace encoder {

/// While an Attachment lives, the encoder computes with them; afterwards with its own layers again.
class BertAdapter : public training::MethodLayers {
 public:
  /// For batches of up to `max_tokens`, of texts of so many domains. Both are borrowed.
  BertAdapter(const training::Method& method, Bert<float>& bert, mole::Index max_tokens, mole::Index domains,
              std::uint64_t seed)
      : MethodLayers(method, sites_of(bert, max_tokens, domains), names_of(bert), seed), bert_(bert) {}

  class Attachment {
   public:
    explicit Attachment(BertAdapter& adapter) : adapter_(adapter) { adapter.attach(); }
    ~Attachment() { restore_linears(adapter_.bert_); }
    Attachment(const Attachment&) = delete;

   private:
    BertAdapter& adapter_;
  };

 private:
  static std::vector<training::Site> sites_of(Bert<float>& bert, mole::Index max_tokens, mole::Index domains) {
    std::vector<training::Site> result;
    for_each_linear(bert, [&](const BertLinear<float>& linear, const std::string&) {
      result.push_back({.weight = linear.weight,
                        .bias = linear.bias,
                        .block = mole::Index(result.size() / sites.size()),
                        .blocks = bert.config().layers,
                        .max_tokens = max_tokens,
                        .domains = domains});
    });
    return result;
  }
  static std::vector<std::string> names_of(Bert<float>& bert) {
    std::vector<std::string> result;
    for_each_linear(bert, [&](const BertLinear<float>&, const std::string& name) { result.push_back(name); });
    return result;
  }

  void attach() {
    std::size_t i = 0;
    for_each_linear(bert_, [&](BertLinear<float>& linear, const std::string&) {
      training::AdaptedLayer& layer = adapted(i++);
      linear.forward_instead = [&layer](auto x, auto y) { layer.forward(x, y); };
      linear.backward_instead = [&layer](auto x, auto d_y, auto d_x) { layer.backward(x, d_y, d_x); };
    });
  }

  Bert<float>& bert_;
};

}  // namespace encoder
