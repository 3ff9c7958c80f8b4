// SPDX-License-Identifier: MIT
// The PolicyDescription of every policy that the presets of preset_kinds() are composed of.
#pragma once

#include "mole/expert/low_rank.hpp"
#include "mole/factors/dense_factors.hpp"
#include "mole/factors/sparse_projection.hpp"
#include "mole/gating/gate.hpp"
#include "mole/gating/score/biased_sigmoid.hpp"
#include "mole/gating/score/identity.hpp"
#include "mole/gating/score/magnitude.hpp"
#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/all.hpp"
#include "mole/gating/select/entropy_hybrid.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/select/top_p.hpp"
#include "mole/gating/weigh/raw.hpp"
#include "mole/gating/weigh/renormalized.hpp"
#include "mole/gating/weigh/unit.hpp"
#include "mole/io/layer/policy_description.hpp"
#include "mole/router/latent_router.hpp"
#include "mole/router/linear_router.hpp"
#include "mole/router/no_router.hpp"
#include "mole/router/repeated_router.hpp"

#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

// ---- routers

template <class T>
struct PolicyDescription<NoRouter<T>> {
  static constexpr const char* name = "NoRouter";
  static void write(const NoRouter<T>& router, LayerFieldsWriter& to) { to.set("outputs", router.outputs()); }
  static NoRouter<T> read(const LayerFieldsReader& from) { return NoRouter<T>(from.size("outputs", 1)); }
};

template <class T>
struct PolicyDescription<LinearRouter<T>> {
  static constexpr const char* name = "LinearRouter";
  static void write(const LinearRouter<T>& router, LayerFieldsWriter& to) {
    to.set("outputs", router.outputs());
    to.set("bias", !router.parameters().bias.empty());
    to.set("dropout", router.dropout());
  }
  static LinearRouter<T> read(const LayerFieldsReader& from) {
    const Index outputs = from.size("outputs", from.in());
    return LinearRouter<T>({Matrix<T>(outputs, from.in()), from.flag("bias") ? Matrix<T>(1, outputs) : Matrix<T>()},
                           from.dropout("dropout"));
  }
};

template <class T>
struct PolicyDescription<RepeatedRouter<T>> {
  static constexpr const char* name = "RepeatedRouter";
  static void write(const RepeatedRouter<T>& router, LayerFieldsWriter& to) {
    to.set("router", detail::described(router.router()));
    to.set("times", router.times());
  }
  static RepeatedRouter<T> read(const LayerFieldsReader& from) {
    auto router = detail::policy_of<LinearRouter<T>>(from, "router");
    const Index times = from.size("times", router.outputs());
    return {std::move(router), times};
  }
};

template <class T>
struct PolicyDescription<LatentRouter<T>> {
  static constexpr const char* name = "LatentRouter";
  static void write(const LatentRouter<T>& router, LayerFieldsWriter& to) { to.set("outputs", router.outputs()); }
  static LatentRouter<T> read(const LayerFieldsReader& from) { return LatentRouter<T>(from.size("outputs", 1)); }
};

// ---- gatings

template <class Score, class Select, class Weigh>
struct PolicyDescription<Gate<Score, Select, Weigh>> {
  static constexpr const char* name = "Gate";
  static void write(const Gate<Score, Select, Weigh>& gate, LayerFieldsWriter& to) {
    to.set("score", detail::described(gate.score));
    to.set("select", detail::described(gate.select));
    to.set("weigh", detail::described(gate.weigh));
    to.set("shared", gate.shared());
  }
  static Gate<Score, Select, Weigh> read(const LayerFieldsReader& from) {
    return {detail::policy_of<Score>(from, "score"), detail::policy_of<Select>(from, "select"),
            detail::policy_of<Weigh>(from, "weigh"), from.size("shared", 1)};
  }
};

