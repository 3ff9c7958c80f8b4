// SPDX-License-Identifier: MIT
#include "mole/io/peft/read_peft.hpp"

#include "peft_folder.hpp"

#include "mole/io/peft/peft_experts.hpp"
#include "support/catch.hpp"

#include <array>
#include <string>

using namespace mole;
using namespace mole::test;

namespace {
const std::string lora_json = R"({"peft_type":"LORA","r":2,"lora_alpha":6,"target_modules":["q","v"]})";
}

TEST_CASE("A folder gives its modules in the order of their paths, with scales and tensors", "[io]") {
  PeftFolder folder(lora_json);
  folder.lora("layers.1.q", 3, 4, 2).lora("layers.0.v", 5, 3, 2);
  const PeftAdapter adapter = folder.read();
  REQUIRE(adapter.modules.size() == 2);
  CHECK(adapter.modules[0].path == "layers.0.v");
  CHECK(adapter.at("layers.1.q").scale == 3);
  const Matrix<float> b = adapter.tensor(adapter.at("layers.1.q"), "lora_B.weight").matrix<float>();
  CHECK(b.rows() == 4);
  CHECK(b(0, 0) == 3);  // the seventh number of the folder, halved
  CHECK(adapter.tensor(adapter.at("layers.1.q"), "lora_B.weight").transposed<float>()(0, 1) == b(1, 0));
  CHECK(adapter.report.used.size() == 4);
  CHECK(adapter.report.text() == "4 used");
  CHECK_FALSE(adapter.has("layers.2.q"));
  CHECK_THROWS_AS(adapter.at("layers.2.q"), Error);
  CHECK_THROWS_AS(adapter.tensor(adapter.at("layers.1.q"), "lora_B.bias"), Error);
}

TEST_CASE("Views stay valid in a copy of the adapter, after the first is gone", "[io]") {
  PeftFolder folder(lora_json);
  folder.lora("q", 3, 4, 2);
  PeftAdapter copy;
  {
    const PeftAdapter first = folder.read();
    copy = first;
  }
  CHECK(copy.tensor(copy.at("q"), "lora_A.weight").view<float>()(1, 2) == 2.5f);
}

TEST_CASE("An adapter in memory is read as one in a folder", "[io]") {
  PeftFolder folder(lora_json);
  folder.lora("q", 3, 4, 2);
  const std::string content = content_of(folder.path() / "adapter_model.safetensors");
  const auto bytes = std::as_bytes(std::span(content));
  const PeftAdapter adapter =
      read_peft(lora_json, SafetensorsShards(SafetensorsReader::from_bytes(bytes, "bytes"), "bytes"), "bytes");
  CHECK(adapter.at("q").scale == 3);
  CHECK(adapter.tensor(adapter.at("q"), "lora_A.weight").matrix<float>()(1, 2) == 2.5f);
}

TEST_CASE("The report names what is unused, and what the configuration promises and the file lacks", "[io]") {
  PeftFolder folder(R"({"peft_type":"LORA","r":2,"target_modules":["q","v"],"modules_to_save":["score","head"]})");
  folder.lora("m.q", 3, 4, 2).add("base_model.model.rope.inv_freq", {4}).add("base_model.model.score.weight", {2, 3});
  const PeftAdapter adapter = folder.read();
  CHECK(adapter.report.text() == "3 used; 1 unused: base_model.model.rope.inv_freq; 2 missing: v, head");
  CHECK(adapter.replaced.contains("score.weight"));
}

TEST_CASE("Biases and weights of the base are replaced ones, under the host's names", "[io]") {
  PeftFolder folder(R"({"peft_type":"LORA","r":2,"bias":"all"})");
  folder.lora("m.q", 3, 4, 2).add("base_model.model.m.q.base_layer.bias", {4}).add("base_model.model.norm.bias", {3});
  const PeftAdapter adapter = folder.read();
  CHECK(adapter.replaced.size() == 2);
  CHECK(adapter.replaced.contains("m.q.bias"));
  CHECK(adapter.replaced.contains("norm.bias"));
  PeftFolder twice(R"({"peft_type":"LORA","r":2,"bias":"all"})");
  twice.lora("q", 3, 4, 2).add("base_model.model.q.base_layer.bias", {4}).add("base_model.model.q.bias", {4});
  CHECK(holds(twice.complaint(), "one tensor for 'q.bias'"));
}

