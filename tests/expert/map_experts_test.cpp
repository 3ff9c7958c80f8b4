// SPDX-License-Identifier: MIT
#include "mole/expert/map_experts.hpp"

#include "core/error_code.hpp"
#include "mole/execution/thread_pool.hpp"
#include "mole/layer/check_gradients.hpp"
#include "mole/mole.hpp"
#include "mole/testing/expert_laws.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

#include <optional>

using namespace mole;

namespace {

constexpr Index map_in = 5, map_out = 4;

/// f_e(x)_o = shift_eo + x_o^2: no linear map, and trained.
struct Squares {
  using Scalar = double;
  struct Options {
    Index experts = 1;
    std::optional<double> alpha = {};
    Scaling scaling = Scaling::fixed;
    Dropout dropout = {};
  };
  struct Parameters {
    Matrix<double> shift;

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      f("shift", p.shift...);
    }
  };

  Squares(const Options& options, Rng& rng) : own{Matrix<double>(options.experts, map_out)} {
    fill_uniform(own.shift.view(), 1, rng);
  }

  Index in() const { return map_in; }
  Index out() const { return map_out; }
  Index experts() const { return own.shift.rows(); }
  double scale(double alpha, Scaling, Index) const { return alpha; }
  Parameters& parameters() { return own; }
  const Parameters& parameters() const { return own; }
  void map(Index e, View<const double> x, View<double> y, auto) const {
    for (Index n = 0; n < x.rows(); ++n)
      for (Index o = 0; o < map_out; ++o) y(n, o) = own.shift(e, o) + x(n, o) * x(n, o);
  }
  void map_backward(Index e, View<const double> x, View<const double> d_y, View<double> d_x, Parameters& gradients,
                    auto) const {
    for (Index n = 0; n < x.rows(); ++n)
      for (Index o = 0; o < map_out; ++o) {
        if (!gradients.shift.empty()) gradients.shift(e, o) += d_y(n, o);
        if (d_x) d_x(n, o) += 2 * x(n, o) * d_y(n, o);
      }
  }

  Parameters own;
};
static_assert(TrainableMapPolicy<Squares> && !LinearMapPolicy<Squares>);

template <class Execution = Simd<>>
auto squares_layer(const Squares::Options& options, Execution execution = {}) {
  Rng rng(3);
  MapExperts<Squares> experts(options, rng);
  return MixtureLinear(LinearRouter<double>({.in = map_in, .experts = options.experts}, rng),
                       Gate{Softmax{}, TopK{std::min<Index>(2, options.experts)}, Renormalized{}}, std::move(experts),
                       DenseBase(support::random_matrix<double>(map_out, map_in, 6)), std::move(execution));
}

}  // namespace

TEST_CASE("MapExperts add what the maps of the chosen make of a token, under gate and scale", "[expert]") {
  const auto layer = squares_layer({.experts = 4, .alpha = 3});
  for (Index tokens : {0, 1, 9}) {
    const auto x = support::random_matrix<double>(tokens, map_in, 2);
    Matrix<double> y(tokens, map_out);
    auto work = layer.workspace(tokens);
    layer.forward(x, y, work);
    for (Index n = 0; n < tokens; ++n)
      for (Index o = 0; o < map_out; ++o) {
        double expected = 0;
        for (Index i = 0; i < map_in; ++i) expected += layer.base().weight()(o, i) * x(n, i);
        for (Index p = work.routing.first_pair(n); p < work.routing.first_pair(n + 1); ++p)
          expected += 3 * work.routing.gate(p) *
                      (layer.experts().parameters().shift(work.routing.expert(p), o) + x(n, o) * x(n, o));
        CHECK(std::abs(y(n, o) - expected) < 1e-13);
      }
  }
}

TEST_CASE("MapExperts keep the laws of experts, and have exact gradients, dropped rows too", "[expert]") {
  Rng rng(3);
  for (Index experts : {1, 4}) {
    CHECK(laws::broken_expert_law(MapExperts<Squares>({.experts = experts, .alpha = 2}, rng)) == "");
    for (double rate : {0.0, 0.4}) {
      auto layer = squares_layer({.experts = experts, .alpha = 2, .dropout = {.rate = rate, .stream = 1}});
      CHECK(check_gradients(layer, {.pass = {.training = true, .seed = 3}}).worst < 1e-8);
      const auto x = support::random_matrix<double>(9, map_in, 2);
      const double moved =
          support::largest_difference(support::output(layer, x, {.training = true}), support::output(layer, x));
      CHECK((moved > 1e-3) == (rate > 0));
    }
  }
}

TEST_CASE("MapExperts give the same bits on threads, and for an x with gaps between its rows", "[expert]") {
  const auto x = support::random_matrix<double>(9, map_in, 2), d_y = support::random_matrix<double>(9, map_out, 4);
  Matrix<double> wide(9, map_in + 3);
  copy(x.view(), wide.view().middle_cols(0, map_in));
  for (Index experts : {1, 4}) {
    const auto results = [&](auto execution, View<const double> of) {
      const auto layer = squares_layer({.experts = experts, .alpha = 2}, execution);
      auto work = layer.workspace(9);
      auto gradients = layer.gradients();
      Matrix<double> y(9, map_out), d_x(9, map_in);
      layer.forward(of, y, work);
      layer.backward(of, d_y, d_x, gradients, work);
      return std::vector<Matrix<double>>{y, d_x, gradients.experts.shift, gradients.router.weight};
    };
    const auto expected = results(Simd<>{}, x);
    const auto same = [&](const std::vector<Matrix<double>>& found) {
      for (std::size_t i = 0; i < found.size(); ++i) CHECK(support::same_bits(found[i], expected[i]));
    };
    same(results(Simd(ThreadPool(3)), x));
    same(results(Simd<>{}, std::as_const(wide).view().middle_cols(0, map_in)));
  }
}

TEST_CASE("MapExperts refuse scales that are not one each, and options out of range", "[expert]") {
  Rng rng;
  using Experts = MapExperts<Squares>;
  CHECK(test::code_of([&] { Experts({.alpha = 1e39}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { Experts({.alpha = std::nan("")}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { Experts({.dropout = {.rate = 1}}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { Experts(Squares({.experts = 3}, rng), {1.0, 2.0}); }) == ErrorCode::shape);
  CHECK(Experts({}, rng).scale()[0] == 1);
}
