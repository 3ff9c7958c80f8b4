// SPDX-License-Identifier: MIT
// PeftWriter: writes adapters as a folder that peft loads.
#pragma once

#include "mole/core/reduced_floats.hpp"
#include "mole/expert/biased_experts.hpp"
#include "mole/expert/low_rank.hpp"
#include "mole/execution/reference.hpp"
#include "mole/expert/map_experts.hpp"
#include "mole/factors/dense_factors.hpp"
#include "mole/factors/hadamard_factors.hpp"
#include "mole/factors/shared_frozen.hpp"
#include "mole/factors/triplet_factors.hpp"
#include "mole/io/peft/peft_adapter.hpp"
#include "mole/io/replace_file.hpp"
#include "mole/io/safetensors_writer.hpp"
#include "mole/maps/diagonal_mixture.hpp"
#include "mole/maps/kronecker_maps.hpp"
#include "mole/maps/weight_decomposition.hpp"
#include "mole/surgery/weighted_adapter.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
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
  explicit PeftWriter(PeftWriterOptions options = {}) : options_(std::move(options)) {
    require(options_.dtype == Dtype::f64 || options_.dtype == Dtype::f32 || options_.dtype == Dtype::f16 ||
                options_.dtype == Dtype::bf16,
            ErrorCode::option, "PeftWriter: expected a dtype of F64, F32, F16 or BF16, found ",
            name_of(options_.dtype));
    config_.base = options_.base;
    config_.task = options_.task;
    config_.dropout = options_.dropout;
    config_.fan_in_fan_out = options_.fan_in_fan_out;
  }

  /// A plain LoRA.
  template <class T>
  void add(const std::string& path, const Adapter<T>& adapter) {
    open(path, PeftKind::lora, adapter.rank(), adapter.scale);
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
    open(path, PeftKind::lora, p.lora_A.rows(), double(experts.maps().inner_scale()));
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
    open(path, PeftKind::vera, experts.blocks().size(0), experts);
    put_vector<T>(path, "vera_lambda_b", experts.parameters().lambda_b);
    put_vector<T>(path, "vera_lambda_d", experts.parameters().lambda_d);
    if (!shares(path, pair.fingerprint())) return;
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
    open(path, PeftKind::randlora, rank, experts);
    put<T>(path, "randlora_lambda", experts.parameters().randlora_lambda);
    put<T>(path, "randlora_gamma", experts.parameters().randlora_gamma);
    if (!shares(path, bases.fingerprint())) return;
    const Index large = bases.options().large_side;
    Matrix<T> b(large, n * rank);
    for (Index each = 0; each < n; ++each) {
      const View<const T> basis = bases.b(each, large, {}, Reference{});
      for (Index k = 0; k < rank; ++k)
        for (Index i = 0; i < large; ++i) b(i, each * rank + k) = basis(k, i);
    }
    put_as<T>("", "randlora_A", bases.a(bases.options().small_side, {}), {rank, 1, bases.options().small_side});
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
  void replace(const std::string& name, const PeftTensor& tensor) {
    const std::size_t dot = name.rfind('.');
    require(dot != name.npos && dot > 0, ErrorCode::option,
            "PeftWriter: expected the name of a tensor in a module, found '", name, "'");
    replaced_.emplace(name, tensor);
  }

  /// adapter_model.safetensors, then adapter_config.json, each replaced as a whole (replace_file); the folder is made
  /// if it is not there. A reader that comes between the two sees new tensors with the old configuration, so write to a
  /// new folder where there may be one. Throws Error(option) if nothing was added.
  void write(const std::filesystem::path& folder) const;

 private:
  struct Module {
    Index rank;
    double scale;
    bool bias = false, magnitude = false;
    std::string parameter = {};  ///< of stacked experts: the path of the host's tensor

    const std::string& name(const std::string& path) const { return parameter.empty() ? path : parameter; }
  };
  /// Of a LoKr: what peft computes its sizes from.
  struct Kronecker {
    std::array<Index, 2> in, out;  ///< {m, n} and {l, k}
    bool low1, low2;
  };

  template <class Experts>
  static void require_one(const std::string& path, const Experts& experts) {
    require(experts.experts() == 1, ErrorCode::option, "PeftWriter: expected one expert at '", path, "', found ",
            experts.experts(), "; adapters_of() takes them apart");
  }
  template <class Experts>
  Module& open(const std::string& path, PeftKind kind, Index rank, const Experts& experts) {
    require_one(path, experts);
    return open(path, kind, rank, double(experts.scale()[0]));
  }
  Module& open(const std::string& path, PeftKind kind, Index rank, double scale) {
    require(!path.empty() && path.find('\0') == path.npos && !path.starts_with('.') && !path.ends_with('.'),
            ErrorCode::option, "PeftWriter: expected the path of a module, found '", path, "'");
    require(modules_.empty() || kind == config_.kind, ErrorCode::option, "PeftWriter: expected another module of ",
            name_of(config_.kind), ", found '", path, "' of ", name_of(kind));
    require(rank >= (kind == PeftKind::adalora ? 0 : 1) && std::isfinite(scale), ErrorCode::option,
            "PeftWriter: expected a rank and a scale at '", path, "', found a rank of ", rank, " and a scale of ",
            scale);
    const auto [place, first] = modules_.emplace(path, Module{rank, scale});
    require(first, ErrorCode::option, "PeftWriter: expected each path once, found '", path, "' twice");
    config_.kind = kind;
    return place->second;
  }
  /// Is this the first module, whose pair or bases are written for all? Throws if those of this one are others.
  bool shares(const std::string& path, std::uint64_t fingerprint) {
    if (!shared_) return shared_ = fingerprint, true;
    require(*shared_ == fingerprint, ErrorCode::option, "PeftWriter: expected '", path,
            "' over the frozen matrices of the first module, found it over others");
    return false;
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
    std::vector<std::byte> bytes;
    const auto append = [&](const auto number) {
      const auto from = std::as_bytes(std::span(&number, 1));
      bytes.insert(bytes.end(), from.begin(), from.end());
    };
    for (Index r = 0; r < matrix.rows(); ++r)
      for (const T value : matrix.row(r)) {
        if (options_.dtype == Dtype::f64) append(double(value));
        if (options_.dtype == Dtype::f32) append(float(value));
        if (options_.dtype == Dtype::f16) append(to_float16(float(value)));
        if (options_.dtype == Dtype::bf16) append(to_bfloat16(float(value)));
      }
    writer_.add_bytes((path.empty() ? "base_model." : "base_model.model." + path + ".") + std::string(suffix),
                      options_.dtype, std::move(shape), bytes);
  }

  PeftConfig finished_config() const;
  void add_patterns(PeftConfig& config) const;
  void add_kept_ranks(PeftConfig& config, double scale) const;
  void add_kronecker(PeftConfig& config) const;

  PeftWriterOptions options_;
  PeftConfig config_;
  std::map<std::string, Module> modules_;
  std::map<std::string, Kronecker> kronecker_;
  std::map<std::string, PeftTensor> replaced_;
  std::optional<std::uint64_t> shared_;
  SafetensorsWriter writer_;
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
  open(path, PeftKind::lora, rank, double(experts.scale()[0])).parameter =
      detail::without_base_layers(path) + "." + std::string(parameter);
  put_lora<T>(path, p.lora_A, by_rank);
}

