// SPDX-License-Identifier: MIT
// Reads an adapter that peft saved, computes what its modules make of given inputs, and writes the adapter again.
//
//   round_trip ADAPTER HOST INPUTS OUTPUTS REWRITTEN [F32 | F16 | BF16 [START]]
//
// ADAPTER and HOST are folders, the host's with model.safetensors or shards. INPUTS holds x for each path of a linear
// layer; OUTPUTS gets y, and for stacked experts and embeddings, which are none, their updates. With START, the adapter
// as it was before training on a base that was changed for it, the two become one LoRA for the base in HOST. Mixtures
// of forks of peft are not written again. round_trip.py compares.
//
//   round_trip --xlora XLORA HOST INPUTS OUTPUTS ADAPTER...   see xlora_round_trip.hpp
//   round_trip --merge ..., round_trip --gguf ...             see conversions.hpp
#include "conversions.hpp"
#include "xlora_round_trip.hpp"

#include "mole/io/peft/peft_layers.hpp"
#include "mole/io/peft/peft_writer.hpp"
#include "mole/io/peft/read_peft.hpp"
#include "mole/surgery/adapters_of.hpp"
#include "mole/surgery/concatenate_adapters.hpp"

#include <cstdio>
#include <optional>
#include <string>

namespace {

using namespace mole;

struct RoundTrip {
  const PeftAdapter adapter;
  const SafetensorsShards host;
  const SafetensorsReader inputs;
  PeftLayers<float> layers{adapter, {.max_tokens = 64, .bases_are_changed = true}};
  PeftExperts<float> experts{adapter};
  SafetensorsWriter outputs = {};
  PeftWriter rewritten;
  std::optional<PeftExperts<float>> start;

  AnyLinear<float> layer_of(const PeftModule& module, DenseBase<View<const float>> base) {
    if (!start) return layers.layer(module.path, base);
    const auto trained = adapters_of(experts.lora(module.path)), before = adapters_of(start->lora(module.path));
    const auto joined = concatenate_adapters<float>({{trained[0], 1}, {before[0], -1}}, trained[0].scale).adapter;
    rewritten.add(module.path, joined);
    LowRank<DenseFactors<float>> both(DenseFactors<float>(RankBlocks::uniform(1, joined.rank()), {joined.a, joined.b}),
                                      {float(joined.scale)});
    return AnyLinear<float>(one_adapter(std::move(both), base, DefaultExecution{}), 64);
  }

  void linear(const PeftModule& module) {
    const std::string weight_name = module.path + ".weight", bias_name = module.path + ".bias";
    const Matrix<float> weight =
        adapter.config.fan_in_fan_out ? host.transposed<float>(weight_name) : host.matrix<float>(weight_name);
    Matrix<float> bias;
    if (adapter.replaced.contains(bias_name))
      bias = adapter.replaced.at(bias_name).matrix<float>();
    else if (host.has(bias_name))
      bias = host.matrix<float>(bias_name);
    auto layer = layer_of(module, DenseBase{weight, bias});
    const Matrix<float> x = inputs.matrix<float>(module.path);
    Matrix<float> y(x.rows(), layer.out());
    layer.forward(x, y);
    outputs.add(module.path, y);
    if (start || is_mixture(adapter.config.kind)) return;

    const std::string& path = module.path;
    switch (adapter.config.kind) {
      case PeftKind::lora:
        if (adapter.config.decomposed) return rewritten.add(path, experts.dora(path, weight));
        if (adapter.config.lora_bias) return rewritten.add(path, experts.biased_lora(path));
        return rewritten.add(path, experts.lora(path));
      case PeftKind::adalora:
        return rewritten.add(path, experts.adalora(path));
      case PeftKind::vera:
        return rewritten.add(path, experts.vera(path, weight.cols()));
      case PeftKind::randlora:
        return rewritten.add(path, experts.randlora(path, weight.cols(), weight.rows()));
      case PeftKind::loha:
        return rewritten.add(path, experts.loha(path));
      case PeftKind::lokr:
        return rewritten.add(path, experts.lokr(path));
      default:
        break;
    }
  }

  void embedding(const PeftModule& module) {
    const auto table = experts.embedding(module.path);
    Matrix<float> update(table.out(), table.in());
    table.add_delta(0, 1, update.view());
    outputs.add(module.path, update);
    rewritten.add_embedding(module.path, table);
  }

  /// The innermost wrapper is that of the first parameter.
  void stacked(const PeftModule& module) {
    const std::string parameter = module.path.ends_with(".base_layer") ? "gate_up_proj" : "down_proj";
    const auto all = experts.stacked_lora(module.path, parameter);
    for (Index e = 0; e < all.experts(); ++e) {
      Matrix<float> update(all.out(), all.in());
      all.add_delta(e, 1, update.view());
      outputs.add(module.path + "." + std::to_string(e), update);
    }
    rewritten.add_stacked(module.path, parameter, all);
  }

  void run() {
    for (const PeftModule& module : adapter.modules)
      module.stacked ? stacked(module) : module.has("lora_embedding_A") ? embedding(module) : linear(module);
    for (const auto& [name, tensor] : adapter.replaced) rewritten.replace(name, tensor);
  }
};

}  // namespace

int main(int count, char** arguments) try {
  if (count > 6 && std::string(arguments[1]) == "--xlora") return xlora_round_trip(count - 2, arguments + 2);
  if (count > 1 && std::string(arguments[1]).starts_with("--")) return convert_for_round_trip(count - 1, arguments + 1);
  if (count < 6) return std::fprintf(stderr, "round_trip: expected 5 arguments, found %d\n", count - 1), 2;
  const std::string dtype = count > 6 ? arguments[6] : "F32";
  RoundTrip trip{.adapter = read_peft(arguments[1]),
                 .host = SafetensorsShards(arguments[2]),
                 .inputs = SafetensorsReader(arguments[3]),
                 .rewritten = PeftWriter({.dtype = dtype_named(dtype).value()}),
                 .start = {}};
  if (count > 7) trip.start.emplace(read_peft(arguments[7]));
  trip.run();
  trip.outputs.write(arguments[4]);
  if (!is_mixture(trip.adapter.config.kind)) trip.rewritten.write(arguments[5]);
  std::printf("%s\n", trip.adapter.report.text().c_str());
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
