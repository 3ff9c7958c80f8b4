// SPDX-License-Identifier: MIT
// The laws of executions, for every execution of the library and a user's own.
#pragma once

#include "mole/execution/execution_policy.hpp"
#include "mole/execution/reference.hpp"
#include "mole/testing/first_failure.hpp"
#include "mole/testing/random_matrix.hpp"

#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole::laws {

namespace detail {
/// Random operands of all primitives, of one size.
template <class T>
struct ExecutionCase {
  ExecutionCase(Index tokens, Index in_, Index out_, RankBlocks cut, Index chosen, std::uint64_t seed)
      : in(in_), out(out_), blocks(std::move(cut)) {
    Rng rng(seed);
    routing.start(blocks.experts());
    for (Index n = 0; n < tokens; ++n) {
      const Index first = Index(rng() % std::uint64_t(blocks.experts()));
      for (Index j = 0; j < (n % 3 == 2 ? 0 : chosen); ++j) {
        const Index e = chosen == blocks.experts() ? j : (first + j) % blocks.experts();
        routing.push(int(e), T(0.5));
        begin.push_back(begin.back() + int(blocks.size(e)));
      }
      routing.end_token();
    }
    routing.finish();
    const auto matrix = [&](Index rows, Index cols) { return random_matrix<T>(rows, cols, rng()); };
    x = matrix(tokens, in), w = matrix(out, in), d_y = matrix(tokens, out), bias = matrix(1, out);
    a = matrix(blocks.ranks_down(), in), b = matrix(blocks.ranks_up(), out), h = matrix(1, begin.back());
    logits = matrix(tokens, 3), of_x = matrix(3, in);
  }

  RankLayout<T> layout() const { return {blocks, routing, begin}; }
  RankTerms<T> up() const { return {layout(), h.elements(), b.view(), FactorSide::up}; }
  RankTerms<T> down() const { return {layout(), h.elements(), a.view(), FactorSide::down}; }
  LinearWeights<T> weights() const { return {.weight = w.view(), .bias = bias.view()}; }

  Index in, out;
  RankBlocks blocks;
  Routing<T> routing;
  std::vector<int> begin{0};
  Matrix<T> x, w, d_y, bias, a, b, h, logits, of_x;
};

/// What one primitive left, and of how many terms its sums are.
template <class T>
struct PrimitiveResult {
  const char* primitive;
  Matrix<T> numbers;
  Index terms;
};

/// The results of all primitives; all begin at random numbers, so that what accumulates shows.
template <class T, class Execution>
std::vector<PrimitiveResult<T>> results_of(const Execution& execution, const ExecutionCase<T>& c) {
  std::vector<PrimitiveResult<T>> results;
  const auto room = [&](const char* primitive, Index rows, Index cols, Index terms) {
    results.push_back({primitive, random_matrix<T>(rows, cols, results.size()), terms + 1});
    return results.back().numbers.view();
  };
  const Index tokens = c.x.rows(), in = c.in, out = c.out, pairs = c.routing.pairs();
  const Index ranks = c.blocks.experts() * c.blocks.max_size(), rows_a = c.a.rows(), rows_b = c.b.rows();
  const std::span<const T> h = c.h.elements();
  execution.product_nt(c.x.view(), c.w.view(), room("product_nt", tokens, out, in));
  execution.product_nn(c.d_y.view(), c.w.view(), room("product_nn", tokens, in, out));
  execution.product_tn(c.d_y.view(), c.x.view(), room("product_tn", out, in, tokens));
  execution.linear(c.x.view(), c.weights(), room("linear", tokens, out, in));
  execution.linear(c.x.view(), c.weights(), room("linear with ranks", tokens, out, in + ranks), c.up());
  execution.linear_backward(c.d_y.view(), c.weights(), room("linear_backward", tokens, in, out));
  execution.linear_backward(c.d_y.view(), c.weights(), room("linear_backward with ranks", tokens, in, out + ranks),
                            c.down());
  execution.linear_backward(c.d_y.view(), c.weights(),
                            room("linear_backward with ranks and logits", tokens, in, out + ranks + 3), c.down(),
                            LinearTerm<T>{c.logits.view(), c.of_x.view()});
  execution.routed_down(c.x.view(), c.a.view(), FactorSide::down, c.layout(),
                        room("routed_down of A", 1, c.h.size(), in).row(0));
  execution.routed_down(c.d_y.view(), c.b.view(), FactorSide::up, c.layout(),
                        room("routed_down of B", 1, c.h.size(), out).row(0));
  execution.routed_up(c.up(), room("routed_up of B", tokens, out, ranks));
  execution.routed_up(c.down(), room("routed_up of A", tokens, in, ranks));
  for (const Index frozen : {Index(0), rows_b / 2})
    execution.routed_outer(
        h, c.d_y.view(), FactorSide::up, c.layout(),
        room(frozen == 0 ? "routed_outer of B" : "routed_outer of B's last rows", rows_b - frozen, out, pairs));
  for (const Index frozen : {Index(0), rows_a / 2})
    execution.routed_outer(
        h, c.x.view(), FactorSide::down, c.layout(),
        room(frozen == 0 ? "routed_outer of A" : "routed_outer of A's last rows", rows_a - frozen, in, pairs));
  return results;
}

/// linear and linear_backward with ranks have the bits of the map followed by them.
template <class T, class Execution>
void expect_bits_of_terms(FirstFailure& failure, const Execution& execution, const ExecutionCase<T>& c) {
  Matrix<T> y(c.x.rows(), c.out), y_apart = y, d_x = random_matrix<T>(c.x.rows(), c.in, 1), d_x_apart = d_x;
  execution.linear(c.x.view(), c.weights(), y.view(), c.up());
  execution.linear(c.x.view(), c.weights(), y_apart.view());
  execution.routed_up(c.up(), y_apart.view());
  failure.expect(same_bits(y, y_apart), c.x.rows(), " tokens, ", c.in, " to ", c.out,
                 ": expected linear with ranks to have the bits of linear and then routed_up, found a difference of ",
                 largest_difference(y, y_apart));
  execution.linear_backward(c.d_y.view(), c.weights(), d_x.view(), c.down());
  execution.linear_backward(c.d_y.view(), c.weights(), d_x_apart.view());
  execution.routed_up(c.down(), d_x_apart.view());
  failure.expect(
      same_bits(d_x, d_x_apart), c.x.rows(), " tokens, ", c.in, " to ", c.out,
      ": expected linear_backward with ranks to have the bits of linear_backward and then routed_up, found a "
      "difference of ",
      largest_difference(d_x, d_x_apart));
}

template <class Execution>
void expect_every_task(FirstFailure& failure, const Execution& execution) {
  failure.expect(execution.threads() >= 1, "expected at least 1 thread, found ", execution.threads());
  for (const Index tasks : {0, 1, 5, 33}) {
    std::vector<int> calls(static_cast<std::size_t>(tasks));  // each task writes its own
    execution.parallel_for(tasks, [&](Index i) { ++calls[std::size_t(i)]; });
    for (std::size_t i = 0; i < calls.size(); ++i)
      failure.expect(calls[i] == 1, "parallel_for of ", tasks, " tasks: expected 1 call of task ", i, ", found ",
                     calls[i]);
  }
}
}  // namespace detail

