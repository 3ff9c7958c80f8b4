// SPDX-License-Identifier: MIT
#include "mole/testing/execution_laws.hpp"

#include "support/catch.hpp"
#include "testing/unsaid.hpp"

using namespace mole;
using test::unsaid;

namespace {

enum class ExecutionFault {
  none,
  product_nt,
  product_nn,
  product_tn,
  linear,
  linear_backward,
  linear_terms,
  linear_backward_terms,
  routed_down,
  routed_up,
  routed_outer,
  last_rows,
  bits_of_terms,
  bits_of_backward_terms,
  second_call,
  no_threads,
  task_twice
};

/// Reference, with a fault in the primitive of that name.
struct FaultyExecution {
  ExecutionFault fault = ExecutionFault::none;
  mutable int calls = 0;

  /// Adds `error` to the first number of a result of the faulty primitive.
  template <class T>
  void spoil(ExecutionFault in, View<T> result, double error = 1) const {
    if (fault == in && result.size() > 0) result(0, 0) += T(error);
  }

  template <class T>
  void product_nt(ConstView<T> x, ConstView<T> w, View<T> y) const {
    Reference{}.product_nt(x, w, y);
    spoil(ExecutionFault::product_nt, y);
    if (++calls % 2 == 0) spoil(ExecutionFault::second_call, y, 1e-6);
  }
  template <class T>
  void product_nn(ConstView<T> d_y, ConstView<T> w, View<T> d_x) const {
    Reference{}.product_nn(d_y, w, d_x);
    spoil(ExecutionFault::product_nn, d_x);
  }
  template <class T>
  void product_tn(ConstView<T> d_y, ConstView<T> x, View<T> d_w) const {
    Reference{}.product_tn(d_y, x, d_w);
    spoil(ExecutionFault::product_tn, d_w);
  }
  template <class T, class... Terms>
  void linear(ConstView<T> x, const LinearWeights<T>& w, View<T> y, const Terms&... terms) const {
    Reference{}.linear(x, w, y, terms...);
    spoil(ExecutionFault::linear, y);
    if (sizeof...(terms) > 0) spoil(ExecutionFault::linear_terms, y), spoil(ExecutionFault::bits_of_terms, y, 1e-6);
  }
  template <class T, class... Terms>
  void linear_backward(ConstView<T> d_y, const LinearWeights<T>& w, View<T> d_x, const Terms&... terms) const {
    Reference{}.linear_backward(d_y, w, d_x, terms...);
    spoil(ExecutionFault::linear_backward, d_x);
    if (sizeof...(terms) > 0)
      spoil(ExecutionFault::linear_backward_terms, d_x), spoil(ExecutionFault::bits_of_backward_terms, d_x, 1e-6);
  }
  template <class T>
  void routed_down(ConstView<T> x, ConstView<T> table, FactorSide side, const RankLayout<T>& layout,
                   std::span<T> h) const {
    Reference{}.routed_down(x, table, side, layout, h);
    spoil(ExecutionFault::routed_down, View<T>(h.data(), 1, Index(h.size())));
  }
  template <class T>
  void routed_up(const RankTerms<T>& terms, View<T> result) const {
    Reference{}.routed_up(terms, result);
    spoil(ExecutionFault::routed_up, result);
  }
  template <class T>
  void routed_outer(std::span<const std::type_identity_t<T>> h, ConstView<T> x, FactorSide side,
                    const RankLayout<T>& layout, View<T> d_table) const {
    Reference{}.routed_outer(h, x, side, layout, d_table);
    spoil(ExecutionFault::routed_outer, d_table);
    if (d_table.rows() < layout.rows(side)) spoil(ExecutionFault::last_rows, d_table);
  }
  template <class F>
  void parallel_for(Index tasks, F&& f) const {
    Reference{}.parallel_for(tasks, f);
    if (fault == ExecutionFault::task_twice && tasks > 5) f(5);
  }
  int threads() const { return fault == ExecutionFault::no_threads ? 0 : 1; }
};
static_assert(ExecutionPolicy<FaultyExecution, float>);

std::string broken(ExecutionFault fault) {
  return laws::broken_execution_law<float>(FaultyExecution{fault});
}

}  // namespace

TEST_CASE("The laws of executions name the primitive that is not Reference's", "[testing]") {
  CHECK(broken(ExecutionFault::none) == "");
  const auto named = [](ExecutionFault fault, const std::string& primitive) {
    return unsaid(broken(fault),
                  {"execution, seed 81", "tokens", "ranks: expected " + primitive + " to be Reference's"});
  };
  CHECK(named(ExecutionFault::product_nt, "product_nt") == "");
  CHECK(named(ExecutionFault::product_nn, "product_nn") == "");
  CHECK(named(ExecutionFault::product_tn, "product_tn") == "");
  CHECK(named(ExecutionFault::linear, "linear") == "");
  CHECK(named(ExecutionFault::linear_backward, "linear_backward") == "");
  CHECK(named(ExecutionFault::linear_terms, "linear with ranks") == "");
  CHECK(named(ExecutionFault::linear_backward_terms, "linear_backward with ranks") == "");
  CHECK(named(ExecutionFault::routed_down, "routed_down of A") == "");
  CHECK(named(ExecutionFault::routed_up, "routed_up of B") == "");
  CHECK(named(ExecutionFault::routed_outer, "routed_outer of B") == "");
  CHECK(named(ExecutionFault::last_rows, "routed_outer of B's last rows") == "");
}

TEST_CASE("The laws of executions name bits and tasks that are not what they should be", "[testing]") {
  CHECK(unsaid(broken(ExecutionFault::bits_of_terms),
               {"expected linear with ranks to have the bits of linear and then"}) == "");
  CHECK(unsaid(broken(ExecutionFault::bits_of_backward_terms), {"linear_backward with ranks to have the bits of"}) ==
        "");
  CHECK(unsaid(broken(ExecutionFault::second_call), {"expected the same bits of product_nt on a second call"}) == "");
  CHECK(unsaid(broken(ExecutionFault::no_threads), {"expected at least 1 thread, found 0"}) == "");
  CHECK(unsaid(broken(ExecutionFault::task_twice), {"parallel_for of 33 tasks: expected 1 call of task 5, found 2"}) ==
        "");
}
