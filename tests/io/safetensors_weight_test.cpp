// SPDX-License-Identifier: MIT
#include "mole/io/safetensors_weight.hpp"

#include "core/error_code.hpp"
#include "temporary_folder.hpp"

#include "mole/base/dense_base.hpp"
#include "mole/io/encode_floats.hpp"
#include "mole/io/safetensors_writer.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

#include <algorithm>

namespace {

using namespace mole;
using namespace mole::test;

const Matrix<float> stored_numbers = support::random_matrix<float>(7, 9, 3);

/// A file of `stored_numbers` in each dtype, whose name it is, and of what is no weight of a base.
void write_weights(const std::filesystem::path& path) {
  SafetensorsWriter writer;
  for (const Dtype dtype : {Dtype::f64, Dtype::f32, Dtype::f16, Dtype::bf16})
    writer.add_bytes(std::string(name_of(dtype)), dtype, {7, 9}, encode_floats(stored_numbers.view(), dtype));
  writer.add_bytes("vector", Dtype::f16, {63}, encode_floats(stored_numbers.view(), Dtype::f16));
  writer.write(path);
}

template <class Weight>
void check_borrowed(const SafetensorsShards& shards, const std::string& name) {
  CAPTURE(name);
  const auto weight = std::get<Weight>(read_safetensors_weight(shards, name));
  const void* data = nullptr;
  if constexpr (std::same_as<Weight, View<const float>>)
    data = weight.data();
  else
    data = weight.codes().data();
  CHECK(data == shards.at(name).bytes.data());
  const Matrix<float> copied = shards.matrix<float>(name);
  for (Index o = 0; o < 7; ++o)
    for (Index i = 0; i < 9; ++i) CHECK(weight(o, i) == copied(o, i));
}

}  // namespace

TEST_CASE("A weight of a checkpoint becomes a base without a copy, with the numbers of the file", "[io]") {
  const TemporaryFolder folder;
  write_weights(folder / "model.safetensors");
  const SafetensorsShards shards(folder / "");
  check_borrowed<View<const float>>(shards, "F32");
  check_borrowed<ReducedFloatWeight<Half>>(shards, "F16");
  check_borrowed<ReducedFloatWeight<Bfloat16>>(shards, "BF16");
  const CodedBase base{std::get<ReducedFloatWeight<Bfloat16>>(read_safetensors_weight(shards, "BF16"))};
  CHECK(base.code().codes().data() == static_cast<const void*>(shards.at("BF16").bytes.data()));
  CHECK((base.out() == 7 && base.in() == 9));
}

TEST_CASE("Halves at an odd address are copied, floats there are refused", "[io]") {
  const TemporaryFolder folder;
  SafetensorsWriter writer;
  writer.add_bytes("half", Dtype::f16, {7, 9}, encode_floats(stored_numbers.view(), Dtype::f16));
  writer.write(folder / "half");
  const std::string content = content_of(folder / "half");
  for (const std::size_t shift : {std::size_t(0), std::size_t(1)}) {
    std::vector<std::byte> moved(content.size() + 9);
    std::byte* const to = moved.data() + shift;
    std::ranges::copy(std::as_bytes(std::span(content)), to);
    const SafetensorsShards shards(SafetensorsReader::from_bytes({to, content.size()}, "moved"), "moved");
    const auto weight = std::get<ReducedFloatWeight<Half>>(read_safetensors_weight(shards, "half"));
    const bool borrowed = static_cast<const void*>(weight.codes().data()) == shards.at("half").bytes.data();
    CHECK(borrowed == (shift == 0));
    CHECK(weight(6, 8) == from_float16(to_float16(stored_numbers(6, 8))));
  }
}

TEST_CASE("What no base borrows is refused by its name", "[io]") {
  const TemporaryFolder folder;
  write_weights(folder / "model.safetensors");
  const SafetensorsShards shards(folder / "");
  const auto text = [&](const char* name) {
    return error_text(ErrorCode::file, [&] { read_safetensors_weight(shards, name); });
  };
  CHECK(text("F64").ends_with("expected F32, F16 or BF16 for 'F64', found F64"));
  CHECK(text("vector").ends_with("expected a matrix for 'vector', found 1 dimensions"));
  CHECK(text("none").find("a tensor named 'none'") != std::string::npos);
}
