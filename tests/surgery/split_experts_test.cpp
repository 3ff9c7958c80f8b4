// SPDX-License-Identifier: MIT
#include "mole/surgery/split_experts.hpp"

#include "core/error_code.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

using namespace mole;
using namespace mole::test;

namespace {

using SplitExperts = LowRank<DenseFactors<double>>;

SplitExperts whole_experts(const std::vector<int>& ranks, bool shared_down = false) {
  Rng rng(3);
  SplitExperts experts(
      {.in = 7, .out = 9, .experts = Index(ranks.size()), .ranks = ranks, .alpha = 6, .shared_down = shared_down}, rng);
  fill_uniform(experts.parameters().lora_B.view(), 1, rng);
  return experts;
}

Matrix<double> update_of_experts(const SplitExperts& experts, Index first, Index count) {
  Matrix<double> update(9, 7);
  for (Index e = first; e < first + count; ++e) experts.add_delta(e, 1, update.view());
  return update;
}

}  // namespace

TEST_CASE("The parts of an expert add what the expert did, with ranks dealt out evenly", "[surgery]") {
  for (bool shared_down : {false, true}) {
    const SplitExperts whole =
        whole_experts(shared_down ? std::vector<int>{5, 5} : std::vector<int>{5, 3, 8}, shared_down);
    const Index count = whole.experts();
    const SplitExperts parts = split_experts(whole, {.parts = 3, .copies = 2});
    REQUIRE(parts.experts() == 6 * count);
    for (Index e = 0; e < 2 * count; ++e) {
      CHECK(support::largest_difference(update_of_experts(parts, 3 * e, 3), update_of_experts(whole, e % count, 1)) <
            1e-14);
      for (Index j = 0; j < 3; ++j) {
        const Index ranks = whole.blocks().size(e % count);
        CHECK(parts.blocks().size(3 * e + j) == ranks / 3 + (j < ranks % 3));
        CHECK(parts.scale()[std::size_t(3 * e + j)] == whole.scale()[std::size_t(e % count)]);
      }
    }
  }
}

TEST_CASE("A layer of parts is the layer before: repeated rows, ties to the lower expert, gates of the whole",
          "[surgery]") {
  const SplitExperts whole = whole_experts({4, 4, 4, 4, 4});
  Rng rng(5);
  const LinearRouter<double> router({.in = 7, .experts = 5, .bias = true}, rng);
  const DenseBase base(support::random_matrix<double>(9, 7, 6));
  const auto x = support::random_matrix<double>(40, 7, 7);
  const LinearRouter<double> repeated(
      {split_router_rows(router.parameters().weight, 2),
       mole::detail::transposed(split_router_rows(mole::detail::transposed(router.parameters().bias), 2))});
  const SplitExperts parts = split_experts(whole, {.parts = 2});
  const auto check = [&](auto gate, auto gate_of_parts) {
    const MixtureLinear before(router, gate, whole, base);
    const MixtureLinear after(repeated, gate_of_parts, parts, base);
    CHECK(support::largest_difference(support::output(before, x), support::output(after, x)) < 1e-13);
    auto work = after.workspace(40);
    after.route(x, work);
    for (Index n = 0; n < 40; ++n)
      for (std::size_t j = 0; j < work.routing.experts_of(n).size(); j += 2) {
        CHECK(work.routing.experts_of(n)[j] % 2 == 0);
        CHECK(work.routing.experts_of(n)[j + 1] == work.routing.experts_of(n)[j] + 1);
      }
  };
  check(Gate{Softmax{}, TopK{.k = 2}, Renormalized{}}, Gate{Softmax{}, TopK{.k = 4}, Renormalized{.sum = 2}});
  check(Gate{Softmax{}, TopK{.k = 1}, Renormalized{}}, Gate{Softmax{}, TopK{.k = 2}, Renormalized{.sum = 2}});
  check(Gate{Softmax{}, TopK{.k = 2}, Raw{}}, Gate{Softmax{}, TopK{.k = 4}, Raw{.scale = 2}});
  check(Gate{Softmax{}, TopK{.k = 1}, Unit{}}, Gate{Softmax{}, TopK{.k = 2}, Unit{}});

  // Without the factor each expert would add half of what it did.
  const MixtureLinear plain(repeated, Gate{Softmax{}, TopK{.k = 4}, Renormalized{}}, parts, base);
  const MixtureLinear before(router, support::top_2(), whole, base);
  CHECK(support::largest_difference(support::output(before, x), support::output(plain, x)) > 0.1);
}

TEST_CASE("Copies of one adapter, split, are the adapter under any router with equal rows for parts", "[surgery]") {
  const SplitExperts whole = whole_experts({6});
  const SplitExperts parts = split_experts(whole, {.parts = 3, .copies = 4});
  Rng rng(5);
  const LinearRouter<double> of_copies({.in = 7, .experts = 4}, rng);
  const LinearRouter<double> router({split_router_rows(of_copies.parameters().weight, 3), {}});
  const DenseBase base(support::random_matrix<double>(9, 7, 6));
  const auto x = support::random_matrix<double>(20, 7, 7);
  const MixtureLinear mixture(router, Gate{Softmax{}, TopK{.k = 3}, Renormalized{.sum = 3}}, parts, base);
  const MixtureLinear dense(NoRouter<double>(1), Gate{Identity{}, All{}, Unit{}}, whole, base);
  CHECK(support::largest_difference(support::output(mixture, x), support::output(dense, x)) < 1e-13);
}

TEST_CASE("No parts, no copies and experts with fewer ranks than parts are refused", "[surgery]") {
  const SplitExperts whole = whole_experts({4, 2});
  CHECK(code_of([&] { split_experts(whole, {.parts = 0}); }) == ErrorCode::option);
  CHECK(code_of([&] { split_experts(whole, {.copies = 0}); }) == ErrorCode::option);
  CHECK(code_of([&] { split_experts(whole, {.parts = 3}); }) == ErrorCode::option);
  CHECK(code_of([&] { split_router_rows(Matrix<double>(2, 3), 0); }) == ErrorCode::option);
  CHECK(split_experts(whole, {.parts = 1}).experts() == 2);
}
