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
#include <string_view>
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
/// Throws Error(file) when writing fails, and for a `folder` whose own file of all tensors, "model.safetensors", would
/// be read in place of the index; Error(shape) for other than as many bytes as there were. Shards of an older
/// checkpoint that no file takes the place of stay, and no index names them.
template <class Changed>
void rewrite_shards(const SafetensorsShards& shards, const std::filesystem::path& folder, Changed&& changed) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) throw file_error(folder.string(), "a folder, or a path for one", error.message());
  constexpr std::string_view index_end = ".index.json";
  const bool has_index = shards.source().ends_with(index_end);
  if (has_index) {
    const std::string index = std::filesystem::path(shards.source()).filename().string();
    const std::filesystem::path whole = folder / index.substr(0, index.size() - index_end.size());
    if (std::filesystem::exists(whole, error))
      throw file_error(whole.string(), "no such file beside '" + index + "', as it is read in its place", "one");
  }
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
  if (has_index) {
    const MappedFile index(shards.source());
    begin(shards.source()).append(index.bytes());
  }
  for (const auto& file : written) file->replace();
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
