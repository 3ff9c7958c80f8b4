// SPDX-License-Identifier: MIT
#include "mole/loss/routing_contrastive.hpp"

#include "core/error_code.hpp"
#include "loss_trace.hpp"
#include "mole/core/call.hpp"
#include "support/catch.hpp"
#include "support/counting_memory.hpp"
#include "support/random_matrix.hpp"

#include <initializer_list>

namespace {

using namespace mole;
using namespace mole::test;

using Chosen = std::vector<std::vector<int>>;

Matrix<double> matrix(std::initializer_list<std::initializer_list<double>> rows) {
  Matrix<double> m(Index(rows.size()), Index(rows.begin()->size()));
  double* to = m.data();
  for (const auto& row : rows) to = std::copy(row.begin(), row.end(), to);
  return m;
}

/// A loss of tokens that have chosen, and its gradients.
struct Case {
  Case(Matrix<double> tokens, Matrix<double> c, const Chosen& chosen, Index experts, const Pass& pass = {})
      : x(std::move(tokens)),
        prototypes(std::move(c)),
        d_x(x.rows(), x.cols()),
        d_prototypes(prototypes.rows(), prototypes.cols()),
        trace(empty_trace(x.rows(), experts, 0, pass)) {
    route(trace, chosen);
  }

  double value(const RoutingContrastiveOptions& options = {}) const {
    return routing_contrastive(x, prototypes, trace, {}, {}, options);
  }
  double operator()(const RoutingContrastiveOptions& options = {}) {
    return routing_contrastive(x, prototypes, trace, d_x, d_prototypes, options);
  }
  bool no_gradient() const { return all_zero(d_x.elements()) && all_zero(d_prototypes.elements()); }

  Matrix<double> x, prototypes, d_x, d_prototypes;
  Trace<double> trace;
};

const Matrix<double> axes = matrix({{1, 0}, {0, 1}});

/// Four prototypes of five experts, nine tokens: prototype 1 has none, tokens 4 and 7 two, token 5 nobody, 6 an expert
/// without a prototype.
Case random_case(const Pass& pass = {}) {
  return {support::random_matrix<double>(9, 3, 1),
          support::random_matrix<double>(4, 3, 2),
          {{0}, {2}, {3}, {0}, {0, 2}, {}, {4}, {3, 0}, {2}},
          5,
          pass};
}

}  // namespace

TEST_CASE("The contrastive loss of two prototypes has its known values", "[loss]") {
  const Case two(matrix({{.9, .1}, {.2, .8}}), axes, {{0}, {1}}, 2);
  CHECK(std::abs(two.value({.temperature = 0.5}) - 0.182866248) < 5e-10);
  CHECK(std::abs(two.value() - 1.321866e-5) < 5e-12);
  CHECK(near(two.value({.coefficient = 3, .temperature = 0.5}), 3 * two.value({.temperature = 0.5})));
}

TEST_CASE("The contrastive loss is of the means of each prototype's tokens", "[loss]") {
  const Case one_each(matrix({{.9, .1}, {.2, .8}}), axes, {{0}, {1}}, 2);
  const Case several(matrix({{.5, .4}, {.1, 1.1}, {.7, -.3}, {1.5, .2}, {.3, .5}}), axes, {{0}, {1}, {0}, {0}, {1}}, 2);
  CHECK(near(several.value(), one_each.value()));
  const Case twice(matrix({{.9, .1}, {.2, .8}, {.9, .1}}), axes, {{0}, {1, 0}, {1}}, 2);
  const Case mixed(matrix({{.55, .45}, {.55, .45}}), axes, {{0}, {1}}, 2);
  CHECK(near(twice.value({.temperature = 0.5}), mixed.value({.temperature = 0.5})));
}

TEST_CASE("The contrastive loss of first choices is that of tokens with one expert each", "[loss]") {
  Case all = random_case();
  const Case firsts(all.x, all.prototypes, {{0}, {2}, {3}, {0}, {0}, {}, {4}, {3}, {2}}, 5);
  CHECK(near(all.value({.first_choice = true}), firsts.value()));
  CHECK(!near(all.value(), firsts.value()));
}

