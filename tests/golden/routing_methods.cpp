// SPDX-License-Identifier: MIT
// Layers over trained adapters, and routings by something other than the token: arrow.
#include "golden/methods.hpp"
#include "golden/routed_layers.hpp"

#include <numeric>

namespace golden {
namespace {

/// Experts that each have a scale of their own.
template <class T>
Experts<T> load_scaled_experts(Comparison<T>& file, const ExpertFiles<T>& names) {
  Experts<T> experts = names.load(file);
  for (Index e = 0; e < experts.experts(); ++e)
    experts.scale()[std::size_t(e)] = T(file.exact("experts." + std::to_string(e) + ".scaling"));
  return experts;
}

/// `found` with the sign that each row has in `expected`: singular vectors have none.
template <class T>
Matrix<T> with_signs_of(const Matrix<T>& expected, Matrix<T> found) {
  for (Index r = 0; r < found.rows(); ++r) {
    const auto of = found.view().row(r), like = expected.view().row(r);
    if (std::inner_product(of.begin(), of.end(), like.begin(), T(0)) < 0)
      for (T& number : of) number = -number;
  }
  return found;
}

/// The release's prototypes are those of 15 power iterations, so the layer takes them from the file.
Method arrow() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const ExpertFiles<T> names(file);
    const Experts<T> experts = load_scaled_experts(file, names);
    with_base(file, experts.in(), experts.out(), [&](auto base) {
      auto layer = mole::arrow({.k = file.integer("top_k"), .temperature = file.number("router_temperature")}, experts,
                               std::move(base), execution);
      if (file.has("prototypes.exact_svd"))
        file.expect("prototypes.exact_svd",
                    with_signs_of(file.matrix("prototypes.exact_svd"), layer.router().parameters().weight));
      layer.router().parameters().weight = file.matrix("prototypes");
      auto work = layer.workspace(load_x(file).rows());
      expect_layer(file, layer, work, {}, "",
                   [&](const auto& gradients) { names.expect_gradients(file, "grad.", experts, gradients.experts); });
      file.expect_optional("router.similarity", work.scores());
      expect_gate<T>(file, work);
    });
  });
}

}  // namespace

std::map<std::string, Method> routing_methods() {
  return {{"arrow", arrow()}};
}

}  // namespace golden
