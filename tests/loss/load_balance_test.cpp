// SPDX-License-Identifier: MIT
#include "mole/loss/load_balance.hpp"

#include "loss_trace.hpp"
#include "support/catch.hpp"

#include <array>
#include <limits>

namespace {

using namespace mole;
using namespace mole::test;

constexpr std::array norms{BalanceNorm::one_at_uniform, BalanceNorm::k_at_uniform, BalanceNorm::without_experts};
constexpr std::array counts{BalanceCount::all_choices, BalanceCount::first_choice, BalanceCount::first_choice_if_served,
                            BalanceCount::gates};
constexpr std::array means{BalanceScore::scores, BalanceScore::above_threshold, BalanceScore::gates};
constexpr std::array scopes{BalanceScope::global, BalanceScope::sequence};

/// Eight tokens of four experts: two choices each, every expert equally often and each once the first.
Trace<double> uniform_trace(const Pass& pass = {}) {
  Trace<double> trace = empty_trace(8, 4, 0, pass);
  fill(trace.scores(), 0.25);
  for (Index n = 0; n < 8; ++n) {  // the argmax rotates, the mean stays
    trace.scores()(n, n % 4) += 0.03;
    trace.scores()(n, (n + 1) % 4) -= 0.03;
  }
  route(trace, {{0, 1}, {1, 2}, {2, 3}, {3, 0}, {0, 1}, {1, 2}, {2, 3}, {3, 0}}, 0.5);
  return trace;
}

/// E sum_e share_e P_e of tokens first ... end - 1 in plain loops, all choices.
double plain_loss(const Trace<double>& trace, Index first, Index end) {
  double loss = 0, total = 0, tokens = 0;
  for (Index n = first; n < end; ++n)
    if (trace.pass.counts(n)) {
      total += double(trace.routing.experts_of(n).size());
      ++tokens;
    }
  for (Index e = 0; e < trace.experts(); ++e) {
    double count = 0, score = 0;
    for (Index n = first; n < end; ++n) {
      if (!trace.pass.counts(n)) continue;
      score += trace.scores()(n, e);
      for (int chosen : trace.routing.experts_of(n)) count += chosen == e;
    }
    loss += count / total * score / tokens;
  }
  return loss * double(trace.experts());
}

}  // namespace

TEST_CASE("Uniform routing has the value that names the normalization", "[loss]") {
  for (BalanceScope scope : scopes) {
    Trace<double> trace = uniform_trace();
    CHECK(near(load_balance(trace, {.scope = scope}), 1));
    CHECK(near(load_balance(trace, {.count = BalanceCount::first_choice, .scope = scope}), 1));
    CHECK(near(load_balance(trace, {.norm = BalanceNorm::k_at_uniform, .scope = scope}), 2));
    CHECK(near(load_balance(trace, {.norm = BalanceNorm::without_experts, .scope = scope}), 0.25));
    // Two weights of 0.5: the mean weight of an expert is 1/E.
    CHECK(near(load_balance(trace, {.norm = BalanceNorm::k_at_uniform, .count = BalanceCount::gates}), 1));
    CHECK(near(load_balance(trace, {.coefficient = 0.01, .scope = scope}), 0.01));
  }
}

TEST_CASE("All tokens to one expert cost E, or 1 without the factor", "[loss]") {
  Trace<double> trace = empty_trace(3, 4);
  for (Index n = 0; n < 3; ++n) trace.scores()(n, 2) = 1;
  route(trace, {{2}, {2}, {2}});
  CHECK(load_balance(trace) == 4);
  CHECK(load_balance(trace, {.norm = BalanceNorm::without_experts, .count = BalanceCount::first_choice}) == 1);
}

TEST_CASE("A hand-computed skewed case", "[loss]") {
  // counts (2, 1, 1) of 4 choices, first choices (2, 0, 0), P = (0.5, 0.25, 0.25)
  Trace<double> trace = empty_trace(2, 3);
  const double scores[2][3] = {{0.6, 0.3, 0.1}, {0.4, 0.2, 0.4}};
  for (Index n = 0; n < 2; ++n)
    for (Index e = 0; e < 3; ++e) trace.scores()(n, e) = scores[n][e];
  route(trace, {{0, 1}, {0, 2}});
  CHECK(near(load_balance(trace), 3 * (0.5 * 0.5 + 0.25 * 0.25 + 0.25 * 0.25)));
  CHECK(near(load_balance(trace, {.count = BalanceCount::first_choice}), 3 * 0.5));  // a tie goes to expert 0
  CHECK(near(trace.d_scores()(0, 0), 3 * 0.5 / 2 + 3 * 1.0 / 2));
  CHECK(near(trace.d_scores()(1, 2), 3 * 0.25 / 2));
}

