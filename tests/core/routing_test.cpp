// SPDX-License-Identifier: MIT
#include "mole/core/routing.hpp"

#include "core/error_code.hpp"
#include "support/catch.hpp"
#include "support/seed.hpp"

using namespace mole;
using namespace mole::test;

namespace {

using Ints = std::vector<int>;
Ints ints(std::span<const int> numbers) {
  return {numbers.begin(), numbers.end()};
}

/// Token 0: experts 2 and 0; token 1: nobody; token 2: experts 0, 1 and 2; four experts.
Routing<double> small() {
  Routing<double> routing;
  routing.start(4);
  routing.push(2, 0.5);
  routing.push(0, 0.25);
  routing.end_token();
  routing.end_token();
  routing.push(0, 1);
  routing.push(1, 2);
  routing.push(2, 0);
  routing.end_token();
  routing.finish();
  return routing;
}

}  // namespace

TEST_CASE("Pairs are stored token by token, in the order in which they were pushed", "[core]") {
  Routing<double> routing = small();
  CHECK(routing.tokens() == 3);
  CHECK(routing.experts() == 4);
  CHECK(routing.pairs() == 5);
  CHECK(ints(routing.experts_of(0)) == Ints{2, 0});
  CHECK(ints(routing.experts_of(1)).empty());
  CHECK(ints(routing.experts_of(2)) == Ints{0, 1, 2});
  CHECK(routing.first_pair(0) == 0);
  CHECK(routing.first_pair(2) == 2);
  CHECK(routing.first_pair(3) == 5);
  CHECK(routing.gates_of(0)[1] == 0.25);
  CHECK(routing.token(1) == 0);
  CHECK(routing.token(3) == 2);
  CHECK(routing.expert(3) == 1);
  CHECK(routing.gate(3) == 2);
  CHECK(routing.gates_of(2)[2] == 0);  // a pair of weight 0 is a pair

  routing.gates_of(2)[0] = 9;
  CHECK(routing.gate(2) == 9);
  const std::vector<double> per_pair{10, 11, 12, 13, 14};
  CHECK(routing.of_token(std::span<const double>(per_pair), 2)[1] == 13);
}

TEST_CASE("Pairs are listed expert by expert, tokens ascending", "[core]") {
  const Routing<double> routing = small();
  CHECK(ints(routing.by_expert()) == Ints{1, 2, 3, 0, 4});
  CHECK(ints(routing.pairs_of(0)) == Ints{1, 2});
  CHECK(ints(routing.pairs_of(1)) == Ints{3});
  CHECK(ints(routing.pairs_of(2)) == Ints{0, 4});
  CHECK(ints(routing.pairs_of(3)).empty());
  for (Index e = 0; e < 4; ++e)
    for (Index begin = 0; begin <= routing.tokens() + 1; ++begin)
      for (Index end = begin; end <= routing.tokens() + 1; ++end) {
        Ints expected;
        for (int p : routing.pairs_of(e))
          if (routing.token(p) >= begin && routing.token(p) < end) expected.push_back(p);
        CHECK(ints(routing.pairs_of(e, begin, end)) == expected);
      }
  CHECK(routing.load(0) == 2);
  CHECK(routing.load(3) == 0);
  CHECK(routing.first_of_expert(2) == 3);
  CHECK(routing.first_of_expert(4) == 5);
}

TEST_CASE("The order by expert is a stable sort of any routing", "[core]") {
  TestRng rng;
  Routing<float> routing;
  for (Index experts : {1, 2, 7, 64}) {
    routing.start(experts);
    for (Index n = 0; n < 50; ++n) {
      for (Index e = 0; e < experts; ++e)
        if (rng() % 3 == 0) routing.push(int(e), 1);
      routing.end_token();
    }
    routing.finish();
    Ints expected(std::size_t(routing.pairs()));
    for (std::size_t p = 0; p < expected.size(); ++p) expected[p] = int(p);
    std::stable_sort(expected.begin(), expected.end(),
                     [&](int p, int q) { return routing.expert(p) < routing.expert(q); });
    CAPTURE(experts);
    CHECK(ints(routing.by_expert()) == expected);
    Index total = 0;
    for (Index e = 0; e < experts; ++e) total += routing.load(e);
    CHECK(total == routing.pairs());
  }
}

TEST_CASE("A routing is finished after finish() and not after the next start()", "[core]") {
  Routing<double> routing = small();
  CHECK(routing.finished());
  routing.start(2);
  CHECK_FALSE(routing.finished());
  routing.end_token();
  routing.finish();
  CHECK(routing.finished());
  CHECK(routing.tokens() == 1);
  CHECK(routing.pairs() == 0);
  CHECK(routing.load(1) == 0);
}