TEST_CASE("The contrastive loss per sequence is the mean over those in which a token counts", "[loss]") {
  const std::vector<Index> starts{0, 4, 4, 8};  // the second is empty, the last is masked
  const std::vector<std::uint8_t> mask{1, 1, 1, 1, 1, 1, 1, 1, 0};
  Case all = random_case({.token_mask = mask, .sequence_begin = starts});
  const auto part = [&](Index first, Index tokens, const Chosen& chosen) {
    Matrix<double> x(tokens, 3);
    for (Index n = 0; n < tokens; ++n) std::copy_n(all.x.view().row_data(first + n), 3, x.view().row_data(n));
    return Case(x, all.prototypes, chosen, 5);
  };
  Case first = part(0, 4, {{0}, {2}, {3}, {0}}), second = part(4, 4, {{0, 2}, {}, {4}, {3, 0}});
  CHECK(near(all({.per_sequence = true}), (first() + second()) / 2));
  for (Index i = 0; i < 12; ++i) {
    CHECK(near(all.d_x.data()[i], first.d_x.data()[i] / 2));
    CHECK(near(all.d_x.data()[12 + i], second.d_x.data()[i] / 2));
    CHECK(near(all.d_prototypes.data()[i], (first.d_prototypes.data()[i] + second.d_prototypes.data()[i]) / 2));
  }
}

TEST_CASE("The contrastive loss does not depend on the length of prototypes and means", "[loss]") {
  const Case given(matrix({{.9, .1}, {.2, .8}}), axes, {{0}, {1}}, 2);
  const Case scaled(matrix({{9e-5, 1e-5}, {.4, 1.6}}), matrix({{300, 0}, {0, 1e-4}}), {{0}, {1}}, 2);
  CHECK(near(scaled.value({.temperature = 0.5}), given.value({.temperature = 0.5})));
}

TEST_CASE("One prototype with tokens, or none, has nothing to be told apart from", "[loss]") {
  for (const Chosen& chosen : {Chosen{{0}, {0}, {2}}, Chosen{{}, {2}, {}}}) {
    Case of(matrix({{.9, .1}, {.2, .8}, {.3, .3}}), axes, chosen, 3);
    CHECK(of() == 0);
    CHECK(of.no_gradient());
    support::CountingMemory memory;
    routing_contrastive(of.x, of.prototypes, of.trace, of.d_x, of.d_prototypes, {}, &memory);
    CHECK(memory.bytes == 0);
  }
  Case none(Matrix<double>(0, 2), axes, {}, 3);
  CHECK(none() == 0);
  CHECK(none.no_gradient());
}

TEST_CASE("The contrastive loss adds the gradient of its value to tokens and prototypes", "[loss]") {
  const RoutingContrastiveOptions options{.coefficient = 0.7, .temperature = GENERATE(0.5, 2.0)};
  Case of = random_case();
  const double value = of(options);
  CHECK(value == of.value(options));
  const auto again = [&] { return of.value(options); };
  CHECK(gradient_error(of.x.elements(), of.d_x.elements(), again) < gradient_tolerance);
  CHECK(gradient_error(of.prototypes.elements(), of.d_prototypes.elements(), again) < gradient_tolerance);
  CHECK(all_zero(of.d_prototypes.view().row(1)));
  for (Index outside : {5, 6}) CHECK(all_zero(of.d_x.view().row(outside)));

  const Matrix<double> once = stacked(of.d_x, of.d_prototypes);
  of(options);
  const Matrix<double> twice = stacked(of.d_x, of.d_prototypes);
  for (std::size_t i = 0; i < once.elements().size(); ++i) CHECK(near(twice.elements()[i], 2 * once.elements()[i]));
}

TEST_CASE("Either gradient of the contrastive loss may be declined", "[loss]") {
  Case both = random_case(), of = random_case();
  both();
  routing_contrastive(of.x, of.prototypes, of.trace, of.d_x, {});
  CHECK(support::same_bits(of.d_x, both.d_x));
  CHECK(all_zero(of.d_prototypes.elements()));
  routing_contrastive(of.x, of.prototypes, of.trace, {}, of.d_prototypes);
  CHECK(support::same_bits(of.d_x, both.d_x));
  CHECK(support::same_bits(of.d_prototypes, both.d_prototypes));
}

TEST_CASE("Forced and masked tokens are in no mean of the contrastive loss", "[loss]") {
  const std::vector<int> forced{-1, -1, -1, 0, 2, -1, -1, -1, -1};
  const std::vector<std::uint8_t> mask{1, 1, 1, 0, 0, 1, 1, 1, 1};
  const auto chosen_by_nobody = [] {
    Case of = random_case();
    route(of.trace, {{0}, {2}, {3}, {}, {}, {}, {4}, {3, 0}, {2}});
    return of;
  };
  for (const Pass& pass : {Pass{.forced = forced}, Pass{.token_mask = mask}}) {
    Case found = random_case(pass), expected = chosen_by_nobody();
    CHECK(found() == expected());
    CHECK(support::same_bits(found.d_x, expected.d_x));
    CHECK(support::same_bits(found.d_prototypes, expected.d_prototypes));
    for (Index n : {3, 4}) CHECK(all_zero(found.d_x.view().row(n)));
    CHECK(found.value() != random_case().value());
  }
  const std::vector<std::uint8_t> nobody(9, 0);
  Case masked = random_case({.token_mask = nobody});
  CHECK(masked() == 0);
  CHECK(masked.no_gradient());
}

