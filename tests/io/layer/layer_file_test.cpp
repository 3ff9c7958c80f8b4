// SPDX-License-Identifier: MIT
#include "mole/io/layer/layer_file.hpp"

#include "core/error_code.hpp"
#include "io/temporary_folder.hpp"
#include "mole/base/callable_base.hpp"
#include "mole/base/nf4_base.hpp"
#include "mole/gating/score/sigmoid.hpp"
#include "mole/method/dyn_mole.hpp"
#include "mole/method/flylora.hpp"
#include "mole/method/lora.hpp"
#include "mole/method/loramoe.hpp"
#include "mole/method/mixlora.hpp"
#include "mole/method/mola.hpp"
#include "mole/method/smora.hpp"
#include "mole/testing/random_matrix.hpp"
#include "support/catch.hpp"

#include <algorithm>

using namespace mole;
using namespace mole::test;

namespace {

const Matrix<float> weight_of_layers = laws::random_matrix<float>(6, 10, 3);

/// Calls f(method, layer) for a trained layer of each method on `base`.
template <class F>
void for_each_method(const auto& base, F f) {
  Rng rng(7);
  const auto trained = [&](const char* method, auto layer) {
    layer.for_each_tensor([&](std::string_view, auto tensor) { fill_uniform(tensor, 0.5, rng); });
    layer.for_each_state([&]<class U>(std::string_view name, std::span<U> numbers) {
      if constexpr (std::is_same_v<U, float>)
        if (name.ends_with("bias"))
          for (float& number : numbers) number = float(rng() % 16) / 64;
    });
    f(method, layer);
  };
  trained("lora", lora({.rank = 3, .scaling = Scaling::alpha_over_sqrt_rank, .dropout = 0.1}, base, rng));
  trained("mola", mola({.experts = 4, .rank = 2, .k = 3}, base, rng));
  trained("loramoe", loramoe({.experts = 3, .rank = 2}, base, rng));
  trained("loramoe", loramoe({.experts = 3, .rank = 2, .shared_down = true}, base, rng));
  trained("dyn_mole", dyn_mole({.experts = 4,
                                .rank = 2,
                                .p = 0.5,
                                .keep_top_k = 1,
                                .entropy_threshold = 0.8,
                                .entropy = {.family = EntropyFamily::renyi, .order = 2, .shift = 1e-4}},
                               base, rng));
  trained("smora", smora({.rank = 8, .k = 3, .rank_partition = 2, .dropout = 0.25}, base, rng));
  trained("flylora", flylora({.rank = 8, .k = 2, .select = FlySelect::signed_value, .detached = true}, base, rng));
}

auto mola_of_4() {
  Rng rng(2);
  auto layer = mola({.experts = 4, .rank = 2, .k = 2}, DenseBase{weight_of_layers}, rng);
  layer.for_each_tensor([&](std::string_view, auto tensor) { fill_uniform(tensor, 0.5, rng); });
  return layer;
}

/// A file of that layer whose description has `to` in place of `from`.
std::string complaint_about(auto layer, const std::string& from, const std::string& to) {
  const TemporaryFolder folder;
  write_layer(folder / "layer.safetensors", layer);
  const SafetensorsReader reader(folder / "layer.safetensors");
  SafetensorsWriter writer;
  for (auto [key, text] : reader.metadata()) {
    if (const auto at = text.find(from); key == "layer.description" && at != text.npos)
      text.replace(at, from.size(), to);
    writer.set_metadata(key, text);
  }
  for (const SafetensorsEntry& tensor : reader.tensors())
    writer.add_bytes(tensor.name, tensor.dtype, tensor.shape, tensor.bytes);
  writer.write(folder / "changed.safetensors");
  const std::string text =
      error_text(ErrorCode::file, [&] { read_layer(folder / "changed.safetensors", DenseBase{weight_of_layers}); });
  const auto name = text.find("changed.safetensors: ");
  return name == text.npos ? text : text.substr(name + 21);
}

}  // namespace

