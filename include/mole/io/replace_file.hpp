// SPDX-License-Identifier: MIT
// replace_file(): writes a file completely or not at all.
#pragma once

#include "mole/io/file_error.hpp"

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <span>
#include <system_error>
#include <utility>

#if __has_include(<unistd.h>)
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

#include "mole/core/macros_off.hpp"

namespace mole {

namespace detail {

/// A file in the folder of `path` that is deleted unless it replaces `path`.
class FileBeside {
 public:
  explicit FileBeside(const std::filesystem::path& path) : path_(path) {
    std::error_code ignored;
    const std::filesystem::file_status old = std::filesystem::status(path, ignored);
    if (std::filesystem::exists(old) && !std::filesystem::is_regular_file(old))
      throw file_error(path.string(), "a regular file to replace, or none", "a folder, a device or a pipe");
    // Mode x creates or fails, so two writers never share a file; a number left over from a crash is skipped.
    for (int number = 0; !file_ && number < 1000; ++number) {
      beside_ = path;
      beside_.replace_filename(path.filename().native().substr(0, longest));  // systems take names of 255 bytes
      beside_ += ".partial" + std::to_string(number);
      file_ = create(beside_, std::filesystem::exists(old));
      if (!file_ && errno != EEXIST) break;
    }
    if (!file_) throw failure("a folder that can be written to");
    // Who may read the old file may read the new one, and nobody else: until then the owner alone.
    if (!std::filesystem::exists(old)) return;
#if __has_include(<unistd.h>)
    struct stat status;
    if (::stat(path.c_str(), &status) == 0) {
      // Another owner can be given by some users only, another group by its members; else the writer's stay.
      const bool given = ::fchown(::fileno(file_), status.st_uid, status.st_gid) == 0 ||
                         ::fchown(::fileno(file_), uid_t(-1), status.st_gid) == 0;
      static_cast<void>(given);
    }
#endif
    std::filesystem::permissions(beside_, old.permissions(), ignored);
  }
  FileBeside(const FileBeside&) = delete;
  FileBeside& operator=(const FileBeside&) = delete;
  ~FileBeside() {
    if (file_) std::fclose(file_);
    std::error_code ignored;
    if (!replaced_) std::filesystem::remove(beside_, ignored);
  }

  void append(std::span<const std::byte> bytes) {
    if (bytes.empty()) return;  // without data fwrite must not be called
    if (std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size()) throw failure("room for the file");
  }

  void replace() {
    if (std::fflush(file_) != 0) throw failure("room for the file");
#if __has_include(<unistd.h>)
    if (::fsync(::fileno(file_)) != 0) throw failure("a disk that keeps the file");
#endif
    if (std::fclose(std::exchange(file_, nullptr)) != 0) throw failure("a disk that keeps the file");
    std::error_code error;
    std::filesystem::rename(beside_, path_, error);
    if (error) throw file_error(path_.string(), "a path that a file can take", error.message());
    replaced_ = true;
  }

 private:
  /// A file that was not there; null if it was.
  static std::FILE* create(const std::filesystem::path& path, [[maybe_unused]] bool for_owner) {
#if __has_include(<unistd.h>)
    const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, for_owner ? 0600 : 0666);
    if (file < 0) return nullptr;
    if (std::FILE* const opened = ::fdopen(file, "wb")) return opened;
    ::close(file);
    std::error_code ignored;
    std::filesystem::remove(path, ignored);
    return nullptr;
#else
    return std::fopen(path.string().c_str(), "wbx");
#endif
  }

  static constexpr std::size_t longest = 240;  // of the path's own name, beside ".partial999"

  Error failure(const char* expected) const {
    return file_error(path_.string(), expected, std::generic_category().message(errno));
  }

  std::filesystem::path path_, beside_;
  std::FILE* file_ = nullptr;
  bool replaced_ = false;
};

}  // namespace detail

/// Writes `parts`, one after the other, as the whole content of `path`.
///
/// They are written to another file in the same folder, flushed to the disk and renamed, so a reader sees either the
/// old content or the new content as a whole, and a mapping of the old file stays valid. If `path` is a symbolic link,
/// the link is replaced, not its target. The permissions of a file that is replaced stay, and its owner and group where
/// the process may give them.
/// Throws Error(file) when that fails, and for a path that is no regular file; `path` is then unchanged and no other
/// file is left behind.
inline void replace_file(const std::filesystem::path& path, std::span<const std::span<const std::byte>> parts) {
  detail::FileBeside beside(path);
  for (std::span<const std::byte> part : parts) beside.append(part);
  beside.replace();
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