TEST_CASE("A routing from labels has one expert for each token, or none", "[core]") {
  const std::vector<int> labels{2, -1, 0, 2}, beyond{3}, none{};
  const auto routing = Routing<float>::from_labels(labels, 3);
  CHECK(routing.finished());
  CHECK(routing.tokens() == 4);
  CHECK(routing.experts() == 3);
  CHECK(routing.pairs() == 3);
  CHECK(ints(routing.experts_of(0)) == Ints{2});
  CHECK(routing.experts_of(1).empty());
  CHECK(routing.load(2) == 2);
  CHECK(routing.load(1) == 0);
  for (Index p = 0; p < 3; ++p) CHECK(routing.gate(p) == 1);
  CHECK(Routing<float>::from_labels(none, 3).tokens() == 0);
  CHECK(test::code_of([&] { Routing<float>::from_labels(beyond, 3); }) == ErrorCode::option);
}

TEST_CASE("A routing from a dense matrix has a pair for every weight that is not 0", "[core]") {
  // [3 x 2] of a wider matrix.
  const std::vector<float> weights{0.5f, 0, 99, 0, 0, 99, -1, 2, 99};
  const auto routing = Routing<float>::from_dense(View<const float>(weights.data(), 3, 2, 3));
  CHECK(routing.finished());
  CHECK(routing.tokens() == 3);
  CHECK(routing.experts() == 2);
  CHECK(ints(routing.experts_of(0)) == Ints{0});
  CHECK(ints(routing.experts_of(1)).empty());
  CHECK(ints(routing.experts_of(2)) == Ints{0, 1});
  CHECK(routing.gate(1) == -1);
  CHECK(routing.gate(2) == 2);
}

TEST_CASE("A routing beyond the room it was given is refused", "[core]") {
  MemoryBlock memory(4096, std::pmr::get_default_resource());
  Arena arena(memory.bytes());
  Routing<double> routing({.tokens = 2, .pairs = 2, .experts = 3}, arena);
  for (int round = 0; round < 2; ++round) {  // the bound is one of every routing to come
    routing.start(3);
    routing.push(0, 1);
    routing.push(1, 1);
    CHECK(code_of([&] { routing.push(2, 1); }) == ErrorCode::capacity);
    CHECK(routing.pairs() == 2);
  }
  CHECK(text_of([&] { routing.push(2, 1); }) == "Routing: room for 2 pairs of token and expert, found at least 3");

  Routing<double> none({.tokens = 2, .pairs = 0, .experts = 3}, arena);
  none.start(3);
  CHECK(code_of([&] { none.push(2, 1); }) == ErrorCode::capacity);
}

TEST_CASE("A routing of known counts may be filled in any order", "[core]") {
  const Routing<double> pushed = small();
  Routing<double> filled;
  filled.start(9, Ints{3, 1});  // nothing of it stays
  filled.start(4, Ints{2, 0, 3});
  CHECK_FALSE(filled.finished());
  for (Index n : {2, 0}) {
    std::copy_n(pushed.experts_of(n).begin(), pushed.experts_of(n).size(), filled.experts_to_fill(n).begin());
    std::copy_n(pushed.gates_of(n).begin(), pushed.gates_of(n).size(), filled.gates_of(n).begin());
  }
  filled.finish();
  REQUIRE(filled.pairs() == pushed.pairs());
  CHECK(filled.tokens() == 3);
  CHECK(ints(filled.by_expert()) == ints(pushed.by_expert()));
  for (Index p = 0; p < filled.pairs(); ++p) {
    CHECK(filled.token(p) == pushed.token(p));
    CHECK(filled.expert(p) == pushed.expert(p));
    CHECK(filled.gate(p) == pushed.gate(p));
  }
  for (Index e = 0; e < 4; ++e) CHECK(filled.load(e) == pushed.load(e));
}

TEST_CASE("A routing of known counts beyond its room is an error", "[core]") {
  MemoryBlock memory(4096, std::pmr::get_default_resource());
  Arena arena(memory.bytes());
  Routing<float> routing({.tokens = 3, .pairs = 5, .experts = 4}, arena);
  CHECK(code_of([&] { routing.start(4, Ints{2, 2, 2}); }) == ErrorCode::capacity);
  CHECK(routing.tokens() == 0);
  routing.start(4, Ints{2, 2, 1});
  CHECK(routing.pairs() == 5);
  CHECK(code_of([&] { routing.start(4, Ints{2, 2, 2}); }) == ErrorCode::capacity);
  CHECK(routing.tokens() == 0);  // nothing is left of the one before
  CHECK(routing.pairs() == 0);
}

TEST_CASE("Staged experts beyond the room of a routing are refused", "[core]") {
  MemoryBlock memory(4096, std::pmr::get_default_resource());
  Arena arena(memory.bytes());
  for (Index pairs : {3, 4, 5}) {
    Routing<float> routing({.tokens = 2, .pairs = pairs, .experts = 4}, arena);
    CAPTURE(pairs);
    CHECK(text_of([&] { routing.stage(4, 2, 2); }) ==
          (pairs < 4 ? "Routing: room for 3 pairs of token and expert, found at least 4" : ""));
    CHECK(code_of([&] { routing.stage(4, 2, 1); }) == std::nullopt);
  }
}

