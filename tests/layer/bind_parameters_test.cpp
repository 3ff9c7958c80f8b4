// SPDX-License-Identifier: MIT
#include "mole/layer/bind_parameters.hpp"

#include "core/error_code.hpp"
#include "mole/mole.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

#include <cstring>
#include <numeric>

using namespace mole;

namespace {

constexpr Index bound_in = 24, bound_out = 16, bound_tokens = 9;

/// All that two steps of training leave.
template <class Layer>
struct Trained {
  std::vector<float> y, d_x, parameters, gradients;
};

/// Two steps of AdamW; `gradients` may live anywhere.
template <class Layer>
Trained<Layer> train(Layer& layer, typename Layer::Gradients& gradients) {
  const auto x = support::random_matrix<float>(bound_tokens, bound_in, 1),
             d_y = support::random_matrix<float>(bound_tokens, bound_out, 2);
  Matrix<float> y(bound_tokens, bound_out), d_x(bound_tokens, bound_in);
  auto work = layer.workspace(bound_tokens);
  AdamW adamw({.learning_rate = 1e-2});
  for (int step = 0; step < 2; ++step) {
    set_zero(gradients);
    layer.forward(x, y, work);
    layer.backward(x, d_y, d_x, gradients, work);
    adamw.step(layer, gradients);
  }
  Trained<Layer> result;
  result.y.assign(y.elements().begin(), y.elements().end());
  result.d_x.assign(d_x.elements().begin(), d_x.elements().end());
  const auto append = [](std::vector<float>& all, View<float> tensor) {
    for (Index r = 0; r < tensor.rows(); ++r)
      all.insert(all.end(), tensor.row_data(r), tensor.row_data(r) + tensor.cols());
  };
  layer.for_each_tensor(
      [&](std::string_view, View<float> parameter, View<float> gradient) {
        append(result.parameters, parameter), append(result.gradients, gradient);
      },
      gradients);
  return result;
}

bool same(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

/// A layer whose numbers live in a host's array, at an odd address, does the same bits, and its numbers stand there.
template <class Layer>
void check_bound_layer(const std::string& name, Layer layer, TrainableParts trainable = {}) {
  INFO(name);
  auto alone = layer;
  auto own_gradients = alone.gradients(trainable);
  const auto expected = train(alone, own_gradients);

  const ParameterLayout layout = parameter_layout(layer);
  std::vector<float> memory(std::size_t(layout.size) + 1), gradient_memory(memory.size());
  const std::span<float> parameters = std::span(memory).subspan(1),
                         d_parameters = std::span(gradient_memory).subspan(1);
  auto gradients = layer.gradients(trainable);
  bind_parameters(layer, parameters);
  bind_gradients(layer, gradients, d_parameters);
  check_bound(layer, parameters);
  auto moved = std::move(layer);
  const auto found = train(moved, gradients);
  check_bound(moved, parameters);
  CHECK(same(found.y, expected.y));
  CHECK(same(found.d_x, expected.d_x));
  CHECK(same(found.parameters, expected.parameters));
  CHECK(same(found.gradients, expected.gradients));
  CHECK(same(parameters, expected.parameters));
  for (const auto& tensor : layout.tensors)
    CHECK(layout.of(tensor.name, parameters).data() == parameters.data() + tensor.first);

  // A copy has memory of its own, and so has the layer when it is released.
  auto copy = moved;
  CHECK(test::code_of([&] { check_bound(copy, parameters); }) == ErrorCode::order);
  release_parameters(moved);
  std::ranges::fill(parameters, 0.f);
  for (auto* other : {&copy, &moved}) {
    std::vector<float> numbers;
    other->for_each_tensor([&](std::string_view, View<float> tensor) {
      for (Index r = 0; r < tensor.rows(); ++r)
        numbers.insert(numbers.end(), tensor.row_data(r), tensor.row_data(r) + tensor.cols());
    });
    CHECK(same(numbers, expected.parameters));
  }

  // The host's numbers, read from a file, say.
  std::ranges::copy(expected.parameters, parameters.begin());
  auto fresh = alone;
  fresh.for_each_tensor([](std::string_view, View<float> tensor) {
    for (Index r = 0; r < tensor.rows(); ++r) std::fill_n(tensor.row_data(r), tensor.cols(), 3.f);
  });
  bind_parameters(fresh, parameters, BoundNumbers::of_memory);
  CHECK(same(parameters, expected.parameters));
  check_bound(fresh, parameters);
}

auto bound_base() {
  return DenseBase(support::random_matrix<float>(bound_out, bound_in, 3),
                   support::random_matrix<float>(1, bound_out, 4).elements());
}

}  // namespace

TEST_CASE("A layer with its numbers in the host's memory computes the same bits", "[layer]") {
  Rng rng(1);
  check_bound_layer("mola", support::with_random_b(mola({.experts = 4, .rank = 3, .k = 2}, bound_base(), rng)),
                    {.base = true});
  check_bound_layer("smora", support::with_random_b(smora({.rank = 16, .k = 4}, bound_base(), rng)));
  check_bound_layer("flylora", support::with_random_b(flylora({.rank = 16, .k = 4, .nonzeros = 5}, bound_base(), rng)));
  check_bound_layer("loramoe", support::with_random_b(loramoe({.experts = 3, .rank = 4}, bound_base(), rng)));
  check_bound_layer("ada_mole", support::with_random_b(ada_mole({.experts = 3, .rank = 4}, bound_base(), rng)));
  check_bound_layer("nola", support::with_random_b(nola({.rank = 4, .bases = 8}, bound_base(), rng)));
  check_bound_layer("lokr", support::with_random_b(lokr({.rank = 2}, bound_base(), rng)));
  const auto weight = support::random_matrix<float>(bound_out, bound_in, 3);
  check_bound_layer("dora", support::with_random_b(dora({.rank = 4}, weight, DenseBase(weight), rng)));
}

TEST_CASE("AnyLinear lives in the host's memory, too, with its gradients", "[layer]") {
  Rng rng(2);
  AnyLinear<float> layer(mola({.experts = 4, .rank = 3, .k = 2}, bound_base(), rng), bound_tokens);
  const ParameterLayout layout = parameter_layout(layer);
  std::vector<float> parameters(std::size_t(layout.size)), gradients(parameters.size(), 5);
  bind_parameters(layer, parameters);
  bind_gradients(layer, gradients);
  AnyLinear<float> moved = std::move(layer);
  check_bound(moved, std::span(parameters));

  const auto x = support::random_matrix<float>(bound_tokens, bound_in, 1),
             d_y = support::random_matrix<float>(bound_tokens, bound_out, 2);
  Matrix<float> y(bound_tokens, bound_out), before(bound_tokens, bound_out);
  moved.forward(x, before);
  moved.backward(x, d_y, {});
  const View<float> d_b = layout.of("experts.lora_B", std::span(gradients));
  CHECK(std::any_of(d_b.data(), d_b.data() + d_b.rows() * d_b.cols(), [](float g) { return g != 0; }));
  CHECK(layout.of("base.weight", std::span(gradients))(0, 0) == 5);  // frozen: untouched

  for (std::size_t i = 0; i < parameters.size(); ++i) parameters[i] -= 0.1f * gradients[i];  // the host's own step
  moved.forward(x, y);
  CHECK_FALSE(support::same_bits(y, before));
}

TEST_CASE("An owned base that borrows the host's weight is trained in place", "[layer]") {
  auto weight = support::random_matrix<float>(bound_out, bound_in, 3);
  Rng rng(3);
  auto layer = mola({.experts = 2, .rank = 2, .k = 1}, DenseBase(Matrix<float>::borrow(weight.view())), rng);
  const float before = weight(0, 0);
  auto gradients = layer.gradients({.base = true});
  train(layer, gradients);
  CHECK(weight(0, 0) != before);
}

TEST_CASE("A binding that went stale is found", "[layer]") {
  Rng rng(4);
  auto layer = mola({.experts = 4, .rank = 3, .k = 2}, bound_base(), rng);
  std::vector<float> memory(std::size_t(parameter_layout(layer).size)), small(memory.size() - 1);
  CHECK(test::code_of([&] { bind_parameters(layer, std::span(small)); }) == ErrorCode::shape);
  auto gradients = layer.gradients();
  CHECK(test::code_of([&] { bind_gradients(layer, gradients, std::span(small)); }) == ErrorCode::shape);
  CHECK(test::code_of([&] { check_bound(layer, std::span(memory)); }) == ErrorCode::order);
  bind_parameters(layer, std::span(memory));
  check_bound(layer, std::span(memory));
  CHECK(test::code_of([&] { check_bound(layer, std::span(memory).first(memory.size() - 1)); }) == ErrorCode::order);
  std::vector<float> other = memory;  // the host's array has moved
  CHECK(test::code_of([&] { check_bound(layer, std::span(other)); }) == ErrorCode::order);
  layer.router() = LinearRouter<float>({.in = bound_in, .experts = 4}, rng);  // of the same shape: written through
  check_bound(layer, std::span(memory));
  layer.router() = LinearRouter<float>({.in = bound_in, .experts = 4, .bias = true}, rng);
  CHECK(test::code_of([&] { check_bound(layer, std::span(memory)); }) == ErrorCode::order);
  auto bank = moram({.ranks = {2, 2}, .k = 2}, bound_base(), rng);  // trained atoms are rows of a table with frozen ones
  std::vector<float> rows(std::size_t(parameter_layout(bank).size));
  CHECK(test::code_of([&] { bind_parameters(bank, std::span(rows)); }) == ErrorCode::option);
  CHECK(test::code_of([&] { (void)parameter_layout(layer).of("router.wait", std::span(memory)); }) ==
        ErrorCode::option);
}
