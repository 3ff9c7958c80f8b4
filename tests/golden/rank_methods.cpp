// SPDX-License-Identifier: MIT
// Layers whose ranks count one by one: flylora, flylora-train, sora, sora-step, codyra, codyra-step, moram, smora.
#include "golden/methods.hpp"
#include "golden/routed_layers.hpp"
#include "mole/optim/sign_bias_balancer.hpp"

namespace golden {
namespace {

template <class T>
using SparseExperts = mole::LowRank<mole::SparseProjection<T>>;

/// The experts of a file, its dense A [r x in] taken apart; its B is [out x r].
template <class T>
SparseExperts<T> load_sparse_experts(Comparison<T>& file, bool detached) {
  const Matrix<T> a = file.matrix("lora_A"), b = file.matrix("lora_B");
  const auto nonzeros_of = [&](Index j) {
    const auto row = a.view().row(j);
    return a.cols() - std::count(row.begin(), row.end(), T(0));
  };
  Index nonzeros = 1;
  for (Index j = 0; j < a.rows(); ++j) nonzeros = std::max<Index>(nonzeros, nonzeros_of(j));
  file.expect_option("nonzeros_per_row", double(nonzeros));
  typename mole::SparseProjection<T>::Projection sparse{Matrix<int>(a.rows(), nonzeros), Matrix<T>(a.rows(), nonzeros)};
  for (Index j = 0; j < a.rows(); ++j) {
    Index zeros_to_hold = nonzeros - nonzeros_of(j);
    for (Index i = 0, k = 0; i < a.cols(); ++i) {
      if (a(j, i) == 0 && zeros_to_hold-- <= 0) continue;
      sparse.columns(j, k) = int(i);
      sparse.values(j, k++) = a(j, i);
    }
  }
  mole::Rng rng;
  const bool has_alpha = file.has_option("alpha");
  SparseExperts<T> experts({.in = a.cols(),
                            .out = b.rows(),
                            .experts = a.rows(),
                            .nonzeros = nonzeros,
                            .alpha = has_alpha ? file.number("alpha") / double(a.rows()) : file.number("scaling", 1),
                            .scaling = mole::Scaling::fixed,
                            .detached = detached},
                           rng);
  expect_sizes(file, experts, a.rows());
  experts.factors().set_projection(sparse);
  for (Index j = 0; j < b.cols(); ++j)
    for (Index o = 0; o < b.rows(); ++o) experts.parameters().lora_B(j, o) = b(o, j);
  return experts;
}

/// Calls check(step) for every step: tensors of one end in nothing, of several in .0, .1 ...
template <class T, class Check>
void for_each_step(Comparison<T>& file, Check check) {
  if (file.has("x")) return file.expect_option("steps", 1), check("");
  Index steps = 0;
  for (; file.has("x." + std::to_string(steps)); ++steps) check("." + std::to_string(steps));
  file.expect_option("steps", double(steps));
}

/// The counts of a step, and the bias after it, which `moves` unless the release does not balance this call; both have
/// the very numbers of the file. Releases hold their rate in float32.
template <class T>
void expect_balanced(Comparison<T>& file, mole::SignBiasBalancer::Options options, const mole::Trace<T>& trace,
                     bool moves, const std::string& step, const std::string& bias_after, std::span<T> bias) {
  std::vector<std::int64_t> counts;
  for (Index e = 0; e < trace.experts(); ++e) counts.push_back(trace.routing.load(e));
  file.expect_optional("routing.count" + step, counts);
  if (moves) {
    options.experts = trace.experts();
    options.rate = double(float(options.rate));
    mole::SignBiasBalancer balancer(options);
    balancer.observe(trace);
    balancer.update(bias);
  }
  const std::string name = bias_after + step;
  if (!file.has(name)) return;
  file.expect(name, View<const T>(bias.data(), 1, Index(bias.size())));
  if (!std::ranges::equal(file.matrix(name).elements(), bias))
    throw std::runtime_error("expected the bits of " + name + ", found others");
}

/// The bias of the file, which may have none.
template <class T>
void load_bias(const Comparison<T>& file, std::span<T> bias) {
  if (file.has("routing.bias")) std::ranges::copy(file.matrix("routing.bias").elements(), bias.begin());
}

/// Both releases of FlyLoRA; their bias is state, and gets no gradient.
template <class T, class Gating, class Execution>
void check_flylora(Comparison<T>& file, const Gating& gating, bool detached,
                   const mole::SignBiasBalancer::Options& balance, const std::string& bias_after, bool training,
                   Execution execution) {
  const auto experts = load_sparse_experts(file, detached);
  with_base(file, experts.in(), experts.out(), [&](auto base) {
    mole::MixtureLinear layer(mole::LatentRouter<T>(experts.experts()), gating, experts, std::move(base), execution);
    const std::span<T> bias = layer.router().bias();
    load_bias(file, bias);
    for_each_step(file, [&](const std::string& step) {
      auto work = layer.workspace(file.matrix("x" + step).rows());
      expect_layer(file, layer, work, {.training = training}, step, [&](const auto& gradients) {
        file.expect("grad.lora_B" + step, transposed(gradients.experts.lora_B));
        file.expect_optional("grad.routing.bias" + step, Matrix<T>(1, experts.experts()));
      });
      Matrix<T> latent(work.tokens(), work.experts());
      for (Index n = 0; n < work.tokens(); ++n)
        for (Index j = 0; j < work.experts(); ++j) latent(n, j) = work.logits()(n, j) - bias[std::size_t(j)];
      file.expect_optional("router.activation" + step, latent);
      expect_choice(file, work.routing, work.experts(), step);
      expect_balanced<T>(file, balance, work, training || balance.counts_evaluation, step, bias_after, bias);
    });
  });
}

/// The release's reference file: the largest magnitudes win, and a share is compared with a count.
Method flylora() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    check_flylora(file, mole::Gate{mole::Magnitude{}, mole::TopK{.k = file.integer("top_k")}, mole::Unit{}}, false,
                  {.rate = file.number("bias_lr", 0), .target = mole::BalanceTarget::frequency, .counts_padding = true},
                  "routing.bias_after_update", file.flag("training", true), execution);
  });
}

