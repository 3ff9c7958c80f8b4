// SPDX-License-Identifier: MIT
// SavedAdapter: what a run of `adapt` left in a file, to be loaded without its text.
#pragma once

#include "mole/io/checkpoint.hpp"
#include "training/adapter.hpp"
#include "training/model.hpp"

#include <cstdint>
#include <filesystem>
#include <string>

namespace training {

/// Throws mole::Error, naming the file, for one that is no adapter's or does not fit what it is loaded into.
class SavedAdapter {
 public:
  explicit SavedAdapter(const std::filesystem::path& file) : reader_(file) {
    method = reader_.text("method");
    base = reader_.text("base");
    domains = std::size_t(reader_.number("domains"));
    seed = reader_.number("seed");
    configuration = reader_.text("configuration");
  }

  std::string method, configuration;
  std::filesystem::path base;  // file of the frozen base
  std::size_t domains = 0;     // of the text that it was trained on, the base's among them
  std::uint64_t seed = 0;

  /// Loads the base, from the file named in this one or from where it is now, and freezes it.
  static void load_base(Model& model, const std::filesystem::path& file) {
    mole::CheckpointReader(file).read_parameters("parameters", [&](auto&& f) {
      model.for_each_tensor([&](std::string_view name, float* value, float*, host::Index size) {
        f(name, mole::View<float>(value, 1, size));
      });
    });
    model.freeze();
  }
  void load(Adapter& adapter) const {
    reader_.read_parameters("parameters",
                            [&](const mole::AnyLinear<float>::Visitor& f) { adapter.for_each_tensor(f); });
    reader_.read_state("state", adapter);
  }

 private:
  mole::CheckpointReader reader_;
};

}  // namespace training
