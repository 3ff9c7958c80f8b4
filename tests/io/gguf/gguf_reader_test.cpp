// SPDX-License-Identifier: MIT
#include "mole/io/gguf/gguf_reader.hpp"

#include "core/error_code.hpp"
#include "support/catch.hpp"

#include <cstring>

namespace {

using namespace mole;
using namespace mole::test;

/// A GGUF file piece by piece.
struct GgufText {
  std::string bytes;

  GgufText& put(const auto& number) {
    bytes.append(reinterpret_cast<const char*>(&number), sizeof number);
    return *this;
  }
  GgufText& text(const std::string& words) {
    put(std::uint64_t(words.size()));
    bytes += words;
    return *this;
  }
  GgufText& head(std::uint32_t version, std::uint64_t tensors, std::uint64_t keys) {
    bytes += "GGUF";
    return put(version).put(tensors).put(keys);
  }
  /// Dimensions as the file has them, the fastest first.
  GgufText& tensor(const std::string& name, std::vector<std::uint64_t> dimensions, std::uint32_t type,
                   std::uint64_t offset) {
    text(name).put(std::uint32_t(dimensions.size()));
    for (const std::uint64_t size : dimensions) put(size);
    return put(type).put(offset);
  }
  GgufText& pad() {
    bytes.resize((bytes.size() + 31) / 32 * 32);
    return *this;
  }
  GgufReader read() const { return GgufReader::from_bytes(std::as_bytes(std::span(bytes)), "test"); }
  std::string complaint() const {
    return error_text(ErrorCode::file, [&] { read(); });
  }
};

/// One F32 tensor "w" of two numbers.
GgufText small_gguf() {
  return GgufText().head(3, 1, 0).tensor("w", {2}, 0, 0).pad().put(1.5f).put(-2.0f);
}

}  // namespace

TEST_CASE("Values of every kind, and tensors with the last dimension together, are read", "[io]") {
  GgufText file;
  file.head(3, 2, 5);
  file.text("a.number").put(std::uint32_t(4)).put(std::uint32_t(7));
  file.text("a.real").put(std::uint32_t(6)).put(0.5f);
  file.text("a.text").put(std::uint32_t(8)).text("words");
  file.text("an.array").put(std::uint32_t(9)).put(std::uint32_t(8)).put(std::uint64_t(2)).text("x").text("yz");
  file.text("large").put(std::uint32_t(10)).put(~std::uint64_t(0));
  file.tensor("row", {2}, 0, 0).tensor("w", {3, 2}, 28, 32).pad();
  file.put(1.5f).put(-2.0f).pad();
  for (int i = 0; i < 6; ++i) file.put(double(i));

  const GgufReader reader = file.read();
  CHECK(reader.value<std::int64_t>("a.number") == 7);
  CHECK(reader.value<double>("a.real") == 0.5);
  CHECK(reader.value<std::string>("a.text") == "words");
  CHECK(reader.value<GgufArray>("an.array").items == 2);
  CHECK(reader.value<double>("large") == 0x1p64);
  CHECK_THROWS_WITH(reader.value<double>("a.text"), "test: expected a real number for 'a.text', found a text");
  CHECK_THROWS_WITH(reader.value<double>("none"), "test: expected metadata 'none', found none");
  CHECK(reader.tensors().size() == 2);
  CHECK(reader.at("w").shape == std::vector<Index>{2, 3});
  CHECK(reader.matrix<float>("w")(1, 0) == 3);
  CHECK(reader.matrix<double>("row")(0, 1) == -2);
  CHECK_THROWS_AS(reader.at("v"), Error);
}

TEST_CASE("A GGUF file cut anywhere is refused", "[io]") {
  const std::string whole = small_gguf().bytes;
  CHECK(small_gguf().complaint() == "");
  for (std::size_t size = 0; size < whole.size(); ++size) {
    CAPTURE(size);
    CHECK_FALSE(GgufText{whole.substr(0, size)}.complaint().empty());
  }
}

