// SPDX-License-Identifier: MIT
#include "mole/io/safetensors_writer.hpp"

#include "mole/core/matrix.hpp"
#include "mole/io/safetensors_reader.hpp"
#include "support/catch.hpp"
#include "temporary_folder.hpp"

#include <cstring>
#include <limits>
#include <sstream>
#include <vector>

namespace {

using namespace mole;
using namespace mole::test;

template <class T>
Matrix<T> counted(Index rows, Index cols) {
  Matrix<T> matrix(rows, cols);
  for (Index i = 0; i < matrix.size(); ++i) matrix.data()[i] = T(i) / 3;
  return matrix;
}

bool refused(auto&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.code() == ErrorCode::option;
  }
  return false;
}

}  // namespace

TEST_CASE("The bytes on disk are the documented ones", "[io]") {
  const TemporaryFolder folder;
  SafetensorsWriter writer;
  writer.add_vector("b", std::vector<float>{1.0f});
  writer.add_integers("a", std::vector<std::int64_t>{-1});
  writer.add("c", counted<double>(1, 1));
  writer.set_metadata("format", "pt");
  writer.write(folder / "f");

  const std::string json = R"({"__metadata__":{"format":"pt"},"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},)"
                           R"("c":{"dtype":"F64","shape":[1,1],"data_offsets":[8,16]},)"
                           R"("b":{"dtype":"F32","shape":[1],"data_offsets":[16,20]}})";
  const std::string padded = json + std::string(7 - (json.size() + 7) % 8, ' ');
  REQUIRE(padded.size() % 8 == 0);
  const std::string expected = std::string(1, char(padded.size())) + std::string(7, '\0') + padded +
                               std::string(8, '\xff') + std::string(8, '\0') + std::string("\0\0\x80\x3f", 4);
  CHECK(content_of(folder / "f") == expected);
}

TEST_CASE("Everything written is read back bit for bit, and aligned", "[io]") {
  const TemporaryFolder folder;
  Matrix<double> odd = counted<double>(3, 5);
  odd(0, 0) = std::numeric_limits<double>::quiet_NaN();
  odd(1, 1) = -0.0;
  odd(2, 2) = std::numeric_limits<double>::denorm_min();
  const Matrix<float> wide = counted<float>(4, 7);

  SafetensorsWriter writer;
  writer.add("odd", odd);
  writer.add("part", View<const float>(wide.data() + 1, 3, 2, 7));
  writer.add_vector("vector", odd.elements());
  writer.add("empty", Matrix<float>(0, 9));
  writer.add_integers("integers", std::vector<std::int64_t>{1, -5, std::numeric_limits<std::int64_t>::min()});
  writer.set_metadata("text", "\"quoted\"\n\u00e9");
  writer.write(folder / "f");

  const SafetensorsReader reader(folder / "f");
  CHECK(reader.tensors().size() == 5);
  CHECK(reader.metadata().at("text") == "\"quoted\"\n\u00e9");
  CHECK(std::memcmp(reader.view<double>("odd").data(), odd.data(), 15 * sizeof(double)) == 0);
  CHECK(reader.at("vector").shape == std::vector<Index>{15});
  CHECK(reader.at("empty").shape == std::vector<Index>{0, 9});
  CHECK(reader.integers("integers")[2] == std::numeric_limits<std::int64_t>::min());
  const View<const float> part = reader.view<float>("part");
  REQUIRE(part.rows() == 3);
  for (Index r = 0; r < 3; ++r)
    for (Index c = 0; c < 2; ++c) CHECK(part(r, c) == wide(r, c + 1));
}

TEST_CASE("Equal content gives equal bytes, whatever the order of adding", "[io]") {
  const TemporaryFolder folder;
  SafetensorsWriter first, second;
  first.add("a", counted<float>(2, 2));
  first.add("b", counted<double>(2, 2));
  first.set_metadata("x", "1");
  first.set_metadata("y", "2");
  second.set_metadata("y", "0");
  second.set_metadata("x", "1");
  second.set_metadata("y", "2");
  second.add("b", counted<double>(2, 2));
  second.add("a", counted<float>(2, 2));
  first.write(folder / "first");
  second.write(folder / "second");
  CHECK(content_of(folder / "first") == content_of(folder / "second"));

  // Written again from what was read: nothing is lost on the way.
  const SafetensorsReader reader(folder / "first");
  SafetensorsWriter third;
  third.add("a", reader.view<float>("a"));
  third.add("b", reader.view<double>("b"));
  for (const auto& [key, value] : reader.metadata()) third.set_metadata(key, value);
  third.write(folder / "first");
  CHECK(content_of(folder / "first") == content_of(folder / "second"));
}

