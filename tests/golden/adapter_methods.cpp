// SPDX-License-Identifier: MIT
// One adapter for every token, from factors of other kinds than two trained matrices: loha, lokr, vera, nola,
// adalora, mos, vblora, randlora,
// dora, mtl-lora, oft.
#include "golden/methods.hpp"
#include "golden/routed_layers.hpp"
#include "mole/loss/orthogonality.hpp"
#include "mole/optim/rank_allocator.hpp"

#include <array>
#include <memory>

namespace golden {
namespace {

/// y, what expect_gradients(gradients) compares, and the update that the layer is worth.
template <class T, class Layer, class ExpectGradients>
void expect_adapter(Comparison<T>& file, Layer& layer, ExpectGradients expect_gradients) {
  auto work = layer.workspace(file.matrix("x").rows());
  expect_layer(file, layer, work, {}, "", expect_gradients);
  Matrix<T> delta(layer.out(), layer.in());
  merge_into(layer, delta.view());
  file.expect_optional("delta_weight", delta);
}

/// The tensors that a file has as [out x r].
template <class T>
Matrix<T> rank_major(const Comparison<T>& file, const std::string& name) {
  return transposed(file.matrix(name));
}

/// The matrices [rows x cols] of a stack, each turned if the library has them the other way round.
template <class T>
Matrix<T> stack_of(const Matrix<T>& stack, Index rows, bool turned) {
  Matrix<T> result(stack.rows(), stack.cols());
  const Index cols = stack.cols() / rows;
  for (Index j = 0; j < stack.rows(); ++j)
    for (Index r = 0; r < rows; ++r)
      for (Index c = 0; c < cols; ++c) result(j, turned ? c * rows + r : r * cols + c) = stack(j, r * cols + c);
  return result;
}

Method loha() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const Index in = file.matrix("hada_w1_b").cols(), out = file.matrix("hada_w1_a").rows();
    with_base(file, in, out, [&](auto base) {
      mole::Rng rng;
      const Index rank = file.matrix("hada_w1_b").rows();
      auto layer = mole::loha({.rank = rank, .alpha = file.number("alpha")}, std::move(base), rng, execution);
      expect_sizes(file, layer.experts(), rank);
      layer.experts().scale()[0] = T(file.number("scaling_used"));
      layer.experts().parameters() = {rank_major(file, "hada_w1_a"), file.matrix("hada_w1_b"),
                                      rank_major(file, "hada_w2_a"), file.matrix("hada_w2_b")};
      expect_adapter(file, layer, [&](const auto& gradients) {
        file.expect("grad.hada_w1_a", transposed(gradients.experts.hada_w1_a));
        file.expect("grad.hada_w1_b", gradients.experts.hada_w1_b);
        file.expect("grad.hada_w2_a", transposed(gradients.experts.hada_w2_a));
        file.expect("grad.hada_w2_b", gradients.experts.hada_w2_b);
      });
    });
  });
}

/// The tensors that a file may leave out, by the library's name.
template <class T, class Parameters>
void load_tensors(const Comparison<T>& file, Parameters& parameters) {
  Parameters::for_each_tensor(
      [&](std::string_view name, Matrix<T>& tensor) {
        if (file.has(std::string(name))) tensor = file.matrix(std::string(name));
      },
      parameters);
}

Method lokr() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    with_base(file, file.integer("d_in"), file.integer("d_out"), [&](auto base) {
      mole::Rng rng;
      const Index rank = file.integer("rank"), factor = file.integer("decompose_factor");
      if (factor == 0) file.refuse("decompose_factor", "-1, or a factor");
      auto layer = mole::lokr({.rank = rank,
                               .alpha = file.number("alpha"),
                               .factor = std::max<Index>(0, factor),
                               .decompose_both = file.flag("decompose_both")},
                              std::move(base), rng, execution);
      expect_sizes(file, layer.experts(), rank);
      const auto expect_factors = [&](const char* option, const std::array<Index, 2>& found) {
        if (!std::ranges::equal(file.list(option), found)) file.refuse(option, "the factors of the layer");
      };
      expect_factors("factor_in", layer.experts().maps().factors_of_in());
      expect_factors("factor_out", layer.experts().maps().factors_of_out());
      load_tensors(file, layer.experts().parameters());
      expect_adapter(file, layer, [&](auto& gradients) {
        mole::ParametersOf<mole::KroneckerMaps<T>>::for_each_tensor(
            [&](std::string_view name, Matrix<T>& gradient) {
              if (!gradient.empty()) file.expect("grad." + std::string(name), gradient);
            },
            gradients.experts);
      });
    });
  });
}

