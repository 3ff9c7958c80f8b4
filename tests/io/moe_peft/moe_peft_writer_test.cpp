// SPDX-License-Identifier: MIT
#include "mole/io/moe_peft/moe_peft_writer.hpp"

#include "core/error_code.hpp"
#include "io/temporary_folder.hpp"
#include "mole/base/no_base.hpp"
#include "mole/io/moe_peft/moe_peft_layers.hpp"
#include "mole/method/mola.hpp"
#include "support/catch.hpp"

namespace {

using namespace mole;
using namespace mole::test;

const std::string moe_q = "model.layers.4.self_attn.q_proj", moe_mlp = "model.layers.4.mlp";

LowRank<DenseFactors<float>> moe_bank(Index experts, Index rank, Index in, Index out, double scale, unsigned seed,
                                      bool shared = false) {
  Rng rng(seed);
  Matrix<float> a(shared ? rank : experts * rank, in), b(experts * rank, out);
  fill_uniform(a.view(), 1, rng);
  fill_uniform(b.view(), 1, rng);
  return {DenseFactors<float>(RankBlocks::uniform(experts, rank, shared), {std::move(a), std::move(b)}),
          std::vector<float>(std::size_t(experts), float(scale)),
          {.rate = 0.25, .stream = 1}};
}
LinearRouter<float> moe_router(Index in, Index experts, unsigned seed) {
  Rng rng(seed);
  return LinearRouter<float>({.in = in, .experts = experts}, rng);
}
MoePeftConfig config_of(MoePeftKind kind) {
  return {.kind = kind,
          .lora = {.rank = 2, .alpha = 6, .dropout = 0.25},
          .num_experts = 3,
          .k = 1,
          .p = 0.625,
          .entropy_threshold = 0.5};
}
MoePeftWriter mola_writer() {
  MoePeftWriter writer(config_of(MoePeftKind::mola));
  writer.add(moe_q, moe_bank(3, 2, 7, 5, 3, 1), moe_router(7, 3, 2));
  return writer;
}
MoePeftWriter mixlora_writer(MoePeftRouting routing) {
  MoePeftConfig config = config_of(MoePeftKind::mixlora);
  config.routing = routing;
  config.experts = {.rank = 4, .alpha = 8, .dropout = 0.25, .scaling = Scaling::alpha_over_sqrt_rank};
  config.activation = "silu";
  MoePeftWriter writer(config);
  writer.add(moe_q, moe_bank(1, 2, 7, 7, 3, 1));
  writer.add(moe_mlp + ".up_proj", moe_bank(3, 4, 7, 9, 4, 3));
  writer.add(moe_mlp + ".down_proj", moe_bank(3, 4, 9, 7, 4, 4));
  writer.add_router(moe_mlp, moe_router(7, 3, 5));
  return writer;
}

/// What is read, added to a writer again.
MoePeftWriter again(const MoePeftAdapter& adapter) {
  MoePeftWriter writer(adapter.config);
  const MoePeftLayers<float> layers(adapter);
  for (const auto& [path, module] : adapter.modules) {
    if (module.gate && !module.experts.empty())
      writer.add(path, layers.bank(path), layers.router(path));
    else if (module.gate)
      writer.add_router(path, layers.router(path));
    else
      writer.add(path, layers.bank(path));
  }
  return writer;
}
void check_again(const MoePeftWriter& writer) {
  const TemporaryFolder folder;
  writer.write(folder / "once");
  const MoePeftAdapter adapter = read_moe_peft(folder / "once");
  CHECK(adapter.report.unused.empty());
  CHECK(adapter.report.missing.empty());
  again(adapter).write(folder / "twice");
  for (const char* name : {"adapter_config.json", "adapter_model.safetensors"})
    CHECK(content_of(folder / "once" / name) == content_of(folder / "twice" / name));
}

}  // namespace

TEST_CASE("Mixtures of MoE-PEFT are written, read and written again byte for byte", "[io]") {
  for (const MoePeftKind kind : {MoePeftKind::mola, MoePeftKind::loramoe, MoePeftKind::dynmole}) {
    MoePeftWriter writer(config_of(kind));
    writer.add(moe_q, moe_bank(3, 2, 7, 5, 3, 1), moe_router(7, 3, 2));
    writer.add("model.layers.0.mlp.up_proj", moe_bank(1, 2, 7, 9, 3, 3));
    check_again(writer);
  }
  for (const MoePeftRouting routing : {MoePeftRouting::top_k, MoePeftRouting::dynamic, MoePeftRouting::switched})
    check_again(mixlora_writer(routing));
}