template <class T>
void PeftWriter::add(const std::string& path, const MapExperts<KroneckerMaps<T>>& experts) {
  const auto& p = experts.parameters();
  const Kronecker sizes{experts.maps().factors_of_in(), experts.maps().factors_of_out(), !p.lokr_w1_a.empty(),
                        !p.lokr_w2_a.empty()};
  // What is whole is so because its rank is half of its size or more.
  const Index whole = (std::max({sizes.in[0], sizes.in[1], sizes.out[0], sizes.out[1]}) + 1) / 2;
  open(path, PeftKind::lokr, sizes.low2 ? p.lokr_w2_a.cols() : sizes.low1 ? p.lokr_w1_a.cols() : whole, experts);
  kronecker_.emplace(path, sizes);
  p.for_each_tensor(
      [&](std::string_view name, const Matrix<T>& tensor) {
        if (!tensor.empty()) put<T>(path, name, tensor);
      },
      p);
}

namespace detail {

/// alpha with alpha / rank = scale, a whole number if one gives this scale in float.
inline double alpha_for(double scale, Index rank) {
  const double alpha = scale * double(rank), whole = std::round(alpha);
  return float(whole / double(rank)) == float(scale) ? whole : alpha;
}

/// The whole of a path, and no other that ends in it, as a regular expression.
inline std::string exactly(std::string_view path) {
  std::string expression = "^";
  for (const char c : path) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
                       static_cast<unsigned char>(c) >= 128;
    if (!plain) expression += '\\';
    expression += c;
  }
  return expression;
}

