// SPDX-License-Identifier: MIT
// VectorBank: the trained vectors of whose mixtures the A and B of all layers are made.
#pragma once

#include "mole/core/matrix.hpp"
#include "mole/core/parameters.hpp"
#include "mole/core/random.hpp"

#include <cmath>
#include <string_view>

#include "mole/core/macros_off.hpp"

namespace mole {

/// h vectors of one length, which must divide the inputs and outputs of every layer that uses them.
///
///   vectors [h x length]
///
/// A bank is trained once, not by the layers that use it: it has parameters and for_each_tensor() of its own, and each
/// layer's gradients name where those of the bank are added. Starts at U(-bound, bound). Throws Error(option) for sizes
/// below 1 or a bound that is no finite number.
/// Source: Li et al. 2024 (VB-LoRA), arXiv:2405.15179; huggingface/peft, tuners/vblora.
template <class T>
class VectorBank {
 public:
  using Scalar = T;

  struct Options {
    Index vectors = 256;  ///< h
    Index length = 256;
    double bound = 0.02;
  };

  struct Parameters {
    Matrix<T> vectors;

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      f("vectors", p.vectors...);
    }
  };

  template <std::uniform_random_bit_generator Generator>
  VectorBank(const Options& options, Generator& generator) : options_(options) {
    require(options.vectors >= 1 && options.length >= 1, ErrorCode::option,
            "VectorBank: expected vectors and length of at least 1, found ", options.vectors, " and ", options.length);
    require(std::isfinite(options.bound), ErrorCode::option, "VectorBank: expected a finite bound, found ",
            options.bound);
    parameters_.vectors = Matrix<T>(options.vectors, options.length);
    fill_uniform(parameters_.vectors.view(), options.bound, generator);
  }

  void check_sizes() const {
    require_equal(ErrorCode::shape, "VectorBank: vectors", options_.vectors, parameters_.vectors.rows());
    require_equal(ErrorCode::shape, "VectorBank: length of a vector", options_.length, parameters_.vectors.cols());
  }
  /// Throws Error(shape), naming `who`, unless `p` has the sizes of this bank, or is empty: frozen.
  void check_gradients(const Parameters& p, std::string_view who) const {
    require(p.vectors.empty() || (p.vectors.rows() == options_.vectors && p.vectors.cols() == options_.length),
            ErrorCode::shape, who, ": expected gradients of the bank [", options_.vectors, " x ", options_.length,
            "], found [", p.vectors.rows(), " x ", p.vectors.cols(), "]");
  }

  const Options& options() const { return options_; }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }
  Parameters gradients() const { return zeros_like(parameters_); }

  /// Calls f(name, parameter, other...) with one View per tensor, for the parameters and each of `others`.
  template <class F, class... Others>
  void for_each_tensor(F&& f, Others&... others) {
    detail::for_each_view<Parameters>(f, parameters_, others...);
  }

 private:
  Options options_;
  Parameters parameters_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
