// SPDX-License-Identifier: MIT
// PeftExperts: the modules of an adapter as experts of a layer.
#pragma once

#include "mole/core/dropout.hpp"
#include "mole/core/random.hpp"
#include "mole/expert/biased_experts.hpp"
#include "mole/expert/low_rank.hpp"
#include "mole/expert/map_experts.hpp"
#include "mole/factors/dense_factors.hpp"
#include "mole/factors/hadamard_factors.hpp"
#include "mole/factors/shared_frozen.hpp"
#include "mole/factors/triplet_factors.hpp"
#include "mole/io/peft/peft_adapter.hpp"
#include "mole/maps/diagonal_mixture.hpp"
#include "mole/maps/kronecker_maps.hpp"
#include "mole/maps/weight_decomposition.hpp"

#include <concepts>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// One expert for a module of an adapter, with the scale and dropout of its configuration, of the types that the
/// presets of the methods have. Numbers are copied and converted to T; what VeRA and RandLoRA share is converted once
/// for all.
///
/// Paths are those of PeftAdapter::modules. Throws Error(option) for a module that is not there or of another kind,
/// Error(shape) for tensors that do not fit each other.
template <std::floating_point T>
class PeftExperts {
 public:
  explicit PeftExperts(PeftAdapter adapter) : PeftExperts(std::make_shared<const PeftAdapter>(std::move(adapter))) {}
  explicit PeftExperts(std::shared_ptr<const PeftAdapter> adapter) : adapter_(std::move(adapter)) {}

  const PeftAdapter& adapter() const { return *adapter_; }
  Dropout dropout() const { return {.rate = adapter_->config.dropout, .stream = 1}; }

  /// LoRA and rsLoRA.
  LowRank<DenseFactors<T>> lora(std::string_view path) const {
    const PeftModule& module = of_kind(path, PeftKind::lora, "LoRA of a linear layer", "lora_A.weight");
    require(!module.has("lora_B.bias") && !module.has("lora_magnitude_vector"), ErrorCode::option, adapter_->source,
            ": expected a LoRA without bias or magnitude, found '", path, "' with one");
    return unbiased(module);
  }
  /// LoRA whose B has a bias (lora_bias).
  BiasedExperts<LowRank<DenseFactors<T>>> biased_lora(std::string_view path) const {
    const PeftModule& module = of_kind(path, PeftKind::lora, "LoRA with a bias", "lora_B.bias");
    BiasedExperts<LowRank<DenseFactors<T>>> experts(unbiased(module));
    experts.bias() = matrix(module, "lora_B.bias");
    experts.check_sizes();
    return experts;
  }
  /// The experts of one stacked parameter (target_parameters), each of the rank of the configuration: A holds one after
  /// the other, B the first rank of all, then the second. `path` is the module's; with several parameters on one module
  /// the first is deepest in it, at "...experts.base_layer". `parameter` is its name, which patterns may match.
  /// Source: huggingface/peft, tuners/lora/layer.py, ParamWrapper.get_delta_weight.
  LowRank<DenseFactors<T>> stacked_lora(std::string_view path, std::string_view parameter) const;

  /// The table of an embedding: row w of the table gains   scale B^T A e_w.   A [r x words], B [r x width]
  LowRank<DenseFactors<T>> embedding(std::string_view path) const {
    const PeftModule& module = of_kind(path, PeftKind::lora, "LoRA of an embedding", "lora_embedding_A");
    require(!module.has("lora_magnitude_vector"), ErrorCode::option, adapter_->source,
            ": expected an embedding without magnitude, found '", path, "' with one; dora() has it");
    return dense(module, matrix(module, "lora_embedding_A"), turned(module, "lora_embedding_B"));
  }

  /// `weight` [O x I] is that of the base, in memory that outlives the experts: of an embedding, its table turned,
  /// [width x words].
  MapExperts<WeightDecomposition<T>> dora(std::string_view path, View<const T> weight) const {
    const PeftModule& module = of_kind(path, PeftKind::lora, "DoRA", "lora_magnitude_vector");
    const bool table = module.has("lora_embedding_A");
    auto a = matrix(module, table ? "lora_embedding_A" : "lora_A.weight"),
         b = turned(module, table ? "lora_embedding_B" : "lora_B.weight");
    WeightDecomposition<T> maps({.in = a.cols(),
                                 .out = b.cols(),
                                 .rank = a.rows(),
                                 .weight = weight,
                                 .alpha = module.scale,
                                 .scaling = Scaling::fixed},
                                generator());
    maps.parameters() = {std::move(a), std::move(b), matrix(module, "lora_magnitude_vector")};
    return checked<MapExperts<WeightDecomposition<T>>>(std::move(maps), 1);
  }

