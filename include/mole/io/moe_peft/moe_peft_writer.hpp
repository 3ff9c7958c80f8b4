// SPDX-License-Identifier: MIT
// MoePeftWriter: writes mixtures under the names of MoE-PEFT.
#pragma once

#include "mole/expert/low_rank.hpp"
#include "mole/factors/dense_factors.hpp"
#include "mole/io/encode_floats.hpp"
#include "mole/io/moe_peft/moe_peft_config_json.hpp"
#include "mole/io/replace_file.hpp"
#include "mole/io/safetensors_writer.hpp"
#include "mole/router/linear_router.hpp"

#include <algorithm>
#include <filesystem>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Collects what a model's modules gain, then writes it at once: the reverse of MoePeftLayers.
///
///     MoePeftWriter writer({.kind = MoePeftKind::mola, .lora = {.rank = 8, .alpha = 16}, .num_experts = 6, .k = 2});
///     writer.add("model.layers.0.self_attn.q_proj", layer.experts(), layer.router());
///     writer.write(folder);
///
/// Ranks, scales and the number of experts must be those of the configuration; `experts` of it is, unless set, `lora`,
/// and its target_modules are those of the modules that were added. How tokens choose experts is the configuration's
/// word: see MoePeftLayers for what each kind means. Tensors are written as safetensors, which the release, whose file
/// is a pickle, is given by torch.save(load_file("adapter_model.safetensors"), "adapter_model.bin").
/// Throws Error(option) for what the format cannot say: other ranks and scales, a shared A, a router with a bias, a
/// path that is given twice or is none of "model.layers."; Error(file) when writing fails.
class MoePeftWriter {
 public:
  explicit MoePeftWriter(MoePeftConfig config, Dtype dtype = Dtype::f32) : config_(std::move(config)), dtype_(dtype) {
    if (config_.experts.rank == 0) config_.experts = config_.lora;
    require(config_.num_experts >= 1 && config_.lora.rank >= 1, ErrorCode::option,
            "MoePeftWriter: expected a configuration with a rank and experts, found a rank of ", config_.lora.rank,
            " and ", config_.num_experts, " experts");
    config_.target_modules.clear();
  }

  /// A module with a router of its own: MoLA, LoRAMoE, DynMoLE.
  template <class T>
  void add(const std::string& path, const LowRank<DenseFactors<T>>& experts, const LinearRouter<T>& router) {
    require(config_.kind != MoePeftKind::mixlora, ErrorCode::option, "MoePeftWriter: expected no router at '", path,
            "', as those of MixLoRA are of blocks, found one");
    require(router.in() == experts.in(), ErrorCode::shape, "MoePeftWriter: expected a router of ", experts.in(),
            " inputs at '", path, "', found ", router.in());
    require_router(path, router);
    add_experts(path, experts);
    add_router(path, router);
  }
  /// The experts of a map of MixLoRA's block, "model.layers.0.mlp.up_proj", or one LoRA of another module.
  template <class T>
  void add(const std::string& path, const LowRank<DenseFactors<T>>& experts) {
    if (config_.kind == MoePeftKind::mixlora && block_of(path).ends_with(".mlp")) {
      add_experts(path, experts);
      blocks_.insert(block_of(path));
      return;
    }
    require(experts.experts() == 1, ErrorCode::option, "MoePeftWriter: expected one LoRA at '", path,
            "', or experts with a router, found ", experts.experts(), " experts");
    put_lora(path, target(path), experts, 0, config_.lora);
  }
  /// Of a module, or of MixLoRA's block: "model.layers.0.mlp".
  template <class T>
  void add_router(const std::string& path, const LinearRouter<T>& router) {
    require_router(path, router);
    put(name(path) + ".moe_gate.weight", router.parameters().weight.view());
    routers_.insert(path);
  }

