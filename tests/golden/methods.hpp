// SPDX-License-Identifier: MIT
// Method: how the layer of a golden file is built from the file's parameters and all its results are computed.
#pragma once

#include "golden/comparison.hpp"
#include "mole/execution/reference.hpp"
#include "mole/execution/simd.hpp"
#include "mole/execution/through_eigen.hpp"
#include "support/either.hpp"

#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace golden {

/// Checks one file of a method in the scalar type of the file.
struct Method {
  std::function<void(Comparison<float>&)> check_float;
  std::function<void(Comparison<double>&)> check_double;
};

/// What a check found.
struct Findings {
  std::vector<std::string> failures = {};
  std::set<std::string> options = {};  ///< that it depends on
  Index compared = 0;                  ///< tensors
};

/// Checks a file of a known method, all of it.
Findings check(const GoldenFile& file);

/// The .safetensors files of a folder, in order.
std::vector<std::filesystem::path> golden_files(const std::filesystem::path& directory);

/// Checks the runner with changed copies of the files in `directory`; prints and counts what it gets wrong.
int defects_of_the_runner(const std::filesystem::path& directory);

/// All methods that this program knows, by their name in the metadata.
const std::map<std::string, Method>& methods();

/// Lets `check(comparison, execution)` compare under every execution.
template <class Check>
Method under_every_execution(Check check) {
  using Either = support::Either<mole::Reference, mole::ThroughEigen>;
  const auto all = [check](auto& comparison) {
    comparison.under("Reference");
    check(comparison, Either(mole::Reference{}));
    comparison.under("Simd");
    check(comparison, mole::Simd<>{});
    comparison.under("ThroughEigen");
    check(comparison, Either(mole::ThroughEigen{}));
  };
  return {all, all};
}

/// A check in which no execution takes part.
template <class Check>
Method offline(Check check) {
  const auto once = [check](auto& comparison) {
    comparison.under("offline");
    check(comparison);
  };
  return {once, once};
}

/// The methods of one source file.
std::map<std::string, Method> adapter_methods();
std::map<std::string, Method> init_methods();
std::map<std::string, Method> linear_methods();
std::map<std::string, Method> loss_methods();
std::map<std::string, Method> block_methods();
std::map<std::string, Method> bnb_methods();
std::map<std::string, Method> combiner_methods();
std::map<std::string, Method> rank_methods();
std::map<std::string, Method> gate_methods();
std::map<std::string, Method> capacity_methods();
std::map<std::string, Method> hmora_methods();
std::map<std::string, Method> home_methods();
std::map<std::string, Method> hosted_methods();
std::map<std::string, Method> modulation_methods();
std::map<std::string, Method> online_methods();
std::map<std::string, Method> peft_methods();
std::map<std::string, Method> prototype_methods();
std::map<std::string, Method> router_methods();
std::map<std::string, Method> routing_methods();
std::map<std::string, Method> smore_methods();
std::map<std::string, Method> surgery_methods();
std::map<std::string, Method> task_methods();

}  // namespace golden
