// SPDX-License-Identifier: MIT
#include "mole/io/peft/peft_writer.hpp"

#include "peft_folder.hpp"

#include "core/error_code.hpp"
#include "mole/io/peft/peft_experts.hpp"
#include "mole/surgery/adapters_of.hpp"
#include "mole/surgery/concatenate_adapters.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

#include <string>

using namespace mole;
using namespace mole::test;

namespace {

Adapter<float> some_adapter(Index rank, double scale, std::uint64_t seed = 1) {
  return {support::random_matrix<float>(rank, 5, seed), support::random_matrix<float>(rank, 4, seed + 1), scale};
}

/// Of each module that is written, what is read back.
void check_same(const std::map<std::string, Adapter<float>>& adapters) {
  const TemporaryFolder folder;
  PeftWriter writer;
  for (const auto& [path, adapter] : adapters) writer.add(path, adapter);
  writer.write(folder / "new/deep");
  const PeftExperts<float> experts(read_peft(folder / "new/deep"));
  for (const auto& [path, adapter] : adapters) {
    INFO(path);
    const auto read = experts.lora(path);
    CHECK(read.scale()[0] == float(adapter.scale));
    CHECK(support::same_bits<float>(read.parameters().lora_A, adapter.a));
    CHECK(support::same_bits<float>(read.parameters().lora_B, adapter.b));
  }
}

}  // namespace

TEST_CASE("Ranks and scales of any module are written as patterns that fit no other", "[io]") {
  check_same({{"q", some_adapter(7, 1.25)},
              {"m.q", some_adapter(3, 0.1)},
              {"m.layers.1.q", some_adapter(2, -2)},
              {"m.layers.11.q", some_adapter(2, 1.5)},
              {"m.layersx1.q", some_adapter(1, 1e-7)},
              {"m.q+[odd]", some_adapter(4, 1e7)},
              {"m.\xc3\xa9", some_adapter(2, 0)}});
}

TEST_CASE("Experts of a mixture and merges of adapters are written as plain LoRA", "[io]") {
  Rng rng(1);
  LowRank<DenseFactors<float>> bank({.in = 5, .out = 4, .experts = 2, .ranks = {2, 3}, .alpha = 6}, rng);
  fill_uniform(bank.parameters().lora_B.view(), 1, rng);
  const auto experts = adapters_of(bank);
  const auto merge = concatenate_adapters<float>({{experts[0], 0.25}, {experts[1], 0.75}});
  check_same({{"a", experts[0]}, {"b", experts[1]}, {"c", merge.adapter}});
  PeftWriter writer;
  CHECK(code_of([&] { writer.add("a", bank); }) == ErrorCode::option);
}

TEST_CASE("Tensors are written in the dtype that is asked for", "[io]") {
  for (const Dtype dtype : {Dtype::f64, Dtype::f32, Dtype::f16, Dtype::bf16}) {
    const TemporaryFolder folder;
    Adapter<float> adapter{Matrix<float>(1, 2), Matrix<float>(1, 1), 1};
    adapter.a(0, 0) = 1.5f, adapter.b(0, 0) = -0.25f;
    PeftWriter writer({.base = "org/model", .task = "CAUSAL_LM", .dropout = 0.5, .dtype = dtype});
    writer.add("q", adapter);
    writer.write(folder / "");
    const PeftAdapter read = read_peft(folder / "");
    CHECK(read.tensor(read.modules[0], "lora_A.weight").entry->dtype == dtype);
    CHECK(PeftExperts<float>(read).lora("q").parameters().lora_B(0, 0) == -0.25f);
    CHECK(read.config.base == "org/model");
    CHECK(read.config.task == "CAUSAL_LM");
    CHECK(read.config.dropout == 0.5);
    CHECK(read.files->reader_of("base_model.model.q.lora_A.weight").metadata().at("format") == "pt");
  }
  CHECK(code_of([] { PeftWriter({.dtype = Dtype::i8}); }) == ErrorCode::option);
}

