// SPDX-License-Identifier: MIT
#include "mole/io/safetensors_reader.hpp"

#include "safetensors_bytes.hpp"
#include "support/catch.hpp"

#include <array>
#include <cstring>

namespace {

using namespace mole;
using namespace mole::test;

/// Two tensors, metadata, padding: every kind of byte that a mutation can hit.
std::vector<std::byte> small_file() {
  return file_of(R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                 R"("a":{"dtype":"I64","shape":[1,1],"data_offsets":[8,16]}}   )",
                 std::string("\0\0\x80\x3f\0\0\0\xc0\x07\0\0\0\0\0\0\0", 16));
}

/// Touches every byte that a caller could reach, so that a sanitizer sees each access.
void read_everything(const SafetensorsReader& reader) {
  for (const SafetensorsReader::Entry& entry : reader.tensors()) {
    unsigned sum = 0;
    for (std::byte b : entry.bytes) sum += unsigned(b);
    CHECK(sum <= 255 * entry.bytes.size());
    try {
      reader.matrix<float>(entry.name);
      reader.integers(entry.name);
    } catch (const Error&) {
    }
  }
}

}  // namespace

TEST_CASE("The sample header of the format's own documentation loads, 60 bytes and unaligned", "[io]") {
  const std::string json = R"({"test":{"dtype":"I32","shape":[2,2],"data_offsets":[0,16]}})";
  REQUIRE(json.size() == 60);
  const std::vector<std::byte> file = file_of(json, std::string("\1\0\0\0\xff\xff\xff\xff\0\0\0\x80\4\0\0\0", 16));
  CHECK(char(file[0]) == '<');

  const auto reader = SafetensorsReader::from_bytes(file, "sample");
  REQUIRE(reader.tensors().size() == 1);
  CHECK(reader.tensors()[0].name == "test");
  CHECK(reader.tensors()[0].dtype == Dtype::i32);
  CHECK(reader.tensors()[0].shape == std::vector<Index>{2, 2});
  CHECK(reader.integers("test") == std::vector<std::int64_t>{1, -1, -2147483648ll, 4});
  CHECK(reader.metadata().empty());
}

TEST_CASE("Tensors come in the order of their bytes, and are found by name", "[io]") {
  const std::vector<std::byte> file = small_file();
  const auto reader = SafetensorsReader::from_bytes(file, "small");
  REQUIRE(reader.tensors().size() == 2);
  CHECK(reader.tensors()[0].name == "b");
  CHECK(reader.tensors()[1].name == "a");
  CHECK(reader.has("a"));
  CHECK_FALSE(reader.has("c"));
  CHECK_FALSE(reader.has("__metadata__"));
  CHECK(reader.metadata().at("format") == "pt");
  CHECK(&reader.at("a") == &reader.tensors()[1]);
  CHECK(reader.integers("a") == std::vector<std::int64_t>{7});
  const Matrix<double> b = reader.matrix<double>("b");
  REQUIRE(b.rows() == 1);
  REQUIRE(b.cols() == 2);
  CHECK(b(0, 0) == 1.0);
  CHECK(b(0, 1) == -2.0);
  try {
    reader.at("c");
    FAIL("expected an Error");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::file);
    CHECK(std::string(error.what()) == "small: expected a tensor named 'c', found none of that name among 2");
  }
}

TEST_CASE("A file of no tensors, scalars and empty tensors are valid", "[io]") {
  CHECK(complaint("{}", 0).empty());
  CHECK(complaint(R"({"__metadata__":{}})", 0).empty());
  const std::vector<std::byte> file = file_of(R"({"none":{"dtype":"F32","shape":[0,3],"data_offsets":[4,4]},)"
                                              R"("one":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
                                              R"("also":{"dtype":"F64","shape":[5,0],"data_offsets":[0,0]}})",
                                              std::string("\0\0\x40\x40", 4));
  const auto reader = SafetensorsReader::from_bytes(file, "edges");
  CHECK(reader.matrix<float>("one")(0, 0) == 3.0f);
  CHECK(reader.matrix<float>("none").cols() == 3);
  CHECK(reader.matrix<float>("also").rows() == 5);
  CHECK(reader.view<float>("none").rows() == 0);
}

