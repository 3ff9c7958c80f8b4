// SPDX-License-Identifier: MIT
#include "mole/layer/layer_shape.hpp"

#include "core/error_code.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

using namespace mole;
using support::random_matrix;
using test::code_of;

TEST_CASE("A shape is measured once, and always where it may change", "[layer]") {
  int measured = 0;
  const auto of_whole = [&](const LayerShape& shape) {
    return shape.number(LayerShape::Of::whole, false, [&] { return std::uint64_t(++measured); });
  };
  LayerShape shape;
  const std::uint64_t first = of_whole(shape);
  CHECK(first != 0);
  CHECK(of_whole(shape) == first);
  CHECK(of_whole(LayerShape(shape)) == first);
  CHECK(measured == 1);
  shape.may_change();
  CHECK(of_whole(shape) != first);
  CHECK(of_whole(shape) != of_whole(shape));
  shape = LayerShape();  // whoever could change the parts still can
  CHECK(of_whole(shape) != of_whole(shape));
  const LayerShape copy = shape;
  CHECK(of_whole(copy) == of_whole(copy));
}

TEST_CASE("A shape is measured always, if a part borrows what it measures", "[layer]") {
  std::uint64_t size = 5;
  LayerShape shape;
  const auto number = [&] { return shape.number(LayerShape::Of::whole, true, [&] { return size; }); };
  const std::uint64_t first = number();
  size = 6;
  CHECK(number() != first);
  size = 5;
  CHECK(number() == first);
}

TEST_CASE("Who has a reference to a part keeps it, though the layer is moved from and to", "[layer]") {
  int measured = 0;
  const auto number = [&](const LayerShape& shape) {
    return shape.number(LayerShape::Of::whole, false, [&] { return std::uint64_t(++measured); });
  };
  LayerShape one, other;
  one.may_change();
  std::swap(one, other);
  CHECK(number(one) != number(one));
  CHECK(number(other) == number(other));
  LayerShape taken = std::move(one);
  CHECK(code_of([&] { number(one); }) == ErrorCode::order);
  one = std::move(taken);
  CHECK(number(one) != number(one));

  auto layer = support::routed_layer<float>({}, support::top_2()),
       larger = support::routed_layer<float>({.in = 12}, support::top_2());
  auto& experts = layer.experts();
  std::swap(layer, larger);
  auto work = layer.workspace(8);
  const auto x = random_matrix<float>(8, 12, 1);
  Matrix<float> y(8, 13);
  CHECK_NOTHROW(layer.forward(x, y, work));
  experts = std::as_const(larger).experts();
  CHECK(code_of([&] { layer.forward(x, y, work); }) == ErrorCode::shape);
}

TEST_CASE("The shapes of a layer and of its half are different numbers", "[layer]") {
  const LayerShape shape;
  const auto number = [&](LayerShape::Of of) { return shape.number(of, false, [] { return std::uint64_t(5); }); };
  const std::uint64_t half = number(LayerShape::Of::experts);
  CHECK(number(LayerShape::Of::whole) != half);
  CHECK(number(LayerShape::Of::experts) == half);
}

TEST_CASE("A layer that was moved from refuses to be called until it is assigned", "[layer]") {
  const auto x = random_matrix<float>(8, 11, 1);
  Matrix<float> y(8, 13);
  auto layer = support::routed_layer<float>({}, support::top_2());
  auto work = layer.workspace(8);
  auto taken = std::move(layer);
  CHECK(code_of([&] { layer.forward(x, y, work); }) != std::nullopt);
  CHECK(code_of([&] { layer.workspace(8); }) == ErrorCode::order);
  CHECK(code_of([&] { layer.workspace_bytes(8); }) == ErrorCode::order);
  CHECK_NOTHROW(taken.forward(x, y, work));
  layer = std::move(taken);
  CHECK_NOTHROW(layer.forward(x, y, work));
  CHECK(code_of([&] { taken.forward(x, y, work); }) != std::nullopt);
}
