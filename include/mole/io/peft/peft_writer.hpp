// SPDX-License-Identifier: MIT
// PeftWriter: writes adapters as a folder that peft loads.
#pragma once

#include "mole/execution/reference.hpp"
#include "mole/expert/biased_experts.hpp"
#include "mole/expert/low_rank.hpp"
#include "mole/expert/map_experts.hpp"
#include "mole/factors/dense_factors.hpp"
#include "mole/factors/hadamard_factors.hpp"
#include "mole/factors/shared_frozen.hpp"
#include "mole/factors/triplet_factors.hpp"
#include "mole/io/encode_floats.hpp"
#include "mole/io/peft/peft_modules.hpp"
#include "mole/maps/diagonal_mixture.hpp"
#include "mole/maps/kronecker_maps.hpp"
#include "mole/maps/weight_decomposition.hpp"
#include "mole/surgery/weighted_adapter.hpp"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

struct PeftWriterOptions {
  std::string base = {};        ///< base_model_name_or_path: where peft finds the model
  std::string task = {};        ///< task_type, such as CAUSAL_LM
  double dropout = 0;           ///< in further training
  bool fan_in_fan_out = false;  ///< the host's layers are Conv1D
  Dtype dtype = Dtype::f32;     ///< of the tensors: F64, F32, F16 or BF16
};

/// Collects what a model's modules gain, one expert each, then writes it at once: the reverse of PeftExperts.
///
///     PeftWriter writer({.base = "org/model"});
///     writer.add("model.layers.0.self_attn.q_proj", adapters_of(layer.experts())[2]);  // an expert as a plain LoRA
///     writer.add("model.layers.1.self_attn.q_proj", concatenate_adapters<float>(trained).adapter);  // a merge
///     writer.write(folder);
///
/// All modules of a folder are of one kind. Ranks and scales may differ where peft has patterns for them: LoRA, LoHa
/// and LoKr. Throws Error(option) for another kind, another scale of a kind without patterns, a path given twice or
/// empty, experts that are not one, and what peft does not load; Error(file) when writing fails.
class PeftWriter {
 public:
  explicit PeftWriter(const PeftWriterOptions& options = {})
      : dtype_(options.dtype),
        modules_(PeftConfig{.dropout = options.dropout,
                            .fan_in_fan_out = options.fan_in_fan_out,
                            .base = options.base,
                            .task = options.task}) {
    require(dtype_ == Dtype::f64 || dtype_ == Dtype::f32 || dtype_ == Dtype::f16 || dtype_ == Dtype::bf16,
            ErrorCode::option, "PeftWriter: expected a dtype of F64, F32, F16 or BF16, found ", name_of(dtype_));
  }