TEST_CASE("What an adapter replaces goes where peft looks for it", "[io]") {
  PeftFolder folder(R"({"peft_type":"LORA","r":2,"bias":"all","modules_to_save":["score"]})");
  folder.lora("m.q", 3, 4, 2).add("base_model.model.m.q.base_layer.bias", {4}).add("base_model.model.norm.bias", {3});
  folder.add("base_model.model.score.weight", {2, 3}).add("base_model.model.score.bias", {2});
  const PeftAdapter adapter = folder.read();
  const TemporaryFolder written;
  PeftWriter writer;
  writer.add("m.q", PeftExperts<float>(adapter).lora("m.q"));
  for (const auto& [name, tensor] : adapter.replaced) writer.replace(name, tensor);
  writer.write(written / "");
  const PeftAdapter back = read_peft(written / "");
  CHECK(back.replaced.size() == 4);
  CHECK(back.config.bias == "all");
  CHECK(back.config.modules_to_save == std::vector<std::string>{"score"});
  CHECK(back.files->has("base_model.model.m.q.base_layer.bias"));
  CHECK(code_of([&] { writer.replace("bias", adapter.replaced.begin()->second); }) == ErrorCode::option);
}

TEST_CASE("What one folder of peft cannot hold is refused, and nothing is written", "[io]") {
  Rng rng(1);
  const TemporaryFolder folder;
  PeftWriter writer;
  CHECK(text_of([&] { writer.write(folder / "none"); }) == "PeftWriter: expected at least 1 module, found 0");
  CHECK(folder.entries() == 0);
  writer.add("q", some_adapter(2, 1));
  CHECK(text_of([&] { writer.add("q", some_adapter(2, 1)); }) ==
        "PeftWriter: expected each path once, found 'q' twice");
  CHECK(code_of([&] { writer.add("", some_adapter(2, 1)); }) == ErrorCode::option);
  CHECK(code_of([&] { writer.add("q.", some_adapter(2, 1)); }) == ErrorCode::option);
  CHECK(code_of([&] { writer.add(std::string("q\0", 2), some_adapter(2, 1)); }) == ErrorCode::option);
  CHECK(code_of([&] { writer.add("v", some_adapter(0, 1)); }) == ErrorCode::option);
  CHECK(code_of([&] { writer.add("v", some_adapter(1, NAN)); }) == ErrorCode::option);
  const LowRank<HadamardFactors<float>> loha({.in = 5, .out = 4, .rank = 2}, rng);
  CHECK(text_of([&] { writer.add("v", loha); }) == "PeftWriter: expected another module of LORA, found 'v' of LOHA");
  BiasedExperts biased(LowRank<DenseFactors<float>>({.in = 5, .out = 4, .rank = 2}, rng));
  writer.add("biased", biased);
  CHECK(holds(text_of([&] { writer.write(folder / "none"); }), "expected the same bias of B"));

  PeftWriter adalora;
  adalora.add("q", LowRank<TripletFactors<float>>({.in = 5, .out = 4, .rank = 2, .alpha = 3}, rng));
  adalora.add("v", LowRank<TripletFactors<float>>({.in = 5, .out = 4, .rank = 2, .alpha = 4}, rng));
  CHECK(holds(text_of([&] { adalora.write(folder / "none"); }), "expected the same scale for all modules of ADALORA"));

  PeftWriter vera;
  const auto pair = FrozenPair<float>::random(2, 5, 4, rng), other = FrozenPair<float>::random(2, 5, 4, rng);
  vera.add("q", LowRank<SharedFrozen<float>>({.in = 5, .out = 4, .pair = pair}, rng));
  CHECK(holds(text_of([&] { vera.add("v", LowRank<SharedFrozen<float>>({.in = 5, .out = 4, .pair = other}, rng)); }),
              "over the frozen matrices of the first module"));
  vera.add("v", LowRank<SharedFrozen<float>>({.in = 4, .out = 3, .pair = pair}, rng));  // the refused one left no trace

  PeftWriter lokr;
  lokr.add("q", MapExperts<KroneckerMaps<float>>({.in = 12, .out = 12, .rank = 1, .factor = 2}, rng));
  lokr.add("v", MapExperts<KroneckerMaps<float>>({.in = 12, .out = 12, .rank = 1, .factor = 3}, rng));
  CHECK(holds(text_of([&] { lokr.write(folder / "none"); }), "one decompose_factor of peft"));
  CHECK(folder.entries() == 0);

  put(folder / "file", "x");
  PeftWriter good;
  good.add("q", some_adapter(2, 1));
  CHECK(code_of([&] { good.write(folder / "file"); }) == ErrorCode::file);
}