TEST_CASE("The k first choices are counted by scores, whoever serves", "[loss]") {
  // best two of each: {0, 1} and {0, 2}, a tie of 0 and 2;  P = (0.5, 0.25, 0.25)
  Trace<double> trace = empty_trace(2, 3);
  const double scores[2][3] = {{0.6, 0.3, 0.1}, {0.4, 0.2, 0.4}};
  for (Index n = 0; n < 2; ++n)
    for (Index e = 0; e < 3; ++e) trace.scores()(n, e) = scores[n][e];
  route(trace, {{}, {1}});
  const double best_two = 3 * (0.5 * 0.5 + 0.25 * 0.25 + 0.25 * 0.25);
  CHECK(near(load_balance(trace, {.count = BalanceCount::first_choice, .k = 2}), best_two));
  CHECK(near(trace.d_scores()(1, 0), 3 * 0.5 / 2));
  CHECK(near(load_balance(trace, {.norm = BalanceNorm::k_at_uniform, .count = BalanceCount::first_choice, .k = 2}),
             2 * best_two));
  CHECK(near(load_balance(trace, {.count = BalanceCount::first_choice, .k = 9}), 1));  // all three
  CHECK_THROWS_AS(load_balance(trace, {.count = BalanceCount::first_choice, .k = 0}), Error);
}

TEST_CASE("A token without experts is a first choice of expert 0 for the releases that count it so", "[loss]") {
  Trace<double> trace = empty_trace(2, 3);
  const double scores[2][3] = {{0.1, 0.3, 0.6}, {0.3, 0.5, 0.2}};  // P = (0.2, 0.4, 0.4)
  for (Index n = 0; n < 2; ++n)
    for (Index e = 0; e < 3; ++e) trace.scores()(n, e) = scores[n][e];
  route(trace, {{}, {1}});
  CHECK(near(load_balance(trace, {.count = BalanceCount::first_choice}), 3 * (0.5 * 0.4 + 0.5 * 0.4)));
  CHECK(near(load_balance(trace, {.count = BalanceCount::first_choice_if_served}), 3 * (0.5 * 0.2 + 0.5 * 0.4)));
}

TEST_CASE("A first choice passes over NaN", "[loss]") {
  Trace<double> trace = empty_trace(1, 2);
  trace.scores()(0, 0) = std::numeric_limits<double>::quiet_NaN();
  trace.scores()(0, 1) = 1;
  load_balance(trace, {.count = BalanceCount::first_choice});
  CHECK(trace.d_scores()(0, 0) == 0);
  CHECK(trace.d_scores()(0, 1) == 2);
}

TEST_CASE("Every combination of options has the gradient of its value", "[loss]") {
  const std::vector<std::uint8_t> mask{1, 1, 0, 1, 1, 1, 0, 0, 1, 1, 1};
  const std::vector<Index> begin{0, 4, 6, 8};  // the third sequence is masked out altogether
  const Pass pass{.token_mask = mask, .sequence_begin = begin};
  for (Index experts : {Index(5), Index(70)})
    for (BalanceNorm norm : norms)
      for (BalanceCount count : counts)
        for (BalanceScore score : means)
          for (BalanceScope scope : scopes) {
            if (experts > 64 && norm != norms[0]) continue;  // a factor, whatever the passes over the tokens
            const LoadBalanceOptions options{
                .coefficient = 0.7, .norm = norm, .count = count, .score = score, .scope = scope};
            INFO("E " << experts << ", norm " << int(norm) << ", count " << int(count) << ", score " << int(score)
                      << ", scope " << int(scope));
            Trace<double> trace = random_trace(11, experts, 2, pass);
            load_balance(trace, options);
            const std::vector<double> d_scores = copied(elements(trace.d_scores()));
            const std::vector<double> d_gate = copied(trace.d_gate());
            const auto loss = [&] { return load_balance(trace, options); };
            CHECK(gradient_error(elements(trace.scores()), d_scores, loss) < gradient_tolerance);
            CHECK(gradient_error(trace.routing.gates(), d_gate, loss) < gradient_tolerance);
            if (count != BalanceCount::gates && score != BalanceScore::gates) CHECK(all_zero(d_gate));
            if (score == BalanceScore::gates) CHECK(all_zero(d_scores));
          }
}

