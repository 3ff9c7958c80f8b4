// SPDX-License-Identifier: MIT
// Walks every .safetensors file of a folder and compares this library with the methods' own implementations.
//
// The folder is $MOLE_GOLDEN_DIR, or the project's own. Exits with 1 when a file differs or cannot be read.
#include "golden/methods.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>

namespace golden {

const std::map<std::string, Method>& methods() {
  static const std::map<std::string, Method> all = [] {
    std::map<std::string, Method> joined = linear_methods();
    joined.merge(block_methods());
    joined.merge(rank_methods());
    joined.merge(gate_methods());
    joined.merge(router_methods());
    return joined;
  }();
  return all;
}

namespace {

enum class Verdict { matched, failed, not_covered };

template <class T>
Verdict compare(const mole::SafetensorsReader& file, const std::string& name,
                const std::function<void(Comparison<T>&)>& check) {
  Comparison<T> comparison(file);
  check(comparison);
  for (const std::string& failure : comparison.failures())
    std::printf("FAILED %s: %s\n", name.c_str(), failure.c_str());
  if (!comparison.failures().empty()) return Verdict::failed;
  std::printf("matched %s: %td tensors\n", name.c_str(), comparison.compared());
  return Verdict::matched;
}

Verdict check(const std::filesystem::path& path) {
  const std::string name = path.filename().string();
  try {
    const mole::SafetensorsReader file(path);
    if (!file.metadata().contains("method")) throw std::runtime_error("expected a method in the metadata, found none");
    const std::string method = file.metadata().at("method");
    const auto known = methods().find(method);
    if (known == methods().end()) {
      std::printf("not covered %s: method %s\n", name.c_str(), method.c_str());
      return Verdict::not_covered;
    }
    const char* const main_tensor = file.has("x") ? "x" : "param";  // of a layer, or of an optimiser
    const bool in_double = file.has(main_tensor) && file.at(main_tensor).dtype == mole::Dtype::f64;
    return in_double ? compare<double>(file, name, known->second.check_double)
                     : compare<float>(file, name, known->second.check_float);
  } catch (const std::exception& error) {
    std::printf("FAILED %s: %s\n", name.c_str(), error.what());
    return Verdict::failed;
  }
}

}  // namespace
}  // namespace golden

int main() {
  const char* const folder = std::getenv("MOLE_GOLDEN_DIR");
  const std::filesystem::path directory = folder != nullptr && *folder != '\0' ? folder : MOLE_TEST_GOLDEN_DIR;
  std::vector<std::filesystem::path> files;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error))
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  if (files.empty()) {
    std::printf("FAILED %s: expected .safetensors files, found none\n", directory.string().c_str());
    std::printf("golden: 0 matched, 1 failed, 0 not covered\n");
    return 1;
  }
  int matched = 0, failed = 0, not_covered = 0;
  for (const auto& path : files) switch (golden::check(path)) {
      case golden::Verdict::matched:
        ++matched;
        break;
      case golden::Verdict::failed:
        ++failed;
        break;
      case golden::Verdict::not_covered:
        ++not_covered;
        break;
    }
  std::printf("golden: %d matched, %d failed, %d not covered\n", matched, failed, not_covered);
  return failed == 0 ? 0 : 1;
}