  /// A plain LoRA.
  template <class T>
  void add(const std::string& path, const Adapter<T>& adapter) {
    modules_.open(path, PeftKind::lora, adapter.rank(), adapter.scale);
    put_lora<T>(path, adapter.a, adapter.b);
  }
  template <class T>
  void add(const std::string& path, const LowRank<DenseFactors<T>>& experts) {
    open(path, PeftKind::lora, experts.blocks().size(0), experts);
    put_lora<T>(path, experts.parameters().lora_A, experts.parameters().lora_B);
  }
  template <class T>
  void add(const std::string& path, const BiasedExperts<LowRank<DenseFactors<T>>>& experts) {
    add(path, experts.unbiased());
    put_vector<T>(path, "lora_B.bias", experts.bias());
    modules_.at(path).bias = true;
  }
  template <class T>
  void add(const std::string& path, const MapExperts<WeightDecomposition<T>>& experts) {
    const auto& p = experts.parameters();
    require_one(path, experts);
    require(experts.scale()[0] == 1, ErrorCode::option, "PeftWriter: expected DoRA of scale 1 at '", path, "', found ",
            experts.scale()[0]);
    modules_.open(path, PeftKind::lora, p.lora_A.rows(), double(experts.maps().inner_scale()));
    put_lora<T>(path, p.lora_A, p.lora_B);
    put_vector<T>(path, "lora_magnitude_vector", p.magnitude);
    modules_.at(path).magnitude = true;
  }
  template <class T>
  void add(const std::string& path, const LowRank<TripletFactors<T>>& experts) {
    const auto& p = experts.parameters();
    open(path, PeftKind::adalora, experts.blocks().size(0), experts);
    put<T>(path, "lora_A", p.lora_A);
    put_turned<T>(path, "lora_B", p.lora_B);
    put_turned<T>(path, "lora_E", p.lora_E);
  }
  template <class T>
  void add(const std::string& path, const LowRank<SharedFrozen<T>>& experts) {
    const auto& pair = *experts.factors().pair();
    const std::uint64_t fingerprint = pair.fingerprint();
    modules_.require_shared(path, fingerprint);
    open(path, PeftKind::vera, experts.blocks().size(0), experts);
    put_vector<T>(path, "vera_lambda_b", experts.parameters().lambda_b);
    put_vector<T>(path, "vera_lambda_d", experts.parameters().lambda_d);
    if (!modules_.share(fingerprint)) return;
    put<T>("", "vera_A", pair.a);
    put_turned<T>("", "vera_B", pair.b);
  }
  /// Only with rows paired as the release pairs them (BasisPairing::flattened), and bases in memory.
  template <class T>
  void add(const std::string& path, const MapExperts<DiagonalMixture<T>>& experts) {
    const auto& bases = *experts.maps().bases();
    const Index rank = bases.options().rank, n = bases.options().bases;
    require(experts.maps().pairing() == BasisPairing::flattened && bases.in_memory(), ErrorCode::option,
            "PeftWriter: expected bases in memory and the flattened pairing of rows, which is peft's, at '", path,
            "', found others");
    const std::uint64_t fingerprint = bases.fingerprint();
    modules_.require_shared(path, fingerprint);
    open(path, PeftKind::randlora, rank, experts);
    put<T>(path, "randlora_lambda", experts.parameters().randlora_lambda);
    put<T>(path, "randlora_gamma", experts.parameters().randlora_gamma);
    if (!modules_.share(fingerprint)) return;
    const Index large = bases.options().large_side;
    Matrix<T> b(large, n * rank);
    for (Index each = 0; each < n; ++each) {
      const View<const T> basis = bases.b(each, large, {}, Reference{});
      for (Index k = 0; k < rank; ++k)
        for (Index i = 0; i < large; ++i) b(i, each * rank + k) = basis(k, i);
    }
    put_as<T>("", "randlora_A", bases.a(bases.options().small_side, {}, Reference{}),
              {rank, 1, bases.options().small_side});
    put_as<T>("", "randlora_B", b, {large, n, rank});
  }
  template <class T>
  void add(const std::string& path, const LowRank<HadamardFactors<T>>& experts) {
    const auto& p = experts.parameters();
    open(path, PeftKind::loha, p.hada_w1_b.rows() / experts.experts(), experts);
    put_turned<T>(path, "hada_w1_a", p.hada_w1_a);
    put<T>(path, "hada_w1_b", p.hada_w1_b);
    put_turned<T>(path, "hada_w2_a", p.hada_w2_a);
    put<T>(path, "hada_w2_b", p.hada_w2_b);
  }

  /// The table of an embedding: PeftExperts::embedding.
  template <class T>
  void add_embedding(const std::string& path, const LowRank<DenseFactors<T>>& experts) {
    open(path, PeftKind::lora, experts.blocks().size(0), experts);
    put<T>(path, "lora_embedding_A", experts.parameters().lora_A);
    put_turned<T>(path, "lora_embedding_B", experts.parameters().lora_B);
  }
  /// Experts of one rank and scale in one stacked parameter: PeftExperts::stacked_lora.
  template <class T>
  void add_stacked(const std::string& path, std::string_view parameter, const LowRank<DenseFactors<T>>& experts);

  /// Throws Error(option) as well if no decompose_factor of peft gives these sizes, the same for all modules.
  template <class T>
  void add(const std::string& path, const MapExperts<KroneckerMaps<T>>& experts);

  /// What takes the place of the host's own tensor: "score.weight" and so on (PeftAdapter::replaced). That of a module
  /// which was added is written as its base's; if a bias is all that is replaced of another module, `bias` becomes all;
  /// else that module becomes one of modules_to_save.
  void replace(const std::string& name, const PeftTensor& tensor) { modules_.replace(name, tensor); }

