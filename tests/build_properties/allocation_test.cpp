// SPDX-License-Identifier: MIT
// What promises not to allocate does not: every call of the heap in this program is counted.
#include "allocation_count.hpp"

#include "mole/execution/through_eigen.hpp"
#include "mole/layer/any_linear.hpp"
#include "mole/loss/load_balance.hpp"
#include "mole/mole.hpp"
#include "mole/optim/adamw.hpp"
#include "mole/optim/clip_norm.hpp"
#include "support/catch.hpp"
#include "support/compiled_kernels.hpp"
#include "support/execution_checks.hpp"

#include <cstdlib>
#include <functional>
#include <memory>
#include <variant>

using namespace mole;
using namespace mole::test;

namespace {

constexpr Index tokens = 200, in = 100, out = 130, experts = 5;

Matrix<float> random_matrix(Index rows, Index cols) {
  Matrix<float> matrix(rows, cols);
  Rng rng(test_seed());
  fill_uniform(matrix.view(), 1, rng);
  return matrix;
}

LinearRouter<float> router(double dropout = 0) {
  Rng rng(1);
  return {{.in = in, .experts = experts, .bias = true, .dropout = {.rate = dropout, .stream = 1}}, rng};
}
LowRank<DenseFactors<float>> low_rank(DenseFactors<float>::Options options = {}) {
  Rng rng(2);
  options.in = in, options.out = out, options.experts = experts;
  LowRank<DenseFactors<float>> result(options, rng);
  fill_uniform(result.parameters().lora_B.view(), 0.1, rng);
  return result;
}
DenseBase<Matrix<float>> base() {
  return DenseBase{random_matrix(out, in), random_matrix(1, out)};
}

template <class Execution>
auto routed(Execution execution) {
  return MixtureLinear{router(0.1), Gate{Softmax{}, TopK{.k = 2}, Renormalized{}},
                       low_rank({.rank = 16, .dropout = {.rate = 0.2, .stream = 1}}), base(), execution};
}
template <class Execution>
auto dense_mixing(Execution execution) {
  return MixtureLinear{router(), Gate{Softmax{}, All{}, Raw{}}, low_rank({.rank = 8}), base(), execution};
}
template <class Execution>
auto cosine(Execution execution) {
  Rng rng(1);
  const CosineRouter<float> prototypes({.in = in, .experts = experts, .projection = 40, .learned_scale = true}, rng);
  return MixtureLinear{prototypes, Gate{Softmax{}, TopK{.k = 2}, Renormalized{}}, low_rank({.rank = 4}), base(),
                       execution};
}
template <class Execution>
auto recurrent(Execution execution) {
  Rng rng(1);
  static const GruCell<float> cell({.in = 20, .width = 24}, rng);
  const RecurrentRouter<float> remembering({.in = in, .experts = experts}, cell, rng);
  return MixtureLinear{remembering, Gate{Softmax{}, TopK{.k = 2}, Renormalized{}}, low_rank({.rank = 4}), base(),
                       execution};
}
template <class Execution>
auto ragged(Execution execution) {
  return MixtureLinear{router(), Gate{Sigmoid{}, TopK{.k = 3}, Renormalized{}}, low_rank({.ranks = {1, 5, 0, 40, 8}}),
                       base(), execution};
}
template <class Execution>
auto shared_down(Execution execution) {
  return MixtureLinear{router(), Gate{Softmax{}, TopK{.k = 1}, Raw{}}, low_rank({.rank = 4, .shared_down = true}),
                       base(), execution};
}

template <class Execution>
auto sparse(Execution execution) {
  Rng rng(3);
  LowRank<SparseProjection<float>> ranks(
      {.in = in, .out = out, .experts = experts, .nonzeros = 25, .dropout = {.rate = 0.2, .stream = 1}}, rng);
  fill_uniform(ranks.parameters().lora_B.view(), 0.1, rng);
  return MixtureLinear{LatentRouter<float>(experts), Gate{Magnitude{}, TopK{.k = 2}, Raw{}}, ranks, base(), execution};
}

template <class Execution>
auto gated(Execution execution) {
  Rng rng(3);
  LowRank<GatedRanks<float>> ranks({.in = in, .out = out, .experts = experts, .ranks = {1, 5, 0, 40, 8}}, rng);
  fill_uniform(ranks.parameters().lora_B.view(), 0.1, rng);
  return MixtureLinear{router(), Gate{Softmax{}, TopK{.k = 2}, Renormalized{}}, ranks, base(), execution};
}
template <class Execution>
auto grown(Execution execution) {
  Rng rng(3);
  auto layer = moram({.ranks = {9}, .k = 4, .dropout = 0.2}, base(), rng, execution);
  fill_uniform(layer.experts().parameters().lora_B.view(), 0.1, rng);
  next_task(layer, 7, rng);
  fill_uniform(layer.experts().parameters().lora_B.view(), 0.1, rng);
  return layer;
}
template <class Execution>
auto mixed(Execution execution) {
  Rng rng(3);
  const auto bank = std::make_shared<VectorBank<float>>(VectorBank<float>::Options{.vectors = 9, .length = 10}, rng);
  const LowRank<BankMixture<float>> pieces({.in = in, .out = out, .experts = experts, .bank = bank}, rng);
  return MixtureLinear{router(), Gate{Softmax{}, TopK{.k = 2}, Renormalized{}}, pieces, base(), execution};
}
template <class Execution>
auto mapped(Execution execution) {
  Rng rng(3);
  const MapExperts<KroneckerMaps<float>> products(
      {.in = in, .out = out, .experts = experts, .rank = 2, .dropout = {.rate = 0.2, .stream = 1}}, rng);
  return MixtureLinear{router(), Gate{Softmax{}, TopK{.k = 2}, Renormalized{}}, products, base(), execution};
}
/// Moments are left in the scratch, and added by the caller.
template <class Execution>
auto normalized(Execution execution) {
  Rng rng(3);
  const MapExperts<NormalizedMaps<DenseMaps<float>>> normal(
      {.maps = {.in = in, .out = out, .experts = experts, .bias = true}}, rng);
  return MixtureLinear{router(), Gate{Softmax{}, TopK{.k = 2}, Renormalized{}}, normal, base(), execution};
}
/// Modulations of a trained base, under an uncertain router.
template <class Execution>
auto modulated(ModulationForm form, Execution execution) {
  Rng rng(3);
  return mofme_uar({.mofme = {.experts = experts, .form = form, .rank = 4, .random = true}}, base(), rng, execution);
}
template <class Execution>
auto compressed(Execution execution) {
  return MixtureLinear{router(), Gate{Softmax{}, TopK{.k = 4}, Raw{}}, CompressedExperts(low_rank({.rank = 4}), 2),
                       base(), execution};
}
template <class Execution>
auto gated_module(Execution execution) {
  Rng rng(3);
  return diffora({}, std::make_shared<ModuleGates<float>>(ModuleGates<float>::Options{.layers = 1, .modules = 2}),
                 base(), rng, execution);
}
template <class Execution>
auto wrapped_routers(Execution execution) {
  Rng rng(3);
  const DeepRouter<float> deep({.in = 30, .experts = experts, .widths = {40, 20}, .dropout = {.rate = 0.2}}, rng);
  const JitteredRouter jittered(ModalityRouter(deep, {.in = in}, rng), {.amount = 0.01});
  const LogitOffsets offset(NoisyRouter(jittered, {.learned = true}));
  return MixtureLinear{offset, Gate{Softmax{}, TopK{.k = 2}, Renormalized{}}, low_rank({.rank = 4}), base(), execution};
}
template <class Execution>
auto labeled(Execution execution) {
  Rng rng(3);
  const LabelRouter of_labels(LinearRouter<float>({.in = 8, .experts = experts}, rng), 1, rng);
  LowRank<SkillFactors<float>> skills({.in = in, .out = out, .experts = experts, .rank = 3}, rng);
  return MixtureLinear{of_labels, Gate{Softmax{}, TopK{.k = 2}, Renormalized{}}, skills, base(), execution};
}
template <class Execution>
auto blocks(Execution execution) {
  Rng rng(3);
  const auto map = [](Index from, Index to) { return DenseBase{random_matrix(to, from), random_matrix(1, to)}; };
  return mixlora({.experts = experts, .rank = 4, .dropout = 0.2}, map(in, 40), map(in, 40), map(40, out), rng,
                 execution);
}
template <class Execution>
auto full_blocks(Execution execution) {
  Rng rng(3);
  const auto map = [&](Index from, Index to) {
    return ExpertProjection{MapExperts<DenseMaps<float>>({.in = from, .out = to, .experts = experts}, rng),
                            NoBase<float>(from, to)};
  };
  return MixtureLinear{router(), Gate{Softmax{}, TopK{.k = 2}, Renormalized{}},
                       FeedForwardExperts{map(in, 40), map(in, 40), map(40, out), GELU{}}, NoBase<float>(in, out),
                       execution};
}
template <class Execution>
auto plain_blocks(Execution execution) {
  Rng rng(3);
  const auto map = [&](Index from, Index to) {
    return ExpertProjection{
        MapExperts<DenseMaps<float>>({.in = from, .out = to, .experts = experts, .bias = true}, rng),
        NoBase<float>(from, to)};
  };
  return MixtureLinear{router(), Gate{Softmax{}, TopK{.k = 1}, Raw{}},
                       FeedForwardExperts{map(in, 40), map(40, out), ReLU{}}, NoBase<float>(in, out), execution};
}
/// One expert of averaged parameters a sequence, or two kinds of experts in one.
template <class Execution>
auto merged(Execution execution) {
  Rng rng(3);
  const MergedExperts<DenseFactors<float>> averaged({.in = in, .out = out, .experts = experts, .rank = 4}, rng);
  return MixtureLinear{PooledRouter(router()), Gate{Softmax{}, All{}, Raw{}}, averaged, base(), execution};
}
template <class Execution>
auto summed(Execution execution) {
  Rng rng(3);
  const MapExperts<DenseMaps<float>> matrices({.in = in, .out = out, .experts = experts}, rng);
  return MixtureLinear{router(), Gate{Softmax{}, TopK{.k = 2}, Renormalized{}},
                       SummedExperts{matrices, low_rank({.rank = 4})}, base(), execution};
}
/// Allocations of a combiner's forward and backward.
template <class Combiner, class Execution>
long combining_allocations(const Combiner& combiner, Execution execution) {
  const Matrix<float> x = random_matrix(tokens, combiner.experts() * combiner.features()),
                      d_y = random_matrix(tokens, combiner.out());
  Matrix<float> y(tokens, combiner.out()), d_x(x.rows(), x.cols());
  auto gradients = zeros_like(combiner.parameters());
  OwnedScratch<Combiner> scratch(combiner, {.tokens = tokens});
  const std::vector<std::uint8_t> allowed(std::size_t(tokens * combiner.experts()), 1);
  const Pass pass{.allowed = allowed};
  const AllocationCount count;
  combiner.forward(x, y.view(), Call{execution, pass, *scratch});
  combiner.backward(x, d_y, d_x.view(), gradients, Call{execution, pass, *scratch});
  return count.found();
}

/// Allocations of whole training steps, the first of an optimizer apart.
template <class Layer>
long training_allocations(Layer layer) {
  auto work = layer.workspace(tokens);
  auto gradients = layer.gradients({.router = true, .experts = true, .base = Layer::has_trainable_base});
  const Matrix<float> x = random_matrix(tokens, in), d_y = random_matrix(tokens, out);
  Matrix<float> y(tokens, out), d_x(tokens, in);
  AdamW<float> adamw;
  adamw.reserve([&](auto&& f) { layer.for_each_tensor(f, gradients); });
  const Index count_of_experts = layer.experts().experts();  // a bank has grown
  RoutingStats stats(count_of_experts);
  SignBiasBalancer balancer({.experts = count_of_experts});
  std::vector<float> bias(std::size_t(count_of_experts), 0.0f);

  const AllocationCount count;
  for (std::uint64_t step = 0; step < 3; ++step) {
    layer.forward(x, y, work, {.training = true, .seed = 1, .step = step});
    load_balance(work, {.coefficient = 0.01});
    stats.observe(work);
    balancer.observe(work);
    balancer.update(bias);
    layer.backward(x, d_y, d_x, gradients, work);
    clip_norm(layer, gradients, 0.1);
    adamw.step(layer, gradients);
    set_zero(gradients);
  }
  return count.found();
}

template <class Layer>
long any_linear_allocations(Layer layer) {
  AnyLinear<float> any(std::move(layer), tokens, {.router = true, .experts = true, .base = true});
  const Matrix<float> x = random_matrix(tokens, in), d_y = random_matrix(tokens, out);
  Matrix<float> y(tokens, out), d_x(tokens, in);
  const AllocationCount count;
  for (std::uint64_t step = 0; step < 3; ++step) {
    any.forward(x, y, {.training = true, .step = step});
    load_balance(any.trace());
    any.backward(x, d_y, d_x);
    any.apply(x, any.trace().routing, y, {.training = true, .step = step});
    any.apply_backward(x, any.trace().routing, d_y, any.trace().d_gate(), d_x);
    any.zero_gradients();
  }
  return count.found();
}

/// One executor of three, chosen at run time: what Simd runs on them is compiled once.
struct OneOfThree {
  std::variant<Serial, ThreadPool, HostExecutor> executor;