/// The release's training code: the largest signed values win, the adapter hands x no gradient, and every call,
/// training or not, is balanced.
Method flylora_train() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    check_flylora(file, mole::Gate{mole::Identity{}, mole::TopK{.k = file.integer("top_k")}, mole::Unit{}}, true,
                  {.rate = file.number("bias_u", 0), .counts_padding = true, .counts_evaluation = true},
                  "routing.bias_after", file.flag("training"), execution);
  });
}

/// A LoRA with a trained gate between A and B: y and all gradients.
template <class T, class Layer>
void check_gated_ranks(Comparison<T>& file, Layer& layer) {
  layer.experts().parameters() = {file.matrix("lora_A"), transposed(file.matrix("lora_B")), file.matrix("gate")};
  auto work = layer.workspace(file.matrix("x").rows());
  expect_layer(file, layer, work, {}, "", [&](const auto& gradients) {
    file.expect("grad.lora_A", gradients.experts.lora_A);
    file.expect("grad.lora_B", transposed(gradients.experts.lora_B));
    file.expect("grad.gate", gradients.experts.gate);
  });
}

/// Calls use(base, rank) for the layer of one A and B.
template <class T, class Use>
void with_base_and_rank(const Comparison<T>& file, Use use) {
  const Matrix<T> a = file.matrix("lora_A"), b = file.matrix("lora_B");
  with_base(file, a.cols(), b.rows(), [&](auto base) { use(std::move(base), a.rows()); });
}

Method sora() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    with_base_and_rank(file, [&](auto base, Index rank) {
      mole::Rng rng;
      auto layer = mole::sora({.rank = rank, .alpha = file.number("alpha")}, std::move(base), rng, execution);
      expect_sizes(file, layer.experts(), rank);
      check_gated_ranks(file, layer);
    });
  });
}

/// The layer, the ranks that a task leaves to the archive, and the weight that the next one starts from.
Method codyra() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    with_base_and_rank(file, [&](auto base, Index rank) {
      mole::Rng rng;
      auto layer = mole::codyra({.rank = rank}, std::move(base), rng, execution);
      expect_sizes(file, layer.experts(), rank);
      check_gated_ranks(file, layer);
      const auto kept = prune_zero_ranks(layer.experts());
      const auto& ranks = kept.parameters();
      file.expect_option("zero_gates", double(rank - ranks.lora_A.rows()));
      Matrix<T> gated = ranks.lora_A;  // the release's archive has the gate in A
      for (Index i = 0; i < gated.size(); ++i) gated.elements()[std::size_t(i)] *= ranks.gate(0, i / gated.cols());
      file.expect_optional("archive.lora_A", gated);
      file.expect_optional("archive.lora_B", transposed(ranks.lora_B));
      if constexpr (requires { layer.base().weight(); }) {
        Matrix<T>& weight = layer.base().parameters().weight;
        merge_and_reset(layer, weight.view(), rng);
        const Matrix<T> x = file.matrix("x");
        Matrix<T> y(x.rows(), layer.out());
        auto work = layer.workspace(x.rows());
        layer.forward(x, y, work);
        file.expect_optional("merged.weight", weight);
        file.expect_optional("merged.y", y);
      }
    });
  });
}