TEST_CASE("Unaligned tensors are copied rightly and refused as views", "[io]") {
  const std::string json = R"({"w":{"dtype":"F64","shape":[1,2],"data_offsets":[0,16]}})";
  const std::array<double, 2> values{1.5, -0.1};
  std::string buffer(16, '\0');
  std::memcpy(buffer.data(), values.data(), 16);
  int views = 0;
  for (std::size_t pad = 0; pad < 8; ++pad) {
    const std::vector<std::byte> file = file_of(json + std::string(pad, ' '), buffer);
    const auto reader = SafetensorsReader::from_bytes(file, "pad");
    CHECK(reader.matrix<double>("w")(0, 1) == -0.1);
    CHECK(reader.matrix<float>("w")(0, 1) == -0.1f);
    try {
      const View<const double> view = reader.view<double>("w");
      CHECK(static_cast<const void*>(view.data()) == reader.at("w").bytes.data());
      CHECK(view(0, 0) == 1.5);
      ++views;
    } catch (const Error& error) {
      CHECK(std::string(error.what()).find("'w' at a multiple of 8 bytes, found ") != std::string::npos);
    }
  }
  CHECK(views == 1);
}

TEST_CASE("F16 and BF16 become float; other dtypes are refused by name", "[io]") {
  const std::vector<std::byte> file = file_of(R"({"h":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},)"
                                              R"("b":{"dtype":"BF16","shape":[2],"data_offsets":[4,8]},)"
                                              R"("c":{"dtype":"C64","shape":[1],"data_offsets":[8,16]},)"
                                              R"("t":{"dtype":"U8","shape":[1,2,2],"data_offsets":[16,20]},)"
                                              R"("f":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[20,23]}})",
                                              std::string("\0\x3c\0\xc1\x80\x3f\x20\xc0"
                                                          "\0\0\0\0\0\0\0\0\1\2\3\xff\0\0\0",
                                                          23));
  const auto reader = SafetensorsReader::from_bytes(file, "kinds");
  CHECK(reader.matrix<float>("h")(0, 0) == 1.0f);
  CHECK(reader.matrix<float>("h")(0, 1) == -2.5f);
  CHECK(reader.matrix<double>("b")(0, 0) == 1.0);
  CHECK(reader.matrix<double>("b")(0, 1) == -2.5);
  CHECK(reader.integers("t") == std::vector<std::int64_t>{1, 2, 3, 255});
  const auto text = [](auto&& call) {
    try {
      call();
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  CHECK(text([&] { reader.matrix<float>("c"); }) == "kinds: expected F64, F32, F16 or BF16 for 'c', found C64");
  CHECK(text([&] { reader.integers("f"); }) == "kinds: expected I64, I32, I8 or U8 for 'f', found F6_E2M3");
  CHECK(text([&] { reader.view<float>("h"); }) == "kinds: expected F32 for 'h', found F16");
  const auto of_three = reader.view<std::uint8_t>("t");  // a row for each matrix
  CHECK(of_three.rows() == 1);
  CHECK(of_three.cols() == 4);
  CHECK(of_three(0, 3) == 255);
}

TEST_CASE("Files of other formats are told by name", "[io]") {
  const auto says = [](std::string_view begin) {
    std::string bytes(begin);
    bytes.resize(40, ' ');
    return complaint(std::as_bytes(std::span(bytes)));
  };
  CHECK(says("GGUF\3") == "test: expected a safetensors file, found a GGUF file");
  CHECK(says("PK\3\4") == "test: expected a safetensors file, found an archive, such as PyTorch's pickles");
  CHECK(says("version https://git-lfs.github.com/spec/v1\n") ==
        "test: expected a safetensors file, found a text, such as Git LFS has in place of a file");
}

TEST_CASE("Every broken header is refused with what was expected and found", "[io]") {
  const auto tensor = [](const std::string& fields) { return "{\"x\":{" + fields + "}}"; };
  SECTION("shorter than the length itself") {
    CHECK(complaint(std::vector<std::byte>(7)) == "test: expected at least 8 bytes, found 7");
  }
  SECTION("a length above the limit") {
    CHECK(complaint(file_with_length(100'000'001, "{}", "")) ==
          "test: expected a header of at most 100000000 bytes, found 100000001");
    CHECK(complaint(file_with_length(~0ull, "{}", "")) ==
          "test: expected a header of at most 100000000 bytes, found 18446744073709551615");
  }
  SECTION("a length beyond the end") {
    CHECK(complaint(file_with_length(3, "{}", "")) ==
          "test: expected a header of 3 bytes, found 2 to the end of the file");
  }
  SECTION("no object") {
    CHECK(complaint("", 0) == "test: expected a header that begins with {, found no byte");
    CHECK(complaint(" {}", 0) == "test: expected a header that begins with {, found byte 32");
    CHECK(complaint("[]", 0) == "test: expected a header that begins with {, found byte 91");
  }
  SECTION("no JSON") {
    CHECK(complaint("{\"x\" 1}", 0).find("test: expected a JSON object as header, found '") == 0);
    CHECK(complaint("{}{}", 0).find("test: expected a JSON object as header, found '") == 0);
    CHECK(complaint("{\"\xff\":{}}", 0).find("test: expected a JSON object as header, found '") == 0);
  }
  SECTION("padding that is not spaces") {
    CHECK(complaint("{}\n", 0) == "test: expected a header that ends with } and spaces, found byte 10");
    CHECK(complaint(std::string_view("{}\0}", 4), 0) == "test: expected a header of text, found byte 0");
  }
  SECTION("a key twice") {
    CHECK(complaint(R"({"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},)"
                    R"("x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
                    0) == "test: expected each key once in the header, found 'x' twice");
    CHECK(complaint(R"({"__metadata__":{},"__metadata__":{}})", 0) ==
          "test: expected each key once in the header, found '__metadata__' twice");
    CHECK(complaint(R"({"__metadata__":{"k":"1","k":"1"}})", 0) ==
          "test: expected each key once in __metadata__, found 'k' twice");
    CHECK(complaint(tensor(R"("dtype":"U8","dtype":"U8","shape":[],"data_offsets":[0,1])"), 1) ==
          "test: expected each key once in 'x', found 'dtype' twice");
    CHECK(complaint(tensor(R"("dtype":"U8","shape":[],"data_offsets":[0,1],"shape":[])"), 1) ==
          "test: expected each key once in 'x', found 'shape' twice");
  }
  SECTION("metadata that is not text") {
    CHECK(complaint(R"({"__metadata__":{"k":1}})", 0) ==
          "test: expected a string for 'k' in __metadata__, found a number");
    CHECK(complaint(R"({"__metadata__":{"k":null}})", 0) ==
          "test: expected a string for 'k' in __metadata__, found null");
    CHECK(complaint(R"({"__metadata__":{"k":{}}})", 0) ==
          "test: expected a string for 'k' in __metadata__, found an object");
    CHECK(complaint(R"({"__metadata__":"k"})", 0) == "test: expected an object for '__metadata__', found a string");
  }
  SECTION("a tensor that is no object") {
    CHECK(complaint(R"({"x":[1]})", 0) == "test: expected an object for 'x', found an array");
    CHECK(complaint(R"({"x":true})", 0) == "test: expected an object for 'x', found a truth value");
  }
  SECTION("a field missing, unknown or of the wrong kind") {
    CHECK(complaint(tensor(R"("shape":[],"data_offsets":[0,1])"), 1) ==
          "test: expected dtype, shape and data_offsets of 'x', found no dtype");
    CHECK(complaint(tensor(R"("dtype":"U8","data_offsets":[0,1])"), 1) ==
          "test: expected dtype, shape and data_offsets of 'x', found no shape");
    CHECK(complaint(tensor(R"("dtype":"U8","shape":[])"), 1) ==
          "test: expected dtype, shape and data_offsets of 'x', found no data_offsets");
    CHECK(complaint(tensor(R"("stride":[1])"), 0) ==
          "test: expected dtype, shape and data_offsets of 'x', found 'stride'");
    CHECK(complaint(tensor(R"("dtype":8)"), 0) == "test: expected a string for dtype of 'x', found a number");
    CHECK(complaint(tensor(R"("shape":8)"), 0) == "test: expected an array for shape of 'x', found a number");
  }
  SECTION("numbers that are not whole, or below 0, or beyond 64 bits") {
    const std::string expected = "test: expected 64-bit numbers of at least 0 in shape of 'x', found ";
    CHECK(complaint(tensor(R"("shape":[-1])"), 0) == expected + "a negative number");
    CHECK(complaint(tensor(R"("shape":[1.0])"), 0) == expected + "the number 1.0");
    CHECK(complaint(tensor(R"("shape":[18446744073709551616])"), 0) == expected + "the number 18446744073709551616");
    CHECK(complaint(tensor(R"("shape":["1"])"), 0) == expected + "a string");
    CHECK(complaint(tensor(R"("shape":[[1]])"), 0) == expected + "an array");
  }
  SECTION("other than two offsets") {
    CHECK(complaint(tensor(R"("dtype":"U8","shape":[1],"data_offsets":[0,1,1])"), 1) ==
          "test: expected 2 data_offsets of 'x', found 3");
    CHECK(complaint(tensor(R"("dtype":"U8","shape":[1],"data_offsets":[])"), 1) ==
          "test: expected 2 data_offsets of 'x', found 0");
  }
  SECTION("an unknown dtype") {
    CHECK(complaint(tensor(R"("dtype":"f32","shape":[1],"data_offsets":[0,4])"), 4) ==
          "test: expected a known dtype of 'x', found 'f32'");
  }
}