  LowRank<TripletFactors<T>> adalora(std::string_view path) const {
    const PeftModule& module = of_kind(path, PeftKind::adalora, "AdaLoRA", "lora_E");
    auto a = matrix(module, "lora_A"), b = turned(module, "lora_B"), e = turned(module, "lora_E");
    TripletFactors<T> factors({.in = a.cols(), .out = b.cols(), .rank = a.rows()}, generator());
    factors.parameters() = {std::move(a), std::move(b), std::move(e)};
    return checked<LowRank<TripletFactors<T>>>(std::move(factors), module.scale);
  }
  /// `in` is that of the layer: the file has the matrices of the largest.
  LowRank<SharedFrozen<T>> vera(std::string_view path, Index in) {
    const PeftModule& module = of_kind(path, PeftKind::vera, "VeRA", "vera_lambda_b");
    auto& pair = pairs_[entries_of(module, "vera_A", "vera_B")];
    if (!pair)
      pair = std::make_shared<const FrozenPair<T>>(FrozenPair<T>{matrix(module, "vera_A"), turned(module, "vera_B")});
    auto d = matrix(module, "vera_lambda_d"), b = matrix(module, "vera_lambda_b");
    SharedFrozen<T> factors({.in = in, .out = b.cols(), .pair = pair}, generator());
    factors.parameters() = {std::move(d), std::move(b)};
    return checked<LowRank<SharedFrozen<T>>>(std::move(factors), module.scale);
  }
  /// `in` and `out` are those of the layer. Rows are paired as the release pairs them, unless told otherwise.
  MapExperts<DiagonalMixture<T>> randlora(std::string_view path, Index in, Index out,
                                          BasisPairing pairing = BasisPairing::flattened) {
    const PeftModule& module = of_kind(path, PeftKind::randlora, "RandLoRA", "randlora_lambda");
    auto& bases = bases_[entries_of(module, "randlora_A", "randlora_B")];
    if (!bases)
      bases = std::make_shared<const DiagonalBases<T>>(matrix(module, "randlora_A"), turned(module, "randlora_B"));
    auto lambda = matrix(module, "randlora_lambda"), gamma = matrix(module, "randlora_gamma");
    DiagonalMixture<T> maps(
        {.in = in, .out = out, .bases = bases, .used = lambda.cols(), .pairing = pairing, .over_root_of_bases = false},
        generator());
    maps.parameters() = {std::move(lambda), std::move(gamma)};
    return checked<MapExperts<DiagonalMixture<T>>>(std::move(maps), module.scale);
  }
  LowRank<HadamardFactors<T>> loha(std::string_view path) const {
    const PeftModule& module = of_kind(path, PeftKind::loha, "LoHa", "hada_w1_a");
    auto w1_a = turned(module, "hada_w1_a"), w1_b = matrix(module, "hada_w1_b");
    HadamardFactors<T> factors({.in = w1_b.cols(), .out = w1_a.cols(), .rank = w1_b.rows()}, generator());
    factors.parameters() = {std::move(w1_a), std::move(w1_b), turned(module, "hada_w2_a"), matrix(module, "hada_w2_b")};
    return checked<LowRank<HadamardFactors<T>>>(std::move(factors), module.scale);
  }
  MapExperts<KroneckerMaps<T>> lokr(std::string_view path) const {
    const PeftModule& module = of_kind(path, PeftKind::lokr, "LoKr", "");
    typename KroneckerMaps<T>::Parameters parameters;
    KroneckerMaps<T>::Parameters::for_each_tensor(
        [&](std::string_view name, Matrix<T>& tensor) {
          if (module.has(name)) tensor = matrix(module, name);
        },
        parameters);
    return checked<MapExperts<KroneckerMaps<T>>>(KroneckerMaps<T>(std::move(parameters)), module.scale);
  }

