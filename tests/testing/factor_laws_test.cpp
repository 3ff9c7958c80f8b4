// SPDX-License-Identifier: MIT
#include "mole/testing/factor_laws.hpp"

#include "mole/factors/lora_parameters.hpp"
#include "support/catch.hpp"
#include "testing/unsaid.hpp"

using namespace mole;
using test::unsaid;

namespace {

enum class FactorFault {
  none,
  rows_of_b,
  columns_of_a,
  shows_a,
  row_overwrites,
  project,
  project_backward,
  overwrites_d_x,
  zeros_add,
  frozen,
  gradient_rows,
  gradient_columns,
  contract
};

/// A = the square of its parameter, element by element, and B, with a fault.
struct FaultyFactors {
  using Scalar = double;
  using Parameters = LoraParameters<double>;
  struct Options {
    double alpha, scaling, dropout;
  };
  struct Scratch {
    View<double> a, d_a;
  };

  FactorFault fault = FactorFault::none;
  RankBlocks cut = RankBlocks::uniform(2, 2);
  Parameters own{laws::random_matrix<double>(4, 3, 1), laws::random_matrix<double>(4, 5, 2)};

  Index in() const { return 3; }
  Index out() const { return 5; }
  const RankBlocks& blocks() const { return cut; }
  Parameters& parameters() { return own; }
  const Parameters& parameters() const { return own; }
  Scratch scratch(const CallSize&, Arena& arena) const {
    return {arena.matrix<double>(4, 3), arena.matrix<double>(4, 3)};
  }

  void prepare(auto call) const {
    for (Index j = 0; j < 4; ++j)
      for (Index i = 0; i < 3; ++i) call.scratch.a(j, i) = own.lora_A(j, i) * own.lora_A(j, i);
  }
  FactorViews<const double> factors(Scratch& scratch) const {
    const View<const double> b = own.lora_B.view(), made = scratch.a;
    return {fault == FactorFault::columns_of_a ? View<const double>(made.data(), 4, 2, 3) : made,
            fault == FactorFault::rows_of_b ? b.top(3) : b};
  }
  FactorViews<double> gradient_views(Parameters& gradients, Scratch& scratch) const {
    fill(scratch.d_a, 0);
    const View<double> d_b = gradients.lora_B;
    if (gradients.lora_A.empty() && fault != FactorFault::frozen) return {{}, d_b};
    if (fault == FactorFault::gradient_columns) return {View<double>(scratch.d_a.data(), 4, 2, 3), d_b};
    if (fault == FactorFault::gradient_rows) return {scratch.d_a, View<double>(d_b.data(), 5, 4)};
    return {scratch.d_a, d_b};
  }
  void contract(Parameters& gradients, auto call) const {
    for (Index j = 0; j < gradients.lora_A.rows(); ++j)
      for (Index i = 0; i < 3; ++i)
        gradients.lora_A(j, i) += (fault == FactorFault::contract ? 1 : 2) * own.lora_A(j, i) * call.scratch.d_a(j, i);
  }
};
static_assert(ComputedFactorPolicy<FaultyFactors>);

/// A frozen, used through functions alone, with a fault in one of them.
struct FaultyStream {
  using Scalar = double;
  using Options = FaultyFactors::Options;
  struct Parameters {
    Matrix<double> lora_B;

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      f("lora_B", p.lora_B...);
    }
  };

  FactorFault fault = FactorFault::none;
  RankBlocks cut = RankBlocks::uniform(2, 2);
  Matrix<double> a = laws::random_matrix<double>(4, 3, 1);
  Parameters own{laws::random_matrix<double>(4, 5, 2)};

