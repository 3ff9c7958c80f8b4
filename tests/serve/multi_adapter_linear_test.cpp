// SPDX-License-Identifier: MIT
#include "mole/serve/multi_adapter_linear.hpp"

#include "core/error_code.hpp"
#include "mole/base/callable_base.hpp"
#include "mole/base/dense_base.hpp"
#include "mole/base/packed_base.hpp"
#include "mole/execution/reference.hpp"
#include "mole/execution/thread_pool.hpp"
#include "mole/execution/through_eigen.hpp"
#include "serve/random_adapters.hpp"
#include "support/catch.hpp"
#include "support/guarded_matrix.hpp"
#include "support/seed.hpp"
#include "support/tolerance.hpp"

#include <algorithm>
#include <limits>
#include <numeric>

using namespace mole;
using namespace mole::test;
using support::random_matrix;
using support::same_bits;

namespace {

/// Ranks around the numbers at which kernels change, and beyond those that are processed at once.
const std::vector<Index> unequal_ranks{1, 0, 2, 3, 4, 5, 8, 16, 17, 64, 65, 131};

std::vector<int> random_ids(Index rows, int adapters, Rng& rng) {
  std::vector<int> ids;
  for (Index n = 0; n < rows; ++n) ids.push_back(int(rng() % std::uint64_t(adapters + 1)) - 1);
  return ids;
}

template <class Layer, class T = typename Layer::Scalar>
Matrix<T> results(const Layer& layer, const Tenants<T>& tenants, const Matrix<T>& x, const std::vector<int>& ids) {
  auto work = layer.workspace(x.rows());
  Matrix<T> y(x.rows(), layer.out());
  layer.forward(x, tenants.table, ids, y, work);
  return y;
}

template <class T, class Execution>
void check_against_plain_loops(Index in, Index out, Index rows, const Execution& execution, Rng& rng) {
  const Tenants<T> tenants(in, out, unequal_ranks);
  const auto weight = random_matrix<T>(out, in, 1), bias = random_matrix<T>(1, out, 2),
             x = random_matrix<T>(rows, in, 3);
  const std::vector<int> ids = random_ids(rows, int(unequal_ranks.size()), rng);
  const MultiAdapterLinear layer(PackedBase<T>(weight, bias), 0, execution);
  const Matrix<T> y = results(layer, tenants, x, ids);
  const Matrix<long double> expected = expected_rows(weight, bias, x, tenants.adapters(ids));
  double largest = 1;
  for (long double element : expected.elements()) largest = std::max(largest, double(std::abs(element)));
  CAPTURE(in, out, rows);
  CHECK(difference(y.view(), expected.view()) <= Tolerance<T>::layer * largest);
}

}  // namespace

TEST_CASE("Each row gets the base and the adapter of its id, as in plain loops", "[serve]") {
  TestRng rng;
  const auto check = [&](Index in, Index out, Index rows) {
    check_against_plain_loops<float>(in, out, rows, Simd<>{}, rng);
    check_against_plain_loops<double>(in, out, rows, Simd<>{}, rng);
    check_against_plain_loops<float>(in, out, rows, Reference{}, rng);
    check_against_plain_loops<float>(in, out, rows, ThroughEigen{}, rng);
    check_against_plain_loops<float>(in, out, rows, Simd<kernel::Scalar>{}, rng);
  };
  for (Index rows : {0, 1, 2, 40}) check(33, 20, rows);
  check(1, 1, 9);
  check(40, 512, 60);  // rows of B at a distance of 2 KiB
}

TEST_CASE("Three hundred adapters of unequal ranks serve one batch", "[serve]") {
  TestRng rng;
  std::vector<Index> ranks;
  for (Index k = 0; k < 300; ++k) ranks.push_back(k % 19);
  const Tenants<float> tenants(24, 18, ranks);
  const auto weight = random_matrix<float>(18, 24, 1), x = random_matrix<float>(400, 24, 3);
  std::vector<int> ids = random_ids(400, 300, rng);
  std::iota(ids.begin(), ids.begin() + 300, 0);  // each at least once
  std::shuffle(ids.begin(), ids.end(), rng);
  const MultiAdapterLinear layer{PackedBase{weight}};
  const Matrix<float> y = results(layer, tenants, x, ids);
  const auto expected = expected_rows(weight, {}, x, tenants.adapters(ids));
  CHECK(difference(y.view(), expected.view()) <= Tolerance<float>::layer * 30);
}

TEST_CASE("A row has the same bits alone, in any batch and order, and on any number of threads", "[serve][threads]") {
  TestRng rng;
  const Tenants<float> tenants(30, 50, unequal_ranks);
  const auto weight = random_matrix<float>(50, 30, 1), x = random_matrix<float>(150, 30, 3);
  const PackedBase<float> base(weight);
  const auto check = [&](const std::vector<int>& ids) {
    const MultiAdapterLinear layer{base};
    const Matrix<float> y = results(layer, tenants, x, ids);
    std::vector<Index> order(150);
    std::iota(order.begin(), order.end(), Index(0));
    std::shuffle(order.begin(), order.end(), rng);
    std::vector<int> other_ids;
    for (Index n : order) other_ids.push_back(ids[std::size_t(n)]);
    const Matrix<float> permuted = results(layer, tenants, support::permuted(x, order), other_ids);
    CHECK(same_bits(permuted, support::permuted(y, order)));
    for (Index n = 0; n < 150; n += 7) {
      const Matrix<float> alone = results(layer, tenants, laws::row_of(x, n), {ids[std::size_t(n)]});
      CAPTURE(n, ids[std::size_t(n)]);
      CHECK(same_bits(alone.view(), y.view().middle_rows(n, 1)));
    }
    for (int threads : {2, 5}) {
      const MultiAdapterLinear shared(base, 0, Simd{ThreadPool(threads)});
      CHECK(same_bits(results(shared, tenants, x, ids), y));
    }
  };
  check(random_ids(150, int(unequal_ranks.size()), rng));
  check(std::vector<int>(150, 8));
  check(std::vector<int>(150, 11));
}