  /// adapter_model.safetensors, then adapter_config.json, each replaced as a whole (replace_file); the folder is made
  /// if it is not there. A reader that comes between the two sees new tensors with the old configuration, so write to a
  /// new folder where there may be one. Throws Error(option) if nothing was added.
  void write(const std::filesystem::path& folder) const { modules_.write(folder); }

 private:
  template <class Experts>
  static void require_one(const std::string& path, const Experts& experts) {
    require(experts.experts() == 1, ErrorCode::option, "PeftWriter: expected one expert at '", path, "', found ",
            experts.experts(), "; adapters_of() takes them apart");
  }
  template <class Experts>
  void open(const std::string& path, PeftKind kind, Index rank, const Experts& experts) {
    require_one(path, experts);
    modules_.open(path, kind, rank, double(experts.scale()[0]));
  }
  template <class T>
  void put_lora(const std::string& path, View<const T> a, View<const T> b) {
    put<T>(path, "lora_A.weight", a);
    put_turned<T>(path, "lora_B.weight", b);
  }
  template <class T>
  void put(const std::string& path, std::string_view suffix, View<const T> matrix) {
    put_as<T>(path, suffix, matrix, {matrix.rows(), matrix.cols()});
  }
  template <class T>
  void put_vector(const std::string& path, std::string_view suffix, View<const T> vector) {
    put_as<T>(path, suffix, vector, {vector.rows() * vector.cols()});
  }
  template <class T>
  void put_turned(const std::string& path, std::string_view suffix, View<const T> matrix) {
    Matrix<T> turned(matrix.cols(), matrix.rows());
    for (Index r = 0; r < matrix.rows(); ++r)
      for (Index c = 0; c < matrix.cols(); ++c) turned(c, r) = matrix(r, c);
    put<T>(path, suffix, turned);
  }
  template <class T>
  void put_as(const std::string& path, std::string_view suffix, View<const T> matrix, std::vector<Index> shape) {
    modules_.add_bytes(path, suffix, dtype_, std::move(shape), encode_floats(matrix, dtype_));
  }

  Dtype dtype_;
  detail::PeftModules modules_;
};

template <class T>
void PeftWriter::add_stacked(const std::string& path, std::string_view parameter,
                             const LowRank<DenseFactors<T>>& experts) {
  const RankBlocks& blocks = experts.blocks();
  const Index rank = blocks.size(0), count = blocks.experts();
  for (Index e = 0; e < count; ++e)
    require(blocks.size(e) == rank && experts.scale()[std::size_t(e)] == experts.scale()[0] && !blocks.shared_down(),
            ErrorCode::option, "PeftWriter: expected stacked experts of one rank and scale at '", path,
            "', found others");
  const auto& p = experts.parameters();
  Matrix<T> by_rank(p.lora_B.rows(), p.lora_B.cols());
  for (Index row = 0; row < by_rank.rows(); ++row)
    std::ranges::copy(p.lora_B.view().row(row), by_rank.view().row(row % rank * count + row / rank).begin());
  modules_.open(path, PeftKind::lora, rank, double(experts.scale()[0])).parameter =
      detail::without_base_layers(path) + "." + std::string(parameter);
  put_lora<T>(path, p.lora_A, by_rank);
}

template <class T>
void PeftWriter::add(const std::string& path, const MapExperts<KroneckerMaps<T>>& experts) {
  const auto& p = experts.parameters();
  const detail::PeftModules::Kronecker sizes{experts.maps().factors_of_in(), experts.maps().factors_of_out(),
                                             !p.lokr_w1_a.empty(), !p.lokr_w2_a.empty()};
  // What is whole is so because its rank is half of its size or more.
  const Index whole = (std::max({sizes.in[0], sizes.in[1], sizes.out[0], sizes.out[1]}) + 1) / 2;
  open(path, PeftKind::lokr, sizes.low2 ? p.lokr_w2_a.cols() : sizes.low1 ? p.lokr_w1_a.cols() : whole, experts);
  modules_.set_kronecker(path, sizes);
  p.for_each_tensor(
      [&](std::string_view name, const Matrix<T>& tensor) {
        if (!tensor.empty()) put<T>(path, name, tensor);
      },
      p);
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