TEST_CASE("A layer of every method comes back without its type, with all bits of what it computes", "[io]") {
  const Matrix<float> x = laws::random_matrix<float>(9, 10, 5), d_y = laws::random_matrix<float>(9, 6, 6);
  const DenseBase base{weight_of_layers};
  for_each_method(base, [&](const std::string& method, auto& layer) {
    INFO(method);
    const TemporaryFolder folder;
    write_layer(folder / "layer.safetensors", layer);
    AnyLinear<float> read = read_layer(folder / "layer.safetensors", base, {.max_tokens = 9});
    AnyLinear<float> own(layer, 9);
    const Pass pass{.training = true, .seed = 4};  // dropout, too
    Matrix<float> y(9, 6), y_own = y, d_x(9, 10), d_x_own = d_x;
    own.forward(x, y_own, pass);
    read.forward(x, y, pass);
    own.backward(x, d_y, d_x_own);
    read.backward(x, d_y, d_x);
    CHECK(std::ranges::equal(y.elements(), y_own.elements()));
    CHECK(std::ranges::equal(d_x.elements(), d_x_own.elements()));

    LayerWriter again;
    again.add<DenseBase<View<const float>>>("layer", read);
    again.write(folder / "again.safetensors");
    CHECK(content_of(folder / "again.safetensors") == content_of(folder / "layer.safetensors"));
    const std::string description = LayerReader(folder / "again.safetensors").description("layer");
    CHECK(description.starts_with("{\"version\":1,\"method\":\"" + method + "\",\"in\":10,\"out\":6,\"base\":\""));
  });
}

TEST_CASE("Names of layers that hold the steps of tensors' names are told apart in the report", "[io]") {
  const TemporaryFolder folder;
  const DenseBase base{weight_of_layers};
  Rng rng(1);
  auto layer = lora({.rank = 2}, base, rng);
  LayerWriter writer;
  for (const char* name : {"a", "a.state.b", "a.parameters.experts"}) writer.add(name, layer);
  writer.write(folder / "layers.safetensors");
  LayerReader reader(folder / "layers.safetensors");
  const std::size_t each = reader.report().unused.size() / 3;
  reader.read("a.state.b", base);
  CHECK(reader.report().used.size() == each);
  CHECK(reader.report().used.front().starts_with("a.state.b."));
  reader.read("a", base);  // whose name begins those of the others
  CHECK(reader.report().used.size() == 2 * each);
}

TEST_CASE("A file of many layers, of several methods, reports what was read of it", "[io]") {
  const TemporaryFolder folder;
  const DenseBase base{weight_of_layers};
  LayerWriter writer;
  int number = 0;
  for_each_method(base, [&](const std::string& method, auto& layer) {
    writer.add("model.layers." + std::to_string(number++) + "." + method, layer);
  });
  writer.write(folder / "layers.safetensors");
  LayerReader reader(folder / "layers.safetensors");
  REQUIRE(reader.names().size() == 7);
  CHECK(reader.report().used.empty());
  for (const std::string& name : reader.names()) CHECK(reader.read(name, base).out() == 6);
  CHECK(reader.report().unused.empty());
  CHECK(reader.report().used.size() == SafetensorsReader(folder / "layers.safetensors").tensors().size());
  CHECK(error_text(ErrorCode::file, [&] {
          read_layer(folder / "layers.safetensors", base);
        }).ends_with("expected one layer, found 7"));
  CHECK(error_text(ErrorCode::file, [&] {
          reader.read("q", base);
        }).ends_with("expected metadata 'q.description', found none of that name"));
}