  Index in() const { return 3; }
  Index out() const { return 5; }
  const RankBlocks& blocks() const { return cut; }
  Parameters& parameters() { return own; }
  const Parameters& parameters() const { return own; }
  FactorViews<const double> factors(NoScratch&) const {
    return {fault == FactorFault::shows_a ? View<const double>(a) : View<const double>(), own.lora_B};
  }
  FactorViews<double> gradient_views(Parameters& gradients, NoScratch&) const { return {{}, gradients.lora_B}; }
  void project(View<const double> x, View<double> z, auto call) const {
    call.execution.product_nt(x, a, z);
    if (fault == FactorFault::project && z.rows() > 0) z(z.rows() - 1, 3) += 1;
  }
  void project_backward(View<const double> d_z, View<double> d_x, auto call) const {
    if (fault == FactorFault::overwrites_d_x) fill(d_x, 0);
    call.execution.product_nn(d_z, a, d_x);
    if (d_x.rows() > 0 && fault == FactorFault::zeros_add && d_z(0, 0) == 0) d_x(0, 0) += 1;
    if (d_x.rows() > 0 && fault == FactorFault::project_backward) d_x(0, 0) += d_z(0, 0);
  }
  void add_row(Index rank, double factor, std::span<double> to, NoScratch&) const {
    for (Index i = 0; i < 3; ++i) {
      if (fault == FactorFault::row_overwrites) to[std::size_t(i)] = 0;
      to[std::size_t(i)] += factor * a(rank, i);
    }
  }
};
static_assert(StreamedFactorPolicy<FaultyStream>);

}  // namespace

TEST_CASE("The laws of factors name the one that is broken", "[testing]") {
  const auto broken = [](FactorFault fault) { return laws::broken_factor_law(FaultyFactors{fault}); };
  CHECK(broken(FactorFault::none) == "");
  CHECK(unsaid(broken(FactorFault::rows_of_b),
               {"factors from 3 to 5, 2 experts, seed 71", "B [4 x 5], found [3 x 5]"}) == "");
  CHECK(unsaid(broken(FactorFault::columns_of_a), {"expected A [4 x 3], found [4 x 2]"}) == "");
  CHECK(unsaid(broken(FactorFault::frozen), {"expected empty views of frozen gradients, found numbers"}) == "");
  CHECK(unsaid(broken(FactorFault::gradient_rows), {"at most the 4 rows of B and of its 5 columns, found [5 x 4]"}) ==
        "");
  CHECK(unsaid(broken(FactorFault::gradient_columns),
               {"at most the 4 rows of A and of its 3 columns, found [4 x 2]"}) == "");
  CHECK(unsaid(broken(FactorFault::contract),
               {"expected the gradient of lora_A after contract() to be the derivative"}) == "");
}

TEST_CASE("The laws of factors name the one that is broken where A is streamed", "[testing]") {
  const auto broken_stream = [](FactorFault fault) { return laws::broken_factor_law(FaultyStream{fault}); };
  CHECK(broken_stream(FactorFault::none) == "");
  CHECK(unsaid(broken_stream(FactorFault::shows_a),
               {"expected an empty view of an A that is streamed, found one of 4"}) == "");
  CHECK(unsaid(broken_stream(FactorFault::row_overwrites),
               {"expected add_row() of row 0 to add 2 *", "to 0.5 in column 0"}) == "");
  CHECK(unsaid(broken_stream(FactorFault::project),
               {"1 tokens: expected project() to write x A^T, found a difference of 1"}) == "");
  CHECK(unsaid(broken_stream(FactorFault::project_backward),
               {"1 tokens: expected project_backward() to add d_z A to d_x"}) == "");
  CHECK(unsaid(broken_stream(FactorFault::overwrites_d_x), {"expected project_backward() to add d_z A to d_x"}) == "");
  CHECK(unsaid(broken_stream(FactorFault::zeros_add), {"1 tokens: expected a d_z of zeros to add nothing, found 1"}) ==
        "");
}

TEST_CASE("The laws of factors know those that pass no gradient to x", "[testing]") {
  CHECK(unsaid(laws::broken_factor_law(FaultyStream{}, false), {"project_backward()", "found a difference"}) == "");
}