TEST_CASE("What scores have above a threshold counts, and so does what they lack", "[loss]") {
  Trace<double> trace = empty_trace(2, 2, 1);
  const double scores[2][3] = {{0.7, 0.3, 0.4}, {0.6, 0.4, 0.1}};
  for (Index n = 0; n < 2; ++n)
    for (Index c = 0; c < 3; ++c) trace.scores()(n, c) = scores[n][c];
  route(trace, {{0}, {0, 1}});
  const LoadBalanceOptions options{.norm = BalanceNorm::k_at_uniform, .score = BalanceScore::above_threshold};
  // P = ((0.3 + 0.5) / 2, (-0.1 + 0.3) / 2), m = (1, 1/2)
  CHECK(near(load_balance(trace, options), 2 * (1 * 0.4 + 0.5 * 0.1)));
  for (Index n = 0; n < 2; ++n) {
    CHECK(near(trace.d_scores()(n, 0), 2 * 1.0 / 2));
    CHECK(near(trace.d_scores()(n, 1), 2 * 0.5 / 2));
    CHECK(near(trace.d_scores()(n, 2), -2 * 1.5 / 2));
  }
}

TEST_CASE("A threshold that no token has is refused", "[loss]") {
  Trace<double> trace = random_trace(4, 3);
  CHECK_THROWS_AS(load_balance(trace, {.score = BalanceScore::above_threshold}), Error);
  CHECK(all_zero(elements(trace.d_scores())));
}

TEST_CASE("The mean of the weights is over all tokens, chosen or not", "[loss]") {
  Trace<double> trace = empty_trace(4, 2);
  fill(trace.scores(), 9);  // nobody asks
  route(trace, {{0}, {0, 1}, {}, {0}}, 0.5);
  const LoadBalanceOptions options{.score = BalanceScore::gates};
  CHECK(near(load_balance(trace, options), 2 * (0.75 * 0.375 + 0.25 * 0.125)));
  CHECK(near(trace.d_gate()[0], 2 * 0.75 / 4));
  CHECK(near(trace.d_gate()[2], 2 * 0.25 / 4));
  CHECK(all_zero(elements(trace.d_scores())));
}

TEST_CASE("The gradient is added to what is there", "[loss]") {
  for (BalanceCount count : counts)
    for (BalanceScore score : means) {
      CAPTURE(int(count), int(score));
      CHECK(error_of_addition([&](auto& trace) { return load_balance(trace, {.count = count, .score = score}); }, 1) <
            value_tolerance);
    }
}

TEST_CASE("Masked tokens change nothing, and receive nothing", "[loss]") {
  const std::vector<std::uint8_t> mask{1, 0, 1, 0, 1};
  Trace<double> trace = random_trace(5, 4, 0, {.token_mask = mask});
  for (BalanceCount count : counts) {
    const double value = load_balance(trace, {.count = count});
    Trace<double> changed = random_trace(5, 4, 0, {.token_mask = mask});
    for (Index e = 0; e < 4; ++e) changed.scores()(1, e) = changed.scores()(3, e) = 100;
    CHECK(load_balance(changed, {.count = count}) == value);
    CHECK(all_zero(changed.d_scores().row(1)));
    CHECK(all_zero(changed.d_scores().row(3)));
  }
}

TEST_CASE("The scope of sequences is the mean of each sequence's loss", "[loss]") {
  const std::vector<Index> begin{0, 3, 4};
  Trace<double> trace = random_trace(9, 4, 0, {.sequence_begin = begin});
  const double mean = (plain_loss(trace, 0, 3) + plain_loss(trace, 3, 4) + plain_loss(trace, 4, 9)) / 3;
  CHECK(near(load_balance(trace, {.scope = BalanceScope::sequence}), mean));
  CHECK(near(load_balance(trace), plain_loss(trace, 0, 9)));
}