/// The optimizer that a release steps its gates with; `correction` is its name for the correction of the moments.
template <class T, class Arch>
auto load_adamw(const Comparison<T>& file, const std::string& correction, bool epsilon_on_raw) {
  const std::vector<double> betas = file.list("betas");
  return mole::AdamW<T, Arch>({.learning_rate = file.number("lr"),
                               .beta1 = betas.at(0),
                               .beta2 = betas.at(1),
                               .epsilon = file.number("eps"),
                               .weight_decay = file.number("weight_decay", 0),
                               .epsilon_on_raw = epsilon_on_raw,
                               .bias_correction = file.flag(correction, true)});
}

/// Steps of the gate's own optimizer as released; there grad.s is what a step is fed. One of the two releases
/// multiplies lambda by the learning rate, as its note says.
template <class T, class Arch>
void expect_sora_steps(Comparison<T>& file) {
  auto adamw = load_adamw<T, Arch>(file, "correct_bias", true);
  file.ignore_option("schedule");  // lambda.s has what it gives
  const bool by_rate = file.text("note").find("lambda*lr") != std::string::npos;
  Matrix<T> gate = file.matrix("param");
  Index s = 0;
  for (; file.has("grad." + std::to_string(s)); ++s) {
    const std::string step = "." + std::to_string(s);
    Matrix<T> gradient = file.input("grad" + step);
    adamw.step([&](auto&& f) { f("gate", gate.view(), gradient.view()); });
    double lambda = file.number("sparse_lambda");
    if (file.has("lambda" + step)) {
      const double scheduled = file.exact("lambda" + step);
      if (!file.has_option("schedule")) file.expect_option("sparse_lambda", scheduled);
      lambda = scheduled;
    }
    mole::soft_threshold(gate.elements(), by_rate ? lambda * file.number("lr") : lambda,
                         mole::ThresholdMode::dead_zone);
    file.expect("param" + step, gate);
  }
  file.expect_option("steps", double(s));
}

/// Iterations of a task; the release changes its threshold in the first one that does not apply it yet.
template <class T, class Arch>
void expect_codyra_steps(Comparison<T>& file) {
  auto adamw = load_adamw<T, Arch>(file, "bias_correction", false);
  Matrix<T> gate = file.matrix("gate.initial"), gradients = file.matrix("grads"), gates = gradients;
  const Index iterations = gradients.rows();
  file.expect_option("rank", double(gate.size()));
  file.expect_option("iterations", double(iterations));
  const mole::ThresholdSchedule threshold{.dense_fraction = file.number("dense_fraction"),
                                          .kappa_max = file.number("kappa_max"),
                                          .stages = file.integer("kappa_count"),
                                          .iterations = iterations};
  std::vector<std::int64_t> active, zeros;
  Matrix<T> kappa(1, iterations);
  for (Index t = 0; t < iterations; ++t) {
    adamw.step([&](auto&& f) { f("gate", gate.view(), gradients.view().middle_rows(t, 1)); });
    mole::soft_threshold(gate.elements(), threshold(t), mole::ThresholdMode::dead_zone);
    std::ranges::copy(gate.elements(), gates.view().row(t).begin());
    active.push_back(double(t) > threshold.dense_fraction * double(iterations));
    zeros.push_back(std::ranges::count(gate.elements(), T(0)));
    kappa(0, t) = active.back() ? T(threshold(t)) : file.matrix("kappa")(0, t);
  }
  file.expect("gates", gates);
  file.expect_optional("kappa", kappa);
  file.expect_optional("active", active);
  file.expect_optional("zeros", zeros);
}

/// Lets `check` compare with an optimizer of both forms of its kernel.
template <class Check>
Method with_both_optimizers(Check check) {
  const auto all = [check](auto& comparison) {
    comparison.under("vectors");
    check(comparison, mole::kernel::DefaultArchitecture{});
    comparison.under("one element a vector");
    check(comparison, mole::kernel::Scalar{});
  };
  return {all, all};
}

Method sora_step() {
  return with_both_optimizers([]<class T, class Arch>(Comparison<T>& file, Arch) { expect_sora_steps<T, Arch>(file); });
}

Method codyra_step() {
  return with_both_optimizers(
      []<class T, class Arch>(Comparison<T>& file, Arch) { expect_codyra_steps<T, Arch>(file); });
}