template <>
struct PolicyDescription<Softmax> {
  static constexpr const char* name = "Softmax";
  static void write(const Softmax& score, LayerFieldsWriter& to) {
    to.set("temperature", score.temperature);
    to.set("divisor", score.divisor);
  }
  static Softmax read(const LayerFieldsReader& from) {
    return {.temperature = from.number("temperature"), .divisor = from.number("divisor")};
  }
};
template <>
struct PolicyDescription<Identity> : detail::PlainDescription<Identity> {
  static constexpr const char* name = "Identity";
};
template <>
struct PolicyDescription<All> : detail::PlainDescription<All> {
  static constexpr const char* name = "All";
};
template <>
struct PolicyDescription<Unit> : detail::PlainDescription<Unit> {
  static constexpr const char* name = "Unit";
};
template <>
struct PolicyDescription<Raw> : detail::PlainDescription<Raw> {
  static constexpr const char* name = "Raw";
};
template <>
struct PolicyDescription<TopK> {
  static constexpr const char* name = "TopK";
  static void write(const TopK& select, LayerFieldsWriter& to) { to.set("k", select.k); }
  static TopK read(const LayerFieldsReader& from) { return {.k = from.integer("k")}; }
};
template <>
struct PolicyDescription<TopP> {
  static constexpr const char* name = "TopP";
  static void write(const TopP& select, LayerFieldsWriter& to) {
    to.set("p", select.p);
    to.set("crossing", select.crossing);
    to.set("min_k", select.min_k);
    to.set("max_k", select.max_k);
    to.set("strict", select.strict);
  }
  static TopP read(const LayerFieldsReader& from) {
    return {.p = from.number("p"),
            .crossing = from.flag("crossing"),
            .min_k = from.integer("min_k"),
            .max_k = from.integer("max_k"),
            .strict = from.flag("strict")};
  }
};
template <>
struct PolicyDescription<EntropyHybrid> {
  static constexpr const char* name = "EntropyHybrid";
  static void write(const EntropyHybrid& select, LayerFieldsWriter& to) {
    to.set("confident", detail::described(select.confident));
    to.set("threshold", select.threshold);
    to.set("entropy", select.entropy.family == EntropyFamily::renyi ? "renyi" : "tsallis");
    to.set("order", select.entropy.order);
    to.set("shift", select.entropy.shift);
    to.set("offset", select.entropy.offset);
  }
  static EntropyHybrid read(const LayerFieldsReader& from) {
    const std::string family = from.text("entropy");
    if (family != "renyi" && family != "tsallis") throw from.error("renyi or tsallis", "entropy", family);
    return {.confident = detail::policy_of<TopP>(from, "confident"),
            .threshold = from.number("threshold"),
            .entropy = {.family = family == "renyi" ? EntropyFamily::renyi : EntropyFamily::tsallis,
                        .order = from.number("order"),
                        .shift = from.number("shift"),
                        .offset = from.number("offset")}};
  }
};
template <>
struct PolicyDescription<Renormalized> {
  static constexpr const char* name = "Renormalized";
  static void write(const Renormalized& weigh, LayerFieldsWriter& to) { to.set("sum", weigh.sum); }
  static Renormalized read(const LayerFieldsReader& from) { return {.sum = from.number("sum")}; }
};
template <>
struct PolicyDescription<Magnitude> {
  static constexpr const char* name = "Magnitude";
  static void write(const Magnitude& score, LayerFieldsWriter& to) { to.set("keep_sign", score.keep_sign); }
  static Magnitude read(const LayerFieldsReader& from) { return {.keep_sign = from.flag("keep_sign")}; }
};
template <class T>
struct PolicyDescription<BiasedSigmoid<T>> {
  static constexpr const char* name = "BiasedSigmoid";
  static void write(const BiasedSigmoid<T>& score, LayerFieldsWriter& to) {
    to.set("experts", Index(score.bias.size()));
  }
  static BiasedSigmoid<T> read(const LayerFieldsReader& from) { return BiasedSigmoid<T>(from.size("experts", 1)); }
};

// ---- experts

namespace detail {
inline void write_ranks(const RankBlocks& blocks, LayerFieldsWriter& to) {
  std::vector<Index> ranks;
  for (Index e = 0; e < blocks.experts(); ++e) ranks.push_back(blocks.size(e));
  to.set("ranks", ranks);
}
}  // namespace detail

template <class T>
struct PolicyDescription<DenseFactors<T>> {
  static constexpr const char* name = "DenseFactors";
  static void write(const DenseFactors<T>& factors, LayerFieldsWriter& to) {
    detail::write_ranks(factors.blocks(), to);
    to.set("shared_down", factors.blocks().shared_down());
  }
  static DenseFactors<T> read(const LayerFieldsReader& from) {
    std::vector<int> ranks;
    const bool shared = from.flag("shared_down");
    for (const Index rank : from.sizes("ranks", shared ? from.out() : from.in() + from.out()))
      ranks.push_back(checked_int("DenseFactors: ranks of an expert", rank));
    RankBlocks blocks = RankBlocks::ragged(ranks, shared);
    LoraParameters<T> parameters{Matrix<T>(blocks.ranks_down(), from.in()), Matrix<T>(blocks.ranks_up(), from.out())};
    return {std::move(blocks), std::move(parameters)};
  }
};

template <class T>
struct PolicyDescription<SparseProjection<T>> {
  static constexpr const char* name = "SparseProjection";
  static void write(const SparseProjection<T>& factors, LayerFieldsWriter& to) {
    to.set("experts", factors.blocks().experts());
    to.set("rank", factors.blocks().max_size());
    to.set("nonzeros", factors.nonzeros());
    to.set("detached", factors.detached());
  }
  static SparseProjection<T> read(const LayerFieldsReader& from) {
    const Index experts = from.size("experts", from.out());
    const Index rank = from.size("rank", checked_product("SparseProjection: numbers of B", experts, from.out()));
    Rng rng;  // draws what is overwritten
    return SparseProjection<T>({.in = from.in(),
                                .out = from.out(),
                                .experts = experts,
                                .rank = rank,
                                .nonzeros = from.size("nonzeros", experts * rank),
                                .detached = from.flag("detached")},
                               rng);
  }
};

template <class Factors>
struct PolicyDescription<LowRank<Factors>> {
  static constexpr const char* name = "LowRank";
  static void write(const LowRank<Factors>& experts, LayerFieldsWriter& to) {
    to.set("factors", detail::described(experts.factors()));
    to.set("dropout", experts.dropout());
  }
  static LowRank<Factors> read(const LayerFieldsReader& from) {
    using T = typename Factors::Scalar;
    auto factors = detail::policy_of<Factors>(from, "factors");
    const auto count = std::size_t(factors.blocks().experts());
    return {std::move(factors), std::vector<T>(count, T(1)), from.dropout("dropout")};
  }
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
