// SPDX-License-Identifier: MIT
#include "mole/core/trace.hpp"

#include "core/error_code.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace mole::test;

TEST_CASE("A trace shows as many rows as its call has tokens", "[core]") {
  Trace<float> trace({.tokens = 8, .pairs = 16, .experts = 3, .columns = 5});
  CHECK(trace.max_tokens() == 8);
  CHECK(trace.experts() == 3);
  trace.start(5, {});
  CHECK(trace.tokens() == 5);
  for (View<float> view : {trace.logits(), trace.scores(), trace.d_logits(), trace.d_scores()}) {
    CHECK(view.rows() == 5);
    CHECK(view.cols() == 5);  // three experts and two further columns
  }
  CHECK(trace.logits().data() != trace.scores().data());
  CHECK(trace.d_logits().data() != trace.d_scores().data());
  CHECK(std::as_const(trace).logits().data() == trace.logits().data());
  CHECK(std::as_const(trace).scores().data() == trace.scores().data());
  CHECK(std::as_const(trace).d_logits().data() == trace.d_logits().data());
}

TEST_CASE("A trace starts every call with gradients of zero and the settings of the call", "[core]") {
  Trace<float> trace({.tokens = 4, .pairs = 8, .experts = 2, .columns = 2});
  trace.start(4, {.step = 7});
  CHECK(trace.pass.step == 7);
  fill(trace.d_logits(), 1);
  fill(trace.d_scores(), 1);
  trace.nan_tokens = 3;
  trace.start(3, {.training = true});
  CHECK(trace.pass.step == 0);
  CHECK(trace.pass.training);
  CHECK(trace.nan_tokens == 0);
  bool zero = true;
  for (Index n = 0; n < 3; ++n)
    for (Index e = 0; e < 2; ++e) zero = zero && trace.d_logits()(n, e) == 0 && trace.d_scores()(n, e) == 0;
  CHECK(zero);
}

TEST_CASE("A trace has one d_gate for each pair of its routing, zero again for each routing", "[core]") {
  Trace<float> trace({.tokens = 4, .pairs = 3, .experts = 3, .columns = 3});
  for (int pairs : {3, 1, 2}) {
    trace.routing.start(3);
    for (int p = 0; p < pairs; ++p) trace.routing.push(p, 1);
    trace.routing.end_token();
    trace.routing.finish();
    trace.start_d_gate();
    CHECK(Index(trace.d_gate().size()) == pairs);
    for (float& d : trace.d_gate()) {
      CHECK(d == 0);
      d = 5;
    }
  }
  trace.routing.start(3);
  for (int p = 0; p < 3; ++p) trace.routing.push(p, 1);
  CHECK(code_of([&] { trace.routing.push(0, 1); }) == ErrorCode::capacity);
}

TEST_CASE("All memory of a trace comes from the caller's resource", "[core]") {
  std::vector<std::byte> buffer(4096);
  std::pmr::monotonic_buffer_resource memory(buffer.data(), buffer.size(), std::pmr::null_memory_resource());
  Trace<float> trace({.tokens = 4, .pairs = 8, .experts = 3, .columns = 4}, &memory);
  trace.start(4, {});
  const auto inside = [&](const void* p) { return p >= buffer.data() && p < buffer.data() + buffer.size(); };
  CHECK(inside(trace.logits().data()));
  CHECK(inside(trace.d_scores().data()));
  trace.routing.start(3);
  for (int n = 0; n < 4; ++n) {
    trace.routing.push(0, 1);
    trace.routing.push(2, 1);
    trace.routing.end_token();
  }
  trace.routing.finish();
  trace.start_d_gate();
  CHECK(inside(trace.routing.gates().data()));
  CHECK(inside(trace.routing.by_expert().data()));
  CHECK(inside(trace.d_gate().data()));
}

TEST_CASE("A trace whose call failed, or that was moved from, has no tokens", "[core]") {
  Trace<float> trace({.tokens = 4, .pairs = 8, .experts = 3, .columns = 3});
  const auto fill_up = [&] {
    trace.start(4, {});
    trace.routing.start(3);
    for (int n = 0; n < 4; ++n) {
      trace.routing.push(n % 3, 1);
      trace.routing.end_token();
    }
    trace.routing.finish();
    trace.start_d_gate();
  };
  const auto is_empty = [](const Trace<float>& t) { return t.tokens() == 0 && t.logits().rows() == 0; };
  fill_up();
  trace.nan_tokens = 1;
  trace.abandon();
  CHECK(is_empty(trace));
  CHECK(trace.nan_tokens == 0);
  CHECK(trace.routing.finished());
  for (Index e = 0; e < 3; ++e) CHECK(trace.routing.load(e) == 0);
  fill_up();
  const Trace<float> other = std::move(trace);
  CHECK(other.tokens() == 4);
  CHECK(is_empty(trace));
  CHECK(trace.d_gate().empty());
  CHECK(trace.experts() == 0);
  CHECK(trace.routing.experts() == 0);
}

TEST_CASE("A trace refuses more tokens than it is made for, and pairs of a routing that was replaced", "[core]") {
  Trace<float> trace({.tokens = 4, .pairs = 8, .experts = 3, .columns = 3});
  CHECK(test::code_of([&] { trace.start(5, {}); }) == ErrorCode::capacity);
  CHECK(test::code_of([&] { trace.start(-1, {}); }) == ErrorCode::capacity);
  const auto route = [&](int pairs) {
    trace.routing.start(3);
    for (int p = 0; p < pairs; ++p) {
      trace.routing.push(p % 3, 1);
      trace.routing.end_token();
    }
    trace.routing.finish();
  };
  trace.start(2, {});
  route(2);
  trace.start_d_gate();
  CHECK(trace.d_gate_of_routing("a loss").size() == 2);
  route(4);
  CHECK(test::text_of([&] { trace.d_gate_of_routing("a loss"); }) ==
        "a loss: expected the routing that d_gate was made for, of 2 pairs, found another of 4");
}
