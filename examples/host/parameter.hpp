// SPDX-License-Identifier: MIT
#pragma once

// A weight with its gradient, and the visitor by which programs reach every weight of a model.

#include <functional>
#include <string>

#include "host/matrix.hpp"
#include "host/random.hpp"

namespace host {

/// `gradient` has the shape of `value`, or is empty once the parameter is frozen.
template <class T>
struct Parameter {
  Matrix<T> value;
  Matrix<T> gradient;

  Parameter(Index rows, Index cols, T fill = 0)
      : value(Matrix<T>::Constant(rows, cols, fill)), gradient(Matrix<T>::Zero(rows, cols)) {}

  [[nodiscard]] bool frozen() const { return gradient.size() == 0; }
  void freeze() { gradient.resize(0, 0); }

  void draw(Random& random, double deviation) {
    for (T& w : value.reshaped()) w = static_cast<T>(deviation * random.normal());
  }
};

template <class T>
using Visitor = std::function<void(const std::string& name, Parameter<T>& parameter)>;

}  // namespace host
