// SPDX-License-Identifier: MIT
// Methods that are more than one layer, put together of what there is: X-LoRA, LoRA-Mixer, Uni-MoE, MoVA, HoME,
// Uni-RAG.
#include "mole/mole.hpp"
#include "mole/testing/central_differences.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

#include <numeric>

using namespace mole;

namespace {

constexpr Index stack_tokens = 8, stack_width = 11, stack_experts = 4;

const Matrix<double>& stack_x() {
  static const auto x = support::random_matrix<double>(stack_tokens, stack_width, 2);
  return x;
}

LowRank<DenseFactors<double>> stack_ranks(Index inputs, Index outputs, std::uint64_t seed) {
  Rng rng(seed);
  LowRank<DenseFactors<double>> ranks({.in = inputs, .out = outputs, .experts = stack_experts, .rank = 3, .alpha = 6},
                                      rng);
  fill_uniform(ranks.parameters().lora_B.view(), 1, rng);
  return ranks;
}

double dot_of(const Matrix<double>& a, const Matrix<double>& b) {
  return std::inner_product(a.elements().begin(), a.elements().end(), b.elements().begin(), 0.0);
}

/// The rows of a gradient that are not all 0.
std::vector<Index> touched_rows(const Matrix<double>& gradient) {
  std::vector<Index> rows;
  for (Index r = 0; r < gradient.rows(); ++r)
    if (std::ranges::any_of(gradient.view().row(r), [](double d) { return d != 0; })) rows.push_back(r);
  return rows;
}

}  // namespace

TEST_CASE(
    "X-LoRA: the base alone gives hidden states, a classifier of these mixes adapters of all layers in a second pass",
    "[composition]") {
  constexpr Index wide = 13;
  Rng rng(1);
  auto routing = xlora<double>({.hidden = wide,
                                .layers = 2,
                                .experts = stack_experts,
                                .depth = 2,
                                .width = 6,
                                .dropout = 0.3,
                                .k = 3,
                                .global_scaling_weight = 1.5},
                               rng, Reference{});
  const ExpertLinear first(stack_ranks(stack_width, wide, 4),
                           DenseBase(support::random_matrix<double>(wide, stack_width, 5)), Reference{}),
      second(stack_ranks(wide, wide, 6), DenseBase(support::random_matrix<double>(wide, wide, 7)), Reference{});
  auto first_work = first.workspace(stack_tokens);
  auto second_work = second.workspace(stack_tokens);
  auto work = routing.workspace(stack_tokens);
  Matrix<double> between(stack_tokens, wide), y(stack_tokens, wide);
  const auto pass_through = [&](const Routing<double>& of_first, const Routing<double>& of_second) {
    first.apply(stack_x(), of_first, between, first_work);
    second.apply(between, of_second, y, second_work);
  };

  const auto nobody = Routing<double>::from_dense(Matrix<double>(stack_tokens, stack_experts));
  pass_through(nobody, nobody);
  Matrix<double> base(stack_tokens, wide), twice = base;
  Reference{}.product_nt(stack_x(), first.base().weight(), base.view());
  Reference{}.product_nt(base, second.base().weight(), twice.view());
  CHECK(support::same_bits(y, twice));
  const Matrix<double> hidden = y;  // no gradient passes here

  const Pass pass{.training = true, .seed = 3};
  const auto d_y = support::random_matrix<double>(stack_tokens, wide, 8);
  const auto loss = [&] {
    routing.route(hidden, work, pass);
    pass_through(work.routing(0), work.routing(1));
    return dot_of(y, d_y);
  };
  loss();
  for (Index m : {0, 1})
    for (Index n = 0; n < stack_tokens; ++n) {
      const auto gates = work.routing(m).gates_of(n);
      CHECK(gates.size() == 3);
      CHECK(std::accumulate(gates.begin(), gates.end(), 0.0) < 1.5);
    }
  auto gradients = routing.gradients();
  auto of_first = first.gradients({.experts = false}), of_second = second.gradients({.experts = false});
  Matrix<double> d_between(stack_tokens, wide), d_x(stack_tokens, stack_width);
  second.apply_backward(between, work.routing(1), d_y, work.d_gate(1), d_between, of_second, second_work);
  first.apply_backward(stack_x(), work.routing(0), d_between, work.d_gate(0), d_x, of_first, first_work);
  routing.route_backward(hidden, {}, gradients, work);
  auto& layers = routing.router().parameters().layers;
  for (std::size_t l : {0u, 1u}) {
    CHECK(laws::gradient_error(layers[l].weight.elements(), gradients.layers[l].weight.elements(), loss) < 1e-6);
    CHECK(laws::gradient_error(layers[l].bias.elements(), gradients.layers[l].bias.elements(), loss) < 1e-6);
  }

  // Dropout of the classifier is there in training alone; layers may share one decision.
  loss();
  const double dropped = work.logits()(0, 0);
  routing.route(hidden, work);
  CHECK(work.logits()(0, 0) != dropped);
  const auto shared = xlora<double>({.hidden = wide, .experts = stack_experts}, rng, Reference{});
  auto shared_work = shared.workspace(stack_tokens);
  shared.route(hidden, shared_work);
  pass_through(shared_work.routing(0), shared_work.routing(0));
  CHECK(shared_work.routing(0).pairs() == stack_tokens * stack_experts);
}

