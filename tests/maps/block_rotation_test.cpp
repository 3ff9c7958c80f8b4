// SPDX-License-Identifier: MIT
#include "mole/maps/block_rotation.hpp"

#include "core/error_code.hpp"
#include "mole/execution/thread_pool.hpp"
#include "mole/layer/check_gradients.hpp"
#include "mole/mole.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

#include <Eigen/Dense>

using namespace mole;

namespace {

constexpr Index oft_in = 12, oft_out = 7;
using Square = Eigen::MatrixXd;

template <class T>
const Matrix<T>& oft_weight() {
  static const Matrix<T> weight = support::random_matrix<T>(oft_out, oft_in, 6);
  return weight;
}

template <class T>
MapExperts<BlockRotation<T>> rotations(typename BlockRotation<T>::Options options, bool fresh = false) {
  Rng rng(1);
  options.in = oft_in, options.out = oft_out, options.weight = oft_weight<T>();
  MapExperts<BlockRotation<T>> made(options, rng);
  if (!fresh) fill_uniform(made.parameters().oft_R.view(), 0.4, rng);
  return made;
}

template <class T, class Execution = Simd<>>
auto rotated_layer(const MapExperts<BlockRotation<T>>& experts, Execution execution = {}) {
  Rng rng(5);
  return MixtureLinear(LinearRouter<T>({.in = oft_in, .experts = experts.experts()}, rng),
                       Gate{Softmax{}, TopK{std::min<Index>(2, experts.experts())}, Renormalized{}}, experts,
                       DenseBase(oft_weight<T>()), execution);
}

/// Whole and shared blocks, both forms, short and long series, blocks of one input and of all.
const std::vector<BlockRotation<double>::Options> rotation_kinds{
    {.experts = 2, .block = 4},
    {.experts = 3, .block = 3, .shared_block = true},
    {.block = 6, .form = RotationForm::cayley},
    {.experts = 2, .block = 4, .shared_block = true, .form = RotationForm::cayley},
    {.block = 4, .terms = 2},
    {.block = 4, .terms = 3},
    {.block = 4, .terms = 8},
    {.block = 1},
    {.block = 12}};

/// R of one expert, by Eigen and the formula.
Square rotation_of(const MapExperts<BlockRotation<double>>& experts, Index e,
                   const BlockRotation<double>::Options& options) {
  Square r = Square::Zero(oft_in, oft_in);
  const Index b = options.block, blocks = options.shared_block ? 1 : oft_in / b;
  for (Index first = 0; first < oft_in; first += b) {
    const Index row = e * blocks + (options.shared_block ? 0 : first / b);
    Square q = Square::Zero(b, b), power = Square::Identity(b, b), sum = Square::Identity(b, b);
    for (Index i = 0, next = 0; i < b; ++i)
      for (Index j = i + 1; j < b; ++j, ++next) q(i, j) = experts.parameters().oft_R(row, next), q(j, i) = -q(i, j);
    if (options.form == RotationForm::cayley) {
      const Square one = Square::Identity(b, b);
      sum = (one - q) * (one + q).inverse();
    } else if (options.terms == 2) {
      sum += 2 * q;
    } else {
      for (Index p = 1; p < std::max<Index>(4, options.terms); ++p)
        power = power * q, sum += (p + 1 < std::max<Index>(4, options.terms) ? 2 : 1) * power;
    }
    r.block(first, first, b, b) = sum;
  }
  return r;
}

}  // namespace

TEST_CASE("BlockRotation turns the rows of the weight", "[maps]") {
  for (const auto& options : rotation_kinds) {
    CAPTURE(options.block, options.terms);
    const auto experts = rotations<double>(options);
    for (Index e = 0; e < options.experts; ++e) {
      const Square r = rotation_of(experts, e, options);
      Matrix<double> delta(oft_out, oft_in);
      experts.add_delta(e, 0.5, delta.view());
      for (Index o = 0; o < oft_out; ++o)
        for (Index i = 0; i < oft_in; ++i) {
          double turned = 0;
          for (Index j = 0; j < oft_in; ++j) turned += oft_weight<double>()(o, j) * r(i, j);
          CHECK(std::abs(delta(o, i) - 0.5 * (turned - oft_weight<double>()(o, i))) < 1e-13);
        }
      if (options.form == RotationForm::cayley)
        CHECK((r * r.transpose() - Square::Identity(oft_in, oft_in)).norm() < 1e-13);
    }
  }
}

