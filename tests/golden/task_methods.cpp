// SPDX-License-Identifier: MIT
// Layers that look at the task of a token: enforced, moelora-task.
#include "golden/methods.hpp"
#include "golden/routed_layers.hpp"

#include <utility>
#include <vector>

namespace golden {
namespace {

/// For each token that of its sequence, of which the file has one each.
template <class T>
std::vector<int> load_labels(const Comparison<T>& file, const std::string& name, Index tokens) {
  const std::vector<std::int64_t> stored = file.integers(name);
  const std::vector<Index> starts = sequence_starts(file, tokens);
  return mole::labels_of_sequences(std::vector<int>(stored.begin(), stored.end()), tokens, {.sequence_begin = starts});
}

Method enforced() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const ExpertFiles<T> names(file);
    const Matrix<T> x = load_x(file);
    mole::ExpertLinear layer(names.load(file), mole::NoBase<T>(x.cols(), x.cols()), execution);
    const auto routing =
        mole::Routing<T>::from_labels(load_labels(file, "assignment", x.rows()), layer.experts().experts());
    Matrix<T> y(x.rows(), layer.out()), d_x(x.rows(), x.cols());
    auto work = layer.workspace(x.rows());
    layer.apply(x, routing, y, work);
    file.expect("y", y);
    if (!file.has("grad_y")) return;
    auto gradients = layer.gradients();
    layer.apply_backward(x, routing, file.matrix("grad_y"), {}, d_x, gradients, work);
    file.expect("grad_x", d_x);
    names.expect_gradients(file, "grad.", layer.experts(), gradients.experts);
  });
}

/// The release's embedding has a row that no task has.
template <class T, class Layer>
void expect_moelora(Comparison<T>& file, Layer& layer, const ExpertFiles<T>& names) {
  names.load(file, layer.experts());
  expect_sizes(file, layer.experts(), layer.experts().blocks().size(0));
  auto& router = layer.router();
  router.router().parameters().weight = file.matrix("router.weight");
  router.parameters().embedding = file.matrix("task_embedding");
  file.expect_option("tasks", double(router.labels() - 1));
  file.expect_option("task_embedding_dim", double(router.router().in()));
  file.expect_option("experts", double(router.outputs()));

  const Index tokens = load_x(file).rows();
  const std::vector<int> labels = load_labels(file, "task_ids", tokens);
  auto work = layer.workspace(tokens);
  expect_layer(file, layer, work, {.labels = labels}, "", [&](const auto& gradients) {
    names.expect_gradients(file, "grad.", layer.experts(), gradients.experts);
    file.expect("grad.task_embedding", gradients.router.embedding);
    file.expect("grad.router.weight", gradients.router.router.weight);
  });
  const Matrix<T> gates = dense_weights(work.routing, work.experts());
  Matrix<T> of_sequences(file.integer("B"), gates.cols());
  for (Index b = 0; b < of_sequences.rows(); ++b)
    std::ranges::copy(gates.view().row(b * tokens / of_sequences.rows()), of_sequences.view().row_data(b));
  file.expect_optional("gate.tasks", of_sequences);
}

Method moelora() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const ExpertFiles<T> names(file);
    with_base(file, file.integer("d_in"), file.integer("d_out"), [&](auto base) {
      mole::Rng rng;
      auto layer = mole::moelora({.experts = names.experts(),
                                  .tasks = file.matrix("task_embedding").rows(),
                                  .task_width = file.matrix("task_embedding").cols(),
                                  .total_rank = file.integer("total_rank"),
                                  .alpha = file.number("alpha")},
                                 std::move(base), rng, execution);
      if (file.flag("gate_softmax", true)) return expect_moelora(file, layer, names);
      mole::MixtureLinear raw(layer.router(), mole::Gate{mole::Identity{}, mole::All{}, mole::Raw{}}, layer.experts(),
                              layer.base(), execution);
      expect_moelora(file, raw, names);
    });
  });
}

}  // namespace

std::map<std::string, Method> task_methods() {
  return {{"enforced", enforced()}, {"moelora-task", moelora()}};
}

}  // namespace golden