/// Frozen atoms first, then those of the task that learns.
Method moram() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    with_base_and_rank(file, [&](auto base, Index rank) {
      const bool grown = file.has("frozen.lora_A");
      const Matrix<T> frozen_a = grown ? file.matrix("frozen.lora_A") : Matrix<T>{};
      const Matrix<T> frozen_b = grown ? transposed(file.matrix("frozen.lora_B")) : Matrix<T>{};
      mole::Rng rng;
      mole::MoramOptions options{.ranks = {int(rank)},
                                 .k = file.integer("top_k"),
                                 .temperature = file.number("temperature"),
                                 .min_score = file.number("threshold")};
      if (grown) options.ranks.insert(options.ranks.begin(), int(frozen_a.rows()));
      auto layer = mole::moram(options, std::move(base), rng, execution);
      auto& factors = layer.experts().factors();
      factors.for_each_state([&](std::string_view name, std::span<T> rows) {
        std::ranges::copy((name == "frozen_A" ? frozen_a : frozen_b).elements(), rows.begin());
      });
      const Matrix<T> a = file.matrix("lora_A"), b = transposed(file.matrix("lora_B"));
      copy(a.view(), factors.parameters().lora_A.view());
      copy(b.view(), factors.parameters().lora_B.view());
      expect_sizes(file, layer.experts(), rank);
      file.expect_option("total_rank", double(factors.blocks().experts()));
      file.expect_option("effective_top_k", double(layer.gating().select.k));
      if (!grown) file.expect_option("tasks", 1);
      file.ignore_option("tasks");  // all but the last are one frozen range here

      auto work = layer.workspace(file.matrix("x").rows());
      expect_layer(file, layer, work, {.training = file.flag("training", true)}, "", [&](const auto& gradients) {
        file.expect("grad.lora_A", gradients.experts.lora_A);
        file.expect("grad.lora_B", transposed(gradients.experts.lora_B));
      });
      file.expect_optional("normalised", work.scores());
      file.expect_optional("gate.dense", dense_weights(work.routing, work.experts()));
    });
  });
}

/// Scores of the release have the bias; its logits are one for all ranks that share a row.
template <class T>
void expect_smora_gate(Comparison<T>& file, mole::Trace<T>& trace, Index rank_partition, const std::string& step) {
  Matrix<T> logits(trace.tokens(), trace.experts() / rank_partition);
  for (Index n = 0; n < logits.rows(); ++n)
    for (Index e = 0; e < logits.cols(); ++e) logits(n, e) = trace.logits()(n, e * rank_partition);
  file.expect_optional("router.logits" + step, logits);
  file.expect_optional("router.scores" + step, trace.scores());
  file.expect_optional("gate.dense" + step, dense_weights(trace.routing, trace.experts()));
  expect_choice(file, trace.routing, trace.experts(), step);
}

/// A router, a gate whose bias is in the weights too, and a training call that balances after each forward.
Method smora() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    with_base_and_rank(file, [&](auto base, Index rank) {
      mole::Rng rng;
      const mole::SmoraOptions options{.rank = rank,
                                       .k = file.integer("top_k"),
                                       .rank_partition = file.integer("rank_partition", 1),
                                       .alpha = file.number("alpha")};
      auto layer = mole::smora(options, std::move(base), rng, execution);
      expect_sizes(file, layer.experts(), rank);
      layer.experts().parameters() = {file.matrix("lora_A"), transposed(file.matrix("lora_B"))};
      layer.router().parameters().weight = file.matrix("router.weight");
      const std::span<T> bias = layer.gating().score.bias;
      load_bias(file, bias);
      const bool training = file.flag("training", true);
      const mole::SignBiasBalancer::Options balance{.rate = file.number("bias_update_rate", 0), .counts_padding = true};
      for_each_step(file, [&](const std::string& step) {
        auto work = layer.workspace(file.matrix("x" + step).rows());
        expect_layer(file, layer, work, {.training = training}, step, [&](const auto& gradients) {
          file.expect("grad.lora_A" + step, gradients.experts.lora_A);
          file.expect("grad.lora_B" + step, transposed(gradients.experts.lora_B));
          file.expect("grad.router.weight" + step, gradients.router.weight);
          Matrix<T> d_bias(1, rank);
          for (Index n = 0; n < work.tokens(); ++n)
            for (Index e = 0; e < rank; ++e) d_bias(0, e) += work.d_scores()(n, e);
          file.expect_optional("grad.routing.bias" + step, d_bias);
        });
        expect_smora_gate<T>(file, work, options.rank_partition, step);
        expect_balanced<T>(file, balance, work, training, step, "routing.bias_after", bias);
      });
    });
  });
}

}  // namespace

std::map<std::string, Method> rank_methods() {
  return {{"smora", smora()},         {"flylora", flylora()}, {"flylora-train", flylora_train()}, {"sora", sora()},
          {"sora-step", sora_step()}, {"codyra", codyra()},   {"codyra-step", codyra_step()},     {"moram", moram()}};
}

}  // namespace golden