TEST_CASE("Experts of ranks of their own, as of a bank, keep them", "[io]") {
  const std::vector<int> ranks{3, 0, 2};
  Rng rng(1);
  MixtureLinear layer{LinearRouter<float>({.in = 10, .experts = 3, .bias = true}, rng),
                      Gate{Softmax{.temperature = 0.7}, TopK{.k = 2}, Renormalized{}},
                      LowRank<DenseFactors<float>>({.in = 10, .out = 6, .experts = 3, .ranks = ranks}, rng),
                      DenseBase{weight_of_layers}};
  const TemporaryFolder folder;
  write_layer(folder / "layer.safetensors", layer);
  AnyLinear<float> read = read_layer(folder / "layer.safetensors", DenseBase{weight_of_layers});
  auto* inner = read.target<decltype(layer)>();
  REQUIRE(inner != nullptr);
  CHECK(inner->experts().blocks().size(0) == 3);
  CHECK(inner->experts().blocks().size(1) == 0);
  CHECK(inner->gating().score.temperature == 0.7);
  CHECK(inner->router().parameters().bias.cols() == 3);
}

TEST_CASE("Experts without a router come back as a layer that applies a routing from elsewhere", "[io]") {
  const std::vector<int> ranks{3, 0, 2};
  Rng rng(1);
  ExpertLinear layer{LowRank<DenseFactors<float>>({.in = 10, .out = 6, .experts = 3, .ranks = ranks, .alpha = 4}, rng),
                     DenseBase{weight_of_layers}};
  fill_uniform(layer.experts().parameters().lora_B.view(), 1, rng);
  const TemporaryFolder folder;
  write_layer(folder / "layer.safetensors", layer);
  AnyLinear<float> read = read_layer(folder / "layer.safetensors", DenseBase{weight_of_layers}, {.max_tokens = 4});
  const Matrix<float> x = laws::random_matrix<float>(4, 10, 2);
  Matrix<float> y(4, 6), expected(4, 6);
  const Routing<float> routing = Routing<float>::from_labels(std::vector<int>{2, 0, -1, 1}, 3);
  auto work = layer.workspace(4);
  layer.apply(x, routing, expected, work);
  read.apply(x, routing, y);
  CHECK(std::ranges::equal(y.elements(), expected.elements()));
  CHECK(code_of([&] { read.forward(x, y); }) == ErrorCode::order);

  LayerWriter again;
  again.add<DenseBase<View<const float>>>("layer", read);
  again.write(folder / "again.safetensors");
  CHECK(content_of(folder / "again.safetensors") == content_of(folder / "layer.safetensors"));
  CHECK(LayerReader(folder / "again.safetensors").description("layer").find("router") == std::string::npos);
  Matrix<float> other = weight_of_layers;
  other(0, 0) += 1;
  CHECK(code_of([&] { read_layer(folder / "layer.safetensors", DenseBase{other}); }) == ErrorCode::file);
  CHECK(complaint_about(layer, "\"experts\":{", "\"router\":{},\"experts\":{") ==
        "layer 'layer': expected no field of that name for 'router', found {}");
  const std::string bound = " for which the file has numbers, for 'ranks'";
  CHECK(complaint_about(layer, "[3,0,2]", "[3,0,2000000000]").find(bound) != std::string::npos);
}

namespace {
/// Three maps of a block, of 10 inputs and 7 hidden units, and MixLoRA on it.
struct BlockOfLayers {
  Matrix<float> gate = laws::random_matrix<float>(7, 10, 4), up = laws::random_matrix<float>(7, 10, 5),
                down = laws::random_matrix<float>(10, 7, 6);

  template <class... Gating>
  auto mixlora(Gating... gating) const {
    Rng rng(3);
    auto layer = mole::mixlora({.experts = 4, .rank = 2, .dropout = 0.1}, std::move(gating)..., DenseBase{gate},
                               DenseBase{up}, DenseBase{down}, rng);
    layer.for_each_tensor([&](std::string_view, auto tensor) { fill_uniform(tensor, 0.5, rng); });
    return layer;
  }
};
}  // namespace