TEST_CASE("A mixture that is written has the layer's tensors under the release's names, and its options", "[io]") {
  const TemporaryFolder folder;
  mola_writer().write(folder / "");
  const MoePeftAdapter adapter = read_moe_peft(folder / "");
  const auto bank = moe_bank(3, 2, 7, 5, 3, 1);
  const auto& b = *adapter.at(moe_q).experts[2].b;
  CHECK(b.entry->name == "mola.layers.4.self_attn.q_proj.experts.2.lora_B.weight");
  CHECK(b.matrix<float>()(4, 1) == bank.parameters().lora_B(5, 4));
  CHECK(adapter.at(moe_q).experts[2].a->matrix<float>()(1, 6) == bank.parameters().lora_A(5, 6));
  CHECK(adapter.at(moe_q).gate->matrix<float>()(2, 6) == moe_router(7, 3, 2).parameters().weight(2, 6));
  CHECK(adapter.config.k == 1);
  CHECK(adapter.config.target_modules == std::set<std::string, std::less<>>{"q_proj"});
  CHECK(adapter.config.lora.dropout == 0.25);

  mixlora_writer(MoePeftRouting::dynamic).write(folder / "mix");
  const MoePeftConfig mixlora = read_moe_peft(folder / "mix").config;
  CHECK((mixlora.routing == MoePeftRouting::dynamic && mixlora.p == 0.625 && mixlora.activation == "silu"));
  CHECK((mixlora.experts.rank == 4 && mixlora.experts.scale() == 4 && mixlora.lora.scale() == 3));
}

TEST_CASE("What MoE-PEFT's format cannot say is refused, and no file is written", "[io]") {
  const auto text = [](auto add) {
    MoePeftWriter writer = mola_writer();
    return error_text(ErrorCode::option, [&] { add(writer); });
  };
  const std::string v = "model.layers.4.self_attn.v_proj";
  const auto router = moe_router(7, 3, 1);
  const auto has = [](const std::string& whole, const std::string& part) { return whole.find(part) != whole.npos; };
  CHECK(has(text([&](auto& w) { w.add(v, moe_bank(3, 4, 7, 5, 3, 1), router); }), "expected a rank of 2"));
  CHECK(has(text([&](auto& w) { w.add(v, moe_bank(3, 2, 7, 5, 2, 1), router); }), "a scale of 3"));
  CHECK(has(text([&](auto& w) { w.add(v, moe_bank(4, 2, 7, 5, 3, 1), router); }), "expected 3 experts"));
  CHECK(has(text([&](auto& w) { w.add(v, moe_bank(3, 2, 7, 5, 3, 1, true), router); }), "found one that they share"));
  CHECK(
      has(text([&](auto& w) { w.add(v, moe_bank(3, 2, 7, 5, 3, 1), moe_router(7, 4, 1)); }), "a router of 3 experts"));
  CHECK(has(text([&](auto& w) { w.add(v, moe_bank(3, 2, 7, 5, 3, 1)); }), "expected one LoRA"));
  CHECK(has(text([&](auto& w) { w.add("q_proj", moe_bank(3, 2, 7, 5, 3, 1), router); }), "found 'q_proj'"));
  CHECK(has(text([&](auto& w) { w.add(moe_q, moe_bank(3, 2, 7, 5, 3, 1), router); }), "twice"));
  LinearRouter<float> biased = router;
  biased.parameters().bias = Matrix<float>(1, 3);
  CHECK(has(text([&](auto& w) { w.add(v, moe_bank(3, 2, 7, 5, 3, 1), biased); }), "a router without bias"));
  CHECK_THROWS_AS(mola_writer().add(v, moe_bank(3, 2, 6, 5, 3, 1), router), Error);

  const TemporaryFolder folder;
  MoePeftWriter without(config_of(MoePeftKind::mixlora));
  without.add(moe_mlp + ".up_proj", moe_bank(3, 2, 7, 9, 3, 3));
  without.add_router("model.layers.5.mlp", router);
  CHECK(has(error_text(ErrorCode::option, [&] { without.write(folder / "x"); }), "expected a router of '" + moe_mlp));
  CHECK_THROWS_AS(without.add(moe_q, moe_bank(3, 2, 7, 5, 3, 1), router), Error);
  CHECK_THROWS_AS(MoePeftWriter(config_of(MoePeftKind::mola)).write(folder / "x"), Error);
  CHECK_THROWS_AS(MoePeftWriter(MoePeftConfig{}), Error);
  CHECK(folder.entries() == 0);
}
