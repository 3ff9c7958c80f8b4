// SPDX-License-Identifier: MIT
#include "support/layer_results.hpp"

namespace mole::test {

LayerResults dense_layer_results(const Matrix<float>& weight, const Reference& execution) {
  return layer_results(DenseBase(weight.view()), execution);
}
LayerResults dense_layer_results(const Matrix<float>& weight, const Simd<>& execution) {
  return layer_results(DenseBase(weight.view()), execution);
}
LayerResults dense_layer_results(const Matrix<float>& weight, const Simd<kernel::Scalar>& execution) {
  return layer_results(DenseBase(weight.view()), execution);
}

}  // namespace mole::test
