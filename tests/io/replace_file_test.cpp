// SPDX-License-Identifier: MIT
#include "mole/io/replace_file.hpp"

#include "support/catch.hpp"
#include "temporary_folder.hpp"

#include <array>
#include <vector>

#if __has_include(<sys/resource.h>)
#include <csignal>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace {

using namespace mole;
using namespace mole::test;

std::string complaint(const std::filesystem::path& path, const std::string& content) {
  const std::array<std::span<const std::byte>, 1> parts{std::as_bytes(std::span(content))};
  try {
    replace_file(path, parts);
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::file);
    return error.what();
  }
  return {};
}

}  // namespace

TEST_CASE("The parts become the whole content, whatever was there", "[io]") {
  const TemporaryFolder folder;
  const std::string a = "one ", b, c = "two";
  const std::array parts{std::as_bytes(std::span(a)), std::as_bytes(std::span(b)), std::as_bytes(std::span(c))};
  replace_file(folder / "f", parts);
  CHECK(content_of(folder / "f") == "one two");
  CHECK(complaint(folder / "f", "x").empty());
  CHECK(content_of(folder / "f") == "x");
  CHECK(folder.entries() == 1);
}

TEST_CASE("A partial file of a crashed writer is passed over and left alone", "[io]") {
  const TemporaryFolder folder;
  put(folder / "f.partial0", "somebody's");
  CHECK(complaint(folder / "f", "x").empty());
  CHECK(content_of(folder / "f") == "x");
  CHECK(content_of(folder / "f.partial0") == "somebody's");
  CHECK(folder.entries() == 2);
}

TEST_CASE("A failed save leaves the old file and nothing else", "[io]") {
  const TemporaryFolder folder;
  SECTION("no such folder") {
    const std::filesystem::path path = folder / "none/f";
    CHECK(complaint(path, "x").find(path.string() + ": expected a folder that can be written to, found ") == 0);
    CHECK(folder.entries() == 0);
  }
  SECTION("a folder stands in the way") {
    std::filesystem::create_directory(folder / "f");
    put(folder / "f" / "kept", "old");
    CHECK(complaint(folder / "f", "x").find((folder / "f").string() + ": expected a regular file to replace") == 0);
    CHECK(content_of(folder / "f" / "kept") == "old");
    CHECK(folder.entries() == 1);
  }
#if __has_include(<sys/resource.h>)
  SECTION("no room") {
    put(folder / "f", "old");
    rlimit before{};
    REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
    const auto handler = std::signal(SIGXFSZ, SIG_IGN);
    const rlimit small{1024, before.rlim_max};
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
    const std::string found = complaint(folder / "f", std::string(1 << 20, 'x'));
    ::setrlimit(RLIMIT_FSIZE, &before);
    std::signal(SIGXFSZ, handler);
    CHECK(found.find(": expected room for the file, found ") != std::string::npos);
    CHECK(content_of(folder / "f") == "old");
    CHECK(folder.entries() == 1);
  }
#endif
}

#if __has_include(<sys/stat.h>)
TEST_CASE("Who may read a file stays as it was when it is replaced", "[io]") {
  using std::filesystem::perms;
  const TemporaryFolder folder;
  for (const perms mode : {perms::owner_read | perms::owner_write, perms::owner_all | perms::group_read}) {
    put(folder / "f", "old");
    std::filesystem::permissions(folder / "f", mode);
    CHECK(complaint(folder / "f", "new").empty());
    CHECK(content_of(folder / "f") == "new");
    CHECK(std::filesystem::status(folder / "f").permissions() == mode);
  }
}

TEST_CASE("A file that is replaced keeps its owner and group, where the process may give them", "[io]") {
  const TemporaryFolder folder;
  put(folder / "f", "old");
  REQUIRE(::chmod((folder / "f").c_str(), 0640) == 0);
  const bool may = ::chown((folder / "f").c_str(), 12345, 54321) == 0;
  struct stat before, after;
  REQUIRE(::stat((folder / "f").c_str(), &before) == 0);
  CHECK(before.st_uid == (may ? 12345 : ::geteuid()));
  CHECK(complaint(folder / "f", "new").empty());
  REQUIRE(::stat((folder / "f").c_str(), &after) == 0);
  CHECK(after.st_uid == before.st_uid);
  CHECK(after.st_gid == before.st_gid);
  CHECK(after.st_mode == before.st_mode);
}

TEST_CASE("A path that is no regular file is refused, and left alone", "[io]") {
  const TemporaryFolder folder;
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK(complaint(folder / "pipe", "x").find("expected a regular file") != std::string::npos);
  CHECK(std::filesystem::is_fifo(folder / "pipe"));
  CHECK_FALSE(complaint("/dev/null", "x").empty());
  CHECK(std::filesystem::is_character_file("/dev/null"));
  std::filesystem::create_directory(folder / "sub");
  CHECK_FALSE(complaint(folder / "sub", "x").empty());
  CHECK(folder.entries() == 2);
}
#endif

TEST_CASE("A file of the longest name that a system takes is written, too", "[io]") {
  const TemporaryFolder folder;
  const std::string name(255, 'n');
  CHECK(complaint(folder / name, "x").empty());
  CHECK(content_of(folder / name) == "x");
  CHECK(folder.entries() == 1);
}