/// The first law that an execution breaks, in words; "" where it keeps them.
///
/// Every primitive gives what Reference gives, up to 4 roundings for each term of a sum, for 0 to 37 tokens, widths
/// from 1 to 33, blocks of one size, ragged and shared ones, with tokens and experts that have no pair, and for the
/// last rows of a gradient alone; the same bits on a second call; linear and linear_backward with ranks have the bits
/// of the map and then of routed_up; parallel_for calls every task once.
///
///     static_assert(mole::ExecutionPolicy<MyExecution, float>);
///     assert(mole::laws::broken_execution_law<float>(MyExecution{}) == "");
template <class T, class Execution>
std::string broken_execution_law(const Execution& execution, std::uint64_t seed = 81) {
  static_assert(ExecutionPolicy<Execution, T>);
  FirstFailure failure("execution, seed " + std::to_string(seed));
  const std::vector<int> ragged{1, 5, 0, 2};
  for (const RankBlocks& blocks :
       {RankBlocks::uniform(4, 1), RankBlocks::uniform(4, 9), RankBlocks::uniform(4, 2, true),
        RankBlocks::ragged(ragged), RankBlocks::ragged(ragged, true)})
    for (const Index tokens : {0, 1, 5, 37})
      for (const Index chosen : {1, 2, 4}) {
        const Index in = (tokens + chosen) % 2 == 0 ? 33 : 1 + chosen, out = tokens % 2 == 0 ? 3 : 18;
        const detail::ExecutionCase<T> c(tokens, in, out, blocks, chosen, seed);
        const auto found = detail::results_of(execution, c), again = detail::results_of(execution, c),
                   expected = detail::results_of(Reference{}, c);
        for (std::size_t i = 0; i < expected.size() && !failure.failed(); ++i) {
          const double slack = 4 * double(std::numeric_limits<T>::epsilon()) * double(expected[i].terms);
          const double difference = largest_difference(found[i].numbers, expected[i].numbers);
          failure.expect(difference <= slack, tokens, " tokens, ", in, " to ", out, ", ", blocks.ranks_up(),
                         " ranks: expected ", expected[i].primitive, " to be Reference's up to ", slack,
                         ", found a difference of ", difference);
          failure.expect(same_bits(found[i].numbers, again[i].numbers), tokens, " tokens, ", in, " to ", out,
                         ": expected the same bits of ", expected[i].primitive, " on a second call, found others");
        }
        detail::expect_bits_of_terms(failure, execution, c);
      }
  detail::expect_every_task(failure, execution);
  return failure.text();
}

}  // namespace mole::laws

#include "mole/core/macros_on.hpp"
