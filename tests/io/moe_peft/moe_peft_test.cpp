// SPDX-License-Identifier: MIT
#include "core/error_code.hpp"
#include "io/temporary_folder.hpp"
#include "mole/base/dense_base.hpp"
#include "mole/core/random.hpp"
#include "mole/io/convert/write_mixture_layers.hpp"
#include "mole/io/moe_peft/moe_peft_layers.hpp"
#include "mole/io/moe_peft/read_moe_peft.hpp"
#include "mole/io/safetensors_writer.hpp"
#include "mole/testing/random_matrix.hpp"
#include "support/catch.hpp"

#include <algorithm>
#include <cmath>
#include <map>

using namespace mole;
using namespace mole::test;

namespace {

/// A folder of a mixture, made by hand: tensors are drawn, and kept for whoever computes with them.
struct MoePeftFolder {
  std::string config;
  std::map<std::string, Matrix<float>> tensors;
  Rng rng{5};

  void add(const std::string& name, Index rows, Index cols) {
    Matrix<float> matrix(rows, cols);
    fill_uniform(matrix.view(), 0.5, rng);
    tensors[name] = std::move(matrix);
  }
  void lora(const std::string& path, Index in, Index out, Index rank) {
    add(path + ".lora_A.weight", rank, in);
    add(path + ".lora_B.weight", out, rank);
  }
  void experts(const std::string& path, Index in, Index out, Index rank, Index count = 3) {
    for (Index e = 0; e < count; ++e) lora(path + ".experts." + std::to_string(e), in, out, rank);
  }
  void write(const TemporaryFolder& folder) const {
    put(folder / "adapter_config.json", config);
    SafetensorsWriter writer;
    for (const auto& [name, matrix] : tensors) writer.add(name, matrix.view());
    writer.write(folder / "adapter_model.safetensors");
  }
  MoePeftAdapter read() const {
    const TemporaryFolder folder;
    write(folder);
    return read_moe_peft(folder / "");
  }
  /// Without the path.
  std::string complaint() const {
    const std::string text = error_text(ErrorCode::file, [&] { read(); });
    return text.empty() ? "" : text.substr(text.find("expected "));
  }
};

const std::string targets_of_qv = R"("target_modules": ["q_proj", "v_proj"])";

/// MoLA, DynMoLE or LoRAMoE on q and v of one layer.
MoePeftFolder plugged(const std::string& kind, const std::string& more = "") {
  std::string upper = kind;
  for (char& c : upper) c = char(std::toupper(c));
  MoePeftFolder folder;
  folder.config = R"({"bias": "none", "peft_type": ")" + upper +
                  R"(", "r": 2, "lora_alpha": 6, "lora_dropout": 0.05, )" + targets_of_qv +
                  R"(, "routing_strategy": ")" + kind + R"(", "num_experts": 3)" + more + "}";
  for (const std::string proj : {"q_proj", "v_proj"}) {
    const std::string path = kind + ".layers.4.self_attn." + proj;
    folder.add(path + ".moe_gate.weight", 3, 7);
    folder.experts(path, 7, 5, 2);
  }
  return folder;
}

MoePeftFolder mixlora_folder(const std::string& routing, bool older = false) {
  MoePeftFolder folder;
  folder.config = R"({"bias": "none", "peft_type": "MIXLORA", "r": 3, "lora_alpha": 3, "lora_dropout": 0.0,
    "target_modules": {"q_proj": true, "k_proj": false, "gate_proj": true, "up_proj": true, "down_proj": true},
    "num_experts": 3, "expert_lora": {"r": 2, "lora_alpha": 8, "use_rslora": true}, )" +
                  routing + "}";
  const std::string block = older ? "mixlora.layers.0" : "mixlora.layers.0.mlp";
  folder.add(older ? block + ".gate.weight" : block + ".moe_gate.weight", 3, 7);
  for (const auto& [now, before, in, out] :
       {std::tuple<std::string, std::string, Index, Index>{"gate_proj", "w1_proj", 7, 9},
        {"up_proj", "w3_proj", 7, 9},
        {"down_proj", "w2_proj", 9, 7}})
    for (Index e = 0; e < 3; ++e)
      folder.lora(older ? block + ".experts." + std::to_string(e) + "." + before
                        : block + "." + now + ".experts." + std::to_string(e),
                  in, out, 2);
  folder.lora("mixlora.layers.0.self_attn.q_proj", 7, 7, 3);
  return folder;
}

