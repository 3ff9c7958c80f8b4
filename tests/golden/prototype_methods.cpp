// SPDX-License-Identifier: MIT
// Routing by prototypes, with an expert for tokens without a condition: promoe, promoe-ec.
#include "golden/methods.hpp"
#include "golden/routed_layers.hpp"
#include "mole/loss/routing_contrastive.hpp"

namespace golden {
namespace {

template <class T>
mole::CosineRouter<T> load_prototypes(const Comparison<T>& file) {
  const Matrix<T> prototypes = file.matrix("prototypes");
  mole::Rng rng;
  mole::CosineRouter<T> router({.in = prototypes.cols(), .experts = prototypes.rows()}, rng);
  router.parameters().prototypes = prototypes;
  return router;
}

/// The unconditional expert, if there is one, has a column that nobody but the tokens of null samples may choose.
template <class T, class Score, class Select, class Use>
void with_unconditional_expert(const Comparison<T>& file, const Score& score, const Select& select, Use use) {
  const auto router = load_prototypes(file);
  const Index shared = file.has("shared.lora_B");
  if (!file.flag("unconditional_expert"))
    return use(router, mole::Gate{score, select, mole::Raw{}, shared},
               [](const auto& gradients) -> const Matrix<T>& { return gradients.prototypes; });
  std::vector<std::uint8_t> allowed(std::size_t(router.outputs()), 1);
  allowed.push_back(0);
  use(mole::JoinedRouter(router, mole::NoRouter<T>(1)),
      mole::Gate{mole::Masked{score, allowed}, select, mole::RawUnlessForced{}, shared},
      [](const auto& gradients) -> const Matrix<T>& { return gradients.first.prototypes; });
}

/// Per token: the unconditional expert where the label of its sample is the null label, else -1.
template <class T>
std::vector<int> forced_experts(const Comparison<T>& file, Index tokens) {
  std::vector<int> forced;
  const auto labels = file.integers("labels");
  const int unconditional = int(file.matrix("prototypes").rows());
  for (Index n = 0; n < tokens; ++n) {
    const std::int64_t label = labels[std::size_t(n * Index(labels.size()) / tokens)];
    const bool null = label == file.integer("null_label") && file.flag("unconditional_expert");
    forced.push_back(null ? unconditional : -1);
  }
  return forced;
}

/// In the release a token of a null sample has the unconditional expert in all of its slots, with weights 1, 0, 0 ...
template <class T>
void expect_slots(Comparison<T>& file, const mole::Trace<T>& trace) {
  if (!file.has("gate.indices")) return;
  const Index slots = file.integer("top_k");
  std::vector<std::int64_t> indices;
  Matrix<T> weights(trace.tokens(), slots);
  for (Index n = 0; n < trace.tokens(); ++n)
    for (Index slot = 0; slot < slots; ++slot) {
      const bool null = trace.pass.forced_expert(n) >= 0;
      indices.push_back(trace.routing.experts_of(n)[std::size_t(null ? 0 : slot)]);
      if (!null || slot == 0) weights(n, slot) = trace.routing.gates_of(n)[std::size_t(slot)];
    }
  file.expect_optional("gate.indices", indices);
  file.expect_optional("gate.weights", weights);
}

/// The balance of a softmax of the scores.
template <class T>
double balance_of_softmax(mole::Trace<T>& trace, Index experts, const mole::LoadBalanceOptions& options) {
  mole::Trace<T> soft(
      {.tokens = trace.tokens(), .pairs = trace.routing.pairs(), .experts = experts, .columns = experts});
  soft.start(trace.tokens(), {.token_mask = trace.pass.token_mask, .sequence_begin = trace.pass.sequence_begin});
  soft.routing.start(experts);
  for (Index n = 0; n < trace.tokens(); ++n) {
    for (Index e = 0; e < experts; ++e) soft.logits()(n, e) = trace.scores()(n, e);
    for (int e : trace.routing.experts_of(n))
      if (e < experts) soft.routing.push(e, 1);
    soft.routing.end_token();
    mole::Softmax{}.forward(View<const T>(soft.logits()).row(n), soft.scores().row(n));
  }
  soft.routing.finish();
  const double value = mole::load_balance(soft, options);
  for (Index n = 0; n < trace.tokens(); ++n) {
    mole::Softmax{}.backward(View<const T>(soft.logits()).row(n), View<const T>(soft.scores()).row(n),
                             View<const T>(soft.d_scores()).row(n), soft.d_logits().row(n));
    for (Index e = 0; e < experts; ++e) trace.d_scores()(n, e) += soft.d_logits()(n, e);
  }
  return value;
}

template <class T, class Score, class Select, class Execution>
void check_prototypes(Comparison<T>& file, const Score& score, const Select& select, Execution execution) {
  with_unconditional_expert(file, score, select, [&](auto router, auto gate, auto prototypes_of) {
    const ExpertFiles<T> names(file);
    const auto experts = names.load(file, mole::Scaling::fixed, file.flag("unconditional_expert"));
    mole::MixtureLinear layer(router, gate, experts, mole::NoBase<T>(experts.in(), experts.out()), execution);
    const Matrix<T> x = load_x(file), prototypes = file.matrix("prototypes");
    const auto forced = forced_experts(file, x.rows());
    const std::vector<Index> starts = sequence_starts(file, x.rows());
    std::vector<std::uint8_t> conditional;
    for (int e : forced) conditional.push_back(e < 0);
    const mole::Pass pass{.token_mask = conditional, .forced = forced, .sequence_begin = starts};
    auto work = layer.workspace(x.rows());
    expect_layer(file, layer, work, pass, "", [&](const auto& gradients) {
      names.expect_gradients(file, "grad.", layer.experts(), gradients.experts);
      file.expect_gradient("grad.prototypes", prototypes_of(gradients.router));
    });
    expect_scores<T>(file, work);
    expect_slots<T>(file, work);
    constexpr bool experts_choose = std::is_same_v<Select, mole::ExpertChoice>;
    const mole::RoutingContrastiveOptions contrastive{
        .coefficient = file.number("routing_contrastive_lam"),
        .temperature = file.number("routing_contrastive_temperature"),
        .first_choice = !experts_choose && !file.flag("use_top_k_for_routing_contrastive"),
        .per_sequence = experts_choose};
    file.ignore_option("seq_aux");  // no file has two samples with a condition and this loss
    const mole::LoadBalanceOptions balance{
        .coefficient = file.number("load_balance_coef"),
        .scope = file.flag("seq_aux") ? mole::BalanceScope::sequence : mole::BalanceScope::global};
    if (!file.has("loss.auxiliary")) return;
    Matrix<T> d_x(x.rows(), x.cols()), d_prototypes(prototypes.rows(), prototypes.cols());
    auto gradients = layer.gradients();
    layer.route(x, work, pass);
    double loss = mole::routing_contrastive<T>(x, prototypes, work, d_x, d_prototypes, contrastive);
    if (balance.coefficient != 0)
      loss += std::is_same_v<Score, mole::Softmax> ? mole::load_balance<T>(work, balance)
                                                   : balance_of_softmax<T>(work, prototypes.rows(), balance);
    file.expect_number("loss.auxiliary", loss);
    layer.route_backward(x, d_x, gradients, work);
    file.expect_gradient("grad_loss.auxiliary.x", d_x);
    for (Index i = 0; i < d_prototypes.size(); ++i) d_prototypes.data()[i] += prototypes_of(gradients.router).data()[i];
    file.expect_gradient("grad_loss.auxiliary.prototypes", d_prototypes);
  });
}

Method promoe() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const mole::TopK select{file.integer("top_k")};
    const std::string& mode = file.text("weight_mode");
    if (mode == "identity") return check_prototypes(file, mole::Identity{}, select, execution);
    if (mode == "sigmoid") return check_prototypes(file, mole::Sigmoid{}, select, execution);
    if (mode == "softmax") return check_prototypes(file, mole::Softmax{}, select, execution);
    file.refuse("weight_mode", "identity, sigmoid or softmax");
  });
}

/// Prototypes choose their tokens, of each sample by itself.
Method promoe_ec() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    for (const char* option : {"use_top_k_for_routing_contrastive", "load_balance_coef"})
      file.ignore_option(option);  // of tokens that choose
    // An even share of the experts that are to be chosen: those of ExpertChoice include the unconditional one.
    const double experts = double(file.matrix("prototypes").rows());
    const mole::ExpertChoice select{
        .factor = file.number("top_k") * (experts + file.flag("unconditional_expert")) / experts, .per_sequence = true};
    const std::string& mode = file.text("weight_mode");
    if (mode == "identity") return check_prototypes(file, mole::Identity{}, select, execution);
    if (mode == "sigmoid") return check_prototypes(file, mole::Sigmoid{}, select, execution);
    if (mode == "softmax")
      return check_prototypes(file, mole::SoftmaxOverTokens{.per_sequence = true}, select, execution);
    file.refuse("weight_mode", "identity, sigmoid or softmax");
  });
}

}  // namespace

std::map<std::string, Method> prototype_methods() {
  return {{"promoe", promoe()}, {"promoe-ec", promoe_ec()}};
}

}  // namespace golden