TEST_CASE("A feed-forward block of experts comes back on the host's maps, with all bits of what it computes", "[io]") {
  const BlockOfLayers block;
  const auto check = [&](auto layer, const std::string& method) {
    const TemporaryFolder folder;
    write_layer(folder / "block.safetensors", layer);
    LayerReader reader(folder / "block.safetensors");
    CHECK(reader.method("layer") == method);
    AnyLinear<float> read = reader.read_block("layer", DenseBase{block.gate}, DenseBase{block.up},
                                              DenseBase{block.down}, {.max_tokens = 6});
    const Matrix<float> x = laws::random_matrix<float>(6, 10, 5), d_y = laws::random_matrix<float>(6, 10, 6);
    Matrix<float> y(6, 10), y_own = y, d_x = y, d_x_own = y;
    AnyLinear<float> own(layer, 6);
    const Pass pass{.training = true, .seed = 4};
    own.forward(x, y_own, pass);
    read.forward(x, y, pass);
    own.backward(x, d_y, d_x_own);
    read.backward(x, d_y, d_x);
    CHECK(std::ranges::equal(y.elements(), y_own.elements()));
    CHECK(std::ranges::equal(d_x.elements(), d_x_own.elements()));
    CHECK(reader.report().unused.empty());
    LayerWriter again;
    again.add<DenseBase<View<const float>>>("layer", read, block_kinds<float>());
    again.write(folder / "again.safetensors");
    CHECK(content_of(folder / "again.safetensors") == content_of(folder / "block.safetensors"));
  };
  check(block.mixlora(), "mixlora");
  check(block.mixlora(Gate{Softmax{}, TopP{.p = 0.6}, Raw{}}), "mixlora_dynamic");
  check(block.mixlora(Gate{Softmax{},
                           ExpertCapacity{TopK{.k = 1},
                                          {.factor = 0.5,
                                           .multiple = 2,
                                           .priority = CapacityPriority::probability,
                                           .rounding = CapacityRounding::down,
                                           .per_sequence = true}},
                           Raw{}}),
        "mixlora_switch");
}

TEST_CASE("A base without a weight to compare is refused in words that say so", "[io]") {
  const TemporaryFolder folder;
  auto layer = mola_of_4();
  write_layer(folder / "layer", layer);
  CHECK(error_text(ErrorCode::file, [&] { read_layer(folder / "layer", NoBase<float>(layer.in(), layer.out())); })
            .find("expected unknown, as no weight can be read of the base that is given, or other_base, for 'base', "
                  "found ") != std::string::npos);
}

TEST_CASE("A block for other maps, or of another description, is refused; maps that the block owns are not in the file",
          "[io]") {
  const BlockOfLayers block;
  auto layer = block.mixlora();
  const auto text = [&](const BlockOfLayers& host, auto file_of) {
    const TemporaryFolder folder;
    file_of(folder / "block");
    return error_text(ErrorCode::file, [&] {
      LayerReader(folder / "block").read_block("layer", DenseBase{host.gate}, DenseBase{host.up}, DenseBase{host.down});
    });
  };
  const auto as_it_is = [&](const std::filesystem::path& path) { write_layer(path, layer); };
  CHECK(text(block, as_it_is).empty());
  BlockOfLayers other = block;
  other.up(6, 9) += 1;
  CHECK(text(other, as_it_is).find("layer 'layer': up: expected ") != std::string::npos);
  other = block;
  other.down = Matrix<float>(10, 8);
  other.gate = other.up = Matrix<float>(8, 10);
  CHECK(text(other, as_it_is).find("of the weight of the base that is given") != std::string::npos);
  CHECK(text(block, [&](const auto& path) {
          auto linear = mola_of_4();
          write_layer(path, linear);
        }).find("expected 10, of the base, for 'out', found 6") != std::string::npos);
  const TemporaryFolder folder;
  write_layer(folder / "block", layer);
  CHECK(error_text(ErrorCode::file, [&] {
          LayerReader(folder / "block").read("layer", NoBase<float>(10, 10), {.other_base = true});
        }).find("expected a field 'base'") != std::string::npos);

  Rng rng(1);
  auto owning = mixlora({.experts = 2, .rank = 2}, DenseBase{Matrix<float>(block.gate)},
                        DenseBase{Matrix<float>(block.up)}, DenseBase{Matrix<float>(block.down)}, rng);
  write_layer(folder / "owning", owning);
  const SafetensorsReader written(folder / "owning");
  for (const SafetensorsEntry& tensor : written.tensors()) CHECK(tensor.name.find("base") == std::string::npos);
  CHECK(LayerReader(folder / "owning")
            .read_block("layer", DenseBase{block.gate}, DenseBase{block.up}, DenseBase{block.down})
            .out() == 10);
}

