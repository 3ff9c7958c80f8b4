// SPDX-License-Identifier: MIT
// Layers that look at the task of a token: enforced, moelora-task, poly.
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

/// [splits x skills x width x rank] or, with ranks first, [splits x skills x rank x width], and a table with a row for
/// each rank of each skill.
struct SkillTensor {
  Index splits, skills, width, rank;
  bool ranks_first;

  template <class F>
  void for_each(F f) const {
    Index i = 0;
    for (Index p = 0; p < splits; ++p)
      for (Index s = 0; s < skills; ++s)
        for (Index outer = 0; outer < (ranks_first ? rank : width); ++outer)
          for (Index inner = 0; inner < (ranks_first ? width : rank); ++inner) {
            const Index j = ranks_first ? outer : inner, column = ranks_first ? inner : outer;
            f(i++, s * rank + j, p * width + column);
          }
  }
  template <class T>
  Matrix<T> table(const Matrix<T>& stored) const {
    Matrix<T> table(skills * rank, splits * width);
    if (table.size() != stored.size()) throw std::runtime_error("expected a tensor of skills, found another size");
    for_each([&](Index i, Index row, Index column) { table(row, column) = stored.elements()[std::size_t(i)]; });
    return table;
  }
  template <class T>
  Matrix<T> stored(const Matrix<T>& table) const {
    Matrix<T> stored(splits, table.size() / splits);
    for_each([&](Index i, Index row, Index column) { stored.elements()[std::size_t(i)] = table(row, column); });
    return stored;
  }
};

/// The release in evaluation.
Method poly() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const Matrix<T> x = load_x(file), logits = file.matrix("poly.module_logits");
    const Index splits = file.integer("n_splits"), skills = file.integer("n_skills"), rank = file.integer("rank");
    with_base(file, x.cols(), file.integer("d_out"), [&](auto base) {
      mole::Rng rng;
      auto layer = mole::poly({.tasks = logits.rows(), .skills = skills, .splits = splits, .rank = rank},
                              std::move(base), rng, execution);
      file.expect_option("n_tasks", double(logits.rows()));
      file.expect_option("d_out", double(layer.out()));
      const SkillTensor a{splits, skills, layer.in() / splits, rank, false},
          b{splits, skills, layer.out() / splits, rank, true};
      layer.experts().parameters() = {a.table(file.matrix("poly.A")), b.table(file.matrix("poly.B")), logits};

      const std::vector<int> labels = load_labels(file, "task_ids", x.rows());
      const auto routing = mole::Routing<T>::from_labels(labels, logits.rows());
      Matrix<T> y(x.rows(), layer.out()), d_x(x.rows(), x.cols());
      auto work = layer.workspace(x.rows());
      layer.apply(x, routing, y, work);
      file.expect("y", y);
      const View<const T> weights = work.experts_scratch.factors.weights;
      Matrix<T> of_sequences(file.integer("B"), weights.cols());
      for (Index s = 0; s < of_sequences.rows(); ++s)
        std::ranges::copy(weights.row(labels[std::size_t(s * x.rows() / of_sequences.rows())]),
                          of_sequences.view().row_data(s));
      file.expect_optional("gate.dense", of_sequences);
      if (!file.has("grad_y")) return;
      auto gradients = layer.gradients();
      layer.apply_backward(x, routing, file.matrix("grad_y"), {}, d_x, gradients, work);
      file.expect("grad_x", d_x);
      file.expect("grad.poly.A", a.stored(gradients.experts.lora_A));
      file.expect("grad.poly.B", b.stored(gradients.experts.lora_B));
      file.expect("grad.poly.module_logits", gradients.experts.skill_logits);
    });
  });
}

}  // namespace

std::map<std::string, Method> task_methods() {
  return {{"enforced", enforced()}, {"moelora-task", moelora()}, {"poly", poly()}};
}

}  // namespace golden
