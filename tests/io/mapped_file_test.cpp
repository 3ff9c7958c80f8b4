// SPDX-License-Identifier: MIT
#include "mole/io/mapped_file.hpp"

#include "support/catch.hpp"
#include "temporary_folder.hpp"

#include <type_traits>

#if __has_include(<sys/stat.h>)
#include <sys/stat.h>
#endif

namespace {

using namespace mole;
using namespace mole::test;

std::string bytes_as_text(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

}  // namespace

TEST_CASE("A mapped file shows the bytes of the file", "[io]") {
  const TemporaryFolder folder;
  put(folder / "a", std::string("one\0two", 7));
  const MappedFile file(folder / "a");
  CHECK(bytes_as_text(file) == std::string("one\0two", 7));
}

TEST_CASE("An empty file has no bytes", "[io]") {
  const TemporaryFolder folder;
  put(folder / "empty", "");
  CHECK(MappedFile(folder / "empty").bytes().empty());
}

TEST_CASE("A mapped file moves and does not copy", "[io]") {
  static_assert(!std::is_copy_constructible_v<MappedFile> && !std::is_copy_assignable_v<MappedFile>);
  const TemporaryFolder folder;
  put(folder / "a", "first");
  put(folder / "b", "second");
  MappedFile a(folder / "a"), b(folder / "b");
  const std::byte* const address = b.bytes().data();
  a = std::move(b);
  CHECK(a.bytes().data() == address);
  CHECK(bytes_as_text(a) == "second");
  CHECK(b.bytes().empty());
}

TEST_CASE("A path that is no readable file is refused with its name", "[io]") {
  const TemporaryFolder folder;
  const auto complaint = [](const std::filesystem::path& path) -> std::string {
    try {
      MappedFile file(path);
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::file);
      return error.what();
    }
    return {};
  };
  const std::filesystem::path missing = folder / "missing";
  CHECK(complaint(missing).find(missing.string() + ": expected a readable file, found ") == 0);
  CHECK(complaint(missing.parent_path()).find(missing.parent_path().string() + ": expected a re") == 0);
}

#if __has_include(<sys/stat.h>)
TEST_CASE("A pipe is refused, and not waited for", "[io]") {
  const TemporaryFolder folder;
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK_THROWS_AS(MappedFile(folder / "pipe"), Error);
}
#endif

TEST_CASE("A mapping outlives the replacement of its file", "[io]") {
  const TemporaryFolder folder;
  put(folder / "a", "before");
  put(folder / "b", "after!");
  const MappedFile file(folder / "a");
  std::filesystem::rename(folder / "b", folder / "a");
  CHECK(bytes_as_text(file) == "before");
}
