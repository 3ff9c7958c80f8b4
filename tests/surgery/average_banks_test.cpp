// SPDX-License-Identifier: MIT
#include "mole/surgery/average_banks.hpp"

#include "core/error_code.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"
#include "support/tolerance.hpp"
#include "surgery/task_banks.hpp"

#include <cmath>

using namespace mole;
using namespace mole::test;

namespace {

/// The same A, another B and other scales.
template <class Experts>
Experts next_task(const Experts& from, std::uint64_t seed) {
  Experts task = from;
  Rng rng(seed);
  fill_uniform(task.parameters().lora_B.view(), 1, rng);
  for (auto& scale : task.scale()) scale *= decltype(+scale)(seed);
  return task;
}

template <class T, class Experts>
void check_sum(const Experts& first, double scale) {
  const Experts second = next_task(first, 2), third = next_task(first, 3);
  const std::vector<WeightedBank<Experts>> all{{first, 0.5}, {second, -0.3}, {third, 1.25}};
  for (std::size_t count = 1; count <= 3; ++count) {
    const std::vector<WeightedBank<Experts>> banks(all.begin(), all.begin() + std::ptrdiff_t(count));
    const auto merged = average_banks(banks, scale);
    Matrix<T> update(task_out, task_in);
    for (Index e = 0; e < merged.experts(); ++e) merged.add_delta(e, 1, update.view());
    CAPTURE(count, scale);
    const auto expected = dense_update(banks);
    CHECK(difference(update.view(), expected.view()) <=
          Tolerance<T>::sum(Index(count) * merged.blocks().ranks_up()));
    CHECK(merged.blocks().ranks_up() == first.blocks().ranks_up());
    for (T s : merged.scale()) CHECK(s == T(scale));
  }
}

}  // namespace

TEMPLATE_TEST_CASE("The average of banks of one A adds what their weighted updates do", "[surgery]", float, double) {
  using T = TestType;
  for (double scale : {1.0, 0.25}) {
    check_sum<T>(sparse_tasks<T>({{.ranks = 12, .alpha = 6}}).front(), scale);
    check_sum<T>(dense_tasks<T>({{1, 4, 2}}).front(), scale);
    check_sum<T>(shared_down_task<T>(), scale);
  }
}

TEST_CASE("Banks are averaged only where every bit of A is the same", "[surgery]") {
  const auto sparse = sparse_tasks<float>({{}}).front();
  const auto dense = dense_tasks<float>({{1, 4, 2}}).front();
  const auto refused = [](const auto& first, const auto& second, ErrorCode code, const std::string& part) {
    using Experts = std::remove_cvref_t<decltype(first)>;
    const std::vector<WeightedBank<Experts>> banks{{first, 0.5}, {first, 0.25}, {second, 0.25}};
    CAPTURE(part);
    CHECK(code_of([&] { average_banks(banks); }) == code);
    CHECK(text_of([&] { average_banks(banks); }).find(part) != std::string::npos);
  };
  auto other_dense = dense;
  float& a = other_dense.parameters().lora_A(3, 7);
  a = std::nextafter(a, 2.0f);
  refused(dense, other_dense, ErrorCode::option, "found another one in bank 2: ");
  refused(dense, other_dense, ErrorCode::option, "in row 3, column 7");

  auto other_sparse = sparse;
  auto projection = sparse.factors().projection();
  float& value = projection.values(4, 2);
  value = std::nextafter(value, 2.0f);
  other_sparse.factors().set_projection(projection);
  refused(sparse, other_sparse, ErrorCode::option,
          "in row 4, column " + std::to_string(sparse.factors().projection().columns(4, 2)));
  refused(sparse, sparse_tasks<float>({{}, {}}).back(), ErrorCode::option, "concatenate_banks");

  refused(sparse, sparse_tasks<float>({{.ranks = 7}}).front(), ErrorCode::shape,
          "experts of bank 2: expected 6, found 7");
  refused(sparse, sparse_tasks<float>({{.in = 12}}).front(), ErrorCode::shape,
          "inputs of bank 2: expected 11, found 12");
  refused(dense, dense_tasks<float>({{2, 3, 2}}).front(), ErrorCode::shape,
          "ranks of expert 0 of bank 2: expected 1, found 2");
  CHECK(code_of([] { average_banks(std::vector<WeightedBank<LowRank<DenseFactors<float>>>>{}); }) == ErrorCode::option);
}
