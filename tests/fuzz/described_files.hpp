// SPDX-License-Identifier: MIT
// DescribedFiles: the files of a folder from one text, in which a change of one byte leaves lengths and offsets whole.
#pragma once

#include "mole/io/encode_floats.hpp"
#include "mole/io/safetensors_shards.hpp"
#include "mole/io/safetensors_writer.hpp"

#include "replay.hpp"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <unistd.h>

/// Line by line:
///
///     = adapter_config.json            a file; what follows is its content, as it is
///     = adapter_model.safetensors      a file of tensors:
///     : format pt                      metadata
///     F32 2 3 model.q.lora_A.weight    dtype, sizes, name; numbers are -3/4, 2/4, ...
///     | {"a": 1}                       the bytes of the tensor above, which is a row of them
///
/// Lines of tensors that make no sense are left out, and those of more than 16 KiB.
class DescribedFiles {
 public:
  explicit DescribedFiles(std::string_view text) {
    std::string name, content;
    mole::SafetensorsWriter writer;
    const auto finish = [&] {
      if (name.empty()) return;
      if (name.ends_with(".safetensors")) {
        put(writer);
        files_[name] = writer.bytes();
      } else {
        const auto bytes = std::as_bytes(std::span(content));
        files_[name].assign(bytes.begin(), bytes.end());
      }
    };
    for (std::string_view line; next(text, '\n', line);) {
      if (line.starts_with("= ")) {
        finish();
        name = line.substr(2), content.clear(), writer = {};
      } else if (name.ends_with(".safetensors")) {
        read(line, writer);
      } else {
        content += std::string(line) + '\n';
      }
    }
    finish();
  }

  std::span<const std::byte> bytes(std::string_view name) const {
    const auto found = files_.find(name);
    if (found == files_.end()) return {};
    return found->second;
  }
  std::string_view text(std::string_view name) const {
    return {reinterpret_cast<const char*>(bytes(name).data()), bytes(name).size()};
  }
  mole::SafetensorsShards tensors(const std::string& name) const {
    return mole::SafetensorsShards(mole::SafetensorsReader::from_bytes(bytes(name), name), name);
  }
  /// Those with plain names; others would lie elsewhere.
  void write(const std::filesystem::path& folder) const {
    for (const auto& [name, bytes] : files_)
      if (name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789._-") == name.npos && !name.starts_with('.') &&
          name.size() < 60)
        std::ofstream(folder / name, std::ios::binary)
            .write(reinterpret_cast<const char*>(bytes.data()), std::streamsize(bytes.size()));
  }

 private:
  struct Tensor {
    std::string name;
    mole::Dtype dtype;
    std::vector<mole::Index> shape;
    std::vector<std::byte> bytes;
  };

  static bool next(std::string_view& text, char end, std::string_view& part) {
    if (text.empty()) return false;
    part = text.substr(0, text.find(end));
    text.remove_prefix(std::min(text.size(), part.size() + 1));
    return true;
  }
  void put(mole::SafetensorsWriter& writer) {
    if (tensor_) attempt([&] { writer.add_bytes(tensor_->name, tensor_->dtype, tensor_->shape, tensor_->bytes); });
    tensor_.reset();
  }
  void read(std::string_view line, mole::SafetensorsWriter& writer) {
    if (line.starts_with("| ") && tensor_) {
      const auto bytes = std::as_bytes(std::span(line.substr(2)));
      tensor_->bytes.assign(bytes.begin(), bytes.end());
      const auto size = std::size_t(std::max(8, mole::bits_of(tensor_->dtype))) / 8;
      tensor_->bytes.resize(tensor_->bytes.size() / size * size);
      tensor_->shape = {mole::Index(tensor_->bytes.size() / size)};
      return;
    }
    put(writer);
    std::string_view word;
    if (!next(line, ' ', word)) return;
    if (word == ":") {
      if (next(line, ' ', word)) attempt([&] { writer.set_metadata(std::string(word), std::string(line)); });
      return;
    }
    const std::optional<mole::Dtype> dtype = mole::dtype_named(word);
    std::vector<mole::Index> shape;
    mole::Index numbers = 1, size = 0;
    for (std::string_view rest = line; next(rest, ' ', word); line = rest) {
      const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), size);
      if (error != std::errc{} || end != word.data() + word.size()) break;
      shape.push_back(size);
      if (size < 0 || size > 4096 || (numbers *= size) > 4096) return;
    }
    if (!dtype || line.empty()) return;
    tensor_ = Tensor{std::string(line), *dtype, shape, bytes_of(*dtype, numbers)};
  }
  static std::vector<std::byte> bytes_of(mole::Dtype dtype, mole::Index numbers) {
    mole::Matrix<float> values(1, numbers);
    for (mole::Index i = 0; i < numbers; ++i) values(0, i) = float(i * 5 % 7 - 3) / 4;
    using enum mole::Dtype;
    if (dtype == f64 || dtype == f32 || dtype == f16 || dtype == bf16) return mole::encode_floats(values.view(), dtype);
    std::vector<std::byte> bytes(std::size_t(numbers) * std::size_t(mole::bits_of(dtype)) / 8);
    for (std::size_t i = 0; i < bytes.size(); i += std::max<std::size_t>(1, std::size_t(mole::bits_of(dtype)) / 8))
      bytes[i] = std::byte(i * 5 % 7);
    return bytes;
  }

  std::map<std::string, std::vector<std::byte>, std::less<>> files_;
  std::optional<Tensor> tensor_;
};

/// The text of which DescribedFiles makes a file like this one, but for the numbers.
inline std::string description_of(const std::string& name, std::span<const std::byte> file) {
  const auto reader = mole::SafetensorsReader::from_bytes(file, name);
  std::string text = "= " + name + "\n";
  for (const auto& [key, value] : reader.metadata()) text += ": " + key + " " + value + "\n";
  for (const mole::SafetensorsEntry& entry : reader.tensors()) {
    text += mole::name_of(entry.dtype);
    for (const mole::Index size : entry.shape) text += " " + std::to_string(size);
    text += " " + entry.name + "\n";
  }
  return text;
}

/// A folder in memory, where the system has one, that each input finds empty.
inline std::filesystem::path empty_folder() {
  static const struct Folder {
    std::filesystem::path path = (std::filesystem::is_directory("/dev/shm") ? std::filesystem::path("/dev/shm")
                                                                            : std::filesystem::temp_directory_path()) /
                                 ("mole_fuzz_" + std::to_string(::getpid()));
    ~Folder() { std::filesystem::remove_all(path); }
  } folder;
  std::filesystem::remove_all(folder.path);
  std::filesystem::create_directory(folder.path);
  return folder.path;
}
