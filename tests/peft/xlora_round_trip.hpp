// SPDX-License-Identifier: MIT
// xlora_round_trip(): what X-LoRA of peft makes of given hidden states and inputs of its layers.
#pragma once

#include "mole/base/dense_base.hpp"
#include "mole/io/safetensors_shards.hpp"
#include "mole/io/safetensors_writer.hpp"
#include "mole/io/xlora/read_xlora.hpp"
#include "mole/io/xlora/write_xlora.hpp"
#include "mole/io/xlora/xlora_layers.hpp"
#include "mole/layer/expert_linear.hpp"

#include <cstdio>
#include <string>
#include <utility>
#include <variant>
#include <vector>

/// Arguments: XLORA HOST INPUTS OUTPUTS ADAPTER... INPUTS has "hidden", the last hidden states of the first pass, and x
/// as "<m>:<path>" for each layer m; OUTPUTS gets y under these names and "scalings" [N x M n]; OUTPUTS.xlora is X-LoRA
/// again.
inline int xlora_round_trip(int count, char** arguments) {
  using namespace mole;
  std::vector<PeftAdapter> adapters;
  for (int i = 4; i < count; ++i) adapters.push_back(read_peft(arguments[i]));
  const XloraAdapter adapter = read_xlora(arguments[0], std::move(adapters));
  const SafetensorsShards host(arguments[1]);
  const SafetensorsReader inputs{std::filesystem::path(arguments[2])};
  const Matrix<float> hidden = inputs.matrix<float>("hidden");
  SafetensorsWriter outputs;
  std::visit(
      [&](const auto& routing) {
        auto decisions = routing.workspace(hidden.rows());
        routing.route(hidden, decisions);
        const Index experts = Index(adapter.adapters.size());
        Matrix<float> scalings(hidden.rows(), adapter.layers * experts);
        for (Index m = 0; m < adapter.layers; ++m)
          for (Index n = 0; n < hidden.rows(); ++n)
            for (std::size_t j = 0; j < decisions.routing(m).experts_of(n).size(); ++j)
              scalings(n, m * experts + decisions.routing(m).experts_of(n)[j]) = decisions.routing(m).gates_of(n)[j];
        outputs.add("scalings", scalings.view());
        for (const SafetensorsEntry& entry : inputs.tensors()) {
          const std::size_t colon = entry.name.find(':');
          if (colon == entry.name.npos) continue;
          const std::string path = entry.name.substr(colon + 1);
          const Index m = adapter.config.layerwise ? std::stol(entry.name) : 0;
          const Matrix<float> weight = host.matrix<float>(path + ".weight"), x = inputs.matrix<float>(entry.name);
          const ExpertLinear layer{xlora_bank<float>(adapter, path), DenseBase{weight}};
          auto work = layer.workspace(x.rows(), x.rows() * experts);
          Matrix<float> y(x.rows(), layer.out());
          layer.apply(x, decisions.routing(m), y, work);
          outputs.add(entry.name, y.view());
        }
      },
      xlora_routing<float>(adapter));
  outputs.write(arguments[3]);
  write_xlora(std::string(arguments[3]) + ".xlora", adapter.config, xlora_classifier<float>(adapter),
              {.adapter_paths = {arguments + 4, arguments + count}});
  std::printf("%s\n", adapter.report.text().c_str());
  return 0;
}
