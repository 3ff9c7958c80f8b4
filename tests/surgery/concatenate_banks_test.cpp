// SPDX-License-Identifier: MIT
#include "mole/surgery/concatenate_banks.hpp"

#include "core/error_code.hpp"
#include "support/catch.hpp"
#include "support/guarded_matrix.hpp"
#include "support/layers.hpp"
#include "support/tolerance.hpp"
#include "surgery/task_banks.hpp"

using namespace mole;
using namespace mole::test;

namespace {

/// FlyLoRA's layer over experts that are there: who is chosen by its answer, k of all.
template <class T>
auto fly_layer(LowRank<SparseProjection<T>> experts, Index k, std::span<const T> bias = {}) {
  LatentRouter<T> router(experts.experts());
  std::ranges::copy(bias, router.bias().begin());
  return MixtureLinear(std::move(router), Gate{Magnitude{}, TopK{k}, Unit{}}, std::move(experts),
                       NoBase<T>(task_in, task_out), Simd<>{});
}

template <class T, class Factors>
void check_sum(std::vector<LowRank<Factors>> tasks, double scale) {
  const std::vector<double> shares{0.5, -0.3, 1.25};
  for (std::size_t count = 1; count <= 3; ++count) {
    std::vector<WeightedBank<LowRank<Factors>>> banks;
    for (std::size_t t = 0; t < count; ++t) banks.emplace_back(tasks[t], shares[t]);
    const Matrix<double> expected = dense_update(banks);
    const auto merged = concatenate_banks(banks, scale);
    CAPTURE(count, scale);
    for (T s : merged.scale()) CHECK(s == T(scale));
    CHECK(merged.blocks().ranks_up() == sum_of_ranks(banks));

    Matrix<T> update(task_out, task_in);
    for (Index e = 0; e < merged.experts(); ++e) merged.add_delta(e, 1, update.view());
    CHECK(difference(update.view(), expected.view()) <= Tolerance<T>::sum(merged.blocks().ranks_up()));

    const auto x = support::random_matrix<T>(9, task_in, 8);
    Matrix<double> y(9, task_out);
    for (Index n = 0; n < 9; ++n)
      for (Index o = 0; o < task_out; ++o)
        for (Index i = 0; i < task_in; ++i) y(n, o) += expected(o, i) * double(x(n, i));
    const MixtureLinear all(NoRouter<T>(merged.experts()), Gate{Identity{}, All{}, Unit{}}, merged,
                            NoBase<T>(task_in, task_out));
    const double allowed = Tolerance<T>::sum(task_in) * double(merged.blocks().ranks_up());
    const auto found = support::output(all, x);
    CHECK(difference(found.view(), y.view()) <= allowed);
    if constexpr (std::is_same_v<Factors, SparseProjection<T>>) {
      const auto routed = support::output(fly_layer<T>(merged, merged.experts()), x);
      CHECK(difference(routed.view(), y.view()) <= allowed);
    }
  }
}

}  // namespace

TEMPLATE_TEST_CASE("Banks side by side add what their weighted updates do", "[surgery]", float, double) {
  using T = TestType;
  for (double scale : {1.0, 0.25}) {
    check_sum<T>(sparse_tasks<T>({{.ranks = 12, .alpha = 6}, {.ranks = 5, .alpha = 64}, {.ranks = 19, .alpha = 1}}),
                 scale);
    check_sum<T>(dense_tasks<T>({{1, 4, 2}, {3}, {2, 2}}), scale);
  }
}