TEST_CASE("A module to be saved is found anywhere in a name, and the bias of an adapted one without its wrapper",
          "[io]") {
  PeftFolder folder(R"({"peft_type":"LORA","r":2,"bias":"lora_only","modules_to_save":["head","b.head"]})");
  folder.lora("q", 3, 4, 2).add("base_model.model.b.head.out.weight", {2, 3}).add("base_model.model.q.bias", {4});
  const PeftAdapter adapter = folder.read();
  CHECK(adapter.replaced.contains("b.head.out.weight"));
  CHECK(adapter.replaced.contains("q.bias"));
  PeftFolder other(R"({"peft_type":"LORA","r":2,"modules_to_save":["head"]})");
  other.lora("q", 3, 4, 2).add("base_model.model.heads.weight", {2, 3}).add("base_model.model.head", {2});
  CHECK(other.read().report.text() ==
        "2 used; 2 unused: base_model.model.head, base_model.model.heads.weight; 1 missing: head");
  // As peft, which asks whether a path ends so, wherever in a step.
  PeftFolder within(R"({"peft_type":"LORA","r":2,"modules_to_save":["head"]})");
  within.lora("q", 3, 4, 2).add("base_model.model.lm_head.weight", {2, 3}).add("base_model.model.a.xhead.b.c", {2});
  CHECK(within.read().report.text() == "4 used");
  CHECK(within.read().replaced.contains("lm_head.weight"));
  // Before 0.21 it also saved as biases whatever has the word in its name.
  for (const char* bias : {"all", "lora_only"}) {
    PeftFolder biases(std::string(R"({"peft_type":"LORA","r":2,"bias":")") + bias + "\"}");
    biases.lora("q", 3, 4, 2).add("base_model.model.relative_attention_bias.weight", {2, 3});
    CHECK(biases.read().replaced.size() == (std::string(bias) == "all" ? 1 : 0));
  }
}

TEST_CASE("Modules of stacked experts are told by target_parameters, at any depth of wrapping", "[io]") {
  PeftFolder folder(R"({"peft_type":"LORA","r":2,"target_parameters":["mlp.experts.up","mlp.experts.down"]})");
  folder.lora("l.mlp.experts.base_layer", 3, 4, 6).lora("l.mlp.experts", 4, 3, 6).lora("l.q", 3, 3, 2);
  const PeftAdapter adapter = folder.read();
  CHECK(adapter.at("l.mlp.experts.base_layer").stacked);
  CHECK(adapter.at("l.mlp.experts").stacked);
  CHECK_FALSE(adapter.at("l.q").stacked);
}

TEST_CASE("What is shared belongs to no module; names without peft's prefix are read, too", "[io]") {
  PeftFolder folder(R"({"peft_type":"VERA","r":2})");
  folder.add("base_model.vera_A", {2, 5}).add("base_model.vera_B", {6, 2});
  folder.add("base_model.model.q.vera_lambda_b", {4}).add("base_model.model.q.vera_lambda_d", {2});
  const PeftAdapter adapter = folder.read();
  CHECK(adapter.modules.size() == 1);
  CHECK(adapter.tensor(adapter.modules[0], "vera_B").shape() == std::vector<Index>{6, 2});
  PeftFolder bare(lora_json);
  bare.add("m.q.lora_A.weight", {2, 3}).add("m.q.lora_B.weight", {4, 2});
  CHECK(bare.read().has("m.q"));
}

TEST_CASE("An adapter of which nothing attaches is refused, and a folder without one", "[io]") {
  PeftFolder other(lora_json);
  other.add("transformer.h.0.weight", {2, 2});
  CHECK(holds(
      other.complaint(),
      "expected tensors of a LORA adapter, such as 'base_model.model.<module>.lora_A.weight', found 'transformer"));
  PeftFolder wrong_kind(R"({"peft_type":"LOHA"})");
  wrong_kind.lora("q", 3, 4, 2);
  CHECK(holds(wrong_kind.complaint(), "expected tensors of a LOHA adapter"));
  CHECK(
      holds(PeftFolder(lora_json).complaint(), "expected a file adapter_model.safetensors, or its index, found none"));
  PeftFolder pickled(lora_json);
  put(pickled.path() / "adapter_model.bin", "PK");
  CHECK(holds(pickled.complaint(), "found a pickle, which may run code when it is read"));
  const TemporaryFolder empty;
  CHECK_THROWS_AS(read_peft(empty / ""), Error);
  CHECK_THROWS_AS(read_peft(empty / "none"), Error);
}

TEST_CASE("Adapters in sub-folders are listed, and named where one is expected", "[io]") {
  const TemporaryFolder folder;
  for (const char* name : {"math", "code"}) {
    std::filesystem::create_directory(folder / name);
    put(folder / (std::string(name) + "/adapter_config.json"), lora_json);
  }
  std::filesystem::create_directory(folder / "other");
  CHECK(peft_adapters_in(folder / "") == std::vector<std::string>{"code", "math"});
  try {
    read_peft(folder / "");
    FAIL("expected an Error");
  } catch (const Error& error) {
    CHECK(holds(error.what(), "found adapters in its sub-folders, such as 'code'"));
  }
}