TEST_CASE("LoRA-Mixer trains experts by labels, then the router alone, and serves the k best", "[composition]") {
  auto layer = support::routed_layer<double>({}, Gate{Softmax{}, TopK{stack_experts}, Renormalized{}});
  auto work = layer.workspace(stack_tokens);
  Matrix<double> y(stack_tokens, layer.out()), d_x(stack_tokens, stack_width);
  const auto d_y = support::random_matrix<double>(stack_tokens, layer.out(), 3);

  // Hard: the expert of each sample's task, with a gate of 1, and nothing for the router.
  const std::vector<int> tasks(std::size_t(stack_tokens), 2);
  const auto hard = Routing<double>::from_labels(tasks, stack_experts);
  layer.apply(stack_x(), hard, y, work);
  auto gradients = layer.gradients();
  layer.apply_backward(stack_x(), hard, d_y, {}, d_x, gradients, work);
  Matrix<double> alone(13, 11);
  copy(layer.base().weight(), alone.view());
  layer.experts().add_delta(2, 1, alone.view());
  for (Index n = 0; n < stack_tokens; ++n)
    for (Index o = 0; o < 13; ++o)
      CHECK(std::abs(y(n, o) - std::inner_product(alone.view().row(o).begin(), alone.view().row(o).end(),
                                                  stack_x().view().row(n).begin(), 0.0)) < 1e-12);
  CHECK(touched_rows(gradients.experts.lora_B) == std::vector<Index>{6, 7, 8});
  CHECK(touched_rows(gradients.router.weight).empty());

  // Soft: all experts, frozen; the router learns from the task and from the balance of specialists.
  auto of_router = layer.gradients({.experts = false});
  const auto soft_loss = [&] {
    layer.forward(stack_x(), y, work);
    return dot_of(y, d_y) + specialization_balance(work, {.alpha = 0.5, .lambda = 0.1});
  };
  const double before = soft_loss();
  CHECK(work.routing.pairs() == stack_tokens * stack_experts);
  auto all = support::routed_layer<double>({}, Gate{Softmax{}, All{}, Raw{}});  // the softmax as it is
  CHECK(support::largest_difference(support::output(all, stack_x()), y) < 1e-13);
  layer.backward(stack_x(), d_y, d_x, of_router, work);
  CHECK(touched_rows(of_router.router.weight).size() == std::size_t(stack_experts));
  CHECK(laws::gradient_error(layer.router().parameters().weight.elements(), of_router.router.weight.elements(),
                             soft_loss) < 1e-7);
  for (std::size_t i = 0; i < of_router.router.weight.elements().size(); ++i)
    layer.router().parameters().weight.elements()[i] -= 1e-3 * of_router.router.weight.elements()[i];
  CHECK(soft_loss() < before);
  auto kept = zeros_like(layer.experts().parameters());
  CHECK(preservation(layer.experts().parameters(), layer.experts().parameters(), kept) == 0);

  // Sparse: 3 of 4, shares of what is chosen.
  layer.gating().select.k = 3;
  layer.route(stack_x(), work);
  for (Index n = 0; n < stack_tokens; ++n) {
    const auto gates = work.routing.gates_of(n);
    CHECK(gates.size() == 3);
    CHECK(std::abs(std::accumulate(gates.begin(), gates.end(), 0.0) - 1) < 1e-14);
  }
}

