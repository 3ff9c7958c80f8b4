// SPDX-License-Identifier: MIT
// loras_of(), write_peft(), gguf_lora(), write_lora_layers(): plain LoRAs between formats.
#include "mole/io/convert/loras_of.hpp"
#include "mole/io/convert/write_loras.hpp"

#include "core/error_code.hpp"
#include "io/peft/peft_folder.hpp"
#include "mole/base/dense_base.hpp"
#include "mole/method/mola.hpp"
#include "mole/testing/random_matrix.hpp"
#include "support/catch.hpp"

namespace {

using namespace mole;
using namespace mole::test;

const std::string lora_q = "model.layers.0.self_attn.q_proj", lora_up = "model.layers.1.mlp.up_proj";

PlainLoras two_loras() {
  const auto adapter = [](Index in, Index out, Index rank, double scale, unsigned seed) {
    return Adapter<float>{laws::random_matrix<float>(rank, in, seed), laws::random_matrix<float>(rank, out, seed + 1),
                          scale};
  };
  return {.modules = {{lora_q, adapter(6, 8, 2, 1.5, 1)}, {lora_up, adapter(6, 10, 3, 0.5, 3)}}, .dropout = 0.25};
}

bool same_numbers(const Matrix<float>& a, const Matrix<float>& b) {
  return a.rows() == b.rows() && a.cols() == b.cols() && std::ranges::equal(a.elements(), b.elements());
}
void check_same(const PlainLoras& found, const PlainLoras& expected) {
  REQUIRE(found.modules.size() == expected.modules.size());
  CHECK(found.embeddings == expected.embeddings);
  for (const auto& [path, adapter] : expected.modules) {
    REQUIRE(found.modules.contains(path));
    const Adapter<float>& other = found.modules.find(path)->second;
    CHECK(same_numbers(other.a, adapter.a));
    CHECK(same_numbers(other.b, adapter.b));
    CHECK(other.scale == adapter.scale);
  }
}
NoBase<float> no_base(const std::string&, Index in, Index out) {
  return {in, out};
}

}  // namespace

TEST_CASE("Plain LoRAs come back from a folder of peft and from a file of layers as they were", "[io]") {
  const TemporaryFolder folder;
  const PlainLoras loras = two_loras();
  write_peft(folder / "peft", loras);
  const PlainLoras of_peft = loras_of(read_peft(folder / "peft"));
  check_same(of_peft, loras);
  CHECK(of_peft.dropout == 0.25);
  write_lora_layers(folder / "layers.safetensors", of_peft, no_base);
  LayerReader reader(folder / "layers.safetensors");
  const PlainLoras of_layers = loras_of(reader);
  check_same(of_layers, loras);
  CHECK(of_layers.dropout == 0.25);
}

TEST_CASE(
    "Through llama.cpp's format plain LoRAs keep their updates, with one alpha for all and rows of q in its order",
    "[io]") {
  const TemporaryFolder folder;
  PlainLoras loras = two_loras();
  loras.modules[lora_up].scale = 1;  // alpha of both is 3, so that no B is multiplied
  loras.modules["model.embed_tokens"] = {laws::random_matrix<float>(2, 5, 8), laws::random_matrix<float>(2, 6, 9), 1.5};
  loras.embeddings = {"model.embed_tokens"};
  write_gguf_lora(folder / "lora.gguf", gguf_lora(loras, "llama"), GgufType::f32, {.q = 2});
  const GgufReader reader(folder / "lora.gguf");
  CHECK(reader.at("blk.0.attn_q.weight.lora_a").shape == std::vector<Index>{2, 6});
  check_same(loras_of(read_gguf_lora(reader, {.q = 2})), loras);
}

TEST_CASE("The base of a layer file's LoRA is remembered", "[io]") {
  const TemporaryFolder folder;
  const Matrix<float> weight = laws::random_matrix<float>(8, 6, 1), other = laws::random_matrix<float>(8, 6, 2);
  PlainLoras loras = two_loras();
  loras.modules.erase(lora_up);
  write_lora_layers(folder / "x", loras, [&](const std::string&, Index, Index) { return DenseBase{weight}; });
  LayerReader reader(folder / "x");
  CHECK_NOTHROW(reader.read(lora_q, DenseBase{weight}));
  CHECK_THROWS_AS(reader.read(lora_q, DenseBase{other}), Error);
  CHECK(reader.method(lora_q) == "lora");
  CHECK(reader.sizes(lora_q).out == 8);
}

