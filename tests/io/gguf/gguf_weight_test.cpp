// SPDX-License-Identifier: MIT
#include "mole/io/gguf/gguf_weight.hpp"

#include "io/temporary_folder.hpp"
#include "mole/base/dense_base.hpp"
#include "mole/io/gguf/gguf_writer.hpp"
#include "mole/testing/random_matrix.hpp"
#include "support/catch.hpp"

namespace {

using namespace mole;
using namespace mole::test;

/// What the weight of a base decodes to.
Matrix<float> decoded_gguf(const GgufWeight& weight) {
  return std::visit(
      [](const auto& of_kind) {
        Matrix<float> decoded(of_kind.rows(), of_kind.cols());
        for (Index r = 0; r < decoded.rows(); ++r)
          for (Index c = 0; c < decoded.cols(); ++c) decoded(r, c) = of_kind(r, c);
        return decoded;
      },
      weight);
}

}  // namespace

TEST_CASE("The weight of a base has the numbers of the file, to the bit", "[io]") {
  const TemporaryFolder folder;
  const Matrix<float> matrix = laws::random_matrix<float>(5, 96, 8);
  GgufWriter writer;
  for (const GgufType type : {GgufType::f32, GgufType::f16, GgufType::bf16, GgufType::q8_0})
    writer.add(name_of(type), matrix, type);
  writer.write(folder / "out.gguf");
  const GgufReader reader(folder / "out.gguf");
  for (const char* name : {"F32", "F16", "BF16", "Q8_0"}) {
    CAPTURE(name);
    CHECK(std::ranges::equal(decoded_gguf(read_gguf_weight(reader, name)).elements(),
                             reader.matrix<float>(name).elements()));
  }
  const auto borrowed = std::get<View<const float>>(read_gguf_weight(reader, "F32"));
  CHECK(static_cast<const void*>(borrowed.data()) == reader.at("F32").bytes.data());
  CHECK(DenseBase{borrowed}.out() == 5);
  const auto halves = std::get<ReducedFloatWeight<Half>>(read_gguf_weight(reader, "F16"));
  CHECK(static_cast<const void*>(halves.codes().data()) == reader.at("F16").bytes.data());
  const auto blocks = std::get<Q8Weight>(read_gguf_weight(reader, "Q8_0"));
  CHECK(blocks.blocks().data() == reader.at("Q8_0").bytes.data());
}

TEST_CASE("Q4_0 keeps its codes, in another order, and its scale, which may be negative", "[io]") {
  std::string bytes = "GGUF";
  const auto put = [&](const auto& number) { bytes.append(reinterpret_cast<const char*>(&number), sizeof number); };
  put(std::uint32_t(3)), put(std::uint64_t(1)), put(std::uint64_t(0));
  put(std::uint64_t(1)), bytes += 'w', put(std::uint32_t(2)), put(std::uint64_t(32)), put(std::uint64_t(2));
  put(std::uint32_t(2)), put(std::uint64_t(0));
  bytes.resize((bytes.size() + 31) / 32 * 32);
  for (const float scale : {0.5f, -0.25f}) {
    put(to_float16(scale));
    for (int i = 0; i < 16; ++i) put(std::uint8_t(i | (15 - i) << 4));
  }
  const GgufReader reader = GgufReader::from_bytes(std::as_bytes(std::span(bytes)), "test");
  const Matrix<float> found = decoded_gguf(read_gguf_weight(reader, "w"));
  for (Index c = 0; c < 32; ++c) {
    const float code = float(c < 16 ? c : 31 - c) - 8;
    CHECK(found(0, c) == 0.5f * code);
    CHECK(found(1, c) == -0.25f * code);
  }
  CHECK(std::ranges::equal(found.elements(), reader.matrix<float>("w").elements()));
}

TEST_CASE("A tensor that is no matrix, or of a type that no base has, is refused", "[io]") {
  const TemporaryFolder folder;
  GgufWriter writer;
  writer.add("stacked", {2, 2, 32}, Matrix<float>(4, 32));
  writer.write(folder / "out.gguf");
  const GgufReader reader(folder / "out.gguf");
  try {
    read_gguf_weight(reader, "stacked");
    FAIL("read");
  } catch (const Error& error) {
    CHECK(std::string(error.what()).ends_with(": expected a matrix for 'stacked', found 3 dimensions"));
  }
}
