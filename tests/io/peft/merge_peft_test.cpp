// SPDX-License-Identifier: MIT
#include "mole/io/peft/merge_peft.hpp"

#include "peft_folder.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

#include <cmath>
#include <string>

using namespace mole;
using namespace mole::test;

namespace {

/// A checkpoint of matrices [4 x 3] and biases [4], of numbers that depend on the name's place.
struct MergeHost {
  explicit MergeHost(std::initializer_list<const char*> names, Dtype dtype = Dtype::f32) {
    SafetensorsWriter writer;
    std::uint64_t seed = 1;
    for (const std::string name : names) {
      const bool bias = name.ends_with("bias");
      const Matrix<float> numbers = support::random_matrix<float>(bias ? 1 : 4, bias ? 4 : 3, ++seed);
      writer.add_bytes(name, dtype, bias ? std::vector<Index>{4} : std::vector<Index>{4, 3},
                       encode_floats(numbers.view(), dtype));
    }
    writer.write(folder / "model.safetensors");
  }
  SafetensorsShards read() const { return SafetensorsShards(folder / ""); }

  TemporaryFolder folder;
};

std::string merge_complaint(const PeftAdapter& adapter, const MergeHost& host) {
  const TemporaryFolder out;
  try {
    merge_peft(adapter, host.read(), out / "merged");
    return {};
  } catch (const Error& error) {
    std::error_code ignored;
    CHECK((!std::filesystem::exists(out / "merged", ignored) || std::filesystem::is_empty(out / "merged", ignored)));
    return error.what();
  }
}

/// W + scale B A in plain double, of the tensors of a LoRA.
double merged_number(const PeftAdapter& adapter, const std::string& path, const Matrix<float>& weight, Index o,
                     Index i) {
  const PeftModule& module = adapter.at(path);
  const auto a = adapter.tensor(module, "lora_A.weight").matrix<double>(),
             b = adapter.tensor(module, "lora_B.weight").matrix<double>();
  double sum = 0;
  for (Index r = 0; r < a.rows(); ++r) sum += b(o, r) * a(r, i);
  return double(weight(o, i)) + module.scale * sum;
}

}  // namespace

TEST_CASE("A merged weight is W + scale B A, and no other byte of the checkpoint changes", "[io]") {
  PeftFolder folder(R"({"peft_type":"LORA","r":2,"lora_alpha":3})");
  const PeftAdapter adapter = folder.lora("m.q", 3, 4, 2).read();
  const MergeHost host({"m.q.weight", "m.k.weight"});
  const TemporaryFolder out;
  CHECK(merge_peft(adapter, host.read(), out / "new") == std::vector<std::string>{"m.q.weight"});
  const SafetensorsShards before = host.read(), merged(out / "new");
  const Matrix<float> weight = before.matrix<float>("m.q.weight"), now = merged.matrix<float>("m.q.weight");
  for (Index o = 0; o < 4; ++o)
    for (Index i = 0; i < 3; ++i) CHECK(now(o, i) == Approx(merged_number(adapter, "m.q", weight, o, i)).epsilon(1e-6));
  CHECK(std::ranges::equal(merged.at("m.k.weight").bytes, before.at("m.k.weight").bytes));
}

TEST_CASE("Sums of a checkpoint in BF16 are rounded once", "[io]") {
  PeftFolder folder(R"({"peft_type":"LORA","r":2,"lora_alpha":3})");
  const PeftAdapter adapter = folder.lora("q", 3, 4, 2).read();
  const MergeHost host({"q.weight"}, Dtype::bf16);
  const TemporaryFolder out;
  merge_peft<double>(adapter, host.read(), out / "");
  const SafetensorsShards merged(out / "");
  CHECK(merged.at("q.weight").dtype == Dtype::bf16);
  const Matrix<float> weight = host.read().matrix<float>("q.weight"), now = merged.matrix<float>("q.weight");
  for (Index o = 0; o < 4; ++o)
    for (Index i = 0; i < 3; ++i)
      CHECK(now(o, i) == from_bfloat16(to_bfloat16(float(merged_number(adapter, "q", weight, o, i)))));
}

TEST_CASE("A host without the first step of the adapter's paths is the inner part of its model", "[io]") {
  PeftFolder folder(R"({"peft_type":"LORA","r":2})");
  const PeftAdapter adapter = folder.lora("transformer.h.q", 3, 4, 2).read();
  const TemporaryFolder out;
  CHECK(merge_peft(adapter, MergeHost({"h.q.weight"}).read(), out / "")[0] == "h.q.weight");
}

