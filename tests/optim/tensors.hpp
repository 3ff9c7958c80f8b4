// SPDX-License-Identifier: MIT
// Tensors: a few named tensors with gradients, for optimizers to visit.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/matrix.hpp"
#include "mole/core/random.hpp"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mole::test {

/// Stands for a layer: for_each_tensor(f, gradients) visits its tensors in order, as MixtureLinear does.
template <class T>
struct Tensors {
  std::vector<std::string> names;
  std::vector<Matrix<T>> values;

  template <class F>
  void for_each_tensor(F&& f, Tensors& gradients) {
    for (std::size_t i = 0; i < names.size(); ++i)
      f(std::string_view(names[i]), values[i].view(), gradients.values[i].view());
  }
};

/// "router.weight" [2 x 3], "experts.lora_A" [4 x 5], "experts.lora_B" [1 x 7], random.
template <class T>
Tensors<T> random_tensors(std::uint64_t seed) {
  Tensors<T> tensors{{"router.weight", "experts.lora_A", "experts.lora_B"}, {}};
  Rng rng(seed);
  for (const auto& [rows, cols] : {std::pair<Index, Index>{2, 3}, {4, 5}, {1, 7}})
    fill_uniform(tensors.values.emplace_back(rows, cols).view(), 1, rng);
  return tensors;
}

template <class T>
bool equal_bits(const Matrix<T>& a, const Matrix<T>& b) {
  return a.rows() == b.rows() && a.cols() == b.cols() && std::equal(a.data(), a.data() + a.size(), b.data());
}
template <class T>
bool equal_bits(const Tensors<T>& a, const Tensors<T>& b) {
  for (std::size_t i = 0; i < a.values.size(); ++i)
    if (!equal_bits(a.values[i], b.values[i])) return false;
  return a.values.size() == b.values.size();
}

/// The text of the Error(code) that call() throws, empty when it throws none.
template <class Call>
std::string complaint(ErrorCode code, Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.code() == code ? error.what() : "another code";
  }
  return {};
}

}  // namespace mole::test
