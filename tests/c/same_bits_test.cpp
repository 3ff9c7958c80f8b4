// SPDX-License-Identifier: MIT
// Each preset through the boundary for C has the bits that it has in C++; files go both ways; threads share a layer.
#include "mole/c/mole.h"
#include "mole/io/checkpoint.hpp"
#include "mole/mole.hpp"

#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

using namespace mole;

namespace {

int failures = 0;

void check(bool holds, const std::string& what) {
  if (holds) return;
  ++failures;
  std::printf("same_bits_test: %s: %s\n", what.c_str(), mole_last_error());
}
void ok(mole_status status, const std::string& what) {
  check(status == MOLE_OK, what);
}

static_assert(int(ErrorCode::shape) == MOLE_SHAPE && int(ErrorCode::option) == MOLE_OPTION);
static_assert(int(ErrorCode::file) == MOLE_FILE && int(ErrorCode::capacity) == MOLE_CAPACITY);
static_assert(int(ErrorCode::not_mergeable) == MOLE_NOT_MERGEABLE);
static_assert(int(ErrorCode::not_trainable) == MOLE_NOT_TRAINABLE && int(ErrorCode::order) == MOLE_ORDER);
static_assert(int(ErrorCode::unknown_id) == MOLE_UNKNOWN_ID && int(ErrorCode::duplicate_id) == MOLE_DUPLICATE_ID);

constexpr Index in = 16, out = 12, tokens = 7;

Matrix<float> random(Index rows, Index cols, std::uint64_t seed, double bound = 1) {
  Matrix<float> matrix(rows, cols);
  Rng rng(seed);
  fill_uniform(matrix.view(), bound, rng);
  return matrix;
}
bool same(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

const Matrix<float> weight = random(out, in, 1), bias = random(1, out, 2), x = random(tokens, in, 3),
                    d_y = random(tokens, out, 4);
constexpr Index hidden = 10;  // of blocks, whose gate and down have the first numbers of `weight`
const Matrix<float> other_weight = random(hidden, in, 9);
const std::vector<int> tasks = {0, 1, 1, 0, 0, 1, 0};

struct Through {
  explicit Through(const char* preset, const std::string& options = "") {
    const mole_weight host{.data = weight.data(),
                           .out = out,
                           .in = in,
                           .layout = MOLE_OUT_IN,
                           .stride = 0,
                           .bias = bias.data(),
                           .pack = 0};
    if (mole_preset_is_block(preset) == 0) {
      ok(mole_layer_create(preset, options.c_str(), &host, &layer), preset);
      return;
    }
    mole_weight gate = host, up = host, down = host;
    gate.bias = up.bias = nullptr, gate.out = up.out = hidden, down.in = hidden;
    up.data = other_weight.data();
    ok(mole_layer_create_block(preset, options.c_str(), &gate, &up, &down, &layer), preset);
  }
  Through(const Through&) = delete;
  ~Through() { mole_layer_destroy(layer); }
  std::vector<float> parameters() const {
    std::vector<float> all(std::size_t(mole_layer_size(layer)));
    ok(mole_layer_get_parameters(layer, all.data(), Index(all.size())), "parameters");
    return all;
  }
  mole_layer* layer = nullptr;
};

/// All of a walk, one tensor behind the other; those that are empty, frozen gradients, as 0.
template <class Layer, class... Gradients>
std::vector<float> numbers_of(Layer& layer, Gradients&... gradients) {
  std::vector<float> all;
  layer.for_each_tensor(
      [&](std::string_view, View<float> parameter, auto... gradient) {
        const auto views = std::tuple(parameter, gradient...);
        const View<float> last = std::get<sizeof...(gradient)>(views);
        for (Index r = 0; r < parameter.rows(); ++r)
          for (Index c = 0; c < parameter.cols(); ++c) all.push_back(last ? last(r, c) : 0.0f);
      },
      gradients...);
  return all;
}

/// `make`(base, generator) in C++ against the preset of this name and text.
template <class Make>
void compare(const char* preset, const std::string& options, Make make, bool forces_tasks = false,
             TrainableParts trainable = {}) {
  const std::string who = std::string(preset) + " of " + options;
  const Through c(preset, options + " seed=5");
  if (c.layer == nullptr) return;
  Rng rng(5);
  auto layer = make(DenseBase(weight, bias.elements()), rng);
  check(same(numbers_of(layer), c.parameters()), who + ": other numbers at the start");

  const auto size = std::size_t(mole_layer_size(c.layer));
  const Matrix<float> numbers = random(1, Index(size), 6, 0.5);
  const float* next = numbers.data();
  layer.for_each_tensor([&](std::string_view, View<float> tensor) {
    for (Index r = 0; r < tensor.rows(); ++r, next += tensor.cols())
      std::copy_n(next, tensor.cols(), tensor.row_data(r));
  });
  ok(mole_layer_set_parameters(c.layer, numbers.data(), Index(size)), who);

  mole_workspace* c_work = nullptr;
  ok(mole_workspace_create(c.layer, tokens, &c_work), who);
  auto work = layer.workspace(tokens);
  auto gradients = layer.gradients(trainable);
  for (const bool training : {false, true}) {
    Pass pass{.training = training, .seed = 8, .layer = 2, .step = 3, .first_token = 4, .labels = tasks};
    if (forces_tasks) pass.forced = tasks;
    mole_pass c_pass{};
    c_pass.training = training, c_pass.seed = 8, c_pass.layer = 2, c_pass.step = 3, c_pass.first_token = 4,
    c_pass.labels = tasks.data();
    if (forces_tasks) c_pass.forced = tasks.data();

    Matrix<float> y(tokens, out), d_x(tokens, in), c_y(tokens, out), c_d_x(tokens, in);
    layer.forward(x, y, work, pass);
    ok(mole_forward(c.layer, x.data(), c_y.data(), tokens, &c_pass, c_work), who);
    layer.backward(x, d_y, d_x, gradients, work);
    ok(mole_backward(c.layer, x.data(), d_y.data(), c_d_x.data(), tokens, c_work), who);
    check(same(y.elements(), c_y.elements()), who + ": another y");
    check(same(d_x.elements(), c_d_x.elements()), who + ": another d_x");
    std::vector<float> c_gradients(size);
    ok(mole_layer_get_gradients(c.layer, c_gradients.data(), Index(size)), who);
    check(same(numbers_of(layer, gradients), c_gradients), who + ": other gradients");
  }
  mole_workspace_destroy(c_work);
}

void compare_blocks() {
  compare("mixlora", "experts=3 k=2 rank=2 alpha=3 scaling=fixed dropout=0.2 router_deviation=0.5", [](auto, Rng& rng) {
    return mixlora({.experts = 3,
                    .k = 2,
                    .rank = 2,
                    .alpha = 3,
                    .scaling = Scaling::fixed,
                    .dropout = 0.2,
                    .router_deviation = 0.5},
                   DenseBase(View<const float>(weight.data(), hidden, in)), DenseBase(other_weight),
                   DenseBase(View<const float>(weight.data(), out, hidden), bias.elements()), rng);
  });
}

void compare_lora_mixtures() {
  compare("arrow", "experts=4 rank=3 k=2 alpha=5 scaling=fixed dropout=0.2 temperature=0.5",
          [](auto base, Rng& rng) {
            LowRank<DenseFactors<float>> experts({.in = in,
                                                  .out = out,
                                                  .experts = 4,
                                                  .rank = 3,
                                                  .alpha = 5,
                                                  .scaling = Scaling::fixed,
                                                  .dropout = {.rate = 0.2, .stream = 1}},
                                                 rng);
            return arrow({.k = 2, .temperature = 0.5}, std::move(experts), base);
          },
          false, {.router = false});
  compare("lora", "rank=3 alpha=5 scaling=alpha_over_sqrt_rank dropout=0.2", [](auto base, Rng& rng) {
    return lora({.rank = 3, .alpha = 5, .scaling = Scaling::alpha_over_sqrt_rank, .dropout = 0.2}, base, rng);
  });
  compare("mola", "experts=4 rank=3 k=3 alpha=5 scaling=fixed dropout=0.2", [](auto base, Rng& rng) {
    return mola({.experts = 4, .rank = 3, .k = 3, .alpha = 5, .scaling = Scaling::fixed, .dropout = 0.2}, base, rng);
  });
  compare("goat", "experts=4 total_rank=8 k=1 scale=two alpha=3 eta=2", [](auto base, Rng& rng) {
    return goat({.experts = 4, .total_rank = 8, .k = 1, .scale = GoatScale::two, .alpha = 3, .eta = 2}, base, rng);
  });
  compare("noisy_top_k", "experts=5 k=2 floor=0.01",
          [](auto base, Rng& rng) { return noisy_top_k({.experts = 5, .k = 2, .floor = 0.01}, base, rng); });
  compare("loramoe", "experts=3 shared_down=1",
          [](auto base, Rng& rng) { return loramoe({.experts = 3, .shared_down = true}, base, rng); });
  compare("llava_mole", "rank=4", [](auto base, Rng& rng) { return llava_mole({.rank = 4}, base, rng); });
  compare("dynamic_moe", "experts=6 p=0.6 strict=0",
          [](auto base, Rng& rng) { return dynamic_moe({.experts = 6, .p = 0.6, .strict = false}, base, rng); });
  compare("mole_threshold", "threshold=0.2",
          [](auto base, Rng& rng) { return mole_threshold({.threshold = 0.2}, base, rng); });
  compare("dyn_mole",
          "rank=2 p=0.5 keep_top_k=1 entropy_threshold=0.8 entropy=renyi entropy_order=2 entropy_shift=0.001 "
          "entropy_offset=0.002",
          [](auto base, Rng& rng) {
            return dyn_mole({.rank = 2,
                             .p = 0.5,
                             .keep_top_k = 1,
                             .entropy_threshold = 0.8,
                             .entropy{.family = EntropyFamily::renyi, .order = 2, .shift = 0.001, .offset = 0.002}},
                            base, rng);
          });
  compare("ada_mole", "max_threshold=0.3",
          [](auto base, Rng& rng) { return ada_mole({.max_threshold = 0.3}, base, rng); });
  compare("ld_mole", "hidden=9 epsilon=0.1",
          [](auto base, Rng& rng) { return ld_mole({.hidden = 9, .epsilon = 0.1}, base, rng); });
  compare("deepseek_moe", "experts=9 shared=1 k=2",
          [](auto base, Rng& rng) { return deepseek_moe({.experts = 9, .shared = 1, .k = 2}, base, rng); });
  compare("deepseek_moe", "gates=renormalized experts=9 k=3", [](auto base, Rng& rng) {
    return deepseek_moe<DeepseekMoeGates::renormalized>({.experts = 9, .k = 3}, base, rng);
  });
  compare("deepseek_v3", "experts=9 k=3 groups=4 kept_groups=2 route_scale=1.5", [](auto base, Rng& rng) {
    return deepseek_v3({.experts = 9, .k = 3, .groups = 4, .kept_groups = 2, .route_scale = 1.5}, base, rng);
  });
  compare("switch_transformer",
          "experts=3 capacity_factor=1.5 capacity_min=2 capacity_multiple=2 capacity_priority=batch "
          "capacity_rounding=up per_sequence=1",
          [](auto base, Rng& rng) {
            return switch_transformer({.experts = 3,
                                       .capacity = {.factor = 1.5,
                                                    .min = 2,
                                                    .multiple = 2,
                                                    .priority = CapacityPriority::batch,
                                                    .rounding = CapacityRounding::up,
                                                    .per_sequence = true}},
                                      base, rng);
          });
  compare("expert_choice", "experts=4 factor=1 per_sequence=1", [](auto base, Rng& rng) {
    return expert_choice({.experts = 4, .factor = 1, .per_sequence = true}, base, rng);
  });
  compare("promoe", "experts=6 shared=2 k=2",
          [](auto base, Rng& rng) { return promoe({.experts = 6, .shared = 2, .k = 2}, base, rng); });
  compare("moelora", "experts=4 tasks=3 task_width=5 total_rank=8", [](auto base, Rng& rng) {
    return moelora({.experts = 4, .tasks = 3, .task_width = 5, .total_rank = 8}, base, rng);
  });
}

/// As the boundary makes it of a layer that has no router.
auto by_task(auto layer, const auto& base) {
  return MixtureLinear(NoRouter<float>(layer.experts().experts()), Gate{Identity{}, TopK{.k = 1}, Unit{}},
                       layer.experts(), base);
}

void compare_single_adapters() {
  compare("sora", "rank=4 start=ones",
          [](auto base, Rng& rng) { return sora({.rank = 4, .start = GateStart::ones}, base, rng); });
  compare("codyra", "rank=4 start=ones",
          [](auto base, Rng& rng) { return codyra({.rank = 4, .start = GateStart::ones}, base, rng); });
  compare("adalora", "rank=5 alpha=3", [](auto base, Rng& rng) { return adalora({.rank = 5, .alpha = 3}, base, rng); });
  compare("loha", "rank=3", [](auto base, Rng& rng) { return loha({.rank = 3}, base, rng); });
  compare("lokr", "rank=1 factor=2 decompose_both=1",
          [](auto base, Rng& rng) { return lokr({.rank = 1, .factor = 2, .decompose_both = true}, base, rng); });
  compare("dora", "rank=3 exact_norm=1",
          [](auto base, Rng& rng) { return dora({.rank = 3, .exact_norm = true}, weight.view(), base, rng); });
  compare("oft", "block=8 shared_block=1 form=cayley terms=3", [](auto base, Rng& rng) {
    return oft({.block = 8, .shared_block = true, .form = RotationForm::cayley, .terms = 3}, weight.view(), base, rng);
  });
  compare("vera", "rank=6 widest_in=20 widest_out=30 pair_seed=9 start=0.2", [](auto base, Rng& rng) {
    Rng of_pair(9);
    return vera({.start = 0.2}, FrozenPair<float>::random(6, 20, 30, of_pair), base, rng);
  });
  compare("randlora",
          "rank=4 largest_small_side=14 largest_large_side=20 distribution=ternary keep=0 basis_seed=9 alpha=8 "
          "over_root_of_bases=0 pairing=flattened",
          [](auto base, Rng& rng) {
            return randlora({.alpha = 8, .over_root_of_bases = false, .pairing = BasisPairing::flattened},
                            std::make_shared<const DiagonalBases<float>>(
                                DiagonalBases<float>::Options{.rank = 4,
                                                              .small_side = 14,
                                                              .large_side = 20,
                                                              .distribution = BasisDistribution::ternary,
                                                              .keep = false,
                                                              .seed = 9}),
                            base, rng);
          });
  compare("nola", "rank=2 bases=6 variant=vit basis_seed=9 keep=1", [](auto base, Rng& rng) {
    return nola({.rank = 2, .bases = 6, .variant = NolaVariant::vit, .seed = 9, .keep = true}, base, rng);
  });
  compare(
      "poly", "tasks=3 skills=5 splits=2 rank=2 relaxed=0",
      [](auto base, Rng& rng) {
        return by_task(poly({.tasks = 3, .skills = 5, .splits = 2, .rank = 2, .relaxed = false}, base, rng), base);
      },
      true);
  compare(
      "mtl_lora", "tasks=2 rank=3 up_matrices=2 temperature=0.5 diagonal=1",
      [](auto base, Rng& rng) {
        return by_task(
            mtl_lora({.tasks = 2, .rank = 3, .up_matrices = 2, .temperature = 0.5, .diagonal = true}, base, rng), base);
      },
      true);
}

void compare_other_experts() {
  compare("smora", "rank=12 k=3 rank_partition=2",
          [](auto base, Rng& rng) { return smora({.rank = 12, .k = 3, .rank_partition = 2}, base, rng); });
  compare("flylora", "rank=12 k=3 nonzeros=5 select=signed_value detached=1", [](auto base, Rng& rng) {
    return flylora({.rank = 12, .k = 3, .nonzeros = 5, .select = FlySelect::signed_value, .detached = true}, base, rng);
  });
  compare("moram", "ranks=6:4 k=3 temperature=0.5 min_score=0.1 eps=1e-6", [](auto base, Rng& rng) {
    return moram({.ranks = {6, 4}, .k = 3, .temperature = 0.5, .min_score = 0.1, .eps = 1e-6}, base, rng);
  });
  compare("compressed_experts", "experts=5 main=1 auxiliary=3",
          [](auto base, Rng& rng) { return compressed_experts({.experts = 5, .main = 1, .auxiliary = 3}, base, rng); });
  compare("compressed_experts", "experts=5 gates=renormalized", [](auto base, Rng& rng) {
    return compressed_experts<CompressedGates::renormalized>({.experts = 5}, base, rng);
  });
  compare("mofme", "experts=3 form=diagonal residual=1", [](auto base, Rng& rng) {
    return mofme({.experts = 3, .form = ModulationForm::diagonal, .residual = true}, base, rng);
  });
  compare("mofme", "experts=3 gates=raw form=low_rank rank=2 random=1", [](auto base, Rng& rng) {
    return mofme<MofmeGates::raw>({.experts = 3, .form = ModulationForm::low_rank, .rank = 2, .random = true}, base,
                                  rng);
  });
  compare("mofme_uar", "experts=3 form=vector samples=3 dropout=0.2 full_gradient=1", [](auto base, Rng& rng) {
    return mofme_uar(
        {.mofme = {.experts = 3, .form = ModulationForm::vector}, .samples = 3, .dropout = 0.2, .full_gradient = true},
        base, rng);
  });
  compare("prompt_bank", "entries=4 k=2 temperature=0.5 deviation=0.3", [](auto, Rng& rng) {
    return prompt_bank<float>({.in = in, .entries = 4, .prompt = out, .k = 2, .temperature = 0.5, .deviation = 0.3},
                              rng);
  });
}

/// A layer and the pool that it alone uses, as one.
template <class Layer, class Pool, class Point>
struct WithPool {
  Layer layer;
  std::shared_ptr<Pool> pool;
  Point point;  ///< of the layer's gradients to those of the pool
  typename Pool::Parameters pool_gradients = pool->gradients();

  auto workspace(Index max_tokens) const { return layer.workspace(max_tokens); }
  auto gradients(TrainableParts trainable) {
    auto own = layer.gradients(trainable);
    point(own) = &pool_gradients;
    return own;
  }
  void forward(const auto& x_, auto& y, auto& work, const Pass& pass) const { layer.forward(x_, y, work, pass); }
  void backward(const auto& x_, const auto& d_y_, auto& d_x, auto& own, auto& work) const {
    layer.backward(x_, d_y_, d_x, own, work);
  }
  void for_each_tensor(auto&& f) {
    layer.for_each_tensor(f);
    pool->for_each_tensor(f);
  }
  void for_each_tensor(auto&& f, auto& own) {
    layer.for_each_tensor(f, own);
    pool->for_each_tensor(f, pool_gradients);
  }
};
template <class Layer, class Pool, class Point>
WithPool(Layer, std::shared_ptr<Pool>, Point) -> WithPool<Layer, Pool, Point>;

void compare_shared_pools() {
  compare("diffora", "layers=2 modules=3 relaxation=sigmoid layer=1 module=2 rank=3 alpha=5 dropout=0.2",
          [](auto base, Rng& rng) {
    auto gates = std::make_shared<ModuleGates<float>>(
        ModuleGates<float>::Options{.layers = 2, .modules = 3, .relaxation = ModuleRelaxation::sigmoid});
    return WithPool{diffora({.layer = 1, .module = 2, .rank = 3, .alpha = 5, .dropout = 0.2},
                            std::shared_ptr<const ModuleGates<float>>(gates), base, rng),
                    gates, [](auto& own) -> auto& {return own.router.gates; }
};
});
  compare("mos", "layers=3 layer=1 pool_rank=4 rank=5 private_rank=2 shards=2 alpha=3 dropout=0.2",
          [](auto base, Rng& rng) {
  const ShardPool<float>::Options options{
      .in = in, .out = out, .layers = 3, .pool_rank = 4, .rank = 5, .private_rank = 2, .shards = 2};
  auto pool = std::make_shared<ShardPool<float>>(options, rng);
  return WithPool{mos({.layer = 1, .alpha = 3, .dropout = 0.2}, pool, base, rng), pool,
                  [](auto& own) -> auto& {return own.experts.pool; }
  }
  ;
  });
  compare("vblora", "vectors=9 length=4 bound=0.5 rank=3 k=3 deviation=0.2 dropout=0.2", [](auto base, Rng& rng) {
  auto bank =
      std::make_shared<VectorBank<float>>(VectorBank<float>::Options{.vectors = 9, .length = 4, .bound = 0.5}, rng);
  return WithPool{vblora({.rank = 3, .k = 3, .deviation = 0.2, .dropout = 0.2}, bank, base, rng), bank,
                  [](auto& own) -> auto& {return own.experts.bank; }
  }
  ;
  });
  }

  /// What C saves, C++ reads, and the other way round.
  void exchange_files() {
    const char* const path = "same_bits_test.safetensors";
    Rng rng(12);
    auto layer = mola({.experts = 3, .rank = 2}, DenseBase(weight, bias.elements()), rng);
    const Through c("mola", "experts=3 rank=2 seed=5");
    const std::vector<float> before = c.parameters();
    ok(mole_layer_save(c.layer, path), "save");
    const CheckpointReader reader(path);
    reader.read_layer("layer", layer);
    check(same(numbers_of(layer), before), "a file of C gives C++ other numbers");
    check(reader.text("preset") == "mola" && reader.text("options").starts_with("experts=3 rank=2 "),
          "texts of a file");

    layer.router().parameters().weight = random(3, in, 13);
    CheckpointWriter writer;
    writer.add_layer("layer", layer);
    writer.write(path);
    ok(mole_layer_load(c.layer, path), "load");
    check(same(numbers_of(layer), c.parameters()), "a file of C++ gives C other numbers");
    std::remove(path);
  }

  /// Threads with a workspace and gradients each get what one gets alone.
  void share_a_layer() {
    const Through c("mola", "experts=4 rank=3 dropout=0");
    const auto size = std::size_t(mole_layer_size(c.layer));
    const auto train = [&](std::vector<float>& y) {
      mole_workspace* work = nullptr;
      mole_gradients* gradients = nullptr;
      mole_status status = mole_workspace_create(c.layer, tokens, &work);
      if (status == MOLE_OK) status = mole_gradients_create(c.layer, &gradients);
      for (int turn = 0; turn < 50 && status == MOLE_OK; ++turn) {
        status = mole_forward(c.layer, x.data(), y.data(), tokens, nullptr, work);
        if (status == MOLE_OK)
          status = mole_backward_into(c.layer, x.data(), d_y.data(), nullptr, tokens, gradients, work);
      }
      // Each thread has a last error of its own.
      if (mole_forward(c.layer, nullptr, y.data(), tokens, nullptr, work) != MOLE_NULL_POINTER) y[0] = -1;
      mole_workspace_destroy(work);
      mole_gradients_destroy(gradients);
      if (status != MOLE_OK) y[0] = -2;
    };
    std::vector<float> alone(std::size_t(tokens * out)), first = alone, second = alone, gradients(size);
    train(alone);
    ok(mole_layer_set_trainable(c.layer, 7, 7), "an error elsewhere");
    std::thread one([&] { train(first); }), other([&] { train(second); });
    one.join(), other.join();
    check(same(alone, first) && same(alone, second), "threads get another y");
  }

  }  // namespace

  int main() {
    compare_lora_mixtures();
    compare_blocks();
    compare_single_adapters();
    compare_other_experts();
    compare_shared_pools();
    exchange_files();
    share_a_layer();
    if (failures > 0) std::printf("%d checks failed\n", failures);
    return failures > 0;
  }
