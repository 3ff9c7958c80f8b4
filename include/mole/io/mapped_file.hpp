// SPDX-License-Identifier: MIT
// MappedFile: a whole file as read-only bytes.
#pragma once

#include "mole/io/file_error.hpp"

#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <system_error>

#if __has_include(<sys/mman.h>)
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#else
#include <fstream>
#endif

#include "mole/core/macros_off.hpp"

namespace mole {

/// The bytes of a file, mapped if the system can (POSIX) and read into memory elsewhere.
///
/// Their number is the size of the file when it was opened. A reader cannot defend itself against a process that
/// shortens a mapped file: replace files (replace_file.hpp) rather than overwriting them in place.
/// Throws Error(file) when `path` is no readable regular file.  O(1) when mapped. Move-only.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);

  /// Empty for an empty file, and after a move.
  std::span<const std::byte> bytes() const {
    if (!data_) return {};
    return {data_.get(), data_.get_deleter().size};
  }

 private:
  struct Release {
    std::size_t size;
    void operator()(const std::byte* data) const;
  };

  std::unique_ptr<const std::byte, Release> data_;
};

#if __has_include(<sys/mman.h>)

inline MappedFile::MappedFile(const std::filesystem::path& path) {
  const auto unreadable = [&] {
    return file_error(path.string(), "a readable file", std::generic_category().message(errno));
  };
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // or a FIFO would wait for a writer
  if (file < 0) throw unreadable();
  const struct Closed {
    int file;
    ~Closed() { ::close(file); }
  } closed{file};

  struct stat status;
  if (::fstat(file, &status) != 0) throw unreadable();
  if (!S_ISREG(status.st_mode)) throw file_error(path.string(), "a regular file", "a folder or a device");
  if (status.st_size == 0) return;  // mmap refuses a length of 0

  const std::size_t size = std::size_t(status.st_size);
  void* const address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
  if (address == MAP_FAILED) throw unreadable();
  data_ = {static_cast<const std::byte*>(address), Release{size}};
}

inline void MappedFile::Release::operator()(const std::byte* data) const {
  ::munmap(const_cast<std::byte*>(data), size);
}

#else

inline MappedFile::MappedFile(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  const std::streamoff size = file ? std::streamoff(file.tellg()) : -1;
  if (size < 0) throw file_error(path.string(), "a readable file", "none");
  if (size == 0) return;
  std::unique_ptr<std::byte[]> read(new std::byte[std::size_t(size)]);
  file.seekg(0).read(reinterpret_cast<char*>(read.get()), size);
  if (!file) throw file_error(path.string(), std::to_string(size) + " bytes", std::to_string(file.gcount()));
  data_ = {read.release(), Release{std::size_t(size)}};
}

inline void MappedFile::Release::operator()(const std::byte* data) const {
  delete[] data;
}

#endif

}  // namespace mole

#include "mole/core/macros_on.hpp"