TEST_CASE("Rows without an adapter, or with one without ranks, have the bits of the base", "[serve]") {
  const Tenants<float> tenants(40, 35, unequal_ranks);
  const auto weight = random_matrix<float>(35, 40, 1), x = random_matrix<float>(64, 40, 3);
  const auto check = [&](const auto& base) {
    Matrix<float> alone(64, 35);
    const Pass pass;
    NoScratch none;
    base.forward(x, alone.view(), Call{Simd<>{}, pass, none});
    std::vector<int> ids(64, -1);
    ids[3] = 1;  // no ranks
    const MultiAdapterLinear layer{base};
    CHECK(same_bits(results(layer, tenants, x, ids), alone));
    ids[0] = 5, ids[40] = 9, ids[41] = 9;
    const Matrix<float> y = results(layer, tenants, x, ids);
    for (Index n = 0; n < 64; ++n)
      CHECK(same_bits(y.view().middle_rows(n, 1), alone.view().middle_rows(n, 1)) ==
            (ids[std::size_t(n)] == -1 || n == 3));
  };
  check(PackedBase{weight});
  check(DenseBase{weight});
}

TEST_CASE("What other adapters hold reaches no row, nor does what other rows hold", "[serve]") {
  Tenants<float> tenants(40, 35, {4, 9});
  const auto weight = random_matrix<float>(35, 40, 1);
  auto x = random_matrix<float>(30, 40, 3);
  std::vector<int> ids(30, 0);
  for (std::size_t n = 10; n < 20; ++n) ids[n] = 1;
  const MultiAdapterLinear layer{PackedBase{weight}};
  const Matrix<float> before = results(layer, tenants, x, ids);
  tenants.table.add(7, ServedAdapter<float>(poison(40, 35, 8)));
  CHECK(same_bits(results(layer, tenants, x, ids), before));
  ids[12] = 7;
  for (float& element : x.view().row(25)) element = std::numeric_limits<float>::quiet_NaN();
  const Matrix<float> after = results(layer, tenants, x, ids);
  for (Index n = 0; n < 30; ++n) {
    if (n == 12 || n == 25)
      CHECK(std::isnan(after(n, 0)));
    else
      CHECK(same_bits(after.view().middle_rows(n, 1), before.view().middle_rows(n, 1)));
  }
}

TEST_CASE("All layers of a model serve one batch, each with its own part of an adapter", "[serve]") {
  const AdapterSite query{12, 20}, value{20, 7};
  AdapterTable<float> table({.sites = {query, value}});
  const auto both = [&](Index first, Index second, std::uint64_t seed) {
    std::vector<Adapter<float>> sites;
    sites.push_back(random_adapter(12, 20, first, seed));
    sites.push_back(second == 0 ? Adapter<float>{} : random_adapter(20, 7, second, seed + 50));
    return std::make_shared<const ServedAdapter<float>>(std::move(sites));
  };
  const auto old = both(3, 4, 1), half = both(2, 0, 2);
  table.add(1, old);
  table.add(2, half);
  const auto w_q = random_matrix<float>(20, 12, 1), w_v = random_matrix<float>(7, 20, 2),
             x = random_matrix<float>(3, 12, 3);
  const MultiAdapterLinear q_layer(DenseBase{w_q}, 0), v_layer(DenseBase{w_v}, 1);
  auto q_work = q_layer.workspace(3), v_work = v_layer.workspace(3);
  AdapterBatch<float> batch(3);
  batch.begin(table, std::vector<int>{1, 2, -1});
  Matrix<float> q(3, 20), v(3, 7);
  q_layer.forward(x, batch, q, q_work);
  table.replace(1, both(5, 5, 3));  // between two layers of a call in flight
  table.remove(2);
  v_layer.forward(q, batch, v, v_work);
  const auto expected_q = expected_rows<float>(w_q, {}, x, {&old->site(0), &half->site(0), nullptr});
  CHECK(difference(q.view(), expected_q.view()) <= Tolerance<float>::layer * 10);
  const auto expected_v = expected_rows<float>(w_v, {}, q, {&old->site(1), nullptr, nullptr});
  CHECK(difference(v.view(), expected_v.view()) <= Tolerance<float>::layer * 100);
}

TEST_CASE("A call in flight keeps the adapters that it began with, which are freed when it ends", "[serve]") {
  Tenants<float> tenants(6, 4, {2});
  const std::weak_ptr<const ServedAdapter<float>> watched = tenants.table.find(0);
  bool alive_within = false;
  const auto base = callable_base<float>(6, 4, [&](View<const float>, View<float> y) {
    tenants.table.remove(0);  // the server's other thread
    alive_within = !watched.expired();
    fill(y, 0);
  });
  const auto x = random_matrix<float>(2, 6, 3);
  const auto adapter = random_adapter<float>(6, 4, 2, 0);
  const MultiAdapterLinear layer{base};
  const Matrix<float> y = results(layer, tenants, x, {0, -1});
  CHECK(alive_within);
  CHECK(watched.expired());
  const auto expected = expected_rows<float>(Matrix<float>(4, 6), {}, x, {&adapter, nullptr});
  CHECK(difference(y.view(), expected.view()) <= Tolerance<float>::layer * 10);
}