TEST_CASE("An adapter for other weights is refused unless it is forced", "[io]") {
  auto layer = mola_of_4();
  const TemporaryFolder folder;
  write_layer(folder / "layer.safetensors", layer);
  Matrix<float> other = weight_of_layers;
  other(5, 9) = std::nextafter(other(5, 9), 2.0f);
  CHECK(error_text(ErrorCode::file, [&] {
          read_layer(folder / "layer.safetensors", DenseBase{other});
        }).find("of the weight of the base that is given, or other_base, for 'base', found ") != std::string::npos);
  CHECK(read_layer(folder / "layer.safetensors", DenseBase{other}, {.other_base = true}).out() == 6);
  CHECK(code_of([&] { read_layer(folder / "layer.safetensors", Nf4Base(weight_of_layers)); }) == ErrorCode::file);
  const auto function = callable_base<float>(10, 6, [](View<const float>, View<float> y) { fill(y, 0.0f); });
  CHECK(code_of([&] { read_layer(folder / "layer.safetensors", function); }) == ErrorCode::file);
  CHECK(read_layer(folder / "layer.safetensors", function, {.other_base = true}).in() == 10);

  // One that was trained on a function fits any base of its sizes, as none can be compared.
  Rng rng(1);
  auto on_function = lora({.rank = 2}, function, rng);
  write_layer(folder / "function.safetensors", on_function);
  CHECK(read_layer(folder / "function.safetensors", DenseBase{other}).in() == 10);
}

TEST_CASE("A base that the layer owns is not in the file", "[io]") {
  Rng rng(1);
  auto layer = lora({.rank = 2}, DenseBase{Matrix<float>(weight_of_layers)}, rng);
  const TemporaryFolder folder;
  write_layer(folder / "layer.safetensors", layer);
  CHECK_FALSE(SafetensorsReader(folder / "layer.safetensors").has("layer.parameters.base.weight"));
  CHECK(read_layer(folder / "layer.safetensors", DenseBase{weight_of_layers}).in() == 10);
  CHECK(read_layer(folder / "layer.safetensors", DenseBase{Matrix<float>(weight_of_layers)}).in() == 10);
}

TEST_CASE("The fingerprint of a base is of its numbers, not of their storage", "[io]") {
  Matrix<double> doubles(6, 10);
  for (Index o = 0; o < 6; ++o)
    for (Index i = 0; i < 10; ++i) doubles(o, i) = double(weight_of_layers(o, i));
  const auto expected = base_fingerprint(DenseBase{weight_of_layers});
  REQUIRE(expected);
  CHECK(base_fingerprint(DenseBase{doubles}) == expected);
  const Nf4Base coded(weight_of_layers);
  Matrix<float> decoded(6, 10);
  coded.weight(decoded.view());
  CHECK(base_fingerprint(coded) == base_fingerprint(DenseBase{decoded}));
  CHECK(base_fingerprint(coded) != expected);

  // The same hash by its formula, of a weight [1 x 2] of 1 and -2.
  std::uint64_t hash = 0;
  for (const std::uint64_t bits : {std::uint64_t(1), std::uint64_t(2), 0x3ff0000000000000u, 0xc000000000000000u}) {
    hash = (hash ^ bits) * 0x9e3779b97f4a7c15u;
    hash ^= hash >> 32;
  }
  Matrix<float> two(1, 2);
  two(0, 0) = 1, two(0, 1) = -2;
  CHECK(base_fingerprint(DenseBase{two}) == hash);
}