TEST_CASE("Uni-MoE: whole experts with LoRA on each map, and gates that see a map of the modality", "[composition]") {
  Rng rng(1);
  const auto map = [&](Index from, Index to) {
    return ExpertProjection{
        SummedExperts{MapExperts<DenseMaps<double>>({.in = from, .out = to, .experts = stack_experts}, rng),
                      stack_ranks(from, to, 4)},
        NoBase<double>(from, to)};
  };
  const ModalityRouter router(LinearRouter<double>({.in = 5, .experts = stack_experts}, rng),
                              {.in = stack_width, .modalities = 2}, rng);
  MixtureLinear layer(router, support::top_2(),
                      FeedForwardExperts{map(stack_width, 7), map(stack_width, 7), map(7, stack_width)},
                      NoBase<double>(stack_width, stack_width), Reference{});
  const std::vector<int> modalities{0, 0, 0, 1, 1, 1, 1, 0};
  const Pass pass{.labels = modalities};
  CHECK(check_gradients(layer, {.tokens = stack_tokens, .pass = pass}).passed(1e-7));

  auto work = layer.workspace(stack_tokens);
  auto gradients = layer.gradients();
  for (auto* part : {&gradients.experts.gate, &gradients.experts.up, &gradients.experts.down})
    part->experts.first.weight = {};  // frozen, as all of the model but adapters and gate
  Matrix<double> y(stack_tokens, stack_width), d_x = y, preferred(2, stack_experts);
  layer.forward(stack_x(), y, work, pass);
  preferred(0, 0) = preferred(0, 1) = preferred(1, 2) = preferred(1, 3) = 1;
  CHECK(load_balance(work) > 0);
  CHECK(modality_target(work, modalities, preferred) > 0);
  layer.backward(stack_x(), y, d_x, gradients, work);
  CHECK(touched_rows(gradients.experts.gate.experts.second.lora_A).size() > 0);
  CHECK(touched_rows(gradients.router.projection.weight).size() == 10);

  // Another modality has other gates over the same experts.
  const std::vector<int> swapped{1, 0, 0, 1, 1, 1, 1, 0};
  const Matrix<double> logits = [&] {
    Matrix<double> kept(stack_tokens, stack_experts);
    copy<double>(work.logits(), kept.view());
    return kept;
  }();
  layer.route(stack_x(), work, {.labels = swapped});
  for (Index n = 0; n < stack_tokens; ++n) CHECK((work.logits()(n, 0) == logits(n, 0)) == (n != 0));
}

TEST_CASE("MoVA: a coarse choice masks the fine gate of each image, over the mean of its tokens", "[composition]") {
  Rng rng(1);
  DeepRouter<double> gate({.in = stack_width, .experts = stack_experts, .widths = {6}}, rng);
  const auto of_gate = [&](const DeepRouter<double>& router) {
    return MixtureLinear(PooledRouter(router), Gate{Softmax{}, TopK{3}, Renormalized{}},
                         stack_ranks(stack_width, stack_width, 4), NoBase<double>(stack_width, stack_width),
                         Reference{});
  };
  const std::vector<Index> images{0, 2, 4, 6};
  std::vector<std::uint8_t> allowed;  // image 0: experts 0 and 2; 1: none; 2: expert 3; 3: all
  for (const auto& flags :
       {std::vector{1, 0, 1, 0}, std::vector{0, 0, 0, 0}, std::vector{0, 0, 0, 1}, std::vector{1, 1, 1, 1}})
    for (Index token = 0; token < 2; ++token) allowed.insert(allowed.end(), flags.begin(), flags.end());
  const Pass pass{.allowed = allowed, .sequence_begin = images};

  auto layer = of_gate(gate);
  auto work = layer.workspace(stack_tokens);
  layer.route(stack_x(), work, pass);
  const std::size_t chosen[] = {2, 0, 1, 3};
  for (Index n = 0; n < stack_tokens; ++n) {
    const auto gates = work.routing.gates_of(n);
    CHECK(gates.size() == chosen[n / 2]);
    if (!gates.empty()) CHECK(std::abs(std::accumulate(gates.begin(), gates.end(), 0.0) - 1) < 1e-14);
    for (int e : work.routing.experts_of(n)) CHECK(allowed[std::size_t(n * stack_experts + e)] == 1);
  }
  CHECK(work.routing.gates_of(4)[0] == 1);  // one expert alone, whatever its logit
  const auto y = support::output(layer, stack_x(), pass);
  for (Index n : {2, 3})
    for (double value : y.view().row(n)) CHECK(value == 0);
  CHECK(check_gradients(layer, {.tokens = stack_tokens, .pass = pass}).passed(1e-7));

  auto& last = gate.parameters().layers[1];  // as it starts in the release
  last.weight.set_zero(), last.bias.set_zero();
  const auto fresh = of_gate(gate);
  fresh.route(stack_x(), work, pass);
  for (double g : work.routing.gates_of(0)) CHECK(g == 0.5);
}

