// SPDX-License-Identifier: MIT
// Walks every .safetensors file of a folder and compares this library with the methods' own implementations.
//
//     golden_test [--runner] [folder]
//
// Without a folder it is $MOLE_GOLDEN_DIR, or the project's own. Exits with 1 when a file differs or cannot be read.
// With --runner changed copies of the files are checked instead, to see whether this program looks at all of a file.
#include "golden/methods.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>

namespace golden {

const std::map<std::string, Method>& methods() {
  static const std::map<std::string, Method> all = [] {
    std::map<std::string, Method> joined = linear_methods();
    joined.merge(adapter_methods());
    joined.merge(loss_methods());
    joined.merge(init_methods());
    joined.merge(block_methods());
    joined.merge(combiner_methods());
    joined.merge(rank_methods());
    joined.merge(gate_methods());
    joined.merge(capacity_methods());
    joined.merge(hmora_methods());
    joined.merge(home_methods());
    joined.merge(hosted_methods());
    joined.merge(modulation_methods());
    joined.merge(online_methods());
    joined.merge(bnb_methods());
    joined.merge(peft_methods());
    joined.merge(prototype_methods());
    joined.merge(router_methods());
    joined.merge(routing_methods());
    joined.merge(smore_methods());
    joined.merge(surgery_methods());
    joined.merge(task_methods());
    return joined;
  }();
  return all;
}

namespace {

template <class T>
Findings findings_of(const GoldenFile& file, const std::function<void(Comparison<T>&)>& check) {
  Comparison<T> comparison(file);
  Findings findings;
  try {
    check(comparison);
    comparison.expect_nothing_left();
  } catch (const std::exception& error) {
    findings.failures.push_back(error.what());
  }
  const auto& different = comparison.failures();
  findings.failures.insert(findings.failures.end(), different.begin(), different.end());
  findings.options = comparison.options_in_use();
  findings.compared = comparison.compared();
  return findings;
}

}  // namespace

Findings check(const GoldenFile& file) {
  const Method& method = methods().at(file.options.at("method"));
  const auto dtype = file.options.find("dtype");
  if (dtype == file.options.end()) return {.failures = {"option dtype: expected float32 or float64, found none"}};
  if (dtype->second == "float64") return findings_of<double>(file, method.check_double);
  if (dtype->second == "float32") return findings_of<float>(file, method.check_float);
  return {.failures = {"option dtype: expected float32 or float64, found " + dtype->second}};
}

std::vector<std::filesystem::path> golden_files(const std::filesystem::path& directory) {
  std::vector<std::filesystem::path> files;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error))
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

namespace {

/// Files by verdict, and those not covered by their method.
struct Counts {
  int matched = 0, failed = 0, not_covered = 0;
  std::map<std::string, int> unknown_methods;
};

void count(const std::filesystem::path& path, Counts& counts) {
  const std::string name = path.filename().string();
  std::vector<std::string> failures;
  try {
    const mole::SafetensorsReader reader(path);
    const auto method = reader.metadata().find("method");
    if (method == reader.metadata().end()) throw std::runtime_error("expected a method in the metadata, found none");
    if (!methods().contains(method->second)) {
      std::printf("not covered %s: method %s\n", name.c_str(), method->second.c_str());
      ++counts.not_covered, ++counts.unknown_methods[method->second];
      return;
    }
    const Findings findings = check(GoldenFile(reader));
    failures = findings.failures;
    if (failures.empty()) std::printf("matched %s: %td tensors\n", name.c_str(), findings.compared);
  } catch (const std::exception& error) {
    failures = {error.what()};
  }
  for (const std::string& failure : failures) std::printf("FAILED %s: %s\n", name.c_str(), failure.c_str());
  ++(failures.empty() ? counts.matched : counts.failed);
}

int compare_all(const std::filesystem::path& directory) {
  const std::vector<std::filesystem::path> files = golden_files(directory);
  Counts counts;
  for (const auto& path : files) count(path, counts);
  if (files.empty()) {
    std::printf("FAILED %s: expected .safetensors files, found none\n", directory.string().c_str());
    counts.failed = 1;
  }
  for (const auto& [method, number] : counts.unknown_methods)
    std::printf("golden: no method %s: %d\n", method.c_str(), number);
  std::printf("golden: %d matched, %d failed, %d not covered\n", counts.matched, counts.failed, counts.not_covered);
  return counts.failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace golden

int main(int argc, char** argv) {
  std::vector<std::string> arguments(argv + 1, argv + argc);
  const bool runner = std::erase(arguments, "--runner") > 0;
  const char* const folder = std::getenv("MOLE_GOLDEN_DIR");
  std::filesystem::path directory = folder != nullptr && *folder != '\0' ? folder : MOLE_TEST_GOLDEN_DIR;
  if (!arguments.empty()) directory = arguments.front();
  return runner ? golden::defects_of_the_runner(directory) != 0 : golden::compare_all(directory);
}