TEST_CASE("A bank of several tasks is a layer again, with their biases and a k of its own", "[surgery]") {
  auto tasks = sparse_tasks<double>({{.ranks = 6, .alpha = 6}, {.ranks = 8, .alpha = 64}});
  std::vector<MixtureLinear<LatentRouter<double>, Gate<Magnitude, TopK, Unit>, LowRank<SparseProjection<double>>,
                            NoBase<double>, Simd<>>>
      layers;
  std::vector<double> bias;
  for (std::size_t t = 0; t < 2; ++t) {
    std::vector<double> own(std::size_t(tasks[t].experts()));
    for (double& b : own) bias.push_back(b = 0.02 * double(bias.size() % 5));
    layers.push_back(fly_layer<double>(tasks[t], 3, own));
  }

  const std::vector<WeightedBank<LowRank<SparseProjection<double>>>> banks{{tasks[0], 1}, {tasks[1], 1}};
  auto merged = fly_layer<double>(concatenate_banks(banks), 6, bias);
  CHECK(std::ranges::equal(merged.router().bias(), bias));
  CHECK(merged.experts().experts() == 14);

  // Those that a token chooses are the 6 largest |a_i x + bias_i| of both tasks, and add s_t b_i (a_i x) each.
  const auto x = support::random_matrix<double>(9, task_in, 8);
  auto work = merged.workspace(9);
  Matrix<double> y(9, task_out), expected(9, task_out);
  merged.forward(x, y, work);
  for (Index n = 0; n < 9; ++n) {
    std::vector<std::pair<double, Index>> wanted;
    for (Index e = 0; e < 14; ++e) wanted.emplace_back(-std::abs(latent_of(tasks, e, x, n) + bias[std::size_t(e)]), e);
    std::sort(wanted.begin(), wanted.end());
    for (Index k = 0; k < 6; ++k) {
      const Index e = wanted[std::size_t(k)].second, t = e < 6 ? 0 : 1, row = e - 6 * t;
      CHECK(work.routing.experts_of(n)[std::size_t(k)] == e);
      const auto& task = tasks[std::size_t(t)];
      for (Index o = 0; o < task_out; ++o)
        expected(n, o) += task.scale()[0] * task.parameters().lora_B(row, o) * latent_of(tasks, e, x, n);
    }
  }
  CHECK(support::largest_difference(y, expected) < 1e-13);

  // It learns on.
  auto gradients = merged.gradients();
  merged.backward(x, y, {}, gradients, work);
  CHECK(gradients.experts.lora_B.rows() == 14);
}

TEST_CASE("Banks that cannot lie side by side are refused, and stay as they are", "[surgery]") {
  using Bank = WeightedBank<LowRank<SparseProjection<double>>>;
  auto tasks = sparse_tasks<double>({{.ranks = 6}, {.ranks = 6}});
  const auto before = tasks;
  const auto other = [](const TaskSizes& sizes) { return sparse_tasks<double>({sizes}).front(); };
  const auto refused = [&](ErrorCode code, const std::string& part, const std::vector<Bank>& banks, double scale = 1) {
    CAPTURE(part);
    CHECK(code_of([&] { concatenate_banks(banks, scale); }) == code);
    CHECK(text_of([&] { concatenate_banks(banks, scale); }).find(part) != std::string::npos);
  };
  refused(ErrorCode::option, "concatenate_banks: expected at least 1 bank, found 0", {});
  const auto wide = other({.in = 12}), tall = other({.out = 14}), full = other({.nonzeros = 4});
  refused(ErrorCode::shape, "inputs of bank 1: expected 11, found 12", {{tasks[0], 1}, {wide, 1}});
  refused(ErrorCode::shape, "outputs of bank 1: expected 13, found 14", {{tasks[0], 1}, {tall, 1}});
  refused(ErrorCode::shape, "non-zeros of a row of what is appended: expected 3, found 4", {{tasks[0], 1}, {full, 1}});
  refused(ErrorCode::option, "expected a scale other than 0", {{tasks[0], 1}}, 0);
  refused(ErrorCode::option, "weight of bank 1", {{tasks[0], 1}, {tasks[1], std::nan("")}});
  const auto shared = shared_down_task<double>();
  const std::vector<WeightedBank<LowRank<DenseFactors<double>>>> banks{{shared, 1}, {shared, 1}};
  CHECK(code_of([&] { concatenate_banks(banks); }) == ErrorCode::option);
  for (std::size_t t = 0; t < 2; ++t) {
    CHECK(support::same_bits(tasks[t].parameters().lora_B, before[t].parameters().lora_B));
    CHECK(support::same_bits(tasks[t].factors().projection().values, before[t].factors().projection().values));
  }
}
