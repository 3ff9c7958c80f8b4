// SPDX-License-Identifier: MIT
#include "mole/io/gguf/gguf_writer.hpp"

#include "core/error_code.hpp"
#include "io/temporary_folder.hpp"
#include "mole/io/gguf/gguf_reader.hpp"
#include "mole/testing/random_matrix.hpp"
#include "support/catch.hpp"

#include <limits>

using namespace mole;
using namespace mole::test;

TEST_CASE("What a GgufWriter writes, a GgufReader reads, within the rounding of its type", "[io]") {
  const TemporaryFolder folder;
  const Matrix<float> matrix = laws::random_matrix<float>(6, 64, 3);
  GgufWriter writer;
  writer.set("general.name", "test");
  writer.set("real", 0.25f);
  writer.set("number", 12u);
  writer.add("f32", matrix);
  writer.add("f16", matrix, GgufType::f16);
  writer.add("bf16", matrix, GgufType::bf16);
  writer.add("q8_0", matrix, GgufType::q8_0);
  writer.add("stacked", {2, 3, 64}, matrix);
  writer.write(folder / "out.gguf");

  const GgufReader reader(folder / "out.gguf");
  CHECK(reader.value<std::string>("general.name") == "test");
  CHECK(reader.value<double>("real") == 0.25);
  CHECK(reader.value<std::int64_t>("number") == 12);
  CHECK(reader.at("stacked").shape == std::vector<Index>{2, 3, 64});
  const Matrix<float> exact = reader.matrix<float>("f32");
  CHECK(std::ranges::equal(exact.elements(), matrix.elements()));
  for (const auto& [name, error] : {std::pair{"f16", 0x1p-11}, {"bf16", 0x1p-8}, {"q8_0", 0.5 / 127 + 0x1p-11}}) {
    const Matrix<float> rounded = reader.matrix<float>(name);
    for (Index r = 0; r < 6; ++r)
      for (Index c = 0; c < 64; ++c) CHECK(std::abs(rounded(r, c) - matrix(r, c)) <= error);
  }
}

TEST_CASE("A block of zeros, and of numbers too small for a scale, is zeros in Q8_0", "[io]") {
  const TemporaryFolder folder;
  Matrix<float> matrix(1, 64);
  fill(matrix.view().middle_cols(32, 32), 1e-40f);
  GgufWriter writer;
  writer.add("w", matrix, GgufType::q8_0);
  writer.write(folder / "out.gguf");
  const Matrix<float> found = GgufReader(folder / "out.gguf").matrix<float>("w");
  for (const float number : found.elements()) CHECK(number == 0);
}

TEST_CASE("GgufWriter refuses what llama.cpp could not load", "[io]") {
  GgufWriter writer;
  Matrix<float> matrix(2, 32);
  writer.add("w", matrix);
  CHECK(error_text(ErrorCode::option, [&] { writer.add("w", matrix); }) ==
        "GgufWriter: expected each name once, found 'w' twice");
  CHECK(error_text(ErrorCode::option, [&] { writer.add(std::string(64, 'x'), matrix); }) != "");
  CHECK(error_text(ErrorCode::option, [&] { writer.add("", matrix); }) != "");
  CHECK(error_text(ErrorCode::option, [&] { writer.add("q", matrix, GgufType::q4_0); }) ==
        "GgufWriter: expected F32, F16, BF16 or Q8_0 for 'q', found Q4_0");
  CHECK(error_text(ErrorCode::option, [&] { writer.add("q", Matrix<float>(2, 31), GgufType::q8_0); }) != "");
  CHECK(error_text(ErrorCode::shape, [&] { writer.add("q", {3, 32}, matrix); }) != "");
  CHECK(error_text(ErrorCode::shape, [&] { writer.add("q", {}, matrix); }) != "");
  for (const float bad : {1e8f, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    matrix(1, 3) = bad;
    CHECK(error_text(ErrorCode::option, [&] { writer.add("q", matrix, GgufType::q8_0); }) != "");
  }
}
