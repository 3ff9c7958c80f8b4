// SPDX-License-Identifier: MIT
// all_dense_products_equal_reference() and others: every primitive of an execution against Reference.
#pragma once

#include "mole/execution/reference.hpp"
#include "support/guarded_matrix.hpp"
#include "support/seed.hpp"
#include "support/tolerance.hpp"

#include <string>
#include <vector>

namespace mole::test {

/// Odd and even numbers of tokens, around the sizes at which kernels change their ways.
inline const std::vector<Index> token_counts{0, 1, 7, 63, 64, 65, 200};
inline const std::vector<Index> feature_counts{1, 3, 16, 33, 100};

/// The factors' cut: uniform blocks and ragged ones, own and shared down-projections.
inline std::vector<RankBlocks> block_kinds() {
  const std::vector<int> ragged{1, 5, 0, 2, 8};
  std::vector<RankBlocks> kinds;
  for (bool shared : {false, true}) {
    for (Index ranks : {1, 3, 8, 17}) kinds.push_back(RankBlocks::uniform(5, ranks, shared));
    kinds.push_back(RankBlocks::ragged(ragged, shared));
  }
  // More ranks in one expert than a kernel's buffer holds.
  kinds.push_back(RankBlocks::uniform(5, 70));
  return kinds;
}

/// How tokens are spread over the experts.
enum class Spread { random_pairs, all_to_one, some_experts_idle, some_tokens_alone, nobody, everybody };
inline const std::vector<Spread> spreads{Spread::random_pairs,      Spread::all_to_one, Spread::some_experts_idle,
                                         Spread::some_tokens_alone, Spread::nobody,     Spread::everybody};

/// Weights in [-1, 1]; two experts a token where the spread leaves a choice.
template <class T>
Routing<T> random_routing(Spread spread, Index tokens, Index experts, Rng& rng) {
  Routing<T> routing;
  routing.start(experts);
  const auto draw = [&](Index bound) { return Index(rng() % std::uint64_t(bound)); };
  const auto push = [&](Index e) { routing.push(int(e), T(2 * unit_interval(rng()) - 1)); };
  for (Index n = 0; n < tokens; ++n) {
    const Index first = draw(experts), second = (first + 1 + draw(experts - 1)) % experts;
    switch (spread) {
      case Spread::random_pairs:
        push(first), push(second);
        break;
      case Spread::all_to_one:
        push(experts - 1);
        break;
      case Spread::some_experts_idle:
        push(first % 2);
        break;
      case Spread::some_tokens_alone:
        if (n % 3 != 0) push(second);
        break;
      case Spread::nobody:
        break;
      case Spread::everybody:
        for (Index e = 0; e < experts; ++e) push(e);
        break;
    }
    routing.end_token();
  }
  routing.finish();
  return routing;
}

/// One set of routed operands, and room for one execution's results.
template <class T>
struct RoutedCase {
  RankBlocks blocks;
  Routing<T> routing;
  Index in, out;
  std::vector<int> begin{0};
  GuardedMatrix<T> x, d_y, a, b, h;  // h [1 x ranks of all pairs]

  RoutedCase(RankBlocks cut, Routing<T> route, Index in_, Index out_, Index padding, Rng& rng)
      : blocks(std::move(cut)),
        routing(std::move(route)),
        in(in_),
        out(out_),
        begin(begins()),
        x(random_input<T>(routing.tokens(), in, rng, {.padding = padding})),
        d_y(random_input<T>(routing.tokens(), out, rng, {.padding = padding})),
        a(random_input<T>(blocks.ranks_down(), in, rng, {.padding = padding})),
        b(random_input<T>(blocks.ranks_up(), out, rng, {.padding = padding})),
        h(random_input<T>(1, begin.back(), rng)) {}

  RankLayout<T> layout() const { return {blocks, routing, begin}; }
  std::vector<int> begins() const {
    std::vector<int> all{0};
    for (Index p = 0; p < routing.pairs(); ++p) all.push_back(all.back() + int(blocks.size(routing.expert(p))));
    return all;
  }
};

/// What the routed primitives leave behind; everything that accumulates starts at random numbers.
template <class T>
struct RoutedResults {
  GuardedMatrix<T> h, y, u, d_b, d_a, d_x;
  std::vector<GuardedMatrix<T>> last_d_b, last_d_a;  ///< of some of the last rows of their tables