  template <class F>
  void parallel_for(Index tasks, F&& f) const {
    std::visit([&](const auto& chosen) { chosen.parallel_for(tasks, f); }, executor);
  }
  int threads() const {
    return std::visit([](const auto& chosen) { return chosen.threads(); }, executor);
  }
};

template <class Execution>
void nothing_allocates(Execution execution) {
  CHECK(training_allocations(routed(execution)) == 0);
  CHECK(training_allocations(dense_mixing(execution)) == 0);
  CHECK(training_allocations(cosine(execution)) == 0);
  CHECK(training_allocations(recurrent(execution)) == 0);
  CHECK(training_allocations(ragged(execution)) == 0);
  CHECK(training_allocations(shared_down(execution)) == 0);
  CHECK(training_allocations(sparse(execution)) == 0);
  CHECK(training_allocations(gated(execution)) == 0);
  CHECK(training_allocations(grown(execution)) == 0);
  CHECK(training_allocations(mixed(execution)) == 0);
  CHECK(training_allocations(mapped(execution)) == 0);
  CHECK(training_allocations(normalized(execution)) == 0);
  for (ModulationForm form : {ModulationForm::vector, ModulationForm::low_rank, ModulationForm::full})
    CHECK(training_allocations(modulated(form, execution)) == 0);
  CHECK(training_allocations(compressed(execution)) == 0);
  CHECK(training_allocations(gated_module(execution)) == 0);
  CHECK(training_allocations(wrapped_routers(execution)) == 0);
  CHECK(training_allocations(labeled(execution)) == 0);
  CHECK(training_allocations(blocks(execution)) == 0);
  CHECK(training_allocations(full_blocks(execution)) == 0);
  CHECK(training_allocations(plain_blocks(execution)) == 0);
  CHECK(training_allocations(merged(execution)) == 0);
  CHECK(training_allocations(summed(execution)) == 0);
  Rng rng(1);
  CHECK(combining_allocations(MlpCombiner<float>({.experts = 3, .features = 20}, rng), execution) == 0);
  CHECK(combining_allocations(SetAttention<float>({.experts = 3, .features = 20, .layers = 2, .heads = 4}, rng),
                              execution) == 0);
  CHECK(any_linear_allocations(routed(execution)) == 0);
}

template <class Allocate>
bool seen(Allocate allocate) {
  const AllocationCount count;
  allocate();
  return count.found() > 0;
}

/// Keep the compiler from leaving out an allocation.
volatile std::size_t some = 100;
void* volatile taken = nullptr;

void release(void* memory) {
  taken = memory;
  std::free(memory);
}

}  // namespace