TEST_CASE("Every broken layout is refused with what was expected and found", "[io]") {
  const auto one = [](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return R"({"x":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
  };
  const auto two = [](const std::string& a, const std::string& b) {
    return R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)" + a +
           R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)" + b + "}}";
  };
  SECTION("a hole before or between") {
    CHECK(complaint(one("U8", "[4]", "[1,5]"), 5) ==
          "test: expected 'x' to begin at byte 0, found a hole up to byte 1");
    CHECK(complaint(two("[0,4]", "[5,9]"), 9) == "test: expected 'b' to begin at byte 4, found a hole up to byte 5");
  }
  SECTION("an overlap") {
    CHECK(complaint(two("[0,4]", "[3,7]"), 7) == "test: expected 'b' to begin at byte 4, found an overlap from byte 3");
    CHECK(complaint(two("[0,4]", "[0,4]"), 4) == "test: expected 'b' to begin at byte 4, found an overlap from byte 0");
  }
  SECTION("bytes left over") {
    CHECK(complaint(one("U8", "[4]", "[0,4]"), 5) == "test: expected 4 bytes of tensors, found 5");
    CHECK(complaint("{}", 1) == "test: expected 0 bytes of tensors, found 1");
  }
  SECTION("offsets beyond the end, or descending") {
    CHECK(complaint(one("U8", "[4]", "[0,4]"), 3) ==
          "test: expected data_offsets of 'x' ascending within 3 bytes, found 0 and 4");
    CHECK(complaint(one("U8", "[4]", "[4,0]"), 4) ==
          "test: expected data_offsets of 'x' ascending within 4 bytes, found 4 and 0");
    CHECK(complaint(one("U8", "[4]", "[18446744073709551612,18446744073709551615]"), 4) ==
          "test: expected data_offsets of 'x' ascending within 4 bytes, found 18446744073709551612 and "
          "18446744073709551615");
  }
  SECTION("a size that does not follow from shape and dtype") {
    CHECK(complaint(one("F32", "[2]", "[0,4]"), 4) ==
          "test: expected 8 bytes of 'x' by its shape and dtype, found 4 by its data_offsets");
    CHECK(complaint(one("F32", "[0]", "[0,4]"), 4) ==
          "test: expected 0 bytes of 'x' by its shape and dtype, found 4 by its data_offsets");
  }
  SECTION("a shape whose size overflows") {
    const std::string expected = "test: expected a whole number of bytes of 'x' below 2^60, found ";
    CHECK(complaint(one("U8", "[8589934592,8589934592]", "[0,4]"), 4) == expected + "[8589934592,8589934592] of U8");
    CHECK(complaint(one("F64", "[2305843009213693952]", "[0,0]"), 0) == expected + "[2305843009213693952] of F64");
    CHECK(complaint(one("U8", "[18446744073709551615]", "[0,0]"), 0) == expected + "[18446744073709551615] of U8");
  }
  SECTION("elements that end within a byte") {
    CHECK(complaint(one("F4", "[3]", "[0,2]"), 2) ==
          "test: expected a whole number of bytes of 'x' below 2^60, found [3] of F4");
    CHECK(complaint(one("F4", "[4]", "[0,2]"), 2).empty());
  }
}