  RoutedResults(const RoutedCase<T>& c, Index padding, Rng rng)
      : h(random_output<T>(1, c.begin.back(), rng, around(0))),
        y(random_output<T>(c.routing.tokens(), c.out, rng, around(padding))),
        u(random_output<T>(1, c.begin.back(), rng, around(0))),
        d_b(random_output<T>(c.blocks.ranks_up(), c.out, rng, around(padding))),
        d_a(random_output<T>(c.blocks.ranks_down(), c.in, rng, around(padding))),
        d_x(random_output<T>(c.routing.tokens(), c.in, rng, around(padding))) {
    // One row, and a number that cuts through blocks.
    for (Index rows : {Index(1), (c.blocks.ranks_up() + 1) / 2})
      last_d_b.push_back(random_output<T>(rows, c.out, rng, around(padding)));
    for (Index rows : {Index(1), (c.blocks.ranks_down() + 1) / 2})
      last_d_a.push_back(random_output<T>(rows, c.in, rng, around(padding)));
  }

  template <class Execution>
  void compute(const Execution& execution, const RoutedCase<T>& c) {
    const auto ranks = c.h.view().row(0);
    execution.routed_down(c.x.view(), c.a.view(), FactorSide::down, c.layout(), h.view().row(0));
    execution.routed_up(RankTerms<T>{c.layout(), ranks, c.b.view(), FactorSide::up}, y.view());
    execution.routed_down(c.d_y.view(), c.b.view(), FactorSide::up, c.layout(), u.view().row(0));
    execution.routed_outer(ranks, c.d_y.view(), FactorSide::up, c.layout(), d_b.view());
    execution.routed_outer(ranks, c.x.view(), FactorSide::down, c.layout(), d_a.view());
    execution.routed_up(RankTerms<T>{c.layout(), ranks, c.a.view(), FactorSide::down}, d_x.view());
    for (auto& some : last_d_b) execution.routed_outer(ranks, c.d_y.view(), FactorSide::up, c.layout(), some.view());
    for (auto& some : last_d_a) execution.routed_outer(ranks, c.x.view(), FactorSide::down, c.layout(), some.view());
  }

  /// f(name, matrix, other's matrix, terms of each sum)
  template <class F>
  void compare(const RoutedResults& other, const RoutedCase<T>& c, F f) const {
    const Index ranks = c.blocks.experts() * c.blocks.max_size(), pairs = c.routing.pairs() + 1;
    f("h", h, other.h, c.in);
    f("y", y, other.y, ranks + 1);
    f("u", u, other.u, c.out);
    f("d_b", d_b, other.d_b, pairs);
    f("d_a", d_a, other.d_a, pairs);
    f("d_x", d_x, other.d_x, ranks + 1);
    for (std::size_t i = 0; i < last_d_b.size(); ++i) {
      f("d_b of the last rows", last_d_b[i], other.last_d_b[i], pairs);
      f("d_a of the last rows", last_d_a[i], other.last_d_a[i], pairs);
    }
  }

 private:
  static Placement around(Index padding) { return {.padding = padding, .before = 3, .after = 3}; }
};

/// h, y and all gradients of `execution` equal Reference's, and nobody wrote beside them.
template <class T, class Execution>
void routed_primitives_equal_reference(const Execution& execution, const RoutedCase<T>& c, Index padding) {
  const Rng start(test_seed() + 1);
  RoutedResults<T> found(c, padding, start), expected(c, padding, start);
  found.compute(execution, c);
  expected.compute(Reference{}, c);
  found.compare(expected, c, [](std::string name, const auto& a, const auto& b, Index terms) {
    CAPTURE(name);
    CHECK(difference(a.view(), b.view()) <= Tolerance<T>::sum(terms));
    CHECK(a.intact());
  });
}

/// The same over all routings, cuts and sizes.
template <class T, class Execution>
void all_routed_primitives_equal_reference(const Execution& execution) {
  TestRng rng;
  for (const RankBlocks& blocks : block_kinds())
    for (Spread spread : spreads)
      for (Index tokens : token_counts) {
        // Each width meets each other one over the loops above; all pairs at every step would only take longer.
        const Index in = feature_counts[std::size_t(rng() % 5)], out = feature_counts[std::size_t(rng() % 5)];
        const Index padding = tokens % 2 == 0 ? 0 : 3;
        CAPTURE(blocks.ranks_up(), blocks.max_size(), blocks.shared_down(), int(spread), tokens, in, out, padding);
        const RoutedCase<T> c(blocks, random_routing<T>(spread, tokens, blocks.experts(), rng), in, out, padding, rng);
        routed_primitives_equal_reference<T>(execution, c, padding);
      }
}

/// So large that the work is cut into several tasks, sums into several panels, and the tokens of experts with few ranks
/// into blocks for the first cache and for the second.
template <class T>
std::vector<RoutedCase<T>> large_routed_cases(Rng& rng) {
  std::vector<RoutedCase<T>> cases;
  const auto add = [&](const RankBlocks& blocks, Spread spread, Index tokens) {
    cases.emplace_back(blocks, random_routing<T>(spread, tokens, blocks.experts(), rng), 333, 517, 1, rng);
  };
  const std::vector<int> few{1, 3, 0, 2, 1};
  for (Spread spread : {Spread::random_pairs, Spread::all_to_one})
    for (const RankBlocks& blocks :
         {RankBlocks::uniform(5, 17), RankBlocks::uniform(5, 1), RankBlocks::ragged(few, true)})
      add(blocks, spread, 200);
  for (Spread spread : {Spread::random_pairs, Spread::some_tokens_alone})
    add(RankBlocks::uniform(100, 1), spread, 1000);
  return cases;
}

template <class T, class Execution>
void large_primitives_equal_reference(const Execution& execution) {
  TestRng rng;
  for (const RoutedCase<T>& c : large_routed_cases<T>(rng)) {
    CAPTURE(c.blocks.experts(), c.blocks.max_size(), c.routing.pairs());
    routed_primitives_equal_reference<T>(execution, c, 1);
  }
}

/// Dense operands and results of one size.
template <class T>
struct DenseCase {
  GuardedMatrix<T> x, w, d_y, bias, y, d_x, d_w, linear_y, linear_d_x, packed_y, packed_d_x, turned_d_x;
  WeightPanels<T> panels, transposed_panels;

