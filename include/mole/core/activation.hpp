// SPDX-License-Identifier: MIT
// SiLU, GELU, ReLU: the nonlinearities of feed-forward blocks, with their derivatives.
#pragma once

#include "mole/core/config.hpp"

#include <cmath>
#include <concepts>
#include <numbers>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Satisfied by a copyable type with   value(z)   and   derivative(z)   of one number.
template <class A>
concept ActivationPolicy = std::copyable<A> && requires(const A& activation) {
  { activation.value(1.0f) } -> std::same_as<float>;
  { activation.value(1.0) } -> std::same_as<double>;
  { activation.derivative(1.0f) } -> std::same_as<float>;
  { activation.derivative(1.0) } -> std::same_as<double>;
};

/// ... of vectors of numbers (kernel::Vector), too: `takes_vectors` says so. Blocks then compute a vector at a time.
template <class A>
concept VectorActivationPolicy = ActivationPolicy<A> && A::takes_vectors;

/// z sigmoid(z), of LLaMA, Mixtral and most gated blocks.   Source: Elfwing et al. 2017, arXiv:1702.03118.
struct SiLU {
  static constexpr bool takes_vectors = true;

  template <class T>
  T value(T z) const {
    using std::exp;
    return z / (T(1) + exp(-z));
  }
  template <class T>
  T derivative(T z) const {
    using std::exp;
    const T s = T(1) / (T(1) + exp(-z));
    return s * (T(1) + z * (T(1) - s));
  }
};

/// z Phi(z), with the standard normal distribution Phi, or with `approximate` the tanh that many releases take for it;
/// the exact one is the default, as in PyTorch.   Source: Hendrycks and Gimpel 2016, arXiv:1606.08415.
struct GELU {
  bool approximate = false;

  template <class T>
  T value(T z) const {
    return z * below(z);
  }
  template <class T>
  T derivative(T z) const {
    if (!approximate) return below(z) + z * std::exp(-z * z / 2) * T(std::numbers::inv_sqrtpi / std::numbers::sqrt2);
    const T b = below(z);
    return b + z * 2 * b * (1 - b) * slope<T> * (1 + 3 * cubic<T> * z * z);
  }

 private:
  template <class T>
  static constexpr T slope = T(std::numbers::sqrt2* std::numbers::inv_sqrtpi);  // sqrt(2 / pi)
  template <class T>
  static constexpr T cubic = T(0.044715);

  /// Phi(z), or (1 + tanh(slope (z + cubic z^3))) / 2.
  template <class T>
  T below(T z) const {
    return approximate ? (1 + std::tanh(slope<T> * (z + cubic<T> * z * z * z))) / 2
                       : std::erfc(-z / T(std::numbers::sqrt2)) / 2;
  }
};

/// max(z, 0), whose derivative at 0 is 0.
struct ReLU {
  template <class T>
  T value(T z) const {
    return z > 0 ? z : T(0);
  }
  template <class T>
  T derivative(T z) const {
    return z > 0 ? T(1) : T(0);
  }
};

static_assert(ActivationPolicy<SiLU> && ActivationPolicy<GELU> && ActivationPolicy<ReLU>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
