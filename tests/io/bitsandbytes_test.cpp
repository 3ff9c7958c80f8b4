// SPDX-License-Identifier: MIT
#include "mole/io/bitsandbytes.hpp"

#include "temporary_folder.hpp"

#include "core/error_code.hpp"
#include "mole/io/safetensors_shards.hpp"
#include "mole/method/lora.hpp"
#include "mole/testing/random_matrix.hpp"
#include "support/catch.hpp"

#include <algorithm>
#include <functional>
#include <map>
#include <memory>

namespace {

using namespace mole;
using namespace mole::test;

const std::string name_of_q = "model.q_proj.weight";

/// The state dict of one weight, which a test may change before it is written.
struct StateDictOfQ {
  std::map<std::string, std::vector<std::byte>> bytes;
  std::map<std::string, std::pair<Dtype, std::vector<Index>>> kinds;
  mutable std::shared_ptr<const SafetensorsShards> shards = {};  ///< as it was read last

  explicit StateDictOfQ(const auto& weight) {
    const TemporaryFolder folder;
    SafetensorsWriter writer;
    add_bitsandbytes(writer, name_of_q, weight);
    writer.write(folder / "state.safetensors");
    const SafetensorsReader reader(folder / "state.safetensors");
    for (const SafetensorsEntry& entry : reader.tensors()) {
      bytes[entry.name] = {entry.bytes.begin(), entry.bytes.end()};
      kinds[entry.name] = {entry.dtype, entry.shape};
    }
  }

  void remove(const std::string& name) { bytes.erase(name), kinds.erase(name); }
  void set_state(const std::string& type, const std::string& json) {
    const std::string name = name_of_q + ".quant_state.bitsandbytes__" + type;
    const auto text = std::as_bytes(std::span(json));
    bytes[name] = {text.begin(), text.end()};
    kinds[name] = {Dtype::u8, {Index(json.size())}};
  }
  std::string state(const std::string& type) const {
    const auto& text = bytes.at(name_of_q + ".quant_state.bitsandbytes__" + type);
    return {reinterpret_cast<const char*>(text.data()), text.size()};
  }

  /// Lives as long as this, until it reads again.
  BitsandbytesWeight read() const {
    const TemporaryFolder folder;
    SafetensorsWriter writer;
    for (const auto& [name, content] : bytes)
      writer.add_bytes(name, kinds.at(name).first, kinds.at(name).second, content);
    writer.write(folder / "model.safetensors");
    shards = std::make_shared<const SafetensorsShards>(folder / "");
    return read_bitsandbytes(*shards, name_of_q);
  }
  /// The message without the path, which differs.
  std::string complaint() const {
    const std::string text = error_text(ErrorCode::file, [&] { read(); });
    const std::string name = "model.safetensors: ";
    return text.empty() ? text : text.substr(text.find(name) + name.size());
  }
};

Matrix<float> weight_of(Index rows, Index cols) {
  return laws::random_matrix<float>(rows, cols, 4);
}

template <class Weight>
void check_round_trip(const Weight& weight) {
  const StateDictOfQ state(weight);
  const BitsandbytesWeight found = state.read();
  REQUIRE(std::holds_alternative<Weight>(found.weight));
  const StateDictOfQ again(std::get<Weight>(found.weight));
  CHECK(again.bytes == state.bytes);
  CHECK(again.kinds == state.kinds);
  Matrix<float> expected(weight.rows(), weight.cols()), decoded = expected;
  CodedBase<Weight>(weight).weight(expected.view());
  CodedBase<Weight>(std::get<Weight>(found.weight)).weight(decoded.view());
  CHECK(std::ranges::equal(decoded.elements(), expected.elements()));
}

}  // namespace

TEST_CASE("Weights of four and eight bits keep every byte through a state dict", "[io]") {
  for (const auto& [rows, cols] : {std::pair<Index, Index>{3, 64}, {7, 33}, {1, 1}, {40, 512}, {5, 40}}) {
    const Matrix<float> weight = weight_of(rows, cols);
    for (const bool nested : {false, true})
      for (const Index block : {32, 64, 256}) {
        check_round_trip(Nf4Weight(weight, {.block = block, .double_quantized = nested}));
        check_round_trip(Fp4Weight(weight, {.block = block, .double_quantized = nested}));
      }
    check_round_trip(Int8RowWeight(weight));
  }
}

TEST_CASE("Codes of eight bits are read where the file has them", "[io]") {
  const StateDictOfQ state(Int8RowWeight(weight_of(4, 16)));
  const auto found = std::get<Int8RowWeight>(state.read().weight);
  CHECK(static_cast<const void*>(found.codes().data()) == state.shards->at(name_of_q).bytes.data());
}

TEST_CASE("Four bits may be stored as any dtype, and say what they were", "[io]") {
  StateDictOfQ state(Nf4Weight(weight_of(4, 64)));
  state.kinds[name_of_q] = {Dtype::bf16, {64, 1}};
  std::string json = state.state("nf4");
  json.replace(json.find("float32"), 7, "bfloat16");
  state.set_state("nf4", json);
  const BitsandbytesWeight found = state.read();
  CHECK(found.dtype == "bfloat16");
  CHECK(std::get<Nf4Weight>(found.weight).parts().weight == Nf4Weight(weight_of(4, 64)).parts().weight);
}