TEST_CASE("HoME: experts of a hierarchy under masks, with a feature gate before and a gate of a task's own after",
          "[composition]") {
  const auto masked = [](std::vector<std::uint8_t> allowed) {
    return Gate{MaskedSoftmax{std::move(allowed)}, All{}, Raw{}};
  };
  // Experts 0: of all, 1 and 2: of category one, 3: of category two, each normalized by its batch.
  const auto level = [&](std::uint64_t seed, std::vector<std::uint8_t> allowed) {
    Rng generator(seed);
    const MapExperts<NormalizedMaps<DenseMaps<double>>> experts(
        {.maps = {.in = stack_width, .out = stack_width, .experts = stack_experts}}, generator);
    return MixtureLinear(LinearRouter<double>({.in = stack_width, .experts = stack_experts}, generator),
                         masked(std::move(allowed)), experts, NoBase<double>(stack_width, stack_width), Reference{});
  };
  auto meta = level(11, {1, 1, 1, 1}), first = level(12, {1, 1, 1, 0});
  auto meta_work = meta.workspace(stack_tokens);
  auto first_work = first.workspace(stack_tokens);

  Rng trained(8);
  // A feature gate whose second factor is 0 multiplies x by 2 sigmoid(0) = 1.
  auto feature = support::routed_layer<double>({.out = stack_width, .experts = 2}, Gate{Softmax{}, All{}, Raw{}});
  feature.experts().parameters().lora_B.set_zero();
  const MixtureLinear gates(feature.router(), feature.gating(), feature.experts(),
                            NoBase<double>(stack_width, stack_width), Reference{});
  Matrix<double> seen = support::output(gates, stack_x());
  for (std::size_t i = 0; i < seen.elements().size(); ++i)
    seen.elements()[i] = 2 / (1 + std::exp(-seen.elements()[i])) * stack_x().elements()[i];
  CHECK(support::same_bits(seen, stack_x()));
  fill_uniform(feature.experts().parameters().lora_B.view(), 5, trained);
  const MixtureLinear trained_gates(feature.router(), feature.gating(), feature.experts(),
                                    NoBase<double>(stack_width, stack_width), Reference{});
  const Matrix<double> of_trained = support::output(trained_gates, stack_x());
  for (double v : of_trained.elements()) {
    const double factor = 2 / (1 + std::exp(-v));
    CHECK((factor > 0 && factor < 2));
  }

  // Level 1: what is shared, and what is of category one, whose gate never sees expert 3.
  Matrix<double> z_shared(stack_tokens, stack_width), z_first = z_shared, both(stack_tokens, 2 * stack_width);
  meta.forward(seen, z_shared, meta_work, {.training = true});
  first.forward(seen, z_first, first_work, {.training = true});
  meta.experts().maps().running().update(meta_work.experts_scratch.maps.batch);
  first.experts().maps().running().update(first_work.experts_scratch.maps.batch);
  for (Index o = 0; o < stack_width; ++o) {
    CHECK(meta.experts().maps().running().mean()(3, o) != 0);
    CHECK(first.experts().maps().running().mean()(3, o) == 0);  // served nobody
  }
  CHECK(first_work.routing.load(3) == 0);
  CHECK(meta_work.routing.load(3) == stack_tokens);

  // Level 2: the gate of a task reads both; one expert of the task's own has a sigmoid for a self-gate.
  for (Index n = 0; n < stack_tokens; ++n) {
    std::ranges::copy(z_shared.view().row(n), both.view().row(n).begin());
    std::ranges::copy(z_first.view().row(n), both.view().row(n).subspan(stack_width).begin());
  }
  Rng rng(3);
  auto task =
      MixtureLinear(LinearRouter<double>({.in = 2 * stack_width, .experts = stack_experts}, rng), masked({1, 0, 1, 1}),
                    stack_ranks(2 * stack_width, 5, 4), NoBase<double>(2 * stack_width, 5), Reference{});
  LowRank<DenseFactors<double>> own({.in = 2 * stack_width, .out = 5, .experts = 1, .rank = 3}, rng);
  fill_uniform(own.parameters().lora_B.view(), 1, rng);
  auto self = MixtureLinear(LinearRouter<double>({.in = 2 * stack_width, .experts = 1}, rng),
                            Gate{Sigmoid{}, All{}, Raw{}}, own, NoBase<double>(2 * stack_width, 5), Reference{});
  CHECK(check_gradients(task).passed(1e-7));
  CHECK(check_gradients(self).passed(1e-7));
  auto task_work = task.workspace(stack_tokens);
  auto self_work = self.workspace(stack_tokens);
  auto task_gradients = task.gradients();
  Matrix<double> y(stack_tokens, 5), y_self = y, d_both(stack_tokens, 2 * stack_width);
  task.forward(both, y, task_work);
  self.forward(both, y_self, self_work);
  for (double g : self_work.routing.gates()) CHECK((g > 0 && g < 1));
  const auto d_y = support::random_matrix<double>(stack_tokens, 5, 6);
  task.backward(both, d_y, d_both, task_gradients, task_work);
  CHECK(touched_rows(task_gradients.router.weight) == std::vector<Index>{0, 2, 3});
}