Method vera() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const auto pair = std::make_shared<const mole::FrozenPair<T>>(
        mole::FrozenPair<T>{file.matrix("vera.A"), rank_major(file, "vera.B")});
    file.expect_option("rank", double(pair->a.rows()));
    with_base(file, file.matrix("x").cols(), file.matrix("y").cols(), [&](auto base) {
      mole::Rng rng;
      auto layer = mole::vera({}, pair, std::move(base), rng, execution);
      file.expect_option("d_out", double(layer.out()));
      layer.experts().parameters() = {file.matrix("vera.lambda_d"), file.matrix("vera.lambda_b")};
      expect_adapter(file, layer, [&](const auto& gradients) {
        file.expect("grad.vera.lambda_d", gradients.experts.lambda_d);
        file.expect("grad.vera.lambda_b", gradients.experts.lambda_b);
      });
    });
  });
}

/// The weights and outputs that a file has merged, too.
Method dora() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const Matrix<T> a = file.matrix("lora_A"), b = rank_major(file, "lora_B"), weight = file.matrix("base.weight");
    mole::Rng rng;
    auto layer =
        mole::dora({.rank = a.rows(), .alpha = file.number("alpha")}, weight.view(), load_base(file), rng, execution);
    const T scale = layer.experts().maps().inner_scale();
    file.expect_option("scaling", double(scale));
    for (const auto& [option, size] : {std::pair{"d_in", a.cols()}, {"d_out", b.cols()}, {"rank", a.rows()}})
      file.expect_option(option, double(size));
    layer.experts().parameters() = {a, b, file.matrix("magnitude")};
    Matrix<T> delta(layer.out(), layer.in()), merged = weight;
    const mole::DenseFactors<T> factors(mole::RankBlocks::uniform(1, a.rows()), {a, b});
    mole::LowRank(factors, {scale}).add_delta(0, 1, delta.view());
    file.expect_optional("delta_weight", delta);
    const Matrix<T> x = load_x(file);
    auto work = layer.workspace(x.rows());
    expect_layer(file, layer, work, {}, "", [&](const auto& gradients) {
      file.expect("grad.lora_A", gradients.experts.lora_A);
      file.expect("grad.lora_B", transposed(gradients.experts.lora_B));
      file.expect("grad.magnitude", gradients.experts.magnitude);
    });
    merge_into(layer, merged.view());
    file.expect_optional("merged.weight", merged);
    if (!file.has("merged.y")) return;
    Matrix<T> y(x.rows(), layer.out());
    execution.linear(x, {.weight = merged, .bias = layer.base().bias()}, y.view());
    file.expect("merged.y", y);
  });
}

/// The rotation that a file has, too, comes from the update of an identity.
Method oft() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const Matrix<T> weight = file.matrix("base.weight"), x = load_x(file);
    mole::Rng rng;
    const mole::OftOptions options{
        .block = file.integer("block"),
        .shared_block = file.flag("block_share"),
        .form = file.flag("cayley_neumann") ? mole::RotationForm::neumann : mole::RotationForm::cayley,
        .terms = file.integer("terms")};
    auto layer = mole::oft(options, weight.view(), load_base(file), rng, execution);
    file.expect_option("d_out", double(layer.out()));
    file.expect_option("blocks", double(layer.in() / options.block));
    layer.experts().parameters() = {file.matrix("oft_R")};
    auto work = layer.workspace(x.rows());
    expect_layer(file, layer, work, {}, "",
                 [&](const auto& gradients) { file.expect("grad.oft_R", gradients.experts.oft_R); });
    Matrix<T> merged = weight, identity(x.cols(), x.cols());
    merge_into(layer, merged.view());
    file.expect_optional("merged.weight", merged);
    for (Index i = 0; i < x.cols(); ++i) identity(i, i) = 1;
    Matrix<T> rotated = identity;
    auto of_identity = mole::oft(options, identity.view(), mole::DenseBase(identity), rng, execution);
    of_identity.experts().parameters() = layer.experts().parameters();
    merge_into(of_identity, rotated.view());
    file.expect_optional("rotation", transposed(rotated));
  });
}

