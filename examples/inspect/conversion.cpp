// SPDX-License-Identifier: MIT
#include "inspect/conversion.hpp"

#include "mole/base/dense_base.hpp"
#include "mole/base/no_base.hpp"
#include "mole/io/convert/loras_of.hpp"
#include "mole/io/convert/write_loras.hpp"
#include "mole/io/convert/write_mixture_layers.hpp"
#include "mole/io/peft/merge_peft.hpp"

#include <string>
#include <type_traits>
#include <variant>

namespace inspect {

namespace {

using namespace mole;

Error refusal(const Options& options, const std::string& expected, const std::string& found) {
  return Error(ErrorCode::option, options.path.string() + ": expected " + expected + ", found " + found);
}

const PeftAdapter& only(const std::vector<PeftAdapter>& adapters, const Options& options) {
  if (adapters.size() == 1) return adapters.front();
  throw refusal(options, "one adapter", std::to_string(adapters.size()) + ", each in a folder of its own");
}
/// What was left out when it was read would be lost.
const PeftAdapter& whole(const PeftAdapter& adapter) {
  if (adapter.report.refused.empty()) return adapter;
  throw file_error(adapter.source, "tensors that are served", "'" + adapter.report.refused.front() + "'");
}

GgufHeads heads_for(const Options& options, const std::string& architecture, bool has_queries) {
  const std::optional<bool> reordered = gguf_reorders_heads(architecture);
  const GgufHeads heads = options.heads.value_or(GgufHeads{});
  if (has_queries && !options.heads && reordered.value_or(true))
    throw refusal(options,
                  std::string("--heads (num_attention_heads and num_key_value_heads of the model's config.json") +
                      (reordered ? ")" : "; 0 0 if its rows stay)") + ", as GGUF files of the architecture " +
                      architecture + (reordered ? " have" : " may have") + " rows of q and k in an order of their own",
                  "none");
  if (!reordered.value_or(true) && (heads.q != 0 || heads.k != 0))
    throw refusal(
        options,
        "no --heads, as GGUF files of the architecture " + architecture + " have rows of q and k in PyTorch's order",
        std::to_string(heads.q) + " and " + std::to_string(heads.k));
  return heads;
}
bool has_queries(const GgufLora& lora) {
  return std::ranges::any_of(lora.adapters, [](const auto& each) {
    return each.first.ends_with(".attn_q.weight") || each.first.ends_with(".attn_k.weight");
  });
}

PlainLoras loras_in(const Found& found, const Options& options) {
  return std::visit(
      [&]<class Each>(const Each& each) -> PlainLoras {
        if constexpr (std::is_same_v<Each, std::vector<PeftAdapter>>) {
          return loras_of(whole(only(each, options)), {.base_is_changed = options.base_is_changed});
        } else if constexpr (std::is_same_v<Each, GgufReader>) {
          const GgufLora as_stored = read_gguf_lora(each);
          return loras_of(read_gguf_lora(each, heads_for(options, as_stored.architecture, has_queries(as_stored))));
        } else if constexpr (std::is_same_v<Each, FoundLayers>) {
          return loras_of(*each.layers);
        } else {
          throw refusal(options, "one LoRA for each module, which " + options.to + " can say",
                        std::is_same_v<Each, FoundTensors> ? "a checkpoint"
                        : std::is_same_v<Each, FoundXlora> ? "X-LoRA, with a router"
                                                           : "a mixture, with routers");
        }
      },
      found);
}

GgufType gguf_type(Dtype dtype) {
  return dtype == Dtype::f16 ? GgufType::f16 : dtype == Dtype::bf16 ? GgufType::bf16 : GgufType::f32;
}

/// f(base_of), for write_lora_layers() and write_mixture_layers().
template <class F>
void with_bases(const Options& options, F&& f) {
  if (options.base.empty()) return f([](const std::string&, Index in, Index out) { return NoBase<float>(in, out); });
  const SafetensorsShards host = SafetensorsShards::of(options.base);
  f([&](const std::string& path, Index, Index) { return DenseBase{host.matrix<float>(path + ".weight")}; });
}

}  // namespace

Json convert(const Found& found, const Options& options) {
  Json done{{"written", options.out.string()}, {"format", options.to}};
  if (const auto* mixture = std::get_if<MoePeftAdapter>(&found); mixture && options.to == "mole") {
    with_bases(options, [&](auto base_of) { write_mixture_layers(options.out, *mixture, base_of); });
    done["modules"] = mixture->modules.size();
    return done;
  }
  if (const auto* adapters = std::get_if<std::vector<PeftAdapter>>(&found);
      adapters && options.to == "mole" && adapters->size() == 1 && is_mixture(adapters->front().config.kind)) {
    with_bases(options, [&](auto base_of) { write_mixture_layers(options.out, whole(adapters->front()), base_of); });
    done["modules"] = adapters->front().modules.size();
    return done;
  }
  const PlainLoras loras = loras_in(found, options);
  done["modules"] = loras.modules.size();
  if (const auto* adapters = std::get_if<std::vector<PeftAdapter>>(&found);
      adapters && !adapters->front().report.unused.empty())
    done["left_out"] = adapters->front().report.unused;
  if (options.to == "peft") {
    write_peft(options.out, loras, options.dtype);
  } else if (options.to == "gguf") {
    const GgufLora lora = gguf_lora(loras, options.architecture);
    write_gguf_lora(options.out, lora, gguf_type(options.dtype),
                    heads_for(options, options.architecture, has_queries(lora)));
  } else {
    with_bases(options, [&](auto base_of) { write_lora_layers(options.out, loras, base_of); });
  }
  return done;
}

Json merge(const Found& found, const Options& options) {
  const auto* adapters = std::get_if<std::vector<PeftAdapter>>(&found);
  if (!adapters) throw refusal(options, "an adapter of peft to merge", "another format (--to peft converts it)");
  const std::vector<std::string> changed =
      merge_peft(whole(only(*adapters, options)), SafetensorsShards::of(options.merge_into), options.out,
                 {.base_is_changed = options.base_is_changed});
  return {{"written", options.out.string()}, {"changed", changed.size()}, {"tensors", changed}};
}

}  // namespace inspect