TEST_CASE("A sequence of padding alone does not thin the mean over sequences", "[loss]") {
  const std::vector<std::uint8_t> mask{1, 1, 1, 0, 0, 1, 1, 1};
  const std::vector<Index> begin{0, 3, 5};
  Trace<double> trace = random_trace(8, 4, 0, {.token_mask = mask, .sequence_begin = begin});
  const double mean = (plain_loss(trace, 0, 3) + plain_loss(trace, 5, 8)) / 2;
  CHECK(near(load_balance(trace, {.scope = BalanceScope::sequence}), mean));
}

TEST_CASE("Extra columns are no experts", "[loss]") {
  Trace<double> trace = random_trace(6, 4, 2);
  const double value = load_balance(trace, {.count = BalanceCount::first_choice});
  for (Index n = 0; n < 6; ++n) trace.scores()(n, 4) = trace.scores()(n, 5) = 50;
  CHECK(load_balance(trace, {.count = BalanceCount::first_choice}) == value);
  for (Index n = 0; n < 6; ++n) CHECK(all_zero(trace.d_scores().row(n).subspan(4)));
}

TEST_CASE("Nothing that counts gives 0, and no gradient", "[loss]") {
  const std::vector<std::uint8_t> none(4, 0);
  for (BalanceCount count : counts)
    for (BalanceScope scope : scopes) {
      Trace<double> empty = empty_trace(0, 3);
      CHECK(load_balance(empty, {.count = count, .scope = scope}) == 0);
      Trace<double> masked = random_trace(4, 3, 0, {.token_mask = none});
      CHECK(load_balance(masked, {.count = count, .scope = scope}) == 0);
      CHECK(all_zero(elements(masked.d_scores())));
      CHECK(all_zero(masked.d_gate()));
    }
  Trace<double> unrouted = empty_trace(2, 3);
  fill(unrouted.scores(), 1);
  CHECK(load_balance(unrouted) == 0);
  CHECK(load_balance(std::span<Trace<double>* const>{}) == 0);
}

TEST_CASE("Several traces are one batch of all their tokens", "[loss]") {
  const std::vector<std::uint8_t> mask{1, 0, 1, 1};
  Trace<double> first = random_trace(4, 5, 0, {.token_mask = mask}, 3), second = random_trace(6, 5, 0, {}, 4);
  const std::array<Trace<double>*, 2> both{&first, &second};
  const std::span<Trace<double>* const> pool(both);

  Trace<double> joined = empty_trace(10, 5);
  const std::vector<std::uint8_t> joined_mask{1, 0, 1, 1, 1, 1, 1, 1, 1, 1};
  joined.pass.token_mask = joined_mask;
  joined.routing.start(5);
  for (Index n = 0; n < 10; ++n) {
    const Trace<double>& from = n < 4 ? first : second;
    const Index row = n < 4 ? n : n - 4;
    for (Index e = 0; e < 5; ++e) joined.scores()(n, e) = from.scores()(row, e);
    for (std::size_t i = 0; i < from.routing.experts_of(row).size(); ++i)
      joined.routing.push(from.routing.experts_of(row)[i], from.routing.gates_of(row)[i]);
    joined.routing.end_token();
  }
  joined.routing.finish();
  joined.start_d_gate();

  for (BalanceCount count : counts)
    CHECK(near(load_balance(pool, {.count = count}), load_balance(joined, {.count = count})));
  double error = 0;
  for (Index n = 0; n < 10; ++n)
    for (Index e = 0; e < 5; ++e)
      error = std::max(
          error, std::abs(joined.d_scores()(n, e) - (n < 4 ? first.d_scores()(n, e) : second.d_scores()(n - 4, e))));
  CHECK(error < value_tolerance);
}

TEST_CASE("Traces of different numbers of experts are refused", "[loss]") {
  Trace<double> first = random_trace(2, 3), second = random_trace(2, 4);
  const std::array<Trace<double>*, 2> both{&first, &second};
  CHECK_THROWS_AS(load_balance(std::span<Trace<double>* const>(both)), Error);
}

TEST_CASE("The balance is that of the tokens that count, and of the experts with a score", "[loss]") {
  for (BalanceNorm norm : norms)
    for (BalanceCount count : counts)
      for (BalanceScore score : means)
        for (BalanceScope scope : scopes) {
          CAPTURE(int(norm), int(count), int(score), int(scope));
          const LoadBalanceOptions options{
              .coefficient = 0.7, .norm = norm, .count = count, .score = score, .scope = scope};
          CHECK(error_of_what_is_left_out([&](auto& trace) { return load_balance(trace, options); }, 1) <
                value_tolerance);
        }
}