TEST_CASE("A writer without tensors writes a valid file", "[io]") {
  const TemporaryFolder folder;
  SafetensorsWriter().write(folder / "f");
  CHECK(content_of(folder / "f") == std::string("\x08\0\0\0\0\0\0\0{}      ", 16));
  CHECK(SafetensorsReader(folder / "f").tensors().empty());
}

TEST_CASE("Names that a file cannot hold are refused when they are added", "[io]") {
  SafetensorsWriter writer;
  writer.add("a", counted<float>(1, 1));
  CHECK(refused([&] { writer.add("a", counted<double>(1, 1)); }));
  CHECK(refused([&] { writer.add_integers("__metadata__", std::vector<std::int64_t>{}); }));
  CHECK(refused([&] { writer.add("\xff", counted<float>(1, 1)); }));
  CHECK(refused([&] { writer.set_metadata("k", "\xc3"); }));
}

TEST_CASE("A write that fails leaves the file that was there", "[io]") {
  const TemporaryFolder folder;
  SafetensorsWriter writer;
  writer.add("a", counted<float>(1, 1));
  CHECK_THROWS_AS(writer.write(folder / "none/f"), Error);
  std::filesystem::create_directory(folder / "f");
  put(folder / "f/kept", "old");
  CHECK_THROWS_AS(writer.write(folder / "f"), Error);
  CHECK(content_of(folder / "f/kept") == "old");
  CHECK(folder.entries() == 1);
}

TEST_CASE("Bytes of any dtype and shape are written as they are, if their number is right", "[io]") {
  const TemporaryFolder folder;
  const std::array<std::byte, 12> bytes{std::byte(1), std::byte(255)};
  SafetensorsWriter writer;
  writer.add_bytes("three", Dtype::bf16, {1, 2, 3}, bytes);
  writer.add_bytes("none", Dtype::f64, {0, 5}, {});
  CHECK_THROWS_AS(writer.add_bytes("short", Dtype::f32, {2, 2}, bytes), Error);
  CHECK_THROWS_AS(writer.add_bytes("half a byte", Dtype::f4, {1}, {}), Error);
  CHECK_THROWS_AS(writer.add_bytes("huge", Dtype::f32, {Index(1) << 40, Index(1) << 40}, bytes), Error);
  writer.write(folder / "file");
  const SafetensorsReader reader(folder / "file");
  CHECK(reader.tensors().size() == 2);
  CHECK(reader.at("three").shape == std::vector<Index>{1, 2, 3});
  CHECK(std::ranges::equal(reader.at("three").bytes, bytes));
}

TEST_CASE("The bytes of a file go to memory and to streams, and are read from there", "[io]") {
  const TemporaryFolder folder;
  SafetensorsWriter writer;
  writer.add("a", counted<float>(3, 5));
  writer.set_metadata("k", "v");
  writer.write(folder / "f");
  const std::string file = content_of(folder / "f");
  const std::vector<std::byte> bytes = writer.bytes();
  CHECK(std::ranges::equal(bytes, std::as_bytes(std::span(file))));

  std::stringstream archive;
  archive << "head\n";
  writer.write(archive);
  CHECK(archive.str() == "head\n" + file);
  std::string head;
  std::getline(archive, head);
  std::vector<SafetensorsReader> readers;
  readers.push_back(SafetensorsReader::from_stream(archive, "archive"));
  readers.push_back(SafetensorsReader::from_bytes(bytes, "memory"));  // moves the first
  for (const SafetensorsReader& reader : readers) {
    CHECK(reader.matrix<float>("a")(2, 4) == counted<float>(3, 5)(2, 4));
    CHECK(reader.metadata().at("k") == "v");
  }
  std::stringstream cut(file.substr(0, file.size() - 1)), failed;
  CHECK_THROWS_AS(SafetensorsReader::from_stream(cut, "cut"), Error);
  failed.setstate(std::ios::badbit);
  CHECK_THROWS_AS(writer.write(failed), Error);
}
