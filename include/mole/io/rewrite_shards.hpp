// SPDX-License-Identifier: MIT
// rewrite_shards(): a checkpoint again, with other numbers in some of its tensors.
#pragma once

#include "mole/io/replace_file.hpp"
#include "mole/io/safetensors_shards.hpp"

#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Writes the files of `shards`, and their index, into `folder`, which is made if it is not there.
///
/// changed(entry): a std::optional<std::vector<std::byte>>, the new bytes of a tensor; none leaves it as it is. Names,
/// shapes, dtypes, metadata and the order of the bytes stay, so that a file in which nothing changes is written byte
/// for byte. One tensor is in memory at a time. All files are written beside the old ones and are renamed when all are
/// complete, the index last: no old file is touched if anything fails before, and `folder` may be that of `shards`.
/// Throws Error(file) when writing fails, Error(shape) for other than as many bytes as there were.
template <class Changed>
void rewrite_shards(const SafetensorsShards& shards, const std::filesystem::path& folder, Changed&& changed) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) throw file_error(folder.string(), "a folder, or a path for one", error.message());
  std::vector<std::unique_ptr<detail::FileBeside>> written;
  const auto begin = [&](const std::string& name) -> detail::FileBeside& {
    return *written.emplace_back(std::make_unique<detail::FileBeside>(folder / std::filesystem::path(name).filename()));
  };
  shards.for_each_file([&](const std::string& name, const SafetensorsReader& reader) {
    detail::FileBeside& file = begin(name);
    file.append(reader.header_bytes());
    for (const SafetensorsEntry& entry : reader.tensors()) {
      const std::optional<std::vector<std::byte>> bytes = changed(entry);
      require(!bytes || bytes->size() == entry.bytes.size(), ErrorCode::shape, "rewrite_shards: expected ",
              entry.bytes.size(), " bytes of '", entry.name, "', found ", bytes ? bytes->size() : 0);
      file.append(bytes ? std::span<const std::byte>(*bytes) : entry.bytes);
    }
  });
  if (shards.source().ends_with(".index.json")) {
    const MappedFile index(shards.source());
    begin(shards.source()).append(index.bytes());
  }
  for (const auto& file : written) file->replace();
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