TEST_CASE("Tokens that cancel, and a prototype of zeros, leave the contrastive loss finite", "[loss]") {
  Case canceled(matrix({{.9, .1}, {.5, -.25}, {-.5, .25}}), axes, {{0}, {1}, {1}}, 2);
  const double cosine = .9 / std::hypot(.9, .1), other = .1 / std::hypot(.9, .1);
  const double value = (std::log1p(std::exp(-cosine)) + std::log1p(std::exp(other))) / 2;
  CHECK(near(canceled({.temperature = 1}), value));
  for (Index n : {1, 2}) CHECK(all_zero(canceled.d_x.view().row(n)));
  CHECK_FALSE(all_zero(canceled.d_x.view().row(0)));

  Case zero(matrix({{.9, .1}, {.2, .8}}), matrix({{0, 0}, {0, 1}}), {{0}, {1}}, 2);
  CHECK(std::isfinite(zero()));
  CHECK(all_zero(zero.d_prototypes.view().row(0)));
  CHECK(support::all_finite(std::span<const double>(zero.d_x.elements())));
}

TEST_CASE("The contrastive loss is finite at temperatures whose powers are not", "[loss]") {
  Case of(matrix({{.9, .1}, {.2, .8}}), matrix({{0, 1}, {1, 0}}), {{0}, {1}}, 2);
  const double far = .9 / std::hypot(.9, .1) - .2 / std::hypot(.2, .8),
               near_by = .8 / std::hypot(.2, .8) - .1 / std::hypot(.9, .1);
  CHECK(near(of({.temperature = 1e-5}), (far + near_by) / 2 * 1e5));
  CHECK(support::all_finite(std::span<const double>(of.d_x.elements())));
}

TEST_CASE("The contrastive loss of float is that of double", "[loss]") {
  const Case in_double = random_case();
  Trace<float> trace({.tokens = 9, .pairs = 45, .experts = 5, .columns = 5});
  trace.start(9, {});
  trace.routing.start(5);
  for (Index n = 0; n < 9; ++n) {
    for (int e : in_double.trace.routing.experts_of(n)) trace.routing.push(e, 1);
    trace.routing.end_token();
  }
  trace.routing.finish();
  const auto x = support::random_matrix<float>(9, 3, 1), prototypes = support::random_matrix<float>(4, 3, 2);
  CHECK(near(routing_contrastive(x, prototypes, trace, {}, {}), in_double.value(), 1e-5));
}

TEST_CASE("The contrastive loss takes from its memory what it says", "[loss]") {
  Case of = random_case();  // A = 3, I = 3
  support::CountingMemory memory;
  routing_contrastive(of.x, of.prototypes, of.trace, of.d_x, of.d_prototypes, {}, &memory);
  CHECK(memory.bytes >= 8 * (3 * (3 + 3) + 3));
  CHECK(memory.bytes <= 8 * (3 * (3 + 3) + 3) + 3 * 64);
}

TEST_CASE("The contrastive loss refuses temperatures and shapes that make no sense", "[loss]") {
  Case of = random_case();
  for (double temperature : {0.0, -1.0, std::nan("")})
    CHECK(code_of([&] { of({.temperature = temperature}); }) == ErrorCode::option);
  const Matrix<double>&x = of.x, &c = of.prototypes;
  const auto code = [&](View<const double> tokens, View<const double> prototypes, View<double> d_x,
                        View<double> d_prototypes) {
    return code_of([&] { routing_contrastive(tokens, prototypes, of.trace, d_x, d_prototypes); });
  };
  Matrix<double> short_x(8, 3), wide_x(9, 4), few(3, 3), wide(4, 2), many(6, 3);
  CHECK(code(short_x, c, {}, {}) == ErrorCode::shape);
  CHECK(code(x, wide, {}, {}) == ErrorCode::shape);
  CHECK(code(x, many, {}, {}) == ErrorCode::shape);
  CHECK(code(x, c, short_x, {}) == ErrorCode::shape);
  CHECK(code(x, c, wide_x, {}) == ErrorCode::shape);
  CHECK(code(x, c, {}, few) == ErrorCode::shape);
  CHECK(code(x, c, {}, wide) == ErrorCode::shape);
  CHECK_FALSE(code(x, c, {}, {}));
}