  DenseCase(Index n, Index in, Index out, Index padding, Rng rng)
      : x(random_input<T>(n, in, rng, {.padding = padding})),
        w(random_input<T>(out, in, rng, {.padding = padding})),
        d_y(random_input<T>(n, out, rng, {.padding = padding})),
        bias(random_input<T>(1, out, rng)),
        y(random_output<T>(n, out, rng, around(padding))),
        d_x(random_output<T>(n, in, rng, around(padding))),
        d_w(random_output<T>(out, in, rng, around(padding))),
        linear_y(random_output<T>(n, out, rng, around(padding))),
        linear_d_x(random_output<T>(n, in, rng, around(padding))),
        packed_y(random_output<T>(n, out, rng, around(padding))),
        packed_d_x(random_output<T>(n, in, rng, around(padding))),
        turned_d_x(random_output<T>(n, in, rng, around(padding))),
        panels(WeightPanels<T>::of(std::as_const(w).view())),
        transposed_panels(WeightPanels<T>::of_transposed(std::as_const(w).view())) {}

  template <class Execution>
  void compute(const Execution& execution) {
    const auto& in = *this;
    execution.product_nt(in.x.view(), in.w.view(), y.view());
    execution.product_nn(in.d_y.view(), in.w.view(), d_x.view());
    execution.product_tn(in.d_y.view(), in.x.view(), d_w.view());
    const LinearWeights<T> plain{.weight = in.w.view(), .bias = in.bias.view()};
    const LinearWeights<T> packed{
        .panels = panels.view(), .transposed_panels = transposed_panels.view(), .bias = in.bias.view()};
    execution.linear(in.x.view(), plain, linear_y.view());
    execution.linear(in.x.view(), packed, packed_y.view());
    execution.linear_backward(in.d_y.view(), plain, linear_d_x.view());
    execution.linear_backward(in.d_y.view(), packed, packed_d_x.view());
    execution.linear_backward(in.d_y.view(), {.panels = panels.view()}, turned_d_x.view());
  }

  /// f(name, matrix, other's matrix, terms of each sum)
  template <class F>
  void compare(const DenseCase& other, F f) const {
    const Index n = x.view().rows(), in = x.view().cols(), out = w.view().rows();
    f("y", y, other.y, in);
    f("d_x", d_x, other.d_x, out + 1);
    f("d_w", d_w, other.d_w, n + 1);
    f("y of linear", linear_y, other.linear_y, in + 1);
    f("d_x of linear", linear_d_x, other.linear_d_x, out + 1);
    f("y from panels", packed_y, other.packed_y, in + 1);
    f("d_x from panels", packed_d_x, other.packed_d_x, out + 1);
    f("d_x from panels of y", turned_d_x, other.turned_d_x, out + 1);
  }

 private:
  static Placement around(Index padding) { return {.padding = padding, .before = 3, .after = 3}; }
};

template <class T, class Execution>
void dense_products_equal_reference(const Execution& execution, Index n, Index in, Index out, Index padding) {
  const Rng start(test_seed());
  DenseCase<T> found(n, in, out, padding, start), expected(n, in, out, padding, start);
  found.compute(execution);
  expected.compute(Reference{});
  CAPTURE(n, in, out, padding);
  found.compare(expected, [](std::string name, const auto& a, const auto& b, Index terms) {
    CAPTURE(name);
    CHECK(difference(a.view(), b.view()) <= Tolerance<T>::sum(terms));
    CHECK(a.intact());
  });
}

template <class T, class Execution>
void all_dense_products_equal_reference(const Execution& execution) {
  TestRng rng;
  for (Index n : token_counts)
    for (Index in : feature_counts)
      for (Index out : feature_counts)
        for (Index padding : {0, 3}) dense_products_equal_reference<T>(execution, n, in, out, padding);
}

}  // namespace mole::test