  /// adapter_model.safetensors, then adapter_config.json, each replaced as a whole (replace_file); the folder is made
  /// if it is not there. Throws Error(option) as well if there are no experts, or a block of MixLoRA has no router.
  void write(const std::filesystem::path& folder) const {
    require(!routers_.empty(), ErrorCode::option, "MoePeftWriter: expected experts with a router, found none");
    for (const std::string& block : blocks_)
      require(routers_.contains(block), ErrorCode::option, "MoePeftWriter: expected a router of '", block,
              "', found none");
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    if (error) throw file_error(folder.string(), "a folder, or a path for one", error.message());
    writer_.write(folder / "adapter_model.safetensors");
    const std::string json = json_of(config_);
    const std::span<const std::byte> bytes = std::as_bytes(std::span(json));
    replace_file(folder / "adapter_config.json", std::span(&bytes, 1));
  }

 private:
  static std::string block_of(const std::string& path) { return path.substr(0, path.rfind('.')); }

  std::string name(const std::string& path) const {
    constexpr std::string_view prefix = "model.";
    require(path.starts_with("model.layers.") && !path.ends_with('.') && path.find('\0') == path.npos,
            ErrorCode::option, "MoePeftWriter: expected the path of a module in 'model.layers.', found '", path, "'");
    return std::string(name_of(config_.kind)) + "." + path.substr(prefix.size());
  }
  /// The name of a module, whose last step becomes one of target_modules.
  std::string target(const std::string& path) {
    std::string found = name(path);
    config_.target_modules.insert(path.substr(path.rfind('.') + 1));
    return found;
  }

  template <class T>
  void require_router(const std::string& path, const LinearRouter<T>& router) const {
    require(router.parameters().bias.empty(), ErrorCode::option, "MoePeftWriter: expected a router without bias at '",
            path, "', found one");
    require(router.outputs() == config_.num_experts, ErrorCode::option, "MoePeftWriter: expected a router of ",
            config_.num_experts, " experts at '", path, "', found ", router.outputs());
  }
  template <class T>
  void add_experts(const std::string& path, const LowRank<DenseFactors<T>>& experts) {
    require(experts.experts() == config_.num_experts, ErrorCode::option, "MoePeftWriter: expected ",
            config_.num_experts, " experts at '", path, "', found ", experts.experts());
    require(!experts.blocks().shared_down() || experts.experts() == 1, ErrorCode::option,
            "MoePeftWriter: expected an A of each expert at '", path, "', found one that they share");
    const std::string module = target(path);
    for (Index e = 0; e < experts.experts(); ++e)
      put_lora(path, module + ".experts." + std::to_string(e), experts, e, config_.experts);
  }
  template <class T>
  void put_lora(const std::string& path, const std::string& to, const LowRank<DenseFactors<T>>& experts, Index e,
                const MoePeftLora& lora) {
    const RankBlocks& blocks = experts.blocks();
    const T scale = experts.scale()[std::size_t(e)];
    require(blocks.size(e) == lora.rank && scale == T(lora.scale()), ErrorCode::option,
            "MoePeftWriter: expected a rank of ", lora.rank, " and a scale of ", lora.scale(), " at '", path,
            "', found ", blocks.size(e), " and ", scale);
    const View<const T> b = experts.parameters().lora_B.view().middle_rows(blocks.up(e), lora.rank);
    Matrix<T> turned(b.cols(), b.rows());
    for (Index r = 0; r < b.rows(); ++r)
      for (Index o = 0; o < b.cols(); ++o) turned(o, r) = b(r, o);
    put(to + ".lora_A.weight", experts.parameters().lora_A.view().middle_rows(blocks.down(e), lora.rank));
    put(to + ".lora_B.weight", turned.view());
  }
  template <class T>
  void put(const std::string& to, View<T> matrix) {
    writer_.add_bytes(to, dtype_, {matrix.rows(), matrix.cols()}, encode_floats(matrix, dtype_));
  }

  MoePeftConfig config_;
  Dtype dtype_;
  SafetensorsWriter writer_;
  std::set<std::string> blocks_, routers_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
