// SPDX-License-Identifier: MIT
#pragma once

// The seam of the host model: what stands at each of the four matrix products of a block, and may be replaced there.

#include <string>

#include "host/matrix.hpp"
#include "host/parameter.hpp"

namespace host {

/// A map of tokens, applied row by row. N tokens; I = in(); O = out().
template <class T>
class Linear {
 public:
  virtual ~Linear() = default;

  [[nodiscard]] virtual Index in() const = 0;
  [[nodiscard]] virtual Index out() const = 0;

  /// y = f(x).  x [N x I], y [N x O]
  virtual void forward(ConstView<T> x, View<T> y) = 0;

  /// d_x += (df/dx)^T d_y, and adds the gradients of its own parameters into itself.
  ///
  ///   x [N x I], what the last forward got;  d_y [N x O];  d_x [N x I], or empty: not wanted
  virtual void backward(ConstView<T> x, ConstView<T> d_y, View<T> d_x) = 0;

  /// Whether backward has parameter gradients to add. The model's backward pass ends above the lowest layer that says
  /// yes.
  [[nodiscard]] virtual bool trainable() const { return true; }

  /// Host parameters held in this layer; a layer with a parameter list of its own shows nothing here.
  virtual void visit(const std::string& /*prefix*/, const Visitor<T>& /*f*/) {}
};

}  // namespace host