TEST_CASE("A routing takes no more staged experts than there are", "[core]") {
  Routing<float> routing;
  for (const Ints& counts : {Ints{1, 1, 3}, Ints{1, 1}, Ints{1, 1, 1, 1}}) {
    const View<int> staged = routing.stage(4, 3, 2);
    fill(staged, 1);
    CHECK(code_of([&] { routing.start(4, counts); }) == ErrorCode::shape);
    CHECK_FALSE(routing.finished());
    routing.start(4, counts);  // without a stage
  }
  CHECK(code_of([&] { routing.stage(4, Index(1) << 32, Index(1) << 32); }) == ErrorCode::option);
  fill(routing.stage(4, 2, 3), 2);
  routing.start(4, Ints{1, 0});
  routing.finish();
  CHECK(ints(routing.experts_of(0)) == Ints{2});
  routing.stage(4, 2, 3);
  CHECK_FALSE(routing.finished());
}

TEST_CASE("A finished routing takes no other experts, and has a version of its own", "[core]") {
  Routing<double> first = small(), second = small();
  CHECK(code_of([&] { first.experts_to_fill(0); }) == ErrorCode::order);
  CHECK(first.version() != second.version());
  const Routing<double> copy = first;
  CHECK(copy.version() == first.version());
  first.start(4, Ints{1});
  first.experts_to_fill(0)[0] = 3;
  first.finish();
  CHECK(copy.version() != first.version());
}

TEST_CASE("Every token with every expert is ordered by expert as any routing is", "[core]") {
  for (bool in_order : {true, false}) {
    Routing<float> routing;
    routing.start(3);
    for (Index n = 0; n < 4; ++n) {
      for (int e : {0, 1, 2}) routing.push(in_order || n != 2 ? e : 2 - e, 1);
      routing.end_token();
    }
    routing.finish();
    CHECK(ints(routing.pairs_of(0)) == Ints{0, 3, in_order ? 6 : 8, 9});
    CHECK(ints(routing.pairs_of(1)) == Ints{1, 4, 7, 10});
    CHECK(ints(routing.pairs_of(2)) == Ints{2, 5, in_order ? 8 : 6, 11});
  }
}

TEST_CASE("Experts out of range and steps out of turn are refused in every build", "[core]") {
  Routing<float> routing;
  CHECK(code_of([&] { routing.push(0, 1); }) == ErrorCode::option);  // before start()
  routing.start(3);
  for (int e : {-1, 3, 2147483647}) CHECK(code_of([&] { routing.push(e, 1); }) == ErrorCode::option);
  CHECK(text_of([&] { routing.push(3, 1); }) == "Routing: expected experts from 0 to 2, found 3");
  routing.push(2, 1);
  CHECK(code_of([&] { routing.finish(); }) == ErrorCode::order);  // its token has not ended
  CHECK_FALSE(routing.finished());
  routing.end_token();
  routing.finish();
  CHECK(code_of([&] { routing.push(0, 1); }) == ErrorCode::order);
  CHECK(code_of([&] { routing.end_token(); }) == ErrorCode::order);
  for (const Ints& experts : {Ints{0, 3}, {-1, 0}, {1, 1 << 30}}) {
    routing.start(3, Ints{2});
    std::ranges::copy(experts, routing.experts_to_fill(0).begin());
    CHECK(code_of([&] { routing.finish(); }) == ErrorCode::option);
    CHECK_FALSE(routing.finished());
  }
  CHECK(code_of([&] { routing.start(-1); }) == ErrorCode::option);
  CHECK(code_of([&] { routing.start(3, Ints{2, -1}); }) == ErrorCode::option);
  CHECK(code_of([&] { routing.start(3, Ints{1 << 30, 1 << 30}); }) == ErrorCode::capacity);  // beyond an int
  CHECK_FALSE(routing.finished());
}

TEST_CASE("An expert twice in one token is refused", "[core]") {
  Routing<float> routing;
  for (const Ints& experts : {Ints{1, 1}, {0, 2, 0}, {2, 0, 1, 2}}) {
    routing.start(3);
    routing.push(1, 1);
    routing.end_token();
    for (int e : experts) routing.push(e, 0.5f);
    routing.end_token();
    CHECK(code_of([&] { routing.finish(); }) == ErrorCode::option);
    CHECK_FALSE(routing.finished());
  }
  CHECK(text_of([&] { routing.finish(); }) ==
        "Routing: expected an expert once in a token, found expert 2 twice in token 1");
}

TEST_CASE("As many pairs as a dense routing has are none, if tokens have not one of each", "[core]") {
  Routing<float> routing;
  for (const std::vector<Ints>& tokens : {std::vector<Ints>{{0, 1, 0, 1}, {}}, {{}, {0, 1, 0, 1}}, {{0}, {1, 0, 1}}}) {
    routing.start(2);
    for (const Ints& experts : tokens) {
      for (int e : experts) routing.push(e, 0.5f);
      routing.end_token();
    }
    CHECK(code_of([&] { routing.finish(); }) == ErrorCode::option);
    CHECK_FALSE(routing.finished());
  }
  routing.start(2);
  for (const Ints& experts : {Ints{0}, {1, 0}, {1}}) {  // a legal one of the same list
    for (int e : experts) routing.push(e, 0.5f);
    routing.end_token();
  }
  routing.finish();
  CHECK_FALSE(routing.dense());
  CHECK(routing.load(0) == 2);
}