TEST_CASE("All adapters of a folder are read at once, its own first", "[io]") {
  PeftFolder folder(lora_json), code(lora_json), math(lora_json);
  folder.lora("q", 3, 4, 2), code.lora("v", 3, 4, 2), math.lora("q", 3, 4, 2);
  std::filesystem::copy(code.path(), folder.path() / "code");
  CHECK(read_peft_adapters(folder.path()).size() == 2);
  CHECK(read_peft_adapters(folder.path())[1].has("v"));
  std::filesystem::copy(math.path(), folder.path() / "a");
  std::filesystem::remove(folder.path() / "adapter_config.json");
  const auto adapters = read_peft_adapters(folder.path());
  REQUIRE(adapters.size() == 2);
  CHECK(adapters[0].has("q"));
  CHECK(adapters[1].has("v"));
  const TemporaryFolder empty;
  CHECK_THROWS_AS(read_peft_adapters(empty / ""), Error);
}

TEST_CASE("Shards of an adapter are read through their index", "[io]") {
  PeftFolder folder(lora_json);
  folder.lora("q", 3, 4, 2);
  std::filesystem::rename(folder.path() / "adapter_model.safetensors", folder.path() / "part.safetensors");
  put(folder.path() / "adapter_model.safetensors.index.json",
      R"({"weight_map":{"base_model.model.q.lora_A.weight":"part.safetensors",
                        "base_model.model.q.lora_B.weight":"part.safetensors"}})");
  CHECK(folder.read().modules.size() == 1);
  put(folder.path() / "adapter_model.safetensors.index.json",
      R"({"weight_map":{"base_model.model.q.lora_A.weight":"../part.safetensors"}})");
  CHECK(holds(folder.complaint(), "in the same folder"));
}

TEST_CASE("Halves, ranks that disagree, wrong dtypes and dimensions are refused by tensor", "[io]") {
  const auto of = [](const char* config) { return PeftFolder(config); };
  PeftFolder half = of(lora_json.c_str());
  half.add("base_model.model.q.lora_A.weight", {2, 3});
  CHECK(holds(half.complaint(), "expected a tensor 'lora_B.weight' for 'q', found none"));

  PeftFolder ranks = of(lora_json.c_str());
  ranks.add("base_model.model.q.lora_A.weight", {2, 3}).add("base_model.model.q.lora_B.weight", {4, 3});
  CHECK(holds(ranks.complaint(),
              "expected as many columns of 'lora_B.weight' as rows of 'lora_A.weight', 2 for 'q', found 3"));

  PeftFolder other_rank = of(lora_json.c_str());
  other_rank.lora("q", 3, 4, 5);
  CHECK(holds(other_rank.complaint(), "expected a rank of 2, as in adapter_config.json for 'q', found 5"));

  PeftFolder integers = of(lora_json.c_str());
  const std::array<std::int64_t, 6> numbers{};
  integers.add_bytes("base_model.model.q.lora_A.weight", Dtype::i64, {2, 3}, std::as_bytes(std::span(numbers)));
  CHECK(
      holds(integers.complaint(), "expected F64, F32, F16 or BF16 for 'base_model.model.q.lora_A.weight', found I64"));

  PeftFolder empty = of(lora_json.c_str());
  empty.add_bytes("base_model.model.q.lora_A.weight", Dtype::f32, {Index(1) << 40, 0}, {});
  CHECK(holds(empty.complaint(), "at least one number"));

  PeftFolder lokr = of(R"({"peft_type":"LOKR","r":2})");
  lokr.add("base_model.model.q.lokr_w1", {2, 2}).add("base_model.model.q.lokr_w2_a", {3, 2});
  CHECK(holds(lokr.complaint(), "expected a tensor 'lokr_w2' for 'q', found none"));

  PeftFolder unasked = of(lora_json.c_str());
  unasked.lora("q", 3, 4, 2).add("base_model.model.q.lora_magnitude_vector", {4});
  CHECK(holds(unasked.complaint(), "expected no tensor 'lora_magnitude_vector' as use_dora is false for 'q'"));
  PeftFolder lacking = of(R"({"peft_type":"LORA","r":2,"lora_bias":true})");
  lacking.lora("q", 3, 4, 2);
  CHECK(holds(lacking.complaint(), "expected a tensor 'lora_B.bias' as lora_bias is true for 'q'"));

  PeftFolder both = of(lora_json.c_str());
  both.lora("q", 3, 4, 2).add("base_model.model.q.lora_embedding_A", {2, 3});
  CHECK(holds(both.complaint(),
              "expected tensors of a linear layer or of an embedding for 'q', found 'lora_A.weight' "
              "and 'lora_embedding_A'"));
  PeftFolder pathless = of(lora_json.c_str());  // a module without a path is none, and shares nothing with the others
  pathless.add("base_model.model.q.lora_A.weight", {2, 3}).add("base_model.model..lora_B.weight", {4, 2});
  CHECK(holds(pathless.complaint(), "expected a tensor 'lora_B.weight' for 'q', found none"));
  pathless.add("base_model.model.q.lora_B.weight", {4, 2}).add(".lora_B.bias", {4});
  CHECK(pathless.read().shared.empty());
  CHECK(pathless.read().report.unused == std::vector<std::string>{".lora_B.bias", "base_model.model..lora_B.weight"});

  PeftFolder nul = of(lora_json.c_str());
  nul.lora(std::string("q\0x", 3), 3, 4, 2);
  CHECK(holds(nul.complaint(), "a name without a character 0"));
  PeftFolder twice = of(lora_json.c_str());
  twice.lora("q", 3, 4, 2).add("q.lora_A.weight", {2, 3});
  CHECK(holds(twice.complaint(), "expected one tensor 'lora_A.weight' of its module for 'q.lora_A.weight', found two"));
  PeftFolder deep = of(lora_json.c_str());
  std::string steps = "q";
  for (int i = 0; i < 100; ++i) steps += ".q";
  deep.lora(steps, 3, 4, 2);
  CHECK(holds(deep.complaint(), "expected a path of at most 100 steps"));
  PeftFolder lengthy = of(lora_json.c_str());
  lengthy.lora(std::string(1000, 'q'), 3, 4, 2);
  CHECK(holds(lengthy.complaint(), "expected a name of at most 1000 bytes for 'base_model.model.qqq"));
}