TEST_CASE("A base of any kind of the state dict carries experts", "[io]") {
  const Matrix<float> weight = weight_of(8, 64), x = laws::random_matrix<float>(3, 64, 9);
  for (const StateDictOfQ& state :
       {StateDictOfQ(Nf4Weight(weight)), StateDictOfQ(Fp4Weight(weight)), StateDictOfQ(Int8RowWeight(weight))}) {
    BitsandbytesWeight found = state.read();
    std::visit(
        [&](auto& of_kind) {
          Rng rng(1);
          const CodedBase alone(of_kind);
          const auto layer = lora({.rank = 2}, CodedBase(std::move(of_kind)), rng);
          Matrix<float> y(3, 8), dense(8, 64);
          auto work = layer.workspace(3);
          layer.forward(x, y, work);
          alone.weight(dense.view());
          for (Index n = 0; n < 3; ++n)
            for (Index o = 0; o < 8; ++o) {
              double sum = 0;
              for (Index i = 0; i < 64; ++i) sum += double(x(n, i)) * double(dense(o, i));
              CHECK(std::abs(double(y(n, o)) - sum) < 1e-5);
            }
        },
        found.weight);
  }
}

TEST_CASE("A state dict that lacks or contradicts a part is refused, and says which", "[io]") {
  const Nf4Weight plain(weight_of(4, 64)), nested(weight_of(4, 64), {.double_quantized = true});
  const auto with_state = [](const auto& weight, const std::string& from, const std::string& to) {
    StateDictOfQ state(weight);
    std::string json = state.state("nf4");
    json.replace(json.find(from), from.size(), to);
    state.set_state("nf4", json);
    return state.complaint();
  };
  CHECK(with_state(plain, "\"nf4\"", "\"fp4\"") == "expected quant_type nf4 for 'model.q_proj.weight', found fp4");
  CHECK(with_state(plain, "[4, 64]", "[256]") ==
        "expected a shape of two sizes for 'model.q_proj.weight', found [256]");
  CHECK(with_state(plain, "[4, 64]", "[4, -64]") == "expected a size for shape for 'model.q_proj.weight', found -64");
  CHECK(with_state(plain, "[4, 64]", "[4294967296, 4294967296]")
            .starts_with("'model.q_proj.weight': Nf4Base: expected sizes of at least 0 whose product"));
  CHECK(with_state(plain, "[4, 64]", "[4, 65]") ==
        "'model.q_proj.weight': Nf4Base: size of weight, in bytes: expected 130, found 128");
  CHECK(with_state(plain, "\"blocksize\": 64", "\"blocksize\": 63")
            .starts_with("'model.q_proj.weight': Nf4Base: expected a block of 32, 64"));
  CHECK(with_state(plain, "\"blocksize\": 64", "\"size\": 64") ==
        "expected a size for blocksize for 'model.q_proj.weight', found null");
  CHECK(with_state(nested, "256", "128") == "expected nested_blocksize 256 for 'model.q_proj.weight', found 128");
  CHECK(with_state(plain, "\"dtype\": \"float32\"", "\"dtype\": 1") ==
        "expected a text for dtype for 'model.q_proj.weight', found 1");
  CHECK_FALSE(with_state(plain, "}", "").empty());

  for (const char* part : {".absmax", ".quant_map"}) {
    StateDictOfQ state(plain);
    state.remove(name_of_q + part);
    CHECK(state.complaint().starts_with("expected a tensor named 'model.q_proj.weight" + std::string(part)));
  }
  for (const char* part : {".absmax", ".nested_absmax", ".nested_quant_map"}) {
    StateDictOfQ state(nested);
    state.remove(name_of_q + part);
    CHECK(state.complaint().starts_with("expected a tensor named 'model.q_proj.weight" + std::string(part)));
  }
  StateDictOfQ other_levels(plain);
  const float level = 0.5f;
  std::ranges::copy(std::as_bytes(std::span(&level, 1)), other_levels.bytes[name_of_q + ".quant_map"].begin() + 4);
  CHECK(other_levels.complaint() == "expected level -0.696193 of code 1 for 'model.q_proj.weight', found 0.500000");

  StateDictOfQ none(plain);
  none.remove(name_of_q + ".quant_state.bitsandbytes__nf4");
  CHECK(none.complaint() ==
        "expected quant_state.bitsandbytes__nf4 or __fp4, or an SCB for 'model.q_proj.weight', found none of them");
}

TEST_CASE("Eight bits in another layout than rows are refused", "[io]") {
  const Int8RowWeight weight(weight_of(4, 16));
  StateDictOfQ state(weight);
  state.bytes["model.q_proj.weight_format"] = {std::byte(2)};
  CHECK(state.complaint() == "expected weight_format 0, rows for 'model.q_proj.weight', found 2");
  state.remove("model.q_proj.weight_format");
  CHECK(state.complaint() == "");  // files before the format had a name
  state.kinds[name_of_q].first = Dtype::u8;
  CHECK(state.complaint() == "expected I8 for 'model.q_proj.weight', found U8");
  state.kinds[name_of_q] = {Dtype::i8, {64}};
  CHECK(state.complaint() == "expected a matrix for 'model.q_proj.weight', found 1 dimensions");
  state.kinds[name_of_q] = {Dtype::i8, {8, 8}};
  CHECK(state.complaint() == "'model.q_proj.weight': Int8RowBase: size of SCB: expected 8, found 4");

  SafetensorsWriter writer;
  CHECK_THROWS_AS(add_bitsandbytes(writer, "model.q_proj", weight), Error);
}