TEST_CASE("GGUF headers that promise what is not there are refused by their words", "[io]") {
  const std::uint64_t huge = std::uint64_t(1) << 62;
  CHECK(GgufText{"GGML and more than 24 bytes"}.complaint() ==
        "test: expected a file that begins with GGUF, found another");
  CHECK(GgufText().head(1, 0, 0).complaint() == "test: expected version 2 or 3, little endian, found 1");
  CHECK(GgufText().head(0x03000000, 0, 0).complaint() ==
        "test: expected version 2 or 3, little endian, found 50331648");
  CHECK_FALSE(GgufText().head(3, huge, 0).complaint().empty());
  CHECK_FALSE(GgufText().head(3, 0, huge).complaint().empty());
  CHECK(GgufText().head(3, 0, 1).put(huge).complaint() ==
        "test: expected 4611686018427387904 bytes of a key, found 0 to the end of the file");
  CHECK(GgufText().head(3, 0, 1).text("k").put(std::uint32_t(13)).complaint() ==
        "test: expected a kind of value from 0 to 12 for 'k', found 13");
  GgufText twice;
  twice.head(3, 0, 2);
  for (int i = 0; i < 2; ++i) twice.text("k").put(std::uint32_t(0)).put(std::uint8_t(1));
  CHECK(twice.complaint() == "test: expected each key once, found 'k' twice");
  GgufText deep;
  deep.head(3, 0, 1).text("k").put(std::uint32_t(9));
  for (int i = 0; i < 6; ++i) deep.put(std::uint32_t(9)).put(std::uint64_t(1));
  CHECK(deep.complaint() == "test: expected arrays in arrays of at most 4 levels in 'k', found more");
  CHECK(GgufText().head(3, 1, 0).tensor("w", {}, 0, 0).complaint() ==
        "test: expected 1 to 4 dimensions of 'w', found 0");
  CHECK(GgufText().head(3, 1, 0).tensor("w", {huge, 4}, 0, 0).complaint() ==
        "test: expected fewer than 2^63 elements of 'w', found a dimension of 4");
  CHECK(GgufText().head(3, 1, 0).tensor("w", {huge}, 0, 0).complaint() ==
        "test: expected fewer than 2^63 bytes of 'w', found 4611686018427387904 elements");
  CHECK(GgufText().head(3, 1, 0).tensor("w", {2}, 99, 0).complaint() == "test: expected a known type of 'w', found 99");
  CHECK(GgufText().head(3, 1, 0).tensor("w", {33}, 8, 0).complaint() ==
        "test: expected rows of whole blocks of 32 of 'w', found 33 elements");
  CHECK(GgufText().head(3, 1, 0).tensor("w", {2}, 0, 4).pad().put(0.0).put(0.0).complaint() ==
        "test: expected 'w' at a multiple of 32 bytes, found 4");
  CHECK(GgufText().head(3, 1, 0).tensor("w", {2}, 0, huge).pad().put(0.0).complaint() ==
        "test: expected 8 bytes of 'w' from byte 4611686018427387904, found 8 bytes of tensors");
  CHECK(GgufText().head(3, 2, 0).tensor("w", {2}, 0, 0).tensor("w", {2}, 0, 0).complaint() ==
        "test: expected each tensor once, found 'w' twice");
  for (const std::uint32_t alignment : {0u, 12u, 1u << 30})
    CHECK_FALSE(GgufText()
                    .head(3, 1, 1)
                    .text("general.alignment")
                    .put(std::uint32_t(4))
                    .put(alignment)
                    .tensor("w", {2}, 0, 0)
                    .pad()
                    .put(0.0)
                    .complaint()
                    .empty());
}

TEST_CASE("Tensors of a GGUF file may lie in any order and with gaps, but share no byte", "[io]") {
  // v of 8 bytes, w of 40, in this order in the list; the data has 128 bytes.
  const auto placed = [](std::uint64_t v, std::uint64_t w) {
    GgufText file;
    file.head(3, 2, 0).tensor("v", {2}, 0, v).tensor("w", {10}, 0, w).pad();
    file.bytes.resize(file.bytes.size() + 128);
    return file.complaint();
  };
  for (const auto& [v, w] : {std::pair<std::uint64_t, std::uint64_t>(0, 32), {64, 0}, {0, 64}, {96, 32}})
    CHECK(placed(v, w) == "");
  CHECK(placed(0, 0) != "");
  CHECK(placed(32, 32) != "");
  CHECK(placed(32, 0) == "test: expected 'v' behind 'w', found an overlap of 8 bytes");
  GgufText empty;  // takes no byte, wherever it lies
  empty.head(3, 2, 0).tensor("v", {0}, 0, 0).tensor("w", {10}, 0, 0).pad();
  empty.bytes.resize(empty.bytes.size() + 64);
  CHECK(empty.complaint() == "");
}

TEST_CASE("Types that are not decoded are refused by their names", "[io]") {
  GgufText file;
  file.head(3, 1, 0).tensor("w", {256}, 12, 0).pad();
  file.bytes.resize(file.bytes.size() + 144);
  const GgufReader reader = file.read();  // its bytes are there
  CHECK(reader.at("w").bytes.size() == 144);
  CHECK_THROWS_WITH(reader.matrix<float>("w"), "test: expected F32, F16, BF16, F64, Q8_0 or Q4_0 for 'w', found Q4_K");
}