TEST_CASE("A convolution is refused, or left out and named if a part is enough", "[io]") {
  PeftFolder folder(lora_json);
  folder.lora("q", 3, 4, 2);
  folder.add("base_model.model.conv.lora_A.weight", {2, 3, 1, 1}).add("base_model.model.conv.lora_B.weight", {4, 2});
  CHECK(
      holds(folder.complaint(), "expected 2 dimensions, of a linear layer for 'base_model.model.conv.lora_A.weight'"));
  const PeftAdapter part = folder.read(true);
  CHECK(part.modules.size() == 1);
  CHECK(part.report.used.size() == 2);
  CHECK(part.report.refused.size() == 2);
}

TEST_CASE("A truncated or foreign file of tensors is refused, whatever its length", "[io]") {
  PeftFolder folder(lora_json);
  folder.lora("q", 3, 4, 2);
  const std::string whole = content_of(folder.path() / "adapter_model.safetensors");
  for (std::size_t size = 0; size < whole.size(); size += 7) {
    put(folder.path() / "adapter_model.safetensors", whole.substr(0, size));
    CHECK_FALSE(folder.complaint().empty());
  }
  put(folder.path() / "adapter_model.safetensors", whole + "x");
  CHECK_FALSE(folder.complaint().empty());
}

TEST_CASE("A target parameter without a module is one of every module that is no target itself", "[io]") {
  PeftFolder folder(R"({"peft_type":"LORA","r":2,"target_modules":["q"],"target_parameters":["up"]})");
  folder.lora("layers.0.q", 3, 4, 2).lora("layers.0.experts", 3, 4, 6).lora("layers.1.experts.base_layer", 3, 4, 6);
  const PeftAdapter adapter = folder.read();
  CHECK_FALSE(adapter.at("layers.0.q").stacked);
  CHECK(adapter.at("layers.0.experts").stacked);
  CHECK(PeftExperts<float>(adapter).stacked_lora("layers.1.experts.base_layer", "up").experts() == 3);
}

TEST_CASE("What exclude_modules takes out of the targets is not missing", "[io]") {
  const auto missing = [](const std::string& excluded) {
    PeftFolder folder(R"({"peft_type":"LORA","r":2,"target_modules":["q","attn.k","v"],"exclude_modules":)" + excluded +
                      "}");
    return folder.lora("attn.q", 3, 4, 2).read().report.missing;
  };
  CHECK(missing("null") == std::vector<std::string>{"attn.k", "v"});
  CHECK(missing(R"(["k","attn.v"])") == std::vector<std::string>{"v"});  // a v elsewhere could have been
  CHECK(missing(R"x(".*\\.(k|v)")x").empty());
}