/// Of B [large side x bases x r] the rows of each basis, one basis below the other.
template <class T>
Matrix<T> rows_of_bases(const Matrix<T>& b, Index rank) {
  Matrix<T> rows(b.cols(), b.rows());
  for (Index column = 0; column < b.rows(); ++column)
    for (Index q = 0; q < b.cols(); ++q) rows(q, column) = b(column, q);
  if (rows.rows() % rank != 0) throw std::runtime_error("expected whole bases in randlora.B, found a part of one");
  return rows;
}

Method randlora() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const Index rank = file.integer("rank");
    const Matrix<T> a = file.matrix("randlora.A");
    const auto bases =
        std::make_shared<const mole::DiagonalBases<T>>(a, rows_of_bases(file.matrix("randlora.B"), rank));
    with_base(file, file.matrix("x").cols(), file.matrix("y").cols(), [&](auto base) {
      mole::Rng rng;
      auto layer = mole::randlora(
          {.alpha = file.number("alpha"), .over_root_of_bases = false, .pairing = mole::BasisPairing::flattened}, bases,
          std::move(base), rng, execution);
      expect_sizes(file, layer.experts(), rank);
      file.expect_option("num_bases", double(layer.experts().maps().used_bases()));
      layer.experts().parameters() = {file.matrix("randlora.lambda"), file.matrix("randlora.gamma")};
      expect_adapter(file, layer, [&](const auto& gradients) {
        file.expect("grad.randlora.lambda", gradients.experts.randlora_lambda);
        file.expect("grad.randlora.gamma", gradients.experts.randlora_gamma);
      });
    });
  });
}

/// Both releases, over the bases of the file.
Method nola() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const bool vit = file.text("variant") == "vit";
    const Index in = file.matrix("x").cols(), out = file.integer("d_out"), rank = file.integer("rank");
    typename mole::RandomBasis<T>::Bases bases{stack_of(file.matrix("nola.basis_A"), vit ? in : rank, vit),
                                               stack_of(file.matrix("nola.basis_B"), vit ? rank : out, !vit),
                                               {},
                                               {}};
    if (file.has("nola.offset_A")) bases.offset_a = file.matrix("nola.offset_A");
    if (file.has("nola.offset_B")) bases.offset_b = rank_major(file, "nola.offset_B");
    for (const char* count : {"ka", "num_basis"}) file.expect_option(count, double(bases.a.rows()));
    for (const char* count : {"kb", "num_basis"}) file.expect_option(count, double(bases.b.rows()));
    const double scale = file.number("alpha", 1) / double(rank);
    mole::LowRank experts(mole::RandomBasis<T>({.in = in, .out = out, .rank = rank}, std::move(bases)), {T(scale)});
    expect_sizes(file, experts, rank);
    experts.parameters() = {file.matrix("nola.alpha"), file.matrix("nola.beta")};
    with_base(file, in, out, [&](auto base) {
      auto layer = mole::one_adapter(experts, std::move(base), execution);
      expect_adapter(file, layer, [&](const auto& gradients) {
        file.expect("grad.nola.alpha", gradients.experts.coefficients_A);
        file.expect("grad.nola.beta", gradients.experts.coefficients_B);
      });
    });
  });
}

