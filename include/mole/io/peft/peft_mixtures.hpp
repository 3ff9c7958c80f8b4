// SPDX-License-Identifier: MIT
// PeftMixtures: modules of the forks of peft that HydraLoRA, FlyLoRA and SMoRA were released with, as layers.
#pragma once

#include "mole/base/base_policy.hpp"
#include "mole/core/dropout.hpp"
#include "mole/core/random.hpp"
#include "mole/expert/low_rank.hpp"
#include "mole/factors/dense_factors.hpp"
#include "mole/factors/sparse_projection.hpp"
#include "mole/gating/gate.hpp"
#include "mole/gating/score/biased_sigmoid.hpp"
#include "mole/gating/score/magnitude.hpp"
#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/all.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/weigh/raw.hpp"
#include "mole/gating/weigh/renormalized.hpp"
#include "mole/gating/weigh/unit.hpp"
#include "mole/io/peft/peft_adapter.hpp"
#include "mole/layer/mixture_linear.hpp"
#include "mole/router/latent_router.hpp"
#include "mole/router/linear_router.hpp"
#include "mole/router/repeated_router.hpp"

#include <algorithm>
#include <concepts>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// A module as the layer that its preset would make, with the numbers of the file, copied and converted to T.
///
///   hydralora   as loramoe() with shared_down: softmax of all experts, which share one A; the router sees x undropped
///   flylora     as flylora() of the fork: signed selection, x gets no gradient through A
///   smora       as smora(): router and A see the same dropped x; scale alpha / k
///
/// Balancing biases are state of the layer; training goes on from those of the file. Borrows the adapter. Throws
/// Error(option) for a module that is not there or of another kind, Error(shape) for a base or tensors that do not fit.
template <std::floating_point T>
class PeftMixtures {
 public:
  explicit PeftMixtures(const PeftAdapter& adapter) : adapter_(adapter) {}
  PeftMixtures(PeftAdapter&&) = delete;  // a temporary would be gone

  template <BasePolicy Base, class Execution>
  auto hydralora(std::string_view path, Base base, Execution execution) const {
    const PeftModule& module = of_kind(path, PeftKind::hydralora);
    const Index experts = adapter_.config.experts;
    Matrix<T> a = matrix(module, "lora_A.weight");
    const Index rank = a.rows(), out = adapter_.tensor(module, "lora_B0.weight").shape()[0];
    Matrix<T> b(experts * rank, out);
    for (Index e = 0; e < experts; ++e) {
      const Matrix<T> own = turned(module, "lora_B" + std::to_string(e) + ".weight");
      require(own.cols() == out, ErrorCode::shape, adapter_.source, ": expected ", out, " outputs of every expert at '",
              path, "', found ", own.cols());
      copy(own.view(), b.view().middle_rows(e * rank, rank));
    }
    return MixtureLinear{LinearRouter<T>({matrix(module, "lora_route.weight"), {}}), Gate{Softmax{}, All{}, Raw{}},
                         LowRank<DenseFactors<T>>(
                             DenseFactors<T>(RankBlocks::uniform(experts, rank, true), {std::move(a), std::move(b)}),
                             scales(module, experts), dropout()),
                         std::move(base), std::move(execution)};
  }

  template <BasePolicy Base, class Execution>
  auto flylora(std::string_view path, Base base, Execution execution) const {
    const PeftModule& module = of_kind(path, PeftKind::flylora);
    const Matrix<T> a = matrix(module, "lora_A.weight");
    LatentRouter<T> router(a.rows());
    std::ranges::copy(matrix(module, "lora_topk_bias").elements(), router.bias().begin());
    Matrix<T> b = turned(module, "lora_B.weight");
    Rng rng;  // draws what is overwritten
    const typename SparseProjection<T>::Projection projection = nonzeros_of(a);
    SparseProjection<T> factors(
        {.in = a.cols(), .out = b.cols(), .experts = a.rows(), .nonzeros = projection.columns.cols(), .detached = true},
        rng);
    factors.set_projection(projection);
    factors.parameters().lora_B = std::move(b);
    factors.check_sizes();
    return MixtureLinear{std::move(router), Gate{Magnitude{.keep_sign = true}, TopK{.k = adapter_.config.k}, Unit{}},
                         LowRank<SparseProjection<T>>(std::move(factors), scales(module, a.rows()), dropout()),
                         std::move(base), std::move(execution)};
  }