/// (W + scale B A) x, or W x for an empty path.
std::vector<double> mapped(const MoePeftFolder& folder, const Matrix<float>& w, const std::string& path, double scale,
                           const std::vector<double>& x) {
  std::vector<double> y(std::size_t(w.rows()));
  for (Index o = 0; o < w.rows(); ++o)
    for (Index i = 0; i < w.cols(); ++i) y[std::size_t(o)] += double(w(o, i)) * x[std::size_t(i)];
  if (path.empty()) return y;
  const auto& a = folder.tensors.at(path + ".lora_A.weight");
  const auto& b = folder.tensors.at(path + ".lora_B.weight");
  for (Index r = 0; r < a.rows(); ++r) {
    double h = 0;
    for (Index i = 0; i < a.cols(); ++i) h += double(a(r, i)) * x[std::size_t(i)];
    for (Index o = 0; o < w.rows(); ++o) y[std::size_t(o)] += scale * h * double(b(o, r));
  }
  return y;
}

/// softmax(R x), and the experts from the best on.
std::pair<std::vector<double>, std::vector<std::size_t>> probabilities(const Matrix<float>& router,
                                                                       const std::vector<double>& x) {
  std::vector<double> p;
  double sum = 0;
  for (Index e = 0; e < router.rows(); ++e) {
    double logit = 0;
    for (Index i = 0; i < router.cols(); ++i) logit += double(router(e, i)) * x[std::size_t(i)];
    p.push_back(std::exp(logit));
    sum += p.back();
  }
  std::vector<std::size_t> order;
  for (std::size_t e = 0; e < p.size(); ++e) p[e] /= sum, order.push_back(e);
  std::ranges::sort(order, [&](std::size_t a, std::size_t b) { return p[a] > p[b]; });
  return {p, order};
}

const Matrix<float> tokens_of_moe_peft = laws::random_matrix<float>(6, 7, 31);

/// `expected(x)` is y of one token.
template <class F>
void check_outputs(AnyLinear<float> layer, F expected) {
  Matrix<float> y(6, layer.out());
  layer.forward(tokens_of_moe_peft, y);
  for (Index n = 0; n < 6; ++n) {
    const auto row = tokens_of_moe_peft.view().row(n);
    const std::vector<double> wanted = expected(std::vector<double>(row.begin(), row.end()));
    for (Index o = 0; o < layer.out(); ++o) CHECK(std::abs(double(y(n, o)) - wanted[std::size_t(o)]) < 2e-5);
  }
}

}  // namespace

TEST_CASE("MoLA and LoRAMoE of MoE-PEFT compute what their tensors say", "[io]") {
  const Matrix<float> w = laws::random_matrix<float>(5, 7, 2);
  for (const std::string kind : {"mola", "loramoe"}) {
    const MoePeftFolder folder = plugged(kind, kind == "mola" ? R"(, "top_k": 2)" : "");
    const MoePeftLayers<float> layers(folder.read(), 6);
    CHECK(layers.adapter().report.text() == "14 used");
    const std::string path = kind + ".layers.4.self_attn.v_proj";
    check_outputs(layers.layer("model.layers.4.self_attn.v_proj", DenseBase{w}), [&](const std::vector<double>& x) {
      auto [p, order] = probabilities(folder.tensors.at(path + ".moe_gate.weight"), x);
      if (kind == "mola") {
        order.resize(2);
        const double sum = p[order[0]] + p[order[1]];
        for (double& share : p) share /= sum;
      }
      std::vector<double> y = mapped(folder, w, "", 0, x);
      for (const std::size_t e : order) {
        const auto with = mapped(folder, w, path + ".experts." + std::to_string(e), 3, x),
                   base = mapped(folder, w, "", 0, x);
        for (std::size_t o = 0; o < y.size(); ++o) y[o] += p[e] * (with[o] - base[o]);
      }
      return y;
    });
  }
}