namespace {
struct HalfSigmoid : Sigmoid {};  // a user's own score
}  // namespace
template <>
struct mole::PolicyDescription<HalfSigmoid> : mole::detail::PlainDescription<HalfSigmoid> {
  static constexpr const char* name = "HalfSigmoid";
};

TEST_CASE("A user's own composition is written and read by a registry with it", "[io]") {
  using Own = Gate<HalfSigmoid, TopK, Raw>;
  using Experts = LowRank<DenseFactors<float>>;
  const auto kinds = preset_kinds<float>().with<LinearRouter<float>, Own, Experts>("own");
  Rng rng(1);
  MixtureLinear layer{LinearRouter<float>({.in = 10, .experts = 3}, rng), Own{{}, TopK{.k = 2}, Raw{}},
                      Experts({.in = 10, .out = 6, .experts = 3, .rank = 2}, rng), DenseBase{weight_of_layers}};
  const TemporaryFolder folder;
  write_layer(folder / "own.safetensors", layer, kinds);
  AnyLinear<float> read = read_layer(folder / "own.safetensors", DenseBase{weight_of_layers}, {}, kinds);
  CHECK(read.target<decltype(layer)>() != nullptr);
  CHECK(error_text(ErrorCode::file, [&] {
          read_layer(folder / "own.safetensors", DenseBase{weight_of_layers});
        }).ends_with("expected one of lora, mola, loramoe, dyn_mole, smora, flylora, experts for 'method', found own"));
  CHECK(code_of([&] { kinds.with<NoRouter<float>, Own, Experts>("mola"); }) == ErrorCode::option);
  AnyLinear<float> of_another_kind(std::move(layer), 1);
  LayerWriter writer;
  CHECK(code_of([&] { writer.add<DenseBase<View<const float>>>("q", of_another_kind); }) == ErrorCode::option);
}

TEST_CASE("A description that does not fit is refused by layer, field, what was expected and what was found", "[io]") {
  const auto complaint = [](const char* from, const char* to) { return complaint_about(mola_of_4(), from, to); };
  CHECK(complaint("nothing", "") == "");
  CHECK(complaint("\"version\":1", "\"version\":2") == "layer 'layer': expected 1 for 'version', found 2");
  CHECK(
      complaint("\"method\":\"mola\"", "\"method\":\"lola\"") ==
      "layer 'layer': expected one of lora, mola, loramoe, dyn_mole, smora, flylora, experts for 'method', found lola");
  CHECK(complaint("\"method\":\"mola\"", "\"method\":\"lora\"") ==
        "layer 'layer': expected type NoRouter for 'router', found LinearRouter");
  CHECK(complaint("\"in\":10", "\"in\":11") == "layer 'layer': expected 10, of the base, for 'in', found 11");
  CHECK(complaint("\"k\":2", "\"k\":5") == "layer 'layer': TopK: expected k from 1 to 4 experts, found 5");
  CHECK(complaint("\"k\":2", "\"k\":2.5") == "layer 'layer': gating: select: expected an integer for 'k', found 2.5");
  CHECK(complaint("\"k\":2", "\"k\":18446744073709551615") ==
        "layer 'layer': gating: select: expected an integer for 'k', found 18446744073709551615");
  CHECK(complaint("\"k\":2", "\"q\":2") ==
        "layer 'layer': gating: select: expected a field 'k', found none of that name");
  CHECK(complaint("\"k\":2", "\"k\":2,\"noise\":1") ==
        "layer 'layer': gating: select: expected no field of that name for 'noise', found 1");
  CHECK(complaint("{\"version\"", "{\"extra\":0,\"version\"") ==
        "layer 'layer': expected no field of that name for 'extra', found 0");
  CHECK(complaint("\"k\":2", "\"k\":2,\"k\":2") ==
        "layer 'layer': expected each key of an object once, found 'k' twice");
  CHECK(complaint("}", "").starts_with("layer 'layer': expected "));
  CHECK(complaint("\"type\":\"TopK\"", "\"type\":\"All\"") ==
        "layer 'layer': gating: expected type TopK for 'select', found All");
  CHECK(complaint("[2,2,2,2]", "[2,2,2]").starts_with("layer 'layer': "));
  CHECK(complaint("[2,2,2,2]", "[2,2,2,3]")
            .starts_with("expected 9 x 10 for 'layer.parameters.experts.lora_A', found 8 x 10"));
  CHECK(complaint("\"dropout\":0.05", "\"dropout\":1.5") ==
        "layer 'layer': LowRank: dropout rate expected in [0, 1), found 1.5");
}