/// What `decompose_factor` makes of a size; 0: near to the square root.   huggingface/peft, lokr/layer.py,
/// factorization
inline std::array<Index, 2> peft_factors(Index size, Index factor) {
  if (factor > 0 && size % factor == 0) return {factor, size / factor};
  Index smaller = 1;
  for (Index d = 1; d <= size / d && (factor == 0 || d <= factor); ++d)
    if (size % d == 0) smaller = d;
  return {smaller, size / smaller};
}

}  // namespace detail

/// The rank and alpha of most modules, and patterns for the others.
inline void PeftWriter::add_patterns(PeftConfig& config) const {
  const auto most_common = [&](auto value_of) {
    std::map<double, int> counts;
    for (const auto& [path, module] : modules_) ++counts[value_of(module)];
    return std::ranges::max_element(counts, {}, [](const auto& count) { return count.second; })->first;
  };
  const auto rank = [](const Module& module) { return double(module.rank); };
  const auto alpha = [](const Module& module) { return detail::alpha_for(module.scale, module.rank); };
  config.rank = Index(most_common(rank));
  config.alpha = most_common(alpha);
  for (const auto& [path, module] : modules_) {
    if (module.rank != config.rank)
      config.rank_pattern.push_back({PathPattern(detail::exactly(module.name(path))), rank(module)});
    if (alpha(module) != config.alpha)
      config.alpha_pattern.push_back({PathPattern(detail::exactly(module.name(path))), alpha(module)});
  }
}

/// The scale is alpha over the initial rank, here the largest, and what peft adds to it.
inline void PeftWriter::add_kept_ranks(PeftConfig& config, double scale) const {
  for (const auto& [path, module] : modules_) config.rank = std::max(config.rank, module.rank);
  require(config.rank >= 1 && scale > 0, ErrorCode::option,
          "PeftWriter: expected AdaLoRA with ranks and a positive scale, found ", config.rank, " and ", scale);
  for (const auto& [path, module] : modules_)
    if (module.rank != config.rank) config.kept_ranks.emplace(path, module.rank);
  config.alpha = scale * (double(config.rank) + 1e-5);
  if (const double whole = std::round(config.alpha); float(whole / (double(config.rank) + 1e-5)) == float(scale))
    config.alpha = whole;
}