TEST_CASE("MixLoRA of MoE-PEFT is a block of experts and a LoRA in the attention, under older names, too", "[io]") {
  const Matrix<float> gate = laws::random_matrix<float>(9, 7, 2), up = laws::random_matrix<float>(9, 7, 3),
                      down = laws::random_matrix<float>(7, 9, 4), q = laws::random_matrix<float>(7, 7, 6);
  for (const bool older : {false, true}) {
    const MoePeftFolder folder = mixlora_folder(
        older ? R"("routing_strategy": "mixtral")" : R"("routing_strategy": "mixlora", "top_k": 2)", older);
    const MoePeftLayers<float> layers(folder.read(), 6);
    CHECK(layers.adapter().report.text() == "21 used");
    check_outputs(layers.layer("model.layers.0.self_attn.q_proj", DenseBase{q}), [&](const std::vector<double>& x) {
      return mapped(folder, q, "mixlora.layers.0.self_attn.q_proj", 1, x);
    });
    const auto block = layers.block("model.layers.0.mlp", DenseBase{gate}, DenseBase{up}, DenseBase{down});
    static_assert(!std::is_copy_constructible_v<decltype(block)>);
    const double scale = 8 / std::sqrt(2.0);
    const auto path = [&](const char* now, const char* before, std::size_t e) {
      const std::string number = std::to_string(e);
      return older ? "mixlora.layers.0.experts." + number + "." + before
                   : "mixlora.layers.0.mlp." + std::string(now) + ".experts." + number;
    };
    check_outputs(layers.block("model.layers.0.mlp", DenseBase{gate}, DenseBase{up}, DenseBase{down}),
                  [&](const std::vector<double>& x) {
                    const std::string router =
                        older ? "mixlora.layers.0.gate.weight" : "mixlora.layers.0.mlp.moe_gate.weight";
                    const auto [p, order] = probabilities(folder.tensors.at(router), x);
                    std::vector<double> y(7);
                    for (const std::size_t e : {order[0], order[1]}) {
                      auto g = mapped(folder, gate, path("gate_proj", "w1_proj", e), scale, x);
                      const auto u = mapped(folder, up, path("up_proj", "w3_proj", e), scale, x);
                      for (std::size_t h = 0; h < g.size(); ++h) g[h] = g[h] / (1 + std::exp(-g[h])) * u[h];
                      const auto d = mapped(folder, down, path("down_proj", "w2_proj", e), scale, g);
                      for (std::size_t o = 0; o < y.size(); ++o) y[o] += p[e] / (p[order[0]] + p[order[1]]) * d[o];
                    }
                    return y;
                  });
    CHECK(code_of([&] { layers.layer("model.layers.0.mlp.up_proj", DenseBase{up}); }) == ErrorCode::option);
    CHECK(code_of([&] { layers.bank("model.layers.0.mlp"); }) == ErrorCode::option);
    CHECK(code_of([&] { layers.router("model.layers.0.mlp.up_proj"); }) == ErrorCode::option);
    CHECK(code_of([&] { layers.bank("model.layers.1.mlp"); }) == ErrorCode::option);
  }
}

