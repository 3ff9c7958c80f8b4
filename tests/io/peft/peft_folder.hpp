// SPDX-License-Identifier: MIT
// PeftFolder: a hand-made folder of an adapter.
#pragma once

#include "io/temporary_folder.hpp"
#include "mole/core/random.hpp"
#include "mole/io/peft/read_peft.hpp"
#include "mole/io/safetensors_writer.hpp"

#include <string>
#include <vector>

namespace mole::test {

/// Tensors are counted: 0, 1, 2 ... over the folder, halved.
class PeftFolder {
 public:
  explicit PeftFolder(const std::string& config) { put(folder_ / "adapter_config.json", config); }

  PeftFolder& add(const std::string& name, std::vector<Index> shape) {
    std::vector<float> numbers(1);
    for (const Index size : shape) numbers.resize(numbers.size() * std::size_t(size));
    for (float& number : numbers) number = float(next_++) / 2;
    return add_bytes(name, Dtype::f32, std::move(shape), std::as_bytes(std::span(numbers)));
  }
  PeftFolder& add_bytes(const std::string& name, Dtype dtype, std::vector<Index> shape,
                        std::span<const std::byte> bytes) {
    writer_.add_bytes(name, dtype, std::move(shape), bytes);
    writer_.write(folder_ / "adapter_model.safetensors");
    return *this;
  }
  /// A LoRA of rank r at `path`.
  PeftFolder& lora(const std::string& path, Index in, Index out, Index r) {
    return add("base_model.model." + path + ".lora_A.weight", {r, in})
        .add("base_model.model." + path + ".lora_B.weight", {out, r});
  }

  std::filesystem::path path() const { return folder_ / ""; }
  PeftAdapter read(bool partial = false) const { return read_peft(path(), {.partial = partial}); }
  /// What read() throws; empty if it does not.
  std::string complaint() const {
    try {
      read();
      return {};
    } catch (const Error& error) {
      return error.code() == ErrorCode::file ? error.what() : "another code";
    }
  }

 private:
  TemporaryFolder folder_;
  SafetensorsWriter writer_;
  int next_ = 0;
};

inline bool holds(const std::string& text, const std::string& part) {
  return text.find(part) != text.npos;
}

}  // namespace mole::test