/// The layers of one pool, whose gradient they add to together.
Method mos() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    using Pool = mole::ShardPool<T>;
    mole::Rng rng;
    const auto pool = std::make_shared<Pool>(typename Pool::Options{.in = file.integer("d_in"),
                                                                    .out = file.integer("d_out"),
                                                                    .layers = file.integer("layers"),
                                                                    .pool_rank = file.integer("pool_rank"),
                                                                    .rank = file.integer("rank"),
                                                                    .private_rank = file.integer("private_rank"),
                                                                    .shards = file.integer("shards_per_vector")},
                                             rng);
    pool->parameters() = {file.matrix("pool_A"), rank_major(file, "pool_B")};
    auto pool_gradients = pool->gradients();
    for (Index j = 0; j < pool->options().layers; ++j) {
      const std::string layer_name = "layers." + std::to_string(j) + ".";
      const auto rows = [&](const char* name) {
        const auto numbers = file.integers(layer_name + name);
        return std::vector<std::int32_t>(numbers.begin(), numbers.end());
      };
      const typename Pool::Table table{rows("index_A"), rows("index_B")};
      const auto drawn = pool->draw(j, rng);  // which rows are shared is random, but not how many, nor the private ones
      const auto own = std::size_t(pool->options().private_rank * pool->options().shards);
      if (!std::equal(drawn.a.end() - std::ptrdiff_t(own), drawn.a.end(), table.a.end() - std::ptrdiff_t(own)))
        throw std::runtime_error("expected the private shards of layer " + std::to_string(j) + ", found others");
      const double scale = file.number("alpha") / double(pool->options().rank);
      const mole::LowRank experts(mole::ShardFactors<T>(pool, {table}), {T(scale)});
      expect_sizes(file, experts, pool->options().rank);
      const auto check = [&](auto base) {
        auto layer = mole::one_adapter(experts, std::move(base), execution);
        const Matrix<T> x = load_x(file, layer_name + "x");
        Matrix<T> y(x.rows(), layer.out()), d_x(x.rows(), layer.in());
        auto work = layer.workspace(x.rows());
        layer.forward(x, y, work);
        file.expect(layer_name + "y", y);
        const auto tables = layer.experts().tables();
        file.expect_optional(layer_name + "lora_A", tables.a);
        file.expect_optional(layer_name + "lora_B", transposed(tables.b));
        if (!file.has(layer_name + "grad_y")) return;
        auto gradients = layer.gradients();
        gradients.experts.pool = &pool_gradients;
        layer.backward(x, file.matrix(layer_name + "grad_y"), d_x, gradients, work);
        file.expect(layer_name + "grad_x", d_x);
      };
      if (!file.has(layer_name + "base.weight")) {
        check(mole::NoBase<T>(experts.in(), experts.out()));
        continue;
      }
      const std::string bias = layer_name + "base.bias";
      check(mole::DenseBase(file.matrix(layer_name + "base.weight"), file.has(bias) ? file.matrix(bias) : Matrix<T>{}));
    }
    file.expect_optional("grad.pool_A", pool_gradients.pool_A);
    file.expect_optional("grad.pool_B", transposed(pool_gradients.pool_B));
  });
}

/// logits [blocks x r x vectors] as [r x blocks x vectors], or back.
template <class T>
Matrix<T> exchanged(const Matrix<T>& logits, Index first, Index second) {
  const Index vectors = logits.size() / (first * second);
  Matrix<T> result(first * second, vectors);
  for (Index i = 0; i < first; ++i)
    for (Index j = 0; j < second; ++j)
      std::copy_n(logits.data() + (i * second + j) * vectors, vectors, result.view().row_data(j * first + i));
  return result;
}

Method vblora() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    using Bank = mole::VectorBank<T>;
    const Index in = file.integer("d_in"), out = file.integer("d_out"), rank = file.integer("rank");
    mole::Rng rng;
    const auto bank = std::make_shared<Bank>(
        typename Bank::Options{.vectors = file.integer("num_vectors"), .length = file.integer("vector_length")}, rng);
    bank->parameters().vectors = file.matrix("vblora.bank");
    const Index length = bank->options().length, vectors = bank->options().vectors, k = file.integer("topk");
    with_base(file, in, out, [&](auto base) {
      auto layer = mole::vblora({.rank = rank, .k = k}, bank, std::move(base), rng, execution);
      file.expect_option("d_out", double(layer.out()));
      const Matrix<T> logits_a = file.matrix("vblora.logits_A");
      Matrix<T> rows_a(rank * (in / length), vectors);
      std::ranges::copy(logits_a.elements(), rows_a.elements().begin());
      layer.experts().parameters() = {rows_a, exchanged(file.matrix("vblora.logits_B"), out / length, rank), nullptr};
      auto work = layer.workspace(file.matrix("x").rows());
      auto bank_gradients = bank->gradients();
      const Matrix<T> x = load_x(file);
      Matrix<T> y(x.rows(), layer.out()), d_x(x.rows(), layer.in());
      layer.forward(x, y, work);
      file.expect("y", y);
      const auto tables = layer.experts().tables();
      file.expect_optional("lora_A", tables.a);
      file.expect_optional("lora_B", transposed(tables.b));
      const auto chosen_of = [](const Matrix<int>& chosen) {
        return std::vector<std::int64_t>(chosen.elements().begin(), chosen.elements().end());
      };
      const auto& scratch = work.experts_scratch.factors;
      Matrix<int> chosen_a(rank * (in / length), k), chosen_b(rank * (out / length), k);
      copy(View<const int>(scratch.chosen_a), chosen_a.view()),
          copy(View<const int>(scratch.chosen_b), chosen_b.view());
      file.expect_optional("gate.indices_A", chosen_of(chosen_a));
      file.expect_optional("gate.indices_B", chosen_of(exchanged(chosen_b, rank, out / length)));
      if (!file.has("grad_y")) return;
      auto gradients = layer.gradients();
      gradients.experts.bank = &bank_gradients;
      layer.backward(x, file.matrix("grad_y"), d_x, gradients, work);
      file.expect("grad_x", d_x);
      file.expect("grad.vblora.logits_A",
                  View<const T>(gradients.experts.logits_A.data(), rank, in / length * vectors));
      const Matrix<T> d_b = exchanged(gradients.experts.logits_B, rank, out / length);
      file.expect("grad.vblora.logits_B", View<const T>(d_b.data(), out / length, rank * vectors));
      file.expect("grad.vblora.bank", bank_gradients.vectors);
    });
  });
}

