// SPDX-License-Identifier: MIT
// What adapters on disk mean: peft-patterns, peft-target-parameters.
#include "golden/methods.hpp"
#include "golden/parameters.hpp"
#include "io/temporary_folder.hpp"
#include "mole/io/peft/peft_experts.hpp"
#include "mole/io/peft/read_peft.hpp"
#include "mole/io/safetensors_writer.hpp"

#include <nlohmann/json.hpp>

namespace golden {
namespace {

/// Ranks, alphas and scales of many modules by one configuration.
template <class T>
void check_patterns(Comparison<T>& file) {
  const auto config = mole::PeftConfig::parse(file.text("adapter_config"), "adapter_config");
  const auto modules = nlohmann::json::parse(file.text("modules")).template get<std::vector<std::string>>();
  Matrix<T> alpha(1, Index(modules.size())), scaling = alpha;
  std::vector<std::int64_t> rank;
  for (std::size_t m = 0; m < modules.size(); ++m) {
    alpha(0, Index(m)) = T(config.alpha_of(modules[m]));
    scaling(0, Index(m)) = T(config.scale_of(modules[m]));
    rank.push_back(config.rank_of(modules[m]));
  }
  file.expect("alpha", alpha);
  file.expect("scaling", scaling);
  file.expect_optional("rank", rank);
}

/// The folder that peft would save for the file's A and B, read, and its experts.
template <class T>
mole::LowRank<mole::DenseFactors<T>> stacked_experts(Comparison<T>& file) {
  const mole::test::TemporaryFolder folder;
  mole::SafetensorsWriter writer;
  for (const char* name : {"lora_A.weight", "lora_B.weight"})
    writer.add(std::string("base_model.model.mlp.experts.") + name, file.matrix(name));
  writer.write(folder / "adapter_model.safetensors");
  std::ofstream(folder / "adapter_config.json") << nlohmann::json{{"peft_type", "LORA"},
                                                                  {"r", file.integer("rank")},
                                                                  {"lora_alpha", file.number("alpha")},
                                                                  {"target_parameters", {"mlp.experts.down_proj"}}};
  return mole::PeftExperts<T>(mole::read_peft(folder / "")).stacked_lora("mlp.experts", "down_proj");
}

template <class T>
void check_target_parameters(Comparison<T>& file) {
  const auto all = stacked_experts(file);
  const Matrix<T> parameter = file.matrix("parameter");
  Matrix<T> delta(parameter.rows(), parameter.cols()), merged = parameter;
  const bool in_first = file.text("parameter_layout") == "[experts, in, out]";
  if (!in_first && file.text("parameter_layout") != "[experts, out, in]")
    file.refuse("parameter_layout", "a known one");
  for (Index e = 0; e < all.experts(); ++e) {
    Matrix<T> update(all.out(), all.in());
    all.add_delta(e, 1, update.view());
    if (in_first) update = transposed(update);
    for (Index i = 0; i < update.size(); ++i) {
      delta(e, i) = update.data()[i];
      merged(e, i) += update.data()[i];
    }
    const std::string expert = "experts." + std::to_string(e) + ".";
    const Index first = all.blocks().down(e), rank = all.blocks().size(e);
    Matrix<T> b(rank, all.out());
    copy(all.parameters().lora_B.view().middle_rows(first, rank), b.view());
    file.expect(expert + "lora_A", all.parameters().lora_A.view().middle_rows(first, rank));
    file.expect(expert + "lora_B", transposed(b));
  }
  file.expect_option("experts", double(all.experts()));
  file.expect_option("d_in", double(all.in()));
  file.expect_option("d_out", double(all.out()));
  file.expect_option("scaling", double(all.scale()[0]));
  file.expect("delta_weight", delta);
  file.expect("merged.parameter", merged);
}

}  // namespace

std::map<std::string, Method> peft_methods() {
  const auto patterns = [](auto& file) { check_patterns(file); };
  const auto target_parameters = [](auto& file) { check_target_parameters(file); };
  return {{"peft-patterns", offline(patterns)}, {"peft-target-parameters", offline(target_parameters)}};
}

}  // namespace golden