TEST_CASE("BlockRotation is right under every execution, and its gradients exact", "[maps]") {
  const auto x = support::random_matrix<double>(7, oft_in, 3);
  for (const auto& options : rotation_kinds) {
    CAPTURE(options.block, options.terms);
    const auto experts = rotations<double>(options);
    auto layer = rotated_layer(experts, Reference{});
    auto work = layer.workspace(7);
    Matrix<double> y(7, oft_out);
    layer.forward(x, y, work);
    for (Index n = 0; n < 7; ++n) {
      Matrix<double> merged = oft_weight<double>();
      const auto chosen = work.routing.experts_of(n);
      for (std::size_t j = 0; j < chosen.size(); ++j)
        experts.add_delta(chosen[j], std::as_const(work.routing).gates_of(n)[j], merged.view());
      for (Index o = 0; o < oft_out; ++o) {
        double expected = 0;
        for (Index i = 0; i < oft_in; ++i) expected += merged(o, i) * x(n, i);
        CHECK(std::abs(y(n, o) - expected) < 1e-12);
      }
    }
    CHECK(support::largest_difference(support::output(rotated_layer(experts), x), y) < 1e-12);
    CHECK(check_gradients(layer, {.pass = {.training = true}}).worst < 1e-7);
    auto by_simd = rotated_layer(experts);
    CHECK(check_gradients(by_simd).worst < 1e-7);
  }
}

TEST_CASE("A fresh BlockRotation leaves the base as it is, to the bit", "[maps]") {
  for (RotationForm form : {RotationForm::neumann, RotationForm::cayley}) {
    const auto layer = rotated_layer(rotations<float>({.experts = 2, .block = 4, .form = form}, true));
    const auto x = support::random_matrix<float>(5, oft_in, 3);
    Matrix<float> expected(5, oft_out);
    Simd<>{}.product_nt(x, oft_weight<float>(), expected.view());
    CHECK(support::same_bits(support::output(layer, x), expected));
  }
}

TEST_CASE("BlockRotation has the same bits on any number of threads", "[maps]") {
  for (bool shared : {false, true}) {
    const auto results = [&](auto execution) {
      auto layer = rotated_layer(rotations<float>({.experts = 3, .block = 4, .shared_block = shared}), execution);
      const auto x = support::random_matrix<float>(9, oft_in, 3), d_y = support::random_matrix<float>(9, oft_out, 4);
      auto work = layer.workspace(9);
      auto gradients = layer.gradients();
      Matrix<float> y(9, oft_out), d_x(9, oft_in);
      layer.forward(x, y, work);
      layer.backward(x, d_y, d_x, gradients, work);
      return std::vector<Matrix<float>>{y, d_x, gradients.experts.oft_R};
    };
    const auto one = results(Simd<>{}), three = results(Simd(ThreadPool(3)));
    for (std::size_t i = 0; i < one.size(); ++i) CHECK(support::same_bits(one[i], three[i]));
  }
}

TEST_CASE("One rotation merges into the weight itself, several need a copy", "[maps]") {
  Matrix<double> weight = oft_weight<double>(), other = weight;
  Rng rng(1);
  for (Index count : {1, 2}) {
    MapExperts<BlockRotation<double>> experts(
        {.in = oft_in, .out = oft_out, .experts = count, .block = 4, .weight = weight}, rng);
    fill_uniform(experts.parameters().oft_R.view(), 0.4, rng);
    if (count == 1) {
      experts.add_delta(0, 1, other.view());
      experts.add_delta(0, 1, weight.view());
      CHECK(support::same_bits(weight, other));
    } else {
      CHECK(test::code_of([&] { experts.add_delta(0, 1, weight.view()); }) == ErrorCode::not_mergeable);
      CHECK_NOTHROW(experts.add_delta(0, 1, other.view()));
    }
  }
}

TEST_CASE("BlockRotation refuses what does not fit, and has the numbers that it says", "[maps]") {
  Rng rng;
  using Maps = BlockRotation<float>;
  const Matrix<float> weight(3, 8), large(4096, 4096);
  const auto code = [&](Maps::Options options) { return test::code_of([&] { Maps(options, rng); }); };
  CHECK(code({.in = 0, .out = 3, .weight = weight}) == ErrorCode::option);
  CHECK(code({.in = 8, .out = 3, .block = 3, .weight = weight}) == ErrorCode::option);
  CHECK(code({.in = 8, .out = 3, .block = 4, .weight = weight, .terms = 1}) == ErrorCode::option);
  CHECK(code({.in = 8, .out = 4, .block = 4, .weight = weight}) == ErrorCode::shape);
  Maps maps({.in = 8, .out = 3, .block = 4, .weight = weight}, rng);
  maps.parameters().oft_R = Matrix<float>(1, 6);
  CHECK(test::code_of([&] { maps.check_sizes(); }) == ErrorCode::shape);
  CHECK(Maps({.in = 4096, .out = 4096, .weight = large}, rng).parameters().oft_R.size() == 63'488);
  CHECK(Maps({.in = 4096, .out = 4096, .shared_block = true, .weight = large}, rng).parameters().oft_R.size() == 496);
}