/// The same numbers in rows of another length.
template <class T>
Matrix<T> in_rows_of(const Matrix<T>& numbers, Index columns) {
  if (numbers.size() % columns != 0) throw std::runtime_error("expected whole rows, found a part of one");
  Matrix<T> result(numbers.size() / columns, columns);
  std::ranges::copy(numbers.elements(), result.elements().begin());
  return result;
}

/// Tokens of a sequence have its task.
Method mtl_lora() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const Matrix<T> x = load_x(file), a = file.matrix("lora_A");
    const Index rank = a.rows(), up_matrices = file.matrix("lora_B").rows(), tasks = file.integer("tasks");
    with_base(file, x.cols(), file.integer("d_out"), [&](auto base) {
      mole::Rng rng;
      auto layer = mole::mtl_lora({.tasks = tasks,
                                   .rank = rank,
                                   .up_matrices = up_matrices,
                                   .alpha = file.number("alpha"),
                                   .temperature = file.number("temperature"),
                                   .diagonal = file.flag("diagonal")},
                                  std::move(base), rng, execution);
      expect_sizes(file, layer.experts(), rank);
      file.expect_option("up_matrices", double(up_matrices));
      auto& parameters = layer.experts().parameters();
      parameters.lora_A = a;
      parameters.lora_lambda = in_rows_of(file.matrix("lora_lambda"), rank);
      parameters.lora_B = in_rows_of(stack_of(file.matrix("lora_B"), layer.out(), true), layer.out());
      parameters.lora_B_weights = file.matrix("lora_B_weights");
      std::vector<int> task_of_token;
      const auto of_sequence = file.integers("task_ids");
      for (Index n = 0; n < x.rows(); ++n)
        task_of_token.push_back(int(of_sequence[std::size_t(n * Index(of_sequence.size()) / x.rows())]));
      const auto routing = mole::Routing<T>::from_labels(task_of_token, tasks);
      Matrix<T> y(x.rows(), layer.out()), d_x(x.rows(), x.cols());
      auto work = layer.workspace(x.rows());
      layer.apply(x, routing, y, work);
      file.expect("y", y);
      if (!file.has("grad_y")) return;
      auto gradients = layer.gradients();
      layer.apply_backward(x, routing, file.matrix("grad_y"), {}, d_x, gradients, work);
      const auto& d = gradients.experts;
      file.expect("grad_x", d_x);
      file.expect("grad.lora_A", d.lora_A);
      file.expect("grad.lora_lambda", in_rows_of(d.lora_lambda, d.lora_lambda.size() / tasks));
      file.expect("grad.lora_B_weights", d.lora_B_weights);
      file.expect("grad.lora_B", stack_of(in_rows_of(d.lora_B, rank * layer.out()), rank, true));
    });
  });
}

template <class T>
auto triplets_of(Comparison<T>& file, const std::string& prefix, const std::string& e) {
  return typename mole::TripletFactors<T>::Parameters{
      file.matrix(prefix + "lora_A"), rank_major(file, prefix + "lora_B"), transposed(file.matrix(prefix + e))};
}

