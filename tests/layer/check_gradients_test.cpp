// SPDX-License-Identifier: MIT
#include "mole/layer/check_gradients.hpp"

#include "support/catch.hpp"
#include "support/layers.hpp"

using namespace mole;

namespace {

/// Raw, with a backward that forgets a factor.
struct WrongWeigh : Raw {
  template <class T>
  void backward(std::span<const T>, std::span<const int> chosen, std::span<const T>, std::span<const T> d_gates,
                std::span<T> d_scores) const {
    for (std::size_t j = 0; j < chosen.size(); ++j) d_scores[std::size_t(chosen[j])] += T(0.9) * d_gates[j];
  }
};

/// Products whose gradient of w is right but for one element.
struct WrongProduct : Reference {
  template <class T>
  void product_tn(ConstView<T> d_y, ConstView<T> x, View<T> d_w) const {
    Reference::product_tn(d_y, x, d_w);
    if (d_w) d_w(d_w.rows() - 1, d_w.cols() - 1) += T(1e-3);
  }
};

}  // namespace

TEST_CASE("check_gradients passes a right gradient and leaves the layer as it was", "[layer]") {
  auto layer = support::routed_layer<double>({}, support::top_2());
  const auto before = layer.experts().parameters().lora_A;
  const GradientReport report = check_gradients(layer);
  CHECK(report.worst < 1e-8);
  CHECK(report.checked + report.moved == 7 * 11 + 4 * 11 + 12 * 11 + 12 * 13 + 13 * 11);
  CHECK(support::same_bits(before, layer.experts().parameters().lora_A));
}

TEST_CASE("check_gradients fails on a wrong gradient and names the tensor", "[layer]") {
  auto wrong_gate = support::routed_layer<double>({}, Gate{Softmax{}, TopK{2}, WrongWeigh{}});
  CHECK(check_gradients(wrong_gate).worst > 1e-3);
  auto wrong_element = support::routed_layer<double>({}, support::top_2(), WrongProduct{});
  const GradientReport report = check_gradients(wrong_element);
  CHECK(report.worst > 1e-5);
  CHECK((report.worst_tensor == "router.weight" || report.worst_tensor == "base.weight"));
}

TEST_CASE("check_gradients fails on a loss whose gradient is missing", "[layer]") {
  auto layer = support::routed_layer<double>({}, support::top_2());
  const auto report = check_gradients(layer, {}, [](auto& trace) {
    double sum = 0;
    for (Index n = 0; n < trace.tokens(); ++n) sum += trace.logits()(n, 0);
    return sum;
  });
  CHECK(report.worst > 1e-3);
}