TEST_CASE("MixLoRA's other routings, and maps without experts, have their gates and bases", "[io]") {
  const Matrix<float> gate = laws::random_matrix<float>(9, 7, 2), down = laws::random_matrix<float>(7, 9, 4);
  MoePeftFolder folder = mixlora_folder(R"("routing_strategy": "mixlora-dynamic", "top_p": 0.3, "temperature": 0.5)");
  CHECK(folder.read().config.temperature == 0.5);
  std::erase_if(folder.tensors, [](const auto& tensor) { return tensor.first.find("up_proj") != std::string::npos; });
  const MoePeftAdapter adapter = folder.read();
  CHECK(adapter.report.missing == std::vector<std::string>{"up_proj"});
  const MoePeftLayers<float> layers(adapter, 6);
  AnyLinear<float> block = layers.block("model.layers.0.mlp", DenseBase{gate}, DenseBase{gate}, DenseBase{down});
  Matrix<float> y(6, 7);
  block.forward(tokens_of_moe_peft, y);
  CHECK(block.trace().routing.pairs() >= 6);

  const auto switched = mixlora_folder(
      R"("routing_strategy": "mixlora-switch", "expert_capacity": 1, "sparse_step": null, "act_fn": "gelu_new")");
  const MoePeftLayers<float> of_switch(switched.read(), 6);
  CHECK(error_text(ErrorCode::option, [&] {
          of_switch.block("model.layers.0.mlp", DenseBase{gate}, DenseBase{gate}, DenseBase{down});
        }).ends_with("expected the activation of its configuration, 'gelu_new', found another"));
  AnyLinear<float> served = of_switch.block("model.layers.0.mlp", DenseBase{gate}, DenseBase{gate}, DenseBase{down},
                                            GELU{.approximate = true});
  served.forward(tokens_of_moe_peft, y);
  CHECK(served.trace().routing.pairs() <= 3);  // one place for each of 3 experts
}

TEST_CASE("DynMoLE's options are those of its configuration, and the release's defaults", "[io]") {
  const MoePeftConfig plain = plugged("dynmole").read().config;
  CHECK((plain.p == 0.75 && plain.k == 2 && plain.entropy_threshold == 0.9 && plain.entropy_index == 1.1));
  CHECK((plain.entropy_shift == 1e-5 && !plain.renyi));
  const MoePeftFolder folder = plugged("dynmole", R"(, "entropy_threshold": 0.5, "entropy_index": 2.0,
    "entropy_type": "renyi", "entropy_eps": 0.001, "keep_top_k": 1, "top_p": 0.25)");
  const MoePeftConfig other = folder.read().config;
  CHECK((other.p == 0.25 && other.k == 1 && other.entropy_threshold == 0.5 && other.entropy_index == 2));
  CHECK((other.entropy_shift == 1e-3 && other.renyi));
  const Matrix<float> w = laws::random_matrix<float>(5, 7, 2);
  Matrix<float> y(6, 5);
  for (const auto& [more, pairs] : {std::pair{R"(, "entropy_threshold": 0.0)", 18},  // all experts for every token
                                    {R"(, "entropy_threshold": 1.0, "top_p": 0.0, "keep_top_k": 1)", 6},
                                    {R"(, "entropy_threshold": 0.0, "entropy_index": 0, "top_p": 0.0)", 12}}) {
    AnyLinear<float> layer =
        MoePeftLayers<float>(plugged("dynmole", more).read(), 6).layer("model.layers.4.self_attn.q_proj", DenseBase{w});
    layer.forward(tokens_of_moe_peft, y);
    CHECK(layer.trace().routing.pairs() == pairs);
  }
}