inline void PeftWriter::add_kronecker(PeftConfig& config) const {
  std::vector<Index> candidates{0};
  for (const auto& [path, sizes] : kronecker_) {
    config.decompose_both = config.decompose_both || sizes.low1;
    for (const Index factor : {sizes.in[0], sizes.out[0]}) candidates.push_back(factor);
  }
  const auto fits = [&](Index factor) {
    return std::ranges::all_of(kronecker_, [&](const auto& each) {
      const auto& [path, sizes] = each;
      const auto is_low = [&](std::size_t i) {
        return 2 * modules_.at(path).rank < std::max(sizes.in[i], sizes.out[i]);
      };
      return detail::peft_factors(sizes.in[0] * sizes.in[1], factor) == sizes.in &&
             detail::peft_factors(sizes.out[0] * sizes.out[1], factor) == sizes.out && is_low(1) == sizes.low2 &&
             (config.decompose_both && is_low(0)) == sizes.low1;
    });
  };
  const auto found = std::ranges::find_if(candidates, fits);
  require(found != candidates.end(), ErrorCode::option,
          "PeftWriter: expected the sizes that one decompose_factor of peft gives all modules, found others");
  config.decompose_factor = *found;
}

inline PeftConfig PeftWriter::finished_config() const {
  require(!modules_.empty(), ErrorCode::option, "PeftWriter: expected at least 1 module, found 0");
  PeftConfig config = config_;
  const auto& [first_path, first] = *modules_.begin();
  const auto require_all = [&](const char* what, auto value_of) {
    for (const auto& [path, module] : modules_)
      require(value_of(module) == value_of(first), ErrorCode::option, "PeftWriter: expected the same ", what,
              " for all modules of ", name_of(config.kind), ", found ", double(value_of(module)), " at '", path,
              "' and ", double(value_of(first)), " at '", first_path, "'");
  };
  require_all("bias of B, with or without,", [](const Module& module) { return module.bias; });
  require_all("magnitude, with or without,", [](const Module& module) { return module.magnitude; });
  config.lora_bias = first.bias, config.decomposed = first.magnitude;
  if (config.kind == PeftKind::lora || config.kind == PeftKind::loha || config.kind == PeftKind::lokr) {
    add_patterns(config);
    if (config.kind == PeftKind::lokr) add_kronecker(config);
  } else {
    require_all("scale", [](const Module& module) { return float(module.scale); });
    config.rank = first.rank;
    if (config.kind == PeftKind::adalora)
      add_kept_ranks(config, first.scale);
    else
      require_all("rank", [](const Module& module) { return module.rank; });
    if (config.kind == PeftKind::randlora) config.alpha = detail::alpha_for(first.scale, first.rank);
    if (config.kind == PeftKind::vera)
      require(first.scale == 1, ErrorCode::option, "PeftWriter: expected VeRA of scale 1, found ", first.scale);
  }
  for (const auto& [path, module] : modules_)
    (module.parameter.empty() ? config.target_modules : config.target_parameters).push_back(module.name(path));
  return config;
}

inline void PeftWriter::write(const std::filesystem::path& folder) const {
  PeftConfig config = finished_config();
  SafetensorsWriter writer = writer_;
  writer.set_metadata("format", "pt");
  for (const auto& [name, tensor] : replaced_) {
    const std::string module = name.substr(0, name.rfind('.')), own = name.substr(module.size());
    const bool of_base = modules_.contains(module),
               lone_bias = own == ".bias" && !replaced_.contains(module + ".weight");
    if (lone_bias && !(of_base && config.bias == "all")) config.bias = of_base ? "lora_only" : "all";
    if (!of_base && !lone_bias && std::ranges::find(config.modules_to_save, module) == config.modules_to_save.end())
      config.modules_to_save.push_back(module);
    writer.add_bytes("base_model.model." + module + (of_base ? ".base_layer" : "") + own, tensor.entry->dtype,
                     tensor.entry->shape, tensor.entry->bytes);
  }
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) throw file_error(folder.string(), "a folder, or a path for one", error.message());
  writer.write(folder / "adapter_model.safetensors");
  const std::string json = config.json();
  const std::span<const std::byte> bytes = std::as_bytes(std::span(json));
  replace_file(folder / "adapter_config.json", std::span(&bytes, 1));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
