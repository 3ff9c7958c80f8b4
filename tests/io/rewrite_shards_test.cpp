// SPDX-License-Identifier: MIT
#include "mole/io/rewrite_shards.hpp"

#include "temporary_folder.hpp"

#include "mole/io/safetensors_writer.hpp"
#include "support/catch.hpp"

#include <algorithm>

namespace {

using namespace mole;
using namespace mole::test;

using NewBytes = std::optional<std::vector<std::byte>>;

/// Two shards with metadata, and their index.
void write_two_shards(const TemporaryFolder& folder) {
  for (const auto& [file, tensor] : {std::pair{"one.safetensors", "a"}, {"two.safetensors", "b"}}) {
    SafetensorsWriter writer;
    writer.add(tensor, Matrix<float>(2, 3));
    writer.add_integers(std::string(tensor) + ".codes", std::vector<std::uint8_t>{1, 2, 3});
    writer.set_metadata("format", "pt");
    writer.write(folder / file);
  }
  put(folder / "model.safetensors.index.json",
      R"({"weight_map":{"a":"one.safetensors","a.codes":"one.safetensors","b":"two.safetensors"}})");
}

}  // namespace

TEST_CASE("A checkpoint in which nothing changes is written byte for byte, with its index", "[io]") {
  const TemporaryFolder from, to;
  write_two_shards(from);
  rewrite_shards(SafetensorsShards(from / ""), to / "new", [](const SafetensorsEntry&) { return NewBytes(); });
  for (const char* name : {"one.safetensors", "two.safetensors", "model.safetensors.index.json"})
    CHECK(content_of(from / name) == content_of(to / "new" / name));
}

TEST_CASE("New bytes take the place of a tensor, in the folder that is read, too, and nothing else changes", "[io]") {
  const TemporaryFolder folder;
  write_two_shards(folder);
  const std::string one = content_of(folder / "one.safetensors"), two = content_of(folder / "two.safetensors");
  const SafetensorsShards shards(folder / "");
  rewrite_shards(shards, folder / "", [](const SafetensorsEntry& entry) {
    return entry.name == "b" ? NewBytes(std::vector<std::byte>(24, std::byte(0x3f))) : NewBytes();
  });
  CHECK(shards.matrix<float>("b")(0, 0) == 0);  // the old file, which is mapped
  CHECK(content_of(folder / "one.safetensors") == one);
  const std::string now = content_of(folder / "two.safetensors");
  CHECK(std::ranges::mismatch(now, two).in1 - now.begin() == std::ptrdiff_t(two.size()) - 27);
  CHECK(
      now.ends_with("??"
                    "\x01\x02\x03"));
  CHECK(folder.entries() == 3);
}

TEST_CASE("If a tensor cannot be written, no file is, and none is left over", "[io]") {
  const TemporaryFolder folder;
  write_two_shards(folder);
  const std::string one = content_of(folder / "one.safetensors");
  const auto change_all = [](std::size_t size) {
    return [size](const SafetensorsEntry& entry) {
      return NewBytes(std::vector<std::byte>(entry.name == "b" ? size : entry.bytes.size()));
    };
  };
  const SafetensorsShards shards(folder / "");
  CHECK_THROWS_AS(rewrite_shards(shards, folder / "", change_all(23)), Error);
  CHECK(content_of(folder / "one.safetensors") == one);
  CHECK(folder.entries() == 3);
  put(folder / "taken", "a file");
  CHECK_THROWS_AS(rewrite_shards(shards, folder / "taken", change_all(24)), Error);
}

TEST_CASE("Shards are not written beside a file of all tensors, which would be read in their place", "[io]") {
  const TemporaryFolder from, to;
  write_two_shards(from);
  SafetensorsWriter old;
  old.add("a", Matrix<float>(1, 1));
  old.write(to / "model.safetensors");
  const auto unchanged = [](const SafetensorsEntry&) { return NewBytes(); };
  try {
    rewrite_shards(SafetensorsShards(from / ""), to / "", unchanged);
    FAIL("written");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::file);
    CHECK(std::string(error.what()).find("model.safetensors: expected no such file beside") != std::string::npos);
  }
  CHECK(to.entries() == 1);
  put(to / "old.safetensors", "of a longer set");
  std::filesystem::remove(to / "model.safetensors");
  rewrite_shards(SafetensorsShards(from / ""), to / "", unchanged);
  CHECK(SafetensorsShards(to / "").tensors().size() == 4);
}