TEST_CASE("A mixture of MoE-PEFT that is broken, or not served, is refused by what was expected and found", "[io]") {
  const auto with_config = [](const std::string& from, const std::string& to) {
    MoePeftFolder folder = plugged("mola");
    folder.config.replace(folder.config.find(from), from.size(), to);
    return folder.complaint();
  };
  CHECK(with_config("MOLA", "MOLA") == "");
  CHECK(with_config("MOLA", "LORA") ==
        "expected a mixture's peft_type, found LORA, of one adapter, which read_peft() reads");
  CHECK(with_config("MOLA", "MOELORA") == "expected peft_type MIXLORA, MOLA, LORAMOE or DYNMOLE, found 'MOELORA'");
  CHECK(with_config("\"mola\"", "\"dynmole\"") == "expected routing_strategy 'mola', found 'dynmole'");
  CHECK(with_config("\"none\"", "\"all\"") == "expected bias 'none', found 'all'");
  CHECK(with_config("\"r\": 2", "\"r\": 2, \"use_dora\": true").starts_with("expected no 'use_dora'"));
  CHECK(with_config("\"r\": 2", "\"r\": 0") == "expected a whole number of at least 1 for 'r', found 0");
  CHECK(with_config("\"r\": 2, ", "") == "expected a rank 'r' and 'num_experts', found none of one of them");
  CHECK(with_config("0.05", "1.5").starts_with("expected a 'lora_dropout' from 0 to less than 1"));
  CHECK(with_config("\"r\": 2", "\"r\": 3").find("expected a rank of 3, as in adapter_config.json") == 0);
  CHECK(with_config("\"num_experts\": 3", "\"num_experts\": 2").find("expected 2 experts") == 0);
  CHECK(with_config("\"num_experts\": 3", "\"num_experts\": 4").find("expected 4 experts") == 0);
  CHECK(with_config(targets_of_qv, "\"target_modules\": [\"o_proj\"]").starts_with("expected experts 'mola.layers."));

  const std::string path = "mola.layers.4.self_attn.q_proj";
  const auto without = [&](const std::string& name) {
    MoePeftFolder folder = plugged("mola");
    REQUIRE(folder.tensors.erase(path + name) == 1);
    return folder.complaint();
  };
  CHECK(without(".moe_gate.weight") ==
        "expected a router 'moe_gate.weight' for 'model.layers.4.self_attn.q_proj', found none");
  CHECK(without(".experts.1.lora_A.weight") ==
        "expected lora_A.weight and lora_B.weight of every expert for "
        "'model.layers.4.self_attn.q_proj', found one of them missing");
  const auto with = [&](const std::string& name, Index rows, Index cols) {
    MoePeftFolder folder = plugged("mola");
    folder.add(path + name, rows, cols);
    return folder.complaint();
  };
  CHECK(with(".moe_gate.weight", 3, 6).starts_with("expected a router of as many columns as lora_A, 7"));
  CHECK(with(".moe_gate.weight", 4, 7).starts_with("expected a router of 3 rows"));
  CHECK(with(".experts.2.lora_B.weight", 6, 2).starts_with("expected experts of the same inputs and outputs"));
  CHECK(with(".experts.99999999999.lora_B.weight", 6, 2).starts_with("expected 3 experts"));
  CHECK(with(".lora_B.weight", 5, 2).starts_with("expected experts or one LoRA"));
  CHECK(with(".experts.0.lora_B.weight", 0, 2).starts_with("expected a matrix with numbers"));

  MoePeftFolder head = plugged("mola");
  head.add("classifier", 2, 7);
  head.add("mola.layers.4.mlp.up_proj.moe_gate.weight", 3, 7);  // no target
  head.add("mola.layers.4.self_attn.q_proj.experts.01.lora_A.weight", 2, 7);
  const std::vector<std::string> unused = head.read().report.unused;
  CHECK(unused == std::vector<std::string>{"classifier", "mola.layers.4.mlp.up_proj.moe_gate.weight",
                                           "mola.layers.4.self_attn.q_proj.experts.01.lora_A.weight"});
}

TEST_CASE("A module has places for the experts that are there, whatever their numbers are", "[io]") {
  MoePeftFolder folder = plugged("mola");
  folder.config.replace(folder.config.find("\"num_experts\": 3"), 16, "\"num_experts\": 1000000000");
  for (auto tensor = folder.tensors.begin(); tensor != folder.tensors.end();)
    tensor = tensor->first.find(".experts.") != std::string::npos ? folder.tensors.erase(tensor) : std::next(tensor);
  for (int module = 0; module < 100;
       ++module)  // with a list of experts up to the last, each would take the memory of all
    folder.add("mola.layers." + std::to_string(module) + ".self_attn.q_proj.experts.999999999.lora_A.weight", 2, 7);
  CHECK(folder.complaint() ==
        "expected 1000000000 experts, as in adapter_config.json for 'model.layers.0.self_attn.q_proj', found 1");
}