  /// f(the experts of the module, of their own type). `in` and `out` are the sizes of its layer; `weight` [O x I] is
  /// that of the base, for DoRA, whose experts borrow it. Neither stacked experts nor embeddings; Error(option) for
  /// those of a mixture.
  template <class F>
  decltype(auto) visit(std::string_view path, Index in, Index out, View<const T> weight, F&& f) {
    const PeftModule& module = adapter_->at(path);
    require(!is_mixture(adapter_->config.kind), ErrorCode::option, adapter_->source,
            ": expected an expert of every token at '", path, "', found ", name_of(adapter_->config.kind),
            ", with a router");
    switch (adapter_->config.kind) {
      case PeftKind::lora:
        if (module.has("lora_B.bias")) return f(biased_lora(path));
        if (module.has("lora_embedding_A") || !module.has("lora_magnitude_vector")) return f(lora(path));
        require(bool(weight), ErrorCode::option, "PeftExperts: expected the base's weight as numbers for DoRA at '",
                path, "', found none");
        return f(dora(path, weight));
      case PeftKind::adalora:
        return f(adalora(path));
      case PeftKind::vera:
        return f(vera(path, in));
      case PeftKind::randlora:
        return f(randlora(path, in, out));
      case PeftKind::loha:
        return f(loha(path));
      default:
        break;
    }
    return f(lokr(path));
  }

 private:
  static Rng& generator() {  // draws what is overwritten at once
    static thread_local Rng rng;
    return rng;
  }

  const PeftModule& of_kind(std::string_view path, PeftKind kind, const char* what, std::string_view suffix) const {
    const PeftModule& module = adapter_->at(path);
    require(adapter_->config.kind == kind && (suffix.empty() || module.has(suffix)) && !module.stacked,
            ErrorCode::option, adapter_->source, ": expected ", what, " at '", path, "', found ",
            module.stacked ? "stacked experts" : "another module of ", name_of(adapter_->config.kind));
    return module;
  }

  using Entries = std::pair<const SafetensorsEntry*, const SafetensorsEntry*>;
  Entries entries_of(const PeftModule& module, std::string_view a, std::string_view b) const {
    return {adapter_->tensor(module, a).entry, adapter_->tensor(module, b).entry};
  }
  Matrix<T> matrix(const PeftModule& module, std::string_view suffix) const {
    return adapter_->tensor(module, suffix).template matrix<T>();
  }
  /// [columns x rows]
  Matrix<T> turned(const PeftModule& module, std::string_view suffix) const {
    return adapter_->tensor(module, suffix).template transposed<T>();
  }

  template <class Experts, class Parts>
  Experts checked(Parts parts, double scale) const {
    detail::check_sizes(parts);
    return Experts(std::move(parts), {T(scale)}, dropout());
  }
  LowRank<DenseFactors<T>> dense(const PeftModule& module, Matrix<T> a, Matrix<T> b) const {
    const Index ranks = a.rows();
    return checked<LowRank<DenseFactors<T>>>(
        DenseFactors<T>(RankBlocks::uniform(1, ranks), {std::move(a), std::move(b)}), module.scale);
  }
  LowRank<DenseFactors<T>> unbiased(const PeftModule& module) const {
    return dense(module, matrix(module, "lora_A.weight"), turned(module, "lora_B.weight"));
  }

  std::shared_ptr<const PeftAdapter> adapter_;
  // One for all modules, as a rule; a module may have its own.
  std::map<Entries, std::shared_ptr<const FrozenPair<T>>> pairs_;
  std::map<Entries, std::shared_ptr<const DiagonalBases<T>>> bases_;
};

template <std::floating_point T>
LowRank<DenseFactors<T>> PeftExperts<T>::stacked_lora(std::string_view path, std::string_view parameter) const {
  const PeftModule& module = adapter_->at(path);
  require(module.stacked, ErrorCode::option, adapter_->source, ": expected stacked experts at '", path,
          "', found a module without");
  const std::string of_host = detail::without_base_layers(path) + "." + std::string(parameter);
  const Matrix<T> a = matrix(module, "lora_A.weight"), by_rank = turned(module, "lora_B.weight");
  const Index rank = adapter_->config.rank_of(of_host);
  require(a.rows() % rank == 0, ErrorCode::shape, adapter_->source, ": expected a multiple of ", rank,
          " ranks, one for each expert, in '", of_host, "', found ", a.rows());
  const Index experts = a.rows() / rank;
  Matrix<T> b(by_rank.rows(), by_rank.cols());
  for (Index e = 0; e < experts; ++e)
    for (Index r = 0; r < rank; ++r)
      std::ranges::copy(by_rank.view().row(r * experts + e), b.view().row(e * rank + r).begin());
  return LowRank<DenseFactors<T>>(DenseFactors<T>(RankBlocks::uniform(experts, rank), {a, std::move(b)}),
                                  std::vector<T>(std::size_t(experts), T(adapter_->config.scale_of(of_host))));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