TEST_CASE("The count sees every way to the heap", "[allocation]") {
  CHECK(seen([] { std::vector<float> numbers(some); }));
  CHECK(seen([] { std::pmr::vector<float> numbers(some); }));
  CHECK(seen([] {
    const std::unique_ptr<float[]> numbers(new float[some]);
    taken = numbers.get();
  }));
  CHECK(seen([] {
    const std::unique_ptr<float> number(new (std::nothrow) float(0));
    taken = number.get();
  }));
  struct alignas(128) Wide {
    char bytes[128];
  };
  CHECK(seen([] { std::vector<Wide> wide(some); }));
  CHECK(seen([] { release(std::malloc(some)); }));
  CHECK(seen([] { release(std::calloc(some, 2)); }));
  CHECK(seen([] { release(std::realloc(nullptr, some)); }));
  CHECK(seen([] { release(std::aligned_alloc(64, 64 * some)); }));
  CHECK(seen([] {
    void* memory = nullptr;
    if (posix_memalign(&memory, 64, some) == 0) std::free(memory);
  }));
  CHECK(seen([] { Eigen::VectorXf numbers(some); }));
  CHECK_FALSE(seen([] { some = some + 1; }));
}

TEST_CASE("Other threads' allocations are counted, too", "[allocation][threads]") {
  const ThreadPool pool(2);
  const AllocationCount count;
  pool.parallel_for(8, [](Index) { std::vector<float> numbers(some); });
  const long found = count.found();
  CHECK(found == 8);
}