Method adalora() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const auto triplets = triplets_of(file, "", "lora_E");
    with_base(file, triplets.lora_A.cols(), triplets.lora_B.cols(), [&](auto base) {
      mole::Rng rng;
      const Index rank = triplets.lora_A.rows();
      const double alpha = file.number("alpha");  // the release takes the rank for an alpha of 0 or less
      auto layer =
          mole::adalora({.rank = rank, .alpha = alpha > 0 ? alpha : double(rank)}, std::move(base), rng, execution);
      expect_sizes(file, layer.experts(), rank);
      layer.experts().parameters() = triplets;
      const auto expect_gradients = [&](const std::string& prefix, const auto& gradients) {
        file.expect_gradient(prefix + "lora_A", gradients.lora_A);
        file.expect_gradient(prefix + "lora_B", transposed(gradients.lora_B));
        file.expect_gradient(prefix + "lora_E", transposed(gradients.lora_E));
      };
      expect_adapter(file, layer, [&](const auto& gradients) { expect_gradients("grad.", gradients.experts); });
      if (!file.has("loss.orthogonality")) return;
      auto gradients = zeros_like(triplets);
      file.expect_number("loss.orthogonality",
                         orthogonality(layer.experts().blocks(), triplets, gradients, {.coefficient = 1}));
      file.expect("grad_loss.orthogonality.lora_A", gradients.lora_A);
      file.expect("grad_loss.orthogonality.lora_B", transposed(gradients.lora_B));
    });
  });
}

/// The schedule, over layers whose gradients are given.
template <class T>
void check_allocator(Comparison<T>& file) {
  using Triplets = typename mole::TripletFactors<T>::Parameters;
  const auto prefix = [](std::size_t layer) { return "layers." + std::to_string(layer) + "."; };
  std::vector<Triplets> layers;
  while (file.has(prefix(layers.size()) + "lora_A"))
    layers.push_back(triplets_of(file, prefix(layers.size()), "lora_E.initial"));
  const Index rank = layers[0].lora_A.rows(), steps = file.integer("total_step");
  file.expect_option("rank", double(rank));
  file.ignore_option("shapes");
  std::vector<const Triplets*> sizes;
  for (const Triplets& layer : layers) sizes.push_back(&layer);
  mole::RankAllocator<Triplets> allocator({.target = file.integer("target_r") * Index(layers.size()),
                                           .steps = steps,
                                           .warmup = file.integer("tinit"),
                                           .settling = file.integer("tfinal"),
                                           .interval = file.integer("deltaT"),
                                           .beta1 = file.number("beta1"),
                                           .beta2 = file.number("beta2")},
                                          sizes);
  std::vector<std::int64_t> budgets, masked;
  for (Index n = 1; n <= steps; ++n) {
    const std::string step = "." + std::to_string(n);
    std::vector<Triplets> gradients;
    for (std::size_t l = 0; l < layers.size(); ++l)
      gradients.push_back({file.input(prefix(l) + "grad.lora_A" + step),
                           transposed(file.input(prefix(l) + "grad.lora_B" + step)),
                           transposed(file.input(prefix(l) + "grad.lora_E" + step))});
    std::vector<typename mole::RankAllocator<Triplets>::Layer> both;
    for (std::size_t l = 0; l < layers.size(); ++l) {
      for (std::size_t i = 0; i < std::size_t(rank); ++i)  // the stand-in for an optimizer that the file has
        layers[l].lora_E.elements()[i] -= T(0.05) * gradients[l].lora_E.elements()[i];
      both.push_back({&layers[l], &gradients[l]});
    }
    const auto allocation = allocator.step(both);
    budgets.push_back(allocation.budget), masked.push_back(allocation.set);
    for (std::size_t l = 0; l < layers.size(); ++l)
      file.expect(prefix(l) + "lora_E" + step, transposed(layers[l].lora_E));
  }
  file.expect_optional("budget", budgets);
  file.expect_optional("masked", masked);
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const auto expect_averages = [&](const std::string& name, const Triplets& averages) {
      file.expect(prefix(l) + name + ".lora_A", averages.lora_A);
      file.expect(prefix(l) + name + ".lora_B", transposed(averages.lora_B));
      file.expect(prefix(l) + name + ".lora_E", transposed(averages.lora_E));
    };
    expect_averages("importance", allocator.means()[l]);
    expect_averages("uncertainty", allocator.uncertainties()[l]);
  }
}

Method adalora_allocator() {
  const auto check = [](auto& file) {
    file.under("RankAllocator");
    check_allocator(file);
  };
  return {check, check};
}

}  // namespace

std::map<std::string, Method> adapter_methods() {
  return {{"loha", loha()},         {"lokr", lokr()},         {"vera", vera()},
          {"oft", oft()},           {"mtl-lora", mtl_lora()}, {"dora", dora()},
          {"randlora", randlora()}, {"nola", nola()},         {"mos", mos()},
          {"vblora", vblora()},     {"adalora", adalora()},   {"adalora-allocator", adalora_allocator()}};
}

}  // namespace golden