TEST_CASE("A router of MixLoRA that is not there is missed", "[io]") {
  MoePeftFolder folder = mixlora_folder(R"("routing_strategy": "mixlora")");
  folder.tensors.erase("mixlora.layers.0.mlp.moe_gate.weight");
  CHECK(folder.complaint() == "expected a router 'moe_gate.weight' for 'model.layers.0.mlp', found none");
  CHECK(mixlora_folder(R"("routing_strategy": "mola")").complaint().starts_with("expected routing_strategy mixlora,"));
}

TEST_CASE("The pickle that MoE-PEFT saves is refused, with the program that converts it", "[io]") {
  const TemporaryFolder folder;
  put(folder / "adapter_config.json", plugged("mola").config);
  put(folder / "adapter_model.bin", "PK");
  const std::string text = error_text(ErrorCode::file, [&] { read_moe_peft(folder / ""); });
  CHECK(text.find("adapter_model.bin: expected safetensors (examples/convert/bin2safetensors.py makes them)") !=
        std::string::npos);
}

TEST_CASE("A mixture becomes a file of layers that compute the same", "[io]") {
  const Matrix<float> weight = laws::random_matrix<float>(5, 7, 2), x = laws::random_matrix<float>(3, 7, 3);
  const auto base_of = [&](const std::string&, Index, Index) { return DenseBase{weight}; };
  for (const char* kind : {"mola", "loramoe", "dynmole"}) {
    const TemporaryFolder folder;
    const MoePeftAdapter adapter = plugged(kind).read();
    write_mixture_layers(folder / "x", adapter, base_of);
    LayerReader reader(folder / "x");
    CHECK(reader.names().size() == 2);
    for (const std::string& name : reader.names()) {
      auto expected = MoePeftLayers<float>(adapter, 3).layer(name, DenseBase{weight});
      auto found = reader.read(name, DenseBase{weight}, {.max_tokens = 3});
      Matrix<float> of_expected(3, 5), of_found(3, 5);
      expected.forward(x, of_expected);
      found.forward(x, of_found);
      CHECK(std::ranges::equal(of_expected.elements(), of_found.elements()));
    }
  }
}

TEST_CASE("Blocks of MixLoRA become blocks of a file of layers, of each routing", "[io]") {
  std::map<std::string, Matrix<float>> weights;
  const auto base_of = [&](const std::string& path, Index in, Index out) {
    const auto [place, first] = weights.emplace(path, Matrix<float>());
    if (first) place->second = laws::random_matrix<float>(out, in, unsigned(weights.size()));
    return DenseBase{place->second};
  };
  for (const std::string routing :
       {R"("routing_strategy": "mixlora", "top_k": 2)", R"("routing_strategy": "mixlora-dynamic", "top_p": 0.6)",
        R"("routing_strategy": "mixlora-switch", "expert_capacity": 1)"}) {
    const TemporaryFolder folder;
    const MoePeftAdapter adapter = mixlora_folder(routing).read();
    write_mixture_layers(folder / "x", adapter, base_of);
    LayerReader reader(folder / "x");
    const std::string path = "model.layers.0.mlp";
    const auto map = [&](const char* name) { return DenseBase{weights.at(path + name)}; };
    auto expected = MoePeftLayers<float>(adapter, 3).block(path, map(".gate_proj"), map(".up_proj"), map(".down_proj"));
    auto found = reader.read_block(path, map(".gate_proj"), map(".up_proj"), map(".down_proj"), {.max_tokens = 3});
    const Matrix<float> x = laws::random_matrix<float>(3, expected.in(), 3);
    Matrix<float> of_expected(3, expected.out()), of_found = of_expected;
    expected.forward(x, of_expected);
    found.forward(x, of_found);
    CHECK(std::ranges::equal(of_expected.elements(), of_found.elements()));
    CHECK(reader.method("model.layers.0.self_attn.q_proj") == "lora");
  }
}