TEST_CASE("AdaLoRA and LoHa are plain LoRAs of the same update, of no more ranks than its weight has", "[io]") {
  struct Case {
    Index in, out, ranks_of_loha;
  };
  for (const Case& size : {Case{3, 4, 3}, Case{4, 3, 3}, Case{5, 6, 4}}) {
    PeftFolder ada(R"({"peft_type":"ADALORA","init_r":2})");
    ada.add("base_model.model.q.lora_A", {2, size.in}).add("base_model.model.q.lora_B", {size.out, 2});
    ada.add("base_model.model.q.lora_E", {2, 1});
    PeftFolder loha(R"({"peft_type":"LOHA","r":2})");
    for (const char* w : {"hada_w1_a", "hada_w2_a"}) loha.add(std::string("base_model.model.q.") + w, {size.out, 2});
    for (const char* w : {"hada_w1_b", "hada_w2_b"}) loha.add(std::string("base_model.model.q.") + w, {2, size.in});
    for (const PeftAdapter& adapter : {ada.read(), loha.read()}) {
      Matrix<float> expected(size.out, size.in);
      PeftExperts<float>(adapter).visit("q", size.in, size.out, {}, [&](const auto& experts) {
        if constexpr (requires { experts.add_delta(0, 1, expected.view()); }) experts.add_delta(0, 1, expected.view());
      });
      const PlainLoras loras = loras_of(adapter);
      const Adapter<float>& lora = loras.modules.at("q");
      CHECK(lora.rank() == (adapter.config.kind == PeftKind::loha ? size.ranks_of_loha : 2));
      for (Index o = 0; o < size.out; ++o)
        for (Index i = 0; i < size.in; ++i) {
          double sum = 0;
          for (Index r = 0; r < lora.rank(); ++r) sum += lora.scale * double(lora.b(r, o)) * double(lora.a(r, i));
          CHECK(sum == Approx(double(expected(o, i))).epsilon(1e-5));
        }
    }
  }
}

TEST_CASE("What a plain LoRA cannot say is refused by its name", "[io]") {
  const auto text_of = [](const PeftFolder& folder) {
    const PeftAdapter adapter = folder.read();
    return error_text(ErrorCode::option, [&] { loras_of(adapter); });
  };
  const auto lora = [&](const std::string& field) { return R"({"peft_type":"LORA","r":2,)" + field + "}"; };
  PeftFolder dora(lora(R"("use_dora":true)"));
  CHECK(holds(text_of(dora.lora("q", 3, 4, 2).add("base_model.model.q.lora_magnitude_vector", {4})), "found DoRA"));
  PeftFolder biased(lora(R"("lora_bias":true)"));
  CHECK(holds(text_of(biased.lora("q", 3, 4, 2).add("base_model.model.q.lora_B.bias", {4})), "found a bias of B"));
  PeftFolder pissa(lora(R"("init_lora_weights":"pissa_niter_4")"));
  CHECK(holds(text_of(pissa.lora("q", 3, 4, 2)), "starts from pissa_niter_4"));
  PeftFolder saved(lora(R"("modules_to_save":["score"])"));
  CHECK(holds(text_of(saved.lora("q", 3, 4, 2).add("base_model.model.score.weight", {2, 2})), "found 'score.weight'"));
  for (const PeftFolder* folder : {&pissa, &saved})
    CHECK(loras_of(folder->read(), {.base_is_changed = true}).modules.contains("q"));
  PeftFolder stacked(lora(R"("target_parameters":["e.up"])"));
  CHECK(holds(text_of(stacked.lora("e", 3, 4, 6)), "found stacked experts 'e'"));
  PeftFolder lokr(R"({"peft_type":"LOKR","r":2})");
  CHECK(holds(text_of(lokr.add("base_model.model.q.lokr_w1", {2, 2}).add("base_model.model.q.lokr_w2", {2, 2})),
              "found LOKR"));

  GgufLora other{.architecture = "bert"};
  other.adapters["blk.0.attn_output_norm.weight"] = {two_loras().modules.at(lora_q)};
  CHECK(holds(error_text(ErrorCode::option, [&] { loras_of(other); }), "found 'blk.0.attn_output_norm.weight'"));
  GgufLora experts{.architecture = "llama"};
  experts.adapters["output.weight"] = {two_loras().modules.at(lora_q), two_loras().modules.at(lora_q)};
  CHECK(holds(error_text(ErrorCode::option, [&] { loras_of(experts); }), "2 stacked experts"));
  PlainLoras bert;
  bert.modules["bert.encoder.layer.0.attention.self.query"] = two_loras().modules.at(lora_q);
  CHECK(holds(error_text(ErrorCode::option, [&] { gguf_lora(bert, "bert"); }), "found 'bert.encoder"));

  const TemporaryFolder folder;
  PlainLoras table = two_loras();
  table.embeddings = {lora_q};
  CHECK(holds(error_text(ErrorCode::option, [&] { write_lora_layers(folder / "x", table, no_base); }),
              "found the table '" + lora_q));
  Rng rng(1);
  auto layer = mola({.experts = 4, .rank = 2, .k = 2}, NoBase<float>(6, 8), rng);
  write_layer(folder / "mola", layer);
  LayerReader reader(folder / "mola");
  CHECK(holds(error_text(ErrorCode::option, [&] { loras_of(reader); }), "found 'layer' of mola"));
  CHECK(folder.entries() == 1);
}
