// SPDX-License-Identifier: MIT
// The bits of a token do not depend on the others of its call: what one token gives is what a prompt gives.
#include "mole/mole.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

using namespace mole;
using support::random_matrix;
using support::same_bits;

namespace {

/// Every row of y and of d_x, in calls of other sizes than the whole.
template <class Layer>
void check_rows(const Layer& layer, Index tokens) {
  const auto x = random_matrix<float>(tokens, layer.in(), 1), d_y = random_matrix<float>(tokens, layer.out(), 2);
  const auto run = [&](Index first, Index count) {
    const View<const float> some = x.view().middle_rows(first, count), d = d_y.view().middle_rows(first, count);
    Matrix<float> y(count, layer.out()), d_x(count, layer.in());
    auto work = layer.workspace(count);
    auto gradients = layer.gradients();
    layer.forward(some, y, work);
    layer.backward(some, d, d_x, gradients, work);
    return std::pair{y, d_x};
  };
  const auto [y, d_x] = run(0, tokens);
  for (const Index count : {Index(1), Index(2), Index(17), tokens / 2})
    for (Index first = 0; first + count <= tokens; first += std::max<Index>(count, tokens / 5)) {
      const auto [some_y, some_d_x] = run(first, count);
      CAPTURE(layer.out(), layer.experts().experts(), layer.experts().blocks().max_size(), tokens, first, count);
      CHECK(same_bits(some_y.view(), y.view().middle_rows(first, count)));
      CHECK(same_bits(some_d_x.view(), d_x.view().middle_rows(first, count)));
    }
}

/// A layer over a packed base.
template <class G>
auto packed(const support::LayerSizes& sizes, G gate) {
  Rng rng(5);
  return support::with_random_b(MixtureLinear(
      LinearRouter<float>({.in = sizes.in, .experts = gate.columns(sizes.experts), .bias = true}, rng), gate,
      LowRank<DenseFactors<float>>({.in = sizes.in,
                                    .out = sizes.out,
                                    .experts = sizes.experts,
                                    .rank = sizes.rank,
                                    .shared_down = sizes.shared_down},
                                   rng),
      PackedBase(random_matrix<float>(sizes.out, sizes.in, 6)), Simd<>{}));
}

}  // namespace

TEST_CASE("A token over a packed base has the same bits in any call", "[layer]") {
  // Around the numbers at which kernels change: ranks of a run, rows and columns of a panel, loads of an expert.
  for (Index rank : {1, 3, 4, 15, 16, 17, 33})
    for (Index tokens : {40, 130})
      check_rows(packed({.in = 70, .out = 90, .experts = 3, .rank = rank}, support::top_2()), tokens);
  for (Index experts : {31, 32, 33, 64, 128})  // logits of a router wider than a panel
    check_rows(packed({.in = 70, .out = 40, .experts = experts, .rank = 1}, support::top_2()), 70);
  check_rows(packed({.in = 70, .out = 90, .experts = 4, .rank = 16}, Gate{Softmax{}, All{}, Raw{}}), 70);
  check_rows(packed({.in = 70, .out = 90, .experts = 4, .rank = 20, .shared_down = true}, support::top_2()), 140);
  // Of few tokens every one may have all experts, of many not.
  check_rows(
      packed({.in = 70, .out = 90, .experts = 4, .rank = 16}, Gate{Softmax{}, Threshold{.threshold = 0.2}, Raw{}}), 60);
  check_rows(packed({.in = 1100, .out = 40, .experts = 3, .rank = 4}, support::top_2()), 40);  // sums in pieces
}

TEST_CASE("A token over a narrow plain base has the same bits in any call", "[layer]") {
  for (Index out : {13, 32, 127, 128})
    check_rows(support::routed_layer<float>({.in = 70, .out = out, .rank = 8}, support::top_2(), Simd<>{}), 100);
}