TEST_CASE("A training step allocates nothing with Reference", "[allocation]") {
  nothing_allocates(Reference{});
}
TEST_CASE("A training step allocates nothing with Simd", "[allocation]") {
  nothing_allocates(Simd{OneOfThree{Serial{}}});
}
TEST_CASE("A training step allocates nothing with Simd on threads", "[allocation][threads]") {
  nothing_allocates(Simd{OneOfThree{ThreadPool{2}}});
}
TEST_CASE("A training step allocates nothing with Simd on a host's loop", "[allocation]") {
  int calls = 0;
  nothing_allocates(Simd{OneOfThree{HostExecutor(2, [&calls](Index n, const std::function<void(Index)>& f) {
    ++calls;
    for (Index i = 0; i < n; ++i) f(i);
  })}});
  CHECK(calls > 0);
}

TEST_CASE("Routing all layers of a model at once allocates nothing", "[allocation]") {
  Rng rng(1);
  const auto routing =
      xlora<float>({.hidden = in, .layers = 3, .experts = experts, .depth = 2, .width = 40, .k = 2}, rng);
  const Matrix<float> x = random_matrix(tokens, in);
  Matrix<float> d_x(tokens, in);
  auto work = routing.workspace(tokens);
  auto gradients = routing.gradients();
  const AllocationCount count;
  for (std::uint64_t step = 0; step < 3; ++step) {
    routing.route(x, work, {.training = true, .step = step});
    for (Index m = 0; m < 3; ++m) std::ranges::fill(work.d_gate(m), 0.5f);
    routing.route_backward(x, d_x, gradients, work);
  }
  CHECK(count.found() == 0);
}

