// SPDX-License-Identifier: MIT
#include "mole/io/gguf/gguf_lora.hpp"

#include "core/error_code.hpp"
#include "io/temporary_folder.hpp"
#include "mole/testing/random_matrix.hpp"
#include "support/catch.hpp"

#include <functional>

namespace {

using namespace mole;
using namespace mole::test;

Adapter<float> random_adapter(Index in, Index out, Index rank, double scale, unsigned seed) {
  return {laws::random_matrix<float>(rank, in, seed), laws::random_matrix<float>(rank, out, seed + 1), scale};
}

/// scale B^T A
Matrix<double> update_of(const Adapter<float>& adapter) {
  Matrix<double> update(adapter.out(), adapter.in());
  for (Index r = 0; r < adapter.rank(); ++r)
    for (Index o = 0; o < adapter.out(); ++o)
      for (Index i = 0; i < adapter.in(); ++i)
        update(o, i) += adapter.scale * double(adapter.b(r, o)) * double(adapter.a(r, i));
  return update;
}

double largest_difference(const Matrix<double>& a, const Matrix<double>& b) {
  double largest = 0;
  for (std::size_t i = 0; i < a.elements().size(); ++i)
    largest = std::max(largest, std::abs(a.elements()[i] - b.elements()[i]));
  return largest;
}

GgufLora three_adapters() {
  GgufLora lora{.architecture = "llama"};
  lora.adapters["blk.0.attn_q.weight"] = {random_adapter(32, 64, 4, 2, 1)};
  lora.adapters["blk.0.ffn_down.weight"] = {random_adapter(64, 32, 8, 1, 3)};
  lora.adapters["blk.0.ffn_up_exps.weight"] = {random_adapter(32, 24, 2, 4, 5), random_adapter(32, 24, 2, 4, 7)};
  lora.adapters["token_embd.weight"] = {random_adapter(40, 32, 4, 2, 9)};
  return lora;
}

std::string lora_complaint(const GgufWriter& writer) {
  const TemporaryFolder folder;
  writer.write(folder / "x.gguf");
  try {
    read_gguf_lora(GgufReader(folder / "x.gguf"));
    return {};
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::file);
    const std::string text = error.what();
    return text.substr(text.find("x.gguf: ") + 8);
  }
}

GgufWriter lora_header() {
  GgufWriter writer;
  writer.set("general.type", "adapter");
  writer.set("general.architecture", "llama");
  writer.set("adapter.type", "lora");
  return writer;
}

}  // namespace

TEST_CASE("An adapter of llama.cpp is read as it was written, to the bit where all scales are one alpha", "[io]") {
  const TemporaryFolder folder;
  const GgufLora lora = three_adapters();
  write_gguf_lora(folder / "x.gguf", lora);
  const GgufReader reader(folder / "x.gguf");
  CHECK(reader.value<double>("adapter.lora.alpha") == 8);  // 2 of rank 4, 1 of rank 8, 4 of rank 2
  CHECK(reader.at("blk.0.ffn_up_exps.weight.lora_a").shape == std::vector<Index>{2, 2, 32});
  CHECK(reader.at("blk.0.ffn_up_exps.weight.lora_b").shape == std::vector<Index>{2, 24, 2});
  CHECK(reader.at("token_embd.weight.lora_a").shape == std::vector<Index>{40, 4});

  const GgufLora found = read_gguf_lora(reader);
  CHECK(found.architecture == "llama");
  CHECK(found.report.text() == "8 used");
  REQUIRE(found.adapters.size() == 4);
  for (const auto& [tensor, adapters] : lora.adapters) {
    CAPTURE(tensor);
    REQUIRE(found.adapters.at(tensor).size() == adapters.size());
    for (std::size_t e = 0; e < adapters.size(); ++e) {
      const Adapter<float>& again = found.adapters.at(tensor)[e];
      CHECK(again.scale == adapters[e].scale);
      CHECK(std::ranges::equal(again.a.elements(), adapters[e].a.elements()));
      CHECK(std::ranges::equal(again.b.elements(), adapters[e].b.elements()));
    }
  }
}

TEST_CASE("Adapters of other scales keep their updates", "[io]") {
  const TemporaryFolder folder;
  GgufLora lora = three_adapters();
  lora.adapters["blk.0.ffn_down.weight"][0].scale = 0.3;
  lora.adapters["token_embd.weight"][0].scale = -7;
  write_gguf_lora(folder / "x.gguf", lora);
  const GgufLora found = read_gguf_lora(GgufReader(folder / "x.gguf"));
  for (const auto& [tensor, adapters] : lora.adapters)
    CHECK(largest_difference(update_of(found.adapters.at(tensor)[0]), update_of(adapters[0])) < 1e-5);
}

TEST_CASE("In Q8_0 and F16 an adapter is rounded, and what has no blocks stays whole", "[io]") {
  const TemporaryFolder folder;
  const GgufLora lora = three_adapters();
  for (const GgufType type : {GgufType::f16, GgufType::bf16, GgufType::q8_0}) {
    write_gguf_lora(folder / "x.gguf", lora, type);
    const GgufReader reader(folder / "x.gguf");
    CHECK(reader.at("blk.0.attn_q.weight.lora_a").type == type);
    CHECK(reader.at("blk.0.attn_q.weight.lora_b").type == (type == GgufType::q8_0 ? GgufType::f32 : type));
    const GgufLora found = read_gguf_lora(reader);
    for (const auto& [tensor, adapters] : lora.adapters)
      CHECK(largest_difference(update_of(found.adapters.at(tensor)[0]), update_of(adapters[0])) < 0.2);
  }
}

