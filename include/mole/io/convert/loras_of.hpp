// SPDX-License-Identifier: MIT
// loras_of(): an adapter of any format as plain LoRAs.
#pragma once

#include "mole/base/no_base.hpp"
#include "mole/io/convert/plain_loras.hpp"
#include "mole/io/gguf/gguf_lora.hpp"
#include "mole/io/gguf/gguf_names.hpp"
#include "mole/io/layer/layer_file.hpp"
#include "mole/io/peft/peft_experts.hpp"
#include "mole/surgery/adapters_of.hpp"

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

struct LorasOfOptions {
  /// The base that the LoRAs are for is the one that the adapter was trained on: it has the tensors that the adapter
  /// would replace (peft saves embeddings that are targets, changed or not), and what its initialization took out of
  /// the weights (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA). Unless it is set, an adapter that needs it is refused.
  bool base_is_changed = false;
};

namespace detail {
/// A LoHa as a LoRA of r^2 ranks or, where its weight has fewer, as its update beside an identity.
inline Adapter<float> lora_of_loha(const PeftExperts<float>& experts, const PeftModule& module) {
  const auto loha = experts.loha(module.path);  // whose sizes fit each other
  const auto part = [&](const char* suffix) { return experts.adapter().tensor(module, suffix).matrix<float>(); };
  const Matrix<float> a1 = part("hada_w1_a"), b1 = part("hada_w1_b"), a2 = part("hada_w2_a"), b2 = part("hada_w2_b");
  const Index rank = b1.rows(), in = loha.in(), out = loha.out(), least = std::min(in, out);
  if (rank <= least / rank) return std::move(adapters_of(loha)[0]);
  Adapter<float> adapter{Matrix<float>(least, in), Matrix<float>(least, out), double(loha.scale()[0])};
  for (Index r = 0; r < least; ++r) (least == in ? adapter.a : adapter.b)(r, r) = 1;
  std::vector<float> first(std::size_t(in), 0.0f), second = first;
  const auto row_of = [&](std::vector<float>& row, const Matrix<float>& a, const Matrix<float>& b, Index o) {
    std::ranges::fill(row, 0.0f);
    for (Index r = 0; r < rank; ++r)
      for (Index i = 0; i < in; ++i) row[std::size_t(i)] += a(o, r) * b(r, i);
  };
  for (Index o = 0; o < out; ++o) {
    row_of(first, a1, b1, o);
    row_of(second, a2, b2, o);
    for (Index i = 0; i < in; ++i)
      (least == in ? adapter.b(i, o) : adapter.a(o, i)) = first[std::size_t(i)] * second[std::size_t(i)];
  }
  return adapter;
}
}  // namespace detail

/// Of an adapter of peft: LoRA and rsLoRA, also of embeddings; AdaLoRA, whose middle factor becomes part of B; LoHa as
/// a LoRA of r^2 ranks, but of no more than its weight has.
///
/// Throws Error(option), naming the adapter and what of it a plain LoRA cannot say: another kind, a magnitude, a bias
/// of B, stacked experts, tensors that replace the host's, and a base whose weights were changed. Error(file) as the
/// tensors' readers.  Copies.
inline PlainLoras loras_of(const PeftAdapter& adapter, const LorasOfOptions& options = {}) {
  const PeftConfig& config = adapter.config;
  const auto refuse = [&](const std::string& found) {
    throw Error(ErrorCode::option, adapter.source + ": expected what plain LoRAs can say, found " + found);
  };
  if (config.kind != PeftKind::lora && config.kind != PeftKind::adalora && config.kind != PeftKind::loha)
    refuse(std::string(name_of(config.kind)));
  if (config.decomposed) refuse("DoRA, whose update depends on the base's weight");
  if (config.lora_bias) refuse("a bias of B");
  if (config.changes_base() && !options.base_is_changed)
    refuse("an adapter that starts from " + config.init + ", which changes the weights, without base_is_changed");
  if (!adapter.replaced.empty() && !options.base_is_changed)
    refuse("'" + adapter.replaced.begin()->first + "', which replaces the host's own, without base_is_changed");
  PlainLoras loras{.base = config.base, .task = config.task, .dropout = config.dropout};
  const PeftExperts<float> experts(std::shared_ptr<const PeftAdapter>(std::shared_ptr<void>(), &adapter));
  for (const PeftModule& module : adapter.modules) {
    if (module.stacked) refuse("stacked experts '" + module.path + "'");
    const auto put = [&](const auto& found) { loras.modules[module.path] = std::move(adapters_of(found)[0]); };
    if (config.kind == PeftKind::adalora)
      put(experts.adalora(module.path));
    else if (config.kind == PeftKind::loha)
      loras.modules[module.path] = detail::lora_of_loha(experts, module);
    else if (module.has("lora_embedding_A"))
      put(experts.embedding(module.path)), loras.embeddings.insert(module.path);
    else
      put(experts.lora(module.path));
  }
  return loras;
}

/// Of an adapter of llama.cpp, for a model of the family of Llama (gguf_name()). Throws Error(option) for other tensors
/// and for stacked experts.
inline PlainLoras loras_of(const GgufLora& lora) {
  PlainLoras loras;
  for (const auto& [tensor, adapters] : lora.adapters) {
    const std::optional<std::string> path = path_of_gguf(tensor);
    require(path.has_value(), ErrorCode::option, "loras_of: expected tensors of models of the family of Llama, found '",
            tensor, "'");
    require(adapters.size() == 1, ErrorCode::option, "loras_of: expected one adapter of '", tensor, "', found ",
            adapters.size(), " stacked experts");
    if (detail::is_embedding(tensor)) loras.embeddings.insert(*path);
    loras.modules[*path] = adapters.front();
  }
  return loras;
}

/// Of a file of layers that are all of the method "lora". Throws Error(option) for another method, whose router the
/// other formats have no place for; Error(file) as LayerReader.
inline PlainLoras loras_of(LayerReader& reader) {
  using Lora = LayerKind<NoRouter<float>, Gate<Identity, All, Unit>, LowRank<DenseFactors<float>>>;
  PlainLoras loras;
  for (const std::string& name : reader.names()) {
    const LayerReader::Sizes sizes = reader.sizes(name);
    auto layer = reader.read(name, NoBase<float>(sizes.in, sizes.out), {.other_base = true});
    const auto* const found = layer.target<Lora::Layer<NoBase<float>, DefaultExecution>>();
    require(found != nullptr, ErrorCode::option, reader.source(), ": expected layers of the method lora, found '", name,
            "' of ", reader.method(name));
    require(found->experts().experts() == 1, ErrorCode::option, reader.source(), ": expected one expert in '", name,
            "', found ", found->experts().experts());
    loras.modules[name] = std::move(adapters_of(found->experts())[0]);
    loras.dropout = found->experts().dropout().rate;
  }
  return loras;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