TEST_CASE("A description cannot ask for more memory than its file has", "[io]") {
  const auto complaint = [](const char* from, const char* to) { return complaint_about(mola_of_4(), from, to); };
  const std::string bound = " for which the file has numbers, for ";
  for (const char* ranks : {"[2,2,2,2000000000]", "[-1,2,2,2]", "[9223372036854775807,9223372036854775807]",
                            "[18446744073709551615]", "[9,9,9,9]"})
    CHECK(complaint("[2,2,2,2]", ranks).find(bound + "'ranks'") != std::string::npos);
  CHECK(complaint("\"outputs\":4", "\"outputs\":4000000000").find(bound + "'outputs'") != std::string::npos);
  CHECK(complaint("\"outputs\":4", "\"outputs\":-4").find(bound + "'outputs'") != std::string::npos);

  Rng rng(1);
  const auto fly = flylora({.rank = 8, .k = 2}, DenseBase{weight_of_layers}, rng);
  for (const auto& [from, to] : {std::pair{"\"nonzeros\":2", "\"nonzeros\":100"}, {"\"rank\":1", "\"rank\":100"}})
    CHECK(complaint_about(fly, from, to).find("'layer': experts: factors: expected from 0 to") != std::string::npos);
  const auto ranks = smora({.rank = 8, .k = 2}, DenseBase{weight_of_layers}, rng);
  CHECK(complaint_about(ranks, "\"times\":1", "\"times\":1000000000").find(bound + "'times'") != std::string::npos);
  CHECK(complaint_about(ranks, "\"times\":1", "\"times\":0") ==
        "layer 'layer': RepeatedRouter: expected times of at least 1, found 0");
}

TEST_CASE("A file of version 1 is read as it was", "[io]") {
  // Written in version 1, from numbers that are quarters: weight(o, i) = (o - i) / 4, A, B and the router alike.
  const std::filesystem::path kept = std::filesystem::path(__FILE__).parent_path() / "layer_version_1.safetensors";
  Matrix<float> weight(3, 4);
  for (Index o = 0; o < 3; ++o)
    for (Index i = 0; i < 4; ++i) weight(o, i) = float(o - i) / 4;
  Rng rng(1);
  auto layer = mola({.experts = 3, .rank = 2, .k = 2, .alpha = 4}, DenseBase{weight}, rng);
  Index number = 0;
  layer.for_each_tensor([&](std::string_view, auto tensor) {
    for (Index r = 0; r < tensor.rows(); ++r)
      for (Index c = 0; c < tensor.cols(); ++c) tensor(r, c) = float(number++ % 7 - 3) / 4;
  });
  const TemporaryFolder folder;
  write_layer(folder / "now.safetensors", layer);
  if (const char* to = std::getenv("MOLE_KEEP_LAYER_VERSION")) write_layer(to, layer);
  AnyLinear<float> read = read_layer(kept, DenseBase{weight}, {.max_tokens = 4});
  const Matrix<float> x = laws::random_matrix<float>(4, 4, 8);
  Matrix<float> y(4, 3), expected(4, 3);
  auto work = layer.workspace(4);
  layer.forward(x, expected, work);
  read.forward(x, y);
  CHECK(std::ranges::equal(y.elements(), expected.elements()));
  CHECK(content_of(folder / "now.safetensors") == content_of(kept));  // until there is a version 2
}
