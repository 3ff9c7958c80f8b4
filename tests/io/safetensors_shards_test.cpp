// SPDX-License-Identifier: MIT
#include "mole/io/safetensors_shards.hpp"

#include "temporary_folder.hpp"

#include "mole/base/dense_base.hpp"
#include "mole/io/safetensors_writer.hpp"
#include "support/catch.hpp"

namespace {

using namespace mole;
using namespace mole::test;

/// A shard [2 x 3] of `first`, `first` + 1, ...
void write_shard(const std::filesystem::path& path, const std::string& tensor, float first) {
  Matrix<float> numbers(2, 3);
  for (float& number : numbers.elements()) number = first++;
  SafetensorsWriter writer;
  writer.add(tensor, numbers);
  writer.write(path);
}

std::string shards_complaint(const TemporaryFolder& folder) {
  try {
    const SafetensorsShards shards(folder / "");
    return {};
  } catch (const Error& error) {
    return error.code() == ErrorCode::file ? error.what() : "another code";
  }
}

std::string index_complaint(const std::string& json) {
  const TemporaryFolder folder;
  write_shard(folder / "one.safetensors", "a", 0);
  put(folder / "model.safetensors.index.json", json);
  return shards_complaint(folder);
}

}  // namespace

TEST_CASE("Tensors of several shards are found by name, and borrowed by a base", "[io]") {
  const TemporaryFolder folder;
  write_shard(folder / "model-1.safetensors", "q.weight", 1);
  write_shard(folder / "model-2.safetensors", "k.weight", 10);
  put(folder / "model.safetensors.index.json",
      R"({"metadata":{"total_size":48},"weight_map":{"q.weight":"model-1.safetensors","k.weight":"model-2.safetensors"}})");
  const SafetensorsShards shards(folder / "");
  CHECK(shards.files() == 2);
  CHECK(shards.tensors().size() == 2);
  CHECK(shards.has("q.weight"));
  CHECK_FALSE(shards.has("v.weight"));
  CHECK(shards.matrix<double>("k.weight")(1, 2) == 15);
  CHECK(shards.transposed<float>("k.weight")(2, 1) == 15);
  CHECK(shards.at("q.weight").shape == std::vector<Index>{2, 3});
  const DenseBase base{shards.view<float>("q.weight")};
  CHECK(static_cast<const void*>(base.weight().data()) == shards.at("q.weight").bytes.data());
  CHECK_THROWS_AS(shards.at("v.weight"), Error);
}

TEST_CASE("A tensor of a shard that the index does not name is not lost, and is refused if it is in two", "[io]") {
  const TemporaryFolder folder;
  const auto two = [&](const char* name, const std::string& a, const std::string& b) {
    SafetensorsWriter writer;
    writer.add(a, Matrix<float>(1, 2));
    writer.add(b, Matrix<float>(1, 2));
    writer.write(folder / name);
  };
  two("one.safetensors", "a", "unnamed");
  two("two.safetensors", "b", "a");
  put(folder / "model.safetensors.index.json", R"({"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})");
  const SafetensorsShards shards(folder / "");
  CHECK(shards.tensors().size() == 3);
  CHECK(shards.reader_of("unnamed").source() == (folder / "one.safetensors").string());
  CHECK(shards.reader_of("a").source() == (folder / "one.safetensors").string());  // the index decides
  two("two.safetensors", "b", "unnamed");
  CHECK(shards_complaint(folder).ends_with(
      "expected the shard of 'unnamed', found none, and the tensor in two, such as two.safetensors"));
}

TEST_CASE("A folder, an index and a file are opened by their paths", "[io]") {
  const TemporaryFolder folder;
  write_shard(folder / "one.safetensors", "a", 0);
  put(folder / "other.safetensors.index.json", R"({"weight_map":{"a":"one.safetensors"}})");
  CHECK(SafetensorsShards::of(folder / "other.safetensors.index.json").has("a"));
  CHECK(SafetensorsShards::of(folder / "one.safetensors").source() == (folder / "one.safetensors").string());
  write_shard(folder / "model.safetensors", "b", 0);
  CHECK(SafetensorsShards::of(folder / "").has("b"));
  CHECK_THROWS_AS(SafetensorsShards::of(folder / "none"), Error);
}

TEST_CASE("One file is taken before an index", "[io]") {
  const TemporaryFolder folder;
  write_shard(folder / "model.safetensors", "a", 0);
  put(folder / "model.safetensors.index.json", "broken");
  CHECK(SafetensorsShards(folder / "").files() == 1);
}

TEST_CASE("A folder without tensors, and one with a pickle, are refused", "[io]") {
  const TemporaryFolder folder;
  CHECK(shards_complaint(folder).ends_with("expected a file model.safetensors, or its index, found none"));
  put(folder / "model.bin", "PK");
  CHECK(shards_complaint(folder).ends_with("found a pickle, which may run code when it is read"));
}

TEST_CASE("An index that leaves its folder or lies about its shards is refused", "[io]") {
  CHECK(index_complaint(R"({"weight_map":{"a":"one.safetensors"}})").empty());
  for (const char* shard :
       {R"("../one.safetensors")", R"("/etc/one.safetensors")", R"("sub/one.safetensors")", R"("C:one.safetensors")",
        R"("..\\one.safetensors")", R"("one.safetensors\u0000.safetensors")", R"("one.bin")", R"("..")", R"("")", "7",
        "null"}) {
    INFO(shard);
    CHECK(index_complaint(std::string(R"({"weight_map":{"a":)") + shard + "}}")
              .find("expected the name of a .safetensors file in the same folder for 'a', found ") !=
          std::string::npos);
  }
  CHECK(index_complaint(R"({"weight_map":{"b":"one.safetensors"}})").find("a tensor named 'b'") != std::string::npos);
  CHECK(
      index_complaint(R"({"weight_map":{"a":"two.safetensors"}})").find("two.safetensors: expected a readable file") !=
      std::string::npos);
  CHECK(index_complaint(R"({"weight_map":[]})").find("expected an object 'weight_map'") != std::string::npos);
  CHECK(index_complaint("{}").find("expected an object 'weight_map'") != std::string::npos);
  CHECK(index_complaint("[]").find("expected a JSON object") != std::string::npos);
}
