// SPDX-License-Identifier: MIT
#include "training/methods/connected_routers.hpp"

#include "mole/loss/importance_cv2.hpp"
#include "mole/loss/load_balance.hpp"
#include "mole/loss/load_cv2.hpp"
#include "mole/loss/routing_contrastive.hpp"
#include "mole/method/lora_mixture.hpp"
#include "mole/method/noisy_top_k.hpp"
#include "mole/method/promoe.hpp"
#include "mole/router/recurrent_router.hpp"
#include "mole/router/rnn_cell.hpp"

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace training {
namespace {

using mole::Index;

/// A matrix of [tokens x cols] for each of so many layers.
class LayerMatrices {
 public:
  LayerMatrices(const std::vector<Site>& sites, Index cols) {
    for (const Site& site : sites) matrices_.emplace_back(site.max_tokens, cols);
  }
  mole::View<float> of(Index layer, Index tokens) { return matrices_[std::size_t(layer)].view().top(tokens); }

 private:
  std::vector<mole::Matrix<float>> matrices_;
};

/// The cell of a recurrent router, and the states of the tokens between the layers, bottom first.
template <class Cell>
class Recurrence final : public Shared {
 public:
  static constexpr Index width = 16;

  Recurrence(const std::vector<Site>& sites, mole::Rng& rng)
      : cell({.in = width, .width = width}, rng),
        gradients(cell.gradients()),
        states_(sites, width),
        d_states_(sites, width) {}

  void for_each_tensor(const mole::AnyLinear<float>::Visitor& f) override { cell.for_each_tensor(f, gradients); }
  void zero_gradients() override { mole::set_zero(gradients); }

  /// The layer reads the state of the one below, and leaves its own.
  void connect(const LayerCall& call) {
    const Index n = call.number, tokens = call.x.rows();
    const mole::View<float> d_out = d_states_.of(n, tokens);
    fill(d_out, 0.0f);  // the layers above add to it
    auto& carry = call.layer.router_scratch<mole::RecurrentRouter<float, Cell>>().carry;
    carry = {.out = states_.of(n, tokens), .d_out = d_out, .d_cell = &gradients};
    if (n > 0) carry.in = states_.of(n - 1, tokens), carry.d_in = d_states_.of(n - 1, tokens);
  }

  Cell cell;
  typename Cell::Parameters gradients;

 private:
  LayerMatrices states_, d_states_;
};

/// Two of eight experts, as MoLA, by a router that remembers what the layers below have read.
template <class Cell>
Method rmoe(std::string name, std::string title, const Execution& execution) {
  using Router = mole::RecurrentRouter<float, Cell>;
  constexpr Index width = Recurrence<Cell>::width;
  return {.name = std::move(name),
          .title = std::move(title),
          .learning_rate = 7e-3,
          .routed = true,
          .touched =
              [](const Site& site) {
                return Touched{.always = width * (site.in() + experts), .each = lora_parameters(site, expert_rank)};
              },
          .share = [](const std::vector<Site>& sites,
                      mole::Rng& rng) { return std::make_unique<Recurrence<Cell>>(sites, rng); },
          .build_shared =
              [execution](const Site& site, Shared& shared, mole::Rng& rng) {
                const struct {
                  Index experts = training::experts, rank = expert_rank;
                  double alpha = scale * double(expert_rank), dropout = 0;
                } options;
                const mole::Gate gate{mole::Softmax{}, mole::TopK{.k = chosen}, mole::Renormalized{}};
                const Cell& cell = dynamic_cast<Recurrence<Cell>&>(shared).cell;
                return Method::Layer(
                    mole::lora_mixture(options, Router({.in = site.in(), .experts = options.experts}, cell, rng), gate,
                                       site.base(), rng, execution),
                    site.max_tokens);
              },
          .before_forward = [](const LayerCall& call) { dynamic_cast<Recurrence<Cell>&>(*call.shared).connect(call); },
          .loss = [](mole::Trace<float>& trace) { mole::load_balance(trace, {.coefficient = 1e-2}); }};
}

/// Where the load loss of each layer leaves its gradients. There are no parameters.
class LoadGradients final : public Shared {
 public:
  explicit LoadGradients(const std::vector<Site>& sites) : d_clean(sites, experts), d_deviation(sites, experts) {}

  void for_each_tensor(const mole::AnyLinear<float>::Visitor&) override {}
  void zero_gradients() override {}

  LayerMatrices d_clean, d_deviation;
};

Method noisy_top_k(const Execution& execution) {
  using Router = mole::NoisyRouter<mole::LinearRouter<float>>;
  return {.name = "noisy_top_k",
          .title = "Noisy top-2 of 8 x r4",
          .learning_rate = 7e-3,
          .routed = true,
          .touched =  // the noise is in training alone
          [](const Site& site) {
            return Touched{.always = router_parameters(site), .each = lora_parameters(site, expert_rank)};
          },
          .share = [](const std::vector<Site>& sites, mole::Rng&) { return std::make_unique<LoadGradients>(sites); },
          .build_shared =
              [execution](const Site& site, Shared&, mole::Rng& rng) {
                return Method::Layer(mole::noisy_top_k({.experts = experts,
                                                        .rank = expert_rank,
                                                        .k = chosen,
                                                        .alpha = scale * double(expert_rank),
                                                        .dropout = 0},
                                                       site.base(), rng, execution),
                                     site.max_tokens);
              },
          .before_forward =
              [](const LayerCall& call) {
                auto& gradients = dynamic_cast<LoadGradients&>(*call.shared);
                auto& carry = call.layer.router_scratch<Router>().carry;
                const mole::View<float> d_clean = gradients.d_clean.of(call.number, call.x.rows()),
                                        d_deviation = gradients.d_deviation.of(call.number, call.x.rows());
                fill(d_clean, 0.0f), fill(d_deviation, 0.0f);
                carry = {.d_clean = d_clean, .d_deviation = d_deviation};
              },
          .loss = [](mole::Trace<float>& trace) { mole::importance_cv2(trace, {.coefficient = 0.1}); },
          .before_backward =
              [](const LayerCall& call) {
                auto& gradients = dynamic_cast<LoadGradients&>(*call.shared);
                const auto& scratch = call.layer.router_scratch<Router>();
                const Index tokens = call.x.rows();
                mole::load_cv2(call.layer.trace(),
                               {.clean = scratch.clean.top(tokens),
                                .deviation = scratch.deviation.top(tokens),
                                .d_clean = gradients.d_clean.of(call.number, tokens),
                                .d_deviation = gradients.d_deviation.of(call.number, tokens)},
                               {.coefficient = 0.1, .k = chosen});
              }};
}

/// All text has a condition: the unconditional expert, the last but one, serves nothing.
Method promoe(const Execution& execution) {
  constexpr Index prototypes = 6, shared = 1, all = prototypes + 1 + shared;
  using Layer = decltype(mole::promoe({}, std::declval<mole::DenseBase<mole::View<const float>>>(),
                                      std::declval<mole::Rng&>(), std::declval<Execution>()));
  return {.name = "promoe",
          .title = "ProMoE, 1 + top-1 of 6 x r4",
          .learning_rate = 7e-3,
          .routed = true,
          .build =
              [execution](const Site& site, mole::Rng& rng) {
                return Method::Layer(mole::promoe({.experts = all,
                                                   .shared = shared,
                                                   .rank = expert_rank,
                                                   .alpha = scale * double(expert_rank),
                                                   .dropout = 0},
                                                  site.base(), rng, execution),
                                     site.max_tokens);
              },
          .touched =
              [](const Site& site) {
                return Touched{.always = router_parameters(site, prototypes),
                               .each = lora_parameters(site, expert_rank)};
              },
          .before_backward =
              [](const LayerCall& call) {
                Layer& layer = *call.layer.target<Layer>();
                mole::routing_contrastive(call.x, layer.router().parameters().first.prototypes, call.layer.trace(),
                                          call.d_x, call.layer.gradients<Layer>()->router.first.prototypes,
                                          {.coefficient = 0.1, .first_choice = true});
              }};
}

}  // namespace

std::vector<Method> methods_of_connected_routers(const Execution& execution) {
  return {rmoe<mole::GruCell<float>>("rmoe", "RMoE, top-2 of 8 x r4, GRU over layers", execution),
          rmoe<mole::RnnCell<float>>("rmoe_plain", "RMoE, top-2 of 8 x r4, plain cell", execution),
          noisy_top_k(execution), promoe(execution)};
}

}  // namespace training