TEST_CASE("A file cut at any length is refused", "[io]") {
  const std::vector<std::byte> file = small_file();
  CHECK(complaint(file).empty());
  for (std::size_t length = 0; length < file.size(); ++length) {
    // A buffer of exactly that size, so that a sanitizer sees the first byte beyond.
    const std::vector<std::byte> cut(file.begin(), file.begin() + std::ptrdiff_t(length));
    INFO("length " << length);
    CHECK(complaint(cut).find("test: expected ") == 0);
  }
}

TEST_CASE("A file with any byte changed is refused or loads, and nothing else", "[io]") {
  const std::vector<std::byte> file = small_file();
  int refused = 0, loaded = 0;
  for (std::size_t at = 0; at < file.size(); ++at)
    for (int change : {0x01, 0x02, 0x10, 0x20, 0x80, 0xff, 0x7f, 0x5b}) {
      std::vector<std::byte> mutated = file;
      mutated[at] ^= std::byte(change);
      try {
        read_everything(SafetensorsReader::from_bytes(mutated, "mutated"));
        ++loaded;
      } catch (const Error& error) {
        CHECK(error.code() == ErrorCode::file);
        ++refused;
      }
    }
  CHECK(loaded >= 16 * 8);  // the tensors' own bytes may hold anything
  CHECK(refused > loaded);
}

TEST_CASE("A reader keeps its tensors when it moves", "[io]") {
  const std::vector<std::byte> file = small_file();
  auto first = SafetensorsReader::from_bytes(file, "small");
  const auto second = std::move(first);
  CHECK(second.integers("a") == std::vector<std::int64_t>{7});
  CHECK(second.matrix<float>("b")(0, 1) == -2.0f);
}

TEST_CASE("A tensor is read with its rows as columns, if that is asked for", "[io]") {
  const std::vector<std::byte> file =
      file_of(R"({"w":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]}})",
              std::string("\x80\x3f\0\x40\x40\x40\x80\x40\xa0\x40\xc0\x40", 12));  // 1 2 3, 4 5 6
  const auto reader = SafetensorsReader::from_bytes(file, "w");
  const Matrix<float> turned = reader.transposed<float>("w");
  REQUIRE(turned.rows() == 3);
  for (Index r = 0; r < 3; ++r)
    for (Index c = 0; c < 2; ++c) CHECK(turned(r, c) == float(3 * c + r + 1));
}
