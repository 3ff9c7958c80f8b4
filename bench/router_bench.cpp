// SPDX-License-Identifier: MIT
// The cost of routers: computing the logits, router by router.
//
//   product   the time over that of a product of x with one weight [d x d], in alternating slices
#include "bench/machine/alternation.hpp"
#include "bench/machine/seconds_per_run.hpp"
#include "mole/execution/default_execution.hpp"
#include "mole/router/cosine_router.hpp"
#include "mole/router/linear_router.hpp"
#include "mole/router/mlp_router.hpp"
#include "mole/router/recurrent_router.hpp"
#include "tests/support/random_matrix.hpp"

namespace {

using mole::Index;
using Execution = mole::DefaultExecution;

constexpr Index d = 768, experts = 8, width = 256;

struct Linear {
  mole::Rng rng;
  mole::LinearRouter<float> router{{.in = d, .experts = experts}, rng};
};
struct Mlp {
  mole::Rng rng;
  mole::MlpRouter<float> router{{.in = d, .hidden = width, .experts = experts}, rng};
};
struct Cosine {
  mole::Rng rng;
  mole::CosineRouter<float> router{{.in = d, .experts = experts}, rng};
};
struct ProjectedCosine {
  mole::Rng rng;
  mole::CosineRouter<float> router{{.in = d, .experts = experts, .projection = width, .learned_scale = true}, rng};
};
struct Recurrent {
  mole::Rng rng;
  mole::GruCell<float> cell{{.in = width, .width = width}, rng};
  mole::RecurrentRouter<float> router{{.in = d, .experts = experts}, cell, rng};
};

template <class Kind>
void score(benchmark::State& state) {
  const Kind kind;
  const Index tokens = state.range(0);
  const auto x = support::random_matrix<float>(tokens, d, 1), weight = support::random_matrix<float>(d, d, 2);
  mole::Matrix<float> logits(tokens, experts), y(tokens, d);
  const Execution execution;
  const mole::Pass pass;
  mole::OwnedScratch memory(kind.router, {.tokens = tokens});
  auto& scratch = *memory;
  const mole::Call call{execution, pass, scratch};
  const auto before = support::random_matrix<float>(tokens, width, 3);
  if constexpr (requires { scratch.carry; }) scratch.carry = {.in = before};  // as in all layers but the first
  const auto body = [&] { kind.router.forward(x, logits.view(), call); };
  const double seconds = bench::seconds_per_run(state, body);
  state.counters["ns/token"] = 1e9 * seconds / double(tokens);
  state.counters["product"] = bench::alternating_ratio(
      body, [&] { execution.product_nt(x, weight, y.view()); },
      std::min(0.02, seconds * double(state.iterations()) / 5));
}

using Family = benchmark::internal::Benchmark;

void some_tokens(Family* family) {
  family->ArgNames({"T"})->ArgsProduct({{1, 16, 512}});
}

BENCHMARK(score<Linear>)->Name("linear/d:768/E:8")->Apply(some_tokens);
BENCHMARK(score<Mlp>)->Name("mlp/d:768/E:8/H:256")->Apply(some_tokens);
BENCHMARK(score<Cosine>)->Name("cosine/d:768/E:8")->Apply(some_tokens);
BENCHMARK(score<ProjectedCosine>)->Name("cosine/d:768/E:8/H:256")->Apply(some_tokens);
BENCHMARK(score<Recurrent>)->Name("recurrent/d:768/E:8/H:256")->Apply(some_tokens);

}  // namespace