TEST_CASE("The bias of B joins that of the base, and tensors that are replaced take their places", "[io]") {
  PeftFolder folder(
      R"({"peft_type":"LORA","r":2,"lora_alpha":4,"lora_bias":true,"bias":"all","modules_to_save":["head"]})");
  folder.lora("q", 3, 4, 2).add("base_model.model.q.lora_B.bias", {4}).add("base_model.model.head.weight", {4, 3});
  folder.add("base_model.model.norm.bias", {4});
  const PeftAdapter adapter = folder.read();
  const MergeHost host({"q.weight", "q.bias", "head.weight", "norm.bias"});
  const TemporaryFolder out;
  CHECK(merge_peft(adapter, host.read(), out / "").size() == 4);
  const SafetensorsShards merged(out / "");
  const Matrix<float> before = host.read().matrix<float>("q.bias"),
                      own = PeftExperts<float>(adapter).biased_lora("q").bias();
  for (Index o = 0; o < 4; ++o) CHECK(merged.matrix<float>("q.bias")(0, o) == before(0, o) + 2 * own(0, o));
  CHECK(merged.matrix<float>("head.weight")(3, 2) == adapter.replaced.at("head.weight").matrix<float>()(3, 2));
  CHECK(merged.matrix<float>("norm.bias")(0, 3) == adapter.replaced.at("norm.bias").matrix<float>()(0, 3));
}

TEST_CASE("DoRA of an embedding changes the lengths of the table's columns", "[io]") {
  PeftFolder folder(R"({"peft_type":"LORA","r":2,"lora_alpha":3,"use_dora":true})");
  folder.add("base_model.model.w.lora_embedding_A", {2, 4}).add("base_model.model.w.lora_embedding_B", {3, 2});
  const PeftAdapter adapter = folder.add("base_model.model.w.lora_magnitude_vector", {3}).read();
  const MergeHost host({"w.weight"});
  const TemporaryFolder out;
  merge_peft(adapter, host.read(), out / "");
  const Matrix<float> before = host.read().matrix<float>("w.weight"),
                      now = SafetensorsShards(out / "").matrix<float>("w.weight");
  const PeftModule& module = adapter.at("w");
  const auto a = adapter.tensor(module, "lora_embedding_A").matrix<double>(),
             b = adapter.tensor(module, "lora_embedding_B").matrix<double>(),
             magnitude = adapter.tensor(module, "lora_magnitude_vector").matrix<double>();
  const auto v = [&](Index word, Index c) {
    return double(before(word, c)) + 1.5 * (b(c, 0) * a(0, word) + b(c, 1) * a(1, word));
  };
  for (Index c = 0; c < 3; ++c) {
    double squares = 0;
    for (Index word = 0; word < 4; ++word) squares += v(word, c) * v(word, c);
    for (Index word = 0; word < 4; ++word)
      CHECK(now(word, c) == Approx(magnitude(0, c) / std::sqrt(squares) * v(word, c)).epsilon(1e-5));
  }
  CHECK_THROWS_AS(PeftExperts<float>(adapter).embedding("w"), Error);  // its magnitude would be lost
}

TEST_CASE("Tensors of no module replace those that the host has under their names, as when peft loads them", "[io]") {
  PeftFolder folder(R"({"peft_type":"LORA","r":2,"modules_to_save":["head"]})");
  folder.lora("m.q", 3, 4, 2).add("base_model.model.lm_head.weight", {4, 3});  // of modules_to_save
  folder.add("base_model.model.m.words.weight", {4, 3}).add("base_model.model.m.other.weight", {4, 3});
  const PeftAdapter adapter = folder.read();
  CHECK(adapter.report.unused.size() == 2);
  for (const bool inner : {false, true}) {
    const MergeHost host(inner ? std::initializer_list<const char*>{"q.weight", "words.weight", "lm_head.weight"}
                               : std::initializer_list<const char*>{"m.q.weight", "m.words.weight", "lm_head.weight"});
    const TemporaryFolder out;
    CHECK(merge_peft(adapter, host.read(), out / "").size() == 3);
    const SafetensorsShards merged(out / "");
    for (const char* name : {"m.words.weight", "lm_head.weight"}) {
      const std::string in_host = std::string(name).substr(inner && name[1] == '.' ? 2 : 0);
      CHECK(std::ranges::equal(merged.at(in_host).bytes,
                               adapter.files->at(std::string("base_model.model.") + name).bytes));
    }
  }
  const TemporaryFolder larger;
  SafetensorsWriter words;
  words.add("m.q.weight", Matrix<float>(4, 3));
  words.add("lm_head.weight", Matrix<float>(4, 3));
  words.add("m.words.weight", Matrix<float>(5, 3));
  words.write(larger / "model.safetensors");
  try {
    merge_peft(adapter, SafetensorsShards(larger / ""), larger / "new");
    FAIL("expected an Error");
  } catch (const Error& error) {
    CHECK(holds(error.what(), "'m.words.weight' of [4 x 3], as of the adapter, found [5 x 3]"));
  }
}