TEST_CASE("Eigen's routed primitives allocate nothing, whatever their width", "[allocation]") {
  TestRng rng;
  for (Index width : {Index(33), Index(50'000)}) {  // 200 kB: more than Eigen takes from the stack
    const RoutedCase<float> c(RankBlocks::uniform(4, 8), random_routing<float>(Spread::random_pairs, 9, 4, rng), width,
                              width, 0, rng);
    RoutedResults<float> results(c, 0, rng);
    const AllocationCount count;
    results.compute(ThroughEigen{}, c);
    const long found = count.found();  // before Catch takes memory of its own
    CAPTURE(width);
    CHECK(found == 0);
  }
}

TEST_CASE("An optimizer's first step allocates, and says so", "[allocation]") {
  auto layer = routed(Reference{});
  auto gradients = layer.gradients();
  AdamW<float> adamw;
  CHECK(seen([&] { adamw.step(layer, gradients); }));
  CHECK_FALSE(seen([&] { adamw.step(layer, gradients); }));
}

TEST_CASE("Serving a batch of many adapters allocates nothing, whatever generation is new", "[allocation][threads]") {
  TestRng rng;
  AdapterTable<float> table({.sites = {{in, out}}, .max_rank = 100});
  const auto adapter = [&](Index rank) {
    return ServedAdapter<float>(Adapter<float>{random_matrix(rank, in), random_matrix(rank, out)});
  };
  for (int id = 0; id < 60; ++id) table.add(id, adapter(id % 9 == 8 ? 100 : id % 9));
  std::vector<int> ids;
  for (Index n = 0; n < tokens; ++n) ids.push_back(int(rng() % 61) - 1);
  const Matrix<float> x = random_matrix(tokens, in);
  Matrix<float> y(tokens, out);
  const auto check = [&](auto execution) {
    const MultiAdapterLinear layer(PackedBase(random_matrix(out, in)), 0, execution);
    auto work = layer.workspace(tokens);
    AdapterBatch<float> batch(tokens);
    for (int swap = 0; swap < 3; ++swap) {
      table.replace(swap, adapter(7));
      const AllocationCount count;
      layer.forward(x, table, ids, y, work);
      batch.begin(table, ids);
      layer.forward(x, batch, y, work);
      batch.end();
      const long found = count.found();
      CHECK(found == 0);
    }
  };
  check(Reference{});
  check(Simd{OneOfThree{Serial{}}});
  check(Simd{OneOfThree{ThreadPool{2}}});
}