  template <BasePolicy Base, class Execution>
  auto smora(std::string_view path, Base base, Execution execution) const {
    const PeftModule& module = of_kind(path, PeftKind::smora);
    Matrix<T> a = matrix(module, "lora_A.weight"), b = turned(module, "lora_B.weight");
    const Index rank = a.rows();
    BiasedSigmoid<T> score(rank);
    std::ranges::copy(matrix(module, "lora_biases").elements(), score.bias.begin());
    return MixtureLinear{
        RepeatedRouter<T>(LinearRouter<T>({matrix(module, "lora_router.weight"), {}}, dropout()),
                          adapter_.config.rank_partition),
        Gate{std::move(score), TopK{.k = adapter_.config.k}, Renormalized{double(adapter_.config.k)}},
        LowRank<DenseFactors<T>>(DenseFactors<T>(RankBlocks::uniform(rank, 1), {std::move(a), std::move(b)}),
                                 scales(module, rank), dropout()),
        std::move(base), std::move(execution)};
  }

  /// f(the layer of the module, of its own type).
  template <BasePolicy Base, class Execution, class F>
  decltype(auto) visit(std::string_view path, Base base, Execution execution, F&& f) const {
    if (adapter_.config.kind == PeftKind::hydralora) return f(hydralora(path, std::move(base), std::move(execution)));
    if (adapter_.config.kind == PeftKind::flylora) return f(flylora(path, std::move(base), std::move(execution)));
    return f(smora(path, std::move(base), std::move(execution)));
  }

 private:
  const PeftModule& of_kind(std::string_view path, PeftKind kind) const {
    require(adapter_.config.kind == kind, ErrorCode::option, adapter_.source, ": expected ", name_of(kind), " at '",
            path, "', found ", name_of(adapter_.config.kind));
    return adapter_.at(path);
  }
  Matrix<T> matrix(const PeftModule& module, std::string_view suffix) const {
    return adapter_.tensor(module, suffix).template matrix<T>();
  }
  Matrix<T> turned(const PeftModule& module, std::string_view suffix) const {
    return adapter_.tensor(module, suffix).template transposed<T>();
  }
  Dropout dropout() const { return {.rate = adapter_.config.dropout, .stream = 1}; }
  static std::vector<T> scales(const PeftModule& module, Index experts) {
    return std::vector<T>(std::size_t(experts), T(module.scale));
  }

  /// As many of each row as the fullest has: where a row has less, zeros are among them.
  static typename SparseProjection<T>::Projection nonzeros_of(const Matrix<T>& a) {
    Index most = 1;
    for (Index r = 0; r < a.rows(); ++r) {
      const auto row = a.view().row(r);
      most = std::max(most, Index(row.size()) - Index(std::ranges::count(row, T(0))));
    }
    typename SparseProjection<T>::Projection projection{Matrix<int>(a.rows(), most), Matrix<T>(a.rows(), most)};
    for (Index r = 0; r < a.rows(); ++r) {
      Index missing = most;
      for (Index c = 0; c < a.cols(); ++c) missing -= a(r, c) != 0;
      Index at = 0;
      for (Index c = 0; c < a.cols() && at < most; ++c) {
        if (a(r, c) == 0 && missing == 0) continue;
        if (a(r, c) == 0) --missing;
        projection.columns(r, at) = int(c);
        projection.values(r, at++) = a(r, c);
      }
    }
    return projection;
  }

  const PeftAdapter& adapter_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