TEST_CASE("Two modules or tensors of the adapter that would change one of the host are refused", "[io]") {
  PeftFolder two(R"({"peft_type":"LORA","r":2})");
  CHECK(holds(merge_complaint(two.lora("left.q", 3, 4, 2).lora("right.q", 3, 4, 2).read(), MergeHost({"q.weight"})),
              "expected one module for 'q.weight' of the host, found 'left.q' and 'right.q'"));
  PeftFolder heads(R"({"peft_type":"LORA","r":2,"modules_to_save":["head"]})");
  heads.lora("a.q", 3, 4, 2).add("a.head.weight", {4, 3}).add("b.head.weight", {4, 3});
  CHECK(holds(merge_complaint(heads.read(), MergeHost({"q.weight", "head.weight"})),
              "expected one tensor for 'head.weight' of the host, found 'a.head.weight' and 'b.head.weight'"));
}

TEST_CASE("What does not fit the checkpoint is refused by its name, and nothing is written", "[io]") {
  PeftFolder lora(R"({"peft_type":"LORA","r":2})");
  lora.lora("q", 3, 4, 2);
  CHECK(holds(merge_complaint(lora.read(), MergeHost({"k.weight"})),
              "expected a tensor 'q.weight', which the adapter changes, found none of that name"));
  CHECK(holds(merge_complaint(lora.read(), MergeHost({"q.bias"})), "expected a tensor 'q.weight'"));
  PeftFolder wide(R"({"peft_type":"LORA","r":2})");
  CHECK(holds(merge_complaint(wide.lora("q", 5, 4, 2).read(), MergeHost({"q.weight"})),
              "expected 'q.weight' of [4 x 5], as of the adapter, found [4 x 3]"));
  PeftFolder loha(R"({"peft_type":"LOHA","r":2})");
  for (const char* w : {"hada_w1_a", "hada_w2_a"}) loha.add(std::string("base_model.model.q.") + w, {5, 2});
  for (const char* w : {"hada_w1_b", "hada_w2_b"}) loha.add(std::string("base_model.model.q.") + w, {2, 3});
  CHECK(
      holds(merge_complaint(loha.read(), MergeHost({"q.weight"})), "expected a weight [5 x 3] at 'q', found [4 x 3]"));
  PeftFolder pissa(R"({"peft_type":"LORA","r":2,"init_lora_weights":"pissa"})");
  CHECK(holds(merge_complaint(pissa.lora("q", 3, 4, 2).read(), MergeHost({"q.weight"})), "starts from pissa"));
  PeftFolder biased(R"({"peft_type":"LORA","r":2,"lora_bias":true})");
  biased.lora("q", 3, 4, 2).add("base_model.model.q.lora_B.bias", {4});
  CHECK(holds(merge_complaint(biased.read(), MergeHost({"q.weight"})), "expected a tensor 'q.bias'"));
  PeftFolder stacked(R"({"peft_type":"LORA","r":2,"target_parameters":["experts.up"]})");
  CHECK(holds(merge_complaint(stacked.lora("experts", 3, 4, 6).read(), MergeHost({"experts.weight"})),
              "found 'experts', of target_parameters"));
  const TemporaryFolder codes;
  SafetensorsWriter writer;
  writer.add_bytes("q.weight", Dtype::i8, {4, 3}, std::vector<std::byte>(12));
  writer.write(codes / "model.safetensors");
  CHECK_THROWS_AS(merge_peft(lora.read(), SafetensorsShards(codes / ""), codes / "new"), Error);
}