TEST_CASE("Uni-RAG: the prompts of the nearest keys, each adapted by LoRA experts that the query weighs",
          "[composition]") {
  constexpr Index entries = 5, of_prompt = 2, width = 6, nearest = 2;
  Rng rng(1);
  auto bank =
      prompt_bank<double>({.in = stack_width, .entries = entries, .prompt = of_prompt * width, .k = nearest}, rng);
  const LinearRouter<double> of_query({.in = stack_width, .experts = stack_experts}, rng);
  const MixtureLinear gates(of_query, Gate{Softmax{}, All{}, Raw{}}, stack_ranks(stack_width, 1, 2),
                            NoBase<double>(stack_width, 1), Reference{});
  auto bank_work = bank.workspace(stack_tokens);
  auto gates_work = gates.workspace(stack_tokens);
  bank.route(stack_x(), bank_work);
  gates.route(stack_x(), gates_work);

  // Tokens of the chosen prompts, and for each the routing of its query.
  const Index per_query = nearest * of_prompt, rows = stack_tokens * per_query;
  Matrix<double> prompts(rows, width);
  Routing<double> routing;
  routing.start(stack_experts);
  Index row = 0;
  for (Index n = 0; n < stack_tokens; ++n)
    for (int entry : bank_work.routing.experts_of(n))
      for (Index token = 0; token < of_prompt; ++token, ++row) {
        std::ranges::copy(bank.experts().bias().view().row(entry).subspan(std::size_t(token * width), width),
                          prompts.view().row(row).begin());
        for (Index e = 0; e < stack_experts; ++e) routing.push(int(e), gates_work.routing.gates_of(n)[std::size_t(e)]);
        routing.end_token();
      }
  routing.finish();
  REQUIRE(row == rows);

  Matrix<double> identity(width, width);
  for (Index i = 0; i < width; ++i) identity(i, i) = 1;
  ExpertLinear adapted(stack_ranks(width, width, 4), DenseBase(identity), Reference{});
  auto work = adapted.workspace(rows);
  Matrix<double> y(rows, width);
  adapted.apply(prompts, routing, y, work);
  for (Index r = 0; r < rows; ++r) {
    Matrix<double> weight = identity;
    for (Index e = 0; e < stack_experts; ++e)
      adapted.experts().add_delta(e, routing.gates_of(r)[std::size_t(e)], weight.view());
    for (Index o = 0; o < width; ++o)
      CHECK(std::abs(y(r, o) - std::inner_product(weight.view().row(o).begin(), weight.view().row(o).end(),
                                                  prompts.view().row(r).begin(), 0.0)) < 1e-12);
  }

  // What the tokens of a query's prompts say of its gates adds up, and reaches the query's router.
  const auto d_y = support::random_matrix<double>(rows, width, 5);
  auto gradients = adapted.gradients();
  Matrix<double> d_prompts(rows, width), d_query(stack_tokens, stack_width);
  std::vector<double> d_gate(std::size_t(routing.pairs()), 0.0);
  adapted.apply_backward(prompts, routing, d_y, d_gate, d_prompts, gradients, work);
  for (Index p = 0; p < routing.pairs(); ++p)
    gates_work.d_gate()[std::size_t(p / (per_query * stack_experts) * stack_experts + routing.expert(p))] +=
        d_gate[std::size_t(p)];
  auto of_gates = gates.gradients();
  gates.route_backward(stack_x(), d_query, of_gates, gates_work);
  CHECK(touched_rows(of_gates.router.weight).size() == std::size_t(stack_experts));

  adapted.experts().parameters().lora_B.set_zero();
  adapted.apply(prompts, routing, y, work);
  CHECK(support::same_bits(y, prompts));
  const auto one_key = prompt_bank<double>({.in = stack_width, .entries = 1, .prompt = 4}, rng);
  const auto mixed = support::output(one_key, stack_x());
  for (Index n = 0; n < stack_tokens; ++n)
    for (Index i = 0; i < 4; ++i) CHECK(mixed(n, i) == one_key.experts().bias()(0, i));
}
