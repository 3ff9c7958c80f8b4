// SPDX-License-Identifier: MIT
#include "mole/serve/served_adapter.hpp"

#include "core/error_code.hpp"
#include "mole/factors/dense_factors.hpp"
#include "mole/expert/low_rank.hpp"
#include "mole/surgery/adapters_of.hpp"
#include "serve/random_adapters.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace mole::test;

TEST_CASE("A served adapter knows its sites, its largest rank and its bytes", "[serve]") {
  std::vector<Adapter<float>> sites;
  sites.push_back(random_adapter(5, 3, 7, 1));
  sites.push_back({});
  sites.push_back(random_adapter(4, 6, 2, 2));
  const ServedAdapter<float> adapter(std::move(sites));
  CHECK(adapter.sites() == 3);
  CHECK(adapter.max_rank() == 7);
  CHECK(adapter.site(1).rank() == 0);
  CHECK(adapter.bytes() == 4 * (7 * (5 + 3) + 2 * (4 + 6)));
  CHECK(ServedAdapter<double>(random_adapter<double>(5, 3, 0, 1)).bytes() == 0);
}

TEST_CASE("The matrices of a served adapter are moved in, or stay with the caller", "[serve]") {
  Adapter<float> owned = random_adapter(5, 3, 2, 1);
  const float* const a = owned.a.data();
  const ServedAdapter<float> adapter(std::move(owned));
  CHECK(adapter.site(0).a.data() == a);

  Matrix<float> file_a = support::random_matrix<float>(2, 5, 1), file_b = support::random_matrix<float>(2, 3, 2);
  const ServedAdapter<float> borrowing(
      Adapter<float>{Matrix<float>::borrow(file_a.view()), Matrix<float>::borrow(file_b.view())});
  CHECK(borrowing.site(0).b.data() == file_b.data());
  CHECK(borrowing.bytes() == 4 * 2 * (5 + 3));
}

TEST_CASE("Experts of a bank become served adapters", "[serve]") {
  Rng rng(1);
  LowRank<DenseFactors<float>> bank({.in = 6, .out = 4, .experts = 3, .ranks = {2, 0, 5}, .alpha = 8}, rng);
  fill_uniform(bank.parameters().lora_B.view(), 1, rng);
  const auto experts = adapters_of(bank);
  const ServedAdapter<float> last(experts[2]);
  CHECK(last.max_rank() == 5);
  CHECK(last.site(0).scale == double(bank.scale()[2]));
  CHECK(support::same_bits(last.site(0).a.view(), View<const float>(bank.parameters().lora_A).middle_rows(2, 5)));
  CHECK(ServedAdapter<float>(experts[1]).max_rank() == 0);
}

TEST_CASE("Adapters that cannot be served are refused", "[serve]") {
  using Served = ServedAdapter<float>;
  CHECK(code_of([] { Served(std::vector<Adapter<float>>{}); }) == ErrorCode::option);
  CHECK(text_of([] {
          Served(Adapter<float>{Matrix<float>(2, 5), Matrix<float>(3, 4)});
        }) == "ServedAdapter: expected as many ranks of B as of A, 2, at site 0, found 3");
  for (double scale : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(), 1e300})
    CHECK(code_of([&] {
            Served(Adapter<float>{Matrix<float>(2, 5), Matrix<float>(2, 4), scale});
          }) == ErrorCode::option);
}