TEST_CASE("Without an alpha, the scale of an adapter is 1", "[io]") {
  GgufWriter writer = lora_header();
  const TemporaryFolder folder;
  writer.add("blk.0.attn_q.weight.lora_a", Matrix<float>(2, 6));
  writer.add("blk.0.attn_q.weight.lora_b", Matrix<float>(4, 2));
  writer.add("blk.0.attn_norm.weight", Matrix<float>(1, 6));
  writer.write(folder / "x.gguf");
  const GgufLora found = read_gguf_lora(GgufReader(folder / "x.gguf"));
  CHECK(found.adapters.at("blk.0.attn_q.weight")[0].scale == 1);
  CHECK(found.report.text() == "2 used; 1 unused: blk.0.attn_norm.weight");
}

TEST_CASE("Rows of q and k change between PyTorch's order and that of the file", "[io]") {
  const TemporaryFolder folder;
  GgufLora lora{.architecture = "llama"};
  lora.adapters["blk.0.attn_q.weight"] = {random_adapter(6, 16, 2, 1, 1)};
  lora.adapters["blk.0.attn_k.weight"] = {random_adapter(6, 8, 2, 1, 3)};
  lora.adapters["blk.0.attn_v.weight"] = {random_adapter(6, 8, 2, 1, 5)};
  write_gguf_lora(folder / "x.gguf", lora, GgufType::f32, {.q = 2, .k = 1});
  const GgufReader reader(folder / "x.gguf");
  const GgufLora as_stored = read_gguf_lora(reader), as_pytorch = read_gguf_lora(reader, {.q = 2, .k = 1});
  for (const auto& [tensor, adapters] : lora.adapters) {
    CAPTURE(tensor);
    CHECK(std::ranges::equal(as_pytorch.adapters.at(tensor)[0].b.elements(), adapters[0].b.elements()));
  }
  // Row 2 i + c of a head of 8 is row 4 c + i.
  const auto& q = lora.adapters["blk.0.attn_q.weight"][0].b;
  const auto& stored = as_stored.adapters.at("blk.0.attn_q.weight")[0].b;
  for (Index head : {0, 8})
    for (Index i = 0; i < 4; ++i)
      for (Index c : {0, 1}) CHECK(stored(1, head + 2 * i + c) == q(1, head + 4 * c + i));
  CHECK(std::ranges::equal(as_stored.adapters.at("blk.0.attn_v.weight")[0].b.elements(),
                           lora.adapters["blk.0.attn_v.weight"][0].b.elements()));
  CHECK(error_text(ErrorCode::shape, [&] { read_gguf_lora(reader, {.q = 3}); }) != "");
}

TEST_CASE("What is no LoRA adapter, or lacks a half, is refused", "[io]") {
  GgufWriter model;
  model.set("general.type", "model");
  CHECK(lora_complaint(model) == "expected general.type 'adapter', found 'model'");
  CHECK(lora_complaint(GgufWriter()) == "expected metadata 'general.type', found none");
  CHECK(lora_complaint(lora_header()) == "expected tensors whose names end in .lora_a and .lora_b, found 0 others");

  const auto with = [](std::vector<std::pair<std::string, Matrix<float>>> tensors) {
    GgufWriter writer = lora_header();
    for (auto& [name, matrix] : tensors) writer.add(name, matrix);
    return lora_complaint(writer);
  };
  CHECK(with({{"w.lora_a", Matrix<float>(2, 6)}}).starts_with("expected a tensor named 'w.lora_b'"));
  CHECK(with({{"w.lora_b", Matrix<float>(2, 6)}}).starts_with("expected a tensor named 'w.lora_a'"));
  CHECK(with({{"w.lora_a", Matrix<float>(2, 6)}, {"w.lora_b", Matrix<float>(4, 3)}}) ==
        "expected lora_a and lora_b of 'w' of one rank and number of experts, found 2 and 3 ranks of 1 and 1 experts");
  GgufWriter activated = lora_header();
  activated.set("adapter.alora.invocation_tokens", 3u);
  CHECK(lora_complaint(activated) == "expected an adapter of all tokens, found adapter.alora.invocation_tokens");
  GgufWriter endless = lora_header();
  endless.set("adapter.lora.alpha", std::numeric_limits<float>::infinity());
  CHECK(lora_complaint(endless).starts_with("expected a finite adapter.lora.alpha"));
}

TEST_CASE("Experts of an adapter without numbers are refused before as many are made as a file says", "[io]") {
  for (const Index many : {Index(3), Index(1) << 40, Index(1) << 61}) {
    GgufWriter writer = lora_header();
    writer.add("w.lora_a", {many, 2, 0}, Matrix<float>(0, 0));
    writer.add("w.lora_b", {many, 0, 2}, Matrix<float>(0, 2));
    CHECK(lora_complaint(writer) == "expected at least one number in 'w.lora_a', found none");
  }
}

TEST_CASE("write_gguf_lora refuses what the format cannot say", "[io]") {
  const TemporaryFolder folder;
  const auto refused = [&](const std::function<void(GgufLora&)>& change) {
    GgufLora lora = three_adapters();
    change(lora);
    return !error_text(ErrorCode::option, [&] { write_gguf_lora(folder / "x.gguf", lora); }).empty();
  };
  CHECK(refused([](GgufLora& lora) { lora.adapters.clear(); }));
  CHECK(refused([](GgufLora& lora) { lora.adapters.begin()->second[0].scale = 0; }));
  CHECK(refused([](GgufLora& lora) { lora.adapters["token_embd.weight"].clear(); }));
  CHECK(refused([](GgufLora& lora) { lora.adapters["token_embd.weight"][0].scale = NAN; }));
  CHECK(
      refused([](GgufLora& lora) { lora.adapters["blk.0.ffn_up_exps.weight"][1] = random_adapter(32, 24, 3, 1, 1); }));
  CHECK(folder.entries() == 0);
}
