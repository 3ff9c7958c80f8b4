// SPDX-License-Identifier: MIT
// concatenate_adapters(): the exact weighted sum of adapters, as one of all their ranks.
#pragma once

#include "mole/surgery/update_sum.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// scale B^T A = sum_i w_i s_i B_i^T A_i:   A = [f_1 A_1; f_2 A_2; ...], f_i = w_i s_i / scale,  B = [B_1; B_2; ...]
///
///   adapters of any ranks, one I and one O   ->   an adapter of the sum of their ranks and of scale `scale`
///
/// One adapter of weight 1 is itself, bit for bit, under its own scale. Error: the rounding of f a. Throws
/// Error(option) for no adapter, a weight or scale that is no number, a scale of 0, or numbers in A or B that are not
/// finite; Error(shape) for other inputs or outputs.  Copies; O((I + O) R^2) for the error that is reported, of R ranks
/// together.  Offline.
/// Source: huggingface/peft, add_weighted_adapter, "cat".
template <class T>
MergedAdapter<T> concatenate_adapters(const std::vector<WeightedAdapter<T>>& adapters, double scale = 1) {
  detail::check_adapters("concatenate_adapters", adapters, scale);
  Adapter<T> all{Matrix<T>(0, adapters[0].in()), Matrix<T>(0, adapters[0].out()), scale};
  for (const auto& adapter : adapters) {
    const double factor = adapter.factor() / scale;
    Matrix<T> a = detail::converted<T>(adapter.a);
    for (T& value : a.elements()) value = T(factor * double(value));
    all.a = stacked(all.a, a);
    all.b = stacked(all.b, detail::converted<T>(adapter.b));
  }
  return detail::with_error(std::move(all), adapters);
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
