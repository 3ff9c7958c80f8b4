// SPDX-License-Identifier: MIT
// TaskFactors: MTL-LoRA's factors, one A and some B that all tasks share, joined by small matrices of each task.
#pragma once

#include "mole/core/dropout.hpp"
#include "mole/core/float_range.hpp"
#include "mole/core/matrix.hpp"
#include "mole/core/random.hpp"
#include "mole/core/row.hpp"
#include "mole/factors/computed_tables.hpp"
#include "mole/factors/factor_policy.hpp"

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Of each expert k, which serves one task:   delta = scale (sum_i w_ki B_i) Lambda_k A,
/// w_k = softmax(lora_B_weights_k / temperature).
///
///   lora_A [r x I]   lora_lambda [E r x r], or [E x r] if diagonal
///   lora_B [n r x O], rank-major   lora_B_weights [E x n]
///
/// Lambda_k A and the mixed B are computed once a forward: E r (r I + n O) products; scratch is 2 r (I + O) numbers an
/// expert. At I = O = 4,096, 8 tasks, r = 8 and 3 B: 131,608 trained numbers.
///
/// Starts at B = 0, so that the output of a fresh layer equals its base's, Lambda = 1, equal weights, and A uniform
/// within 1/sqrt(I). Throws Error(option) for sizes below 1, or for a temperature that is not above 0, such as the
/// release's default, which divides by it.
/// Source: Yang et al. 2024 (MTL-LoRA), arXiv:2410.09437; pUmpKin-Co/MTL-LoRA, src/adapter/mlora.py.
template <class T>
class TaskFactors {
 public:
  using Scalar = T;

  struct Options {
    Index in = 0;
    Index out = 0;
    Index experts = 1;  ///< tasks
    Index rank = 8;
    Index up_matrices = 3;  ///< n
    double temperature = 0.1;
    bool diagonal = false;             ///< Lambda has a diagonal alone
    std::optional<double> alpha = {};  ///< unset: scale 1
    Scaling scaling = Scaling::alpha_over_rank;
    Dropout dropout = {};  ///< on the adapter's input
  };

  struct Parameters {
    Matrix<T> lora_A, lora_lambda, lora_B, lora_B_weights;

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      f("lora_A", p.lora_A...);
      f("lora_lambda", p.lora_lambda...);
      f("lora_B", p.lora_B...);
      f("lora_B_weights", p.lora_B_weights...);
    }
  };

  struct Scratch {
    ComputedTables<T> tables;
    View<T> weights, d_weights;  // w [E x n]
  };

  template <std::uniform_random_bit_generator Generator>
  TaskFactors(const Options& options, Generator& generator)
      : temperature_(options.temperature),
        diagonal_(options.diagonal),
        up_matrices_(options.up_matrices),
        blocks_(RankBlocks::uniform(options.experts, options.rank)) {
    require(options.in >= 1 && options.out >= 1 && options.rank >= 1 && options.up_matrices >= 1, ErrorCode::option,
            "TaskFactors: expected in, out, rank and up_matrices of at least 1, found in = ", options.in,
            ", out = ", options.out, ", rank = ", options.rank, ", up_matrices = ", options.up_matrices);
    require(options.temperature > 0 && in_float_range(options.temperature), ErrorCode::option,
            "TaskFactors: expected a temperature above 0 that float can divide by, found ", options.temperature);
    const Index r = options.rank, tasks = options.experts;
    parameters_ = {Matrix<T>(r, options.in), diagonal_ ? Matrix<T>(tasks, r) : Matrix<T>(tasks * r, r),
                   Matrix<T>(checked_product("TaskFactors: rows of B", up_matrices_, r), options.out),
                   Matrix<T>(tasks, up_matrices_)};
    reset(generator);
  }

  void check_sizes() const {
    const auto& p = parameters_;
    const Index r = rank(), tasks = blocks_.experts();
    const auto check = [](std::string_view what, const Matrix<T>& tensor, Index rows, Index cols) {
      require(tensor.rows() == rows && tensor.cols() == cols, ErrorCode::shape, "TaskFactors: expected a ", what,
              " of [", rows, " x ", cols, "], found [", tensor.rows(), " x ", tensor.cols(), "]");
    };
    check("lora_A", p.lora_A, r, in());
    check("lora_lambda", p.lora_lambda, diagonal_ ? tasks : tasks * r, r);
    check("lora_B", p.lora_B, up_matrices_ * r, out());
    check("lora_B_weights", p.lora_B_weights, tasks, up_matrices_);
  }

  Index in() const { return parameters_.lora_A.cols(); }
  Index out() const { return parameters_.lora_B.cols(); }
  const RankBlocks& blocks() const { return blocks_; }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }

  /// Reinitializes, as the constructor does.
  template <std::uniform_random_bit_generator Generator>
  void reset(Generator& generator) {
    fill_uniform(parameters_.lora_A.view(), 1 / std::sqrt(double(in())), generator);
    for (Index k = 0; k < blocks_.experts(); ++k)
      for (Index j = 0; j < rank(); ++j)
        for (Index l = 0; l < rank(); ++l)
          if (diagonal_)
            parameters_.lora_lambda(k, j) = 1;
          else
            parameters_.lora_lambda(k * rank() + j, l) = T(j == l);
    parameters_.lora_B.set_zero();
    parameters_.lora_B_weights.set_zero();
  }

  Scratch scratch(const CallSize&, Arena& arena) const {
    return {ComputedTables<T>::both(blocks_, in(), out(), arena), arena.matrix<T>(blocks_.experts(), up_matrices_),
            arena.matrix<T>(blocks_.experts(), up_matrices_)};
  }

  FactorViews<const T> factors(Scratch& scratch) const { return {scratch.tables.a, scratch.tables.b}; }
  FactorViews<T> gradient_views(Parameters& gradients, Scratch& scratch) const {
    return scratch.tables.zeroed(!gradients.lora_A.empty() || !gradients.lora_lambda.empty(),
                                 !gradients.lora_B.empty() || !gradients.lora_B_weights.empty());
  }

  void prepare(auto call) const {
    Scratch& s = call.scratch;
    for (Index k = 0; k < blocks_.experts(); ++k) softmax(parameters_.lora_B_weights.view().row(k), s.weights.row(k));
    call.execution.parallel_for(blocks_.ranks_up(), [&](Index row) {
      const Index k = row / rank(), j = row % rank();
      const std::span<T> a = s.tables.a.row(row), b = s.tables.b.row(row);
      std::ranges::fill(a, T(0));
      std::ranges::fill(b, T(0));
      for (Index l = 0; l < rank(); ++l)
        if (!diagonal_ || l == j) detail::add_scaled(lambda(k, j, l), row_of(parameters_.lora_A, l), a.data(), in());
      for (Index i = 0; i < up_matrices_; ++i)
        detail::add_scaled(s.weights(k, i), row_of(parameters_.lora_B, i * rank() + j), b.data(), out());
    });
  }

  /// d_A += sum_k Lambda_k^T d_a_k,   d_Lambda_k += d_a_k A^T,   d_B_i += sum_k w_ki d_b_k,   d_w_ki = <d_b_k, B_i>
  void contract(Parameters& gradients, auto call) const {
    Scratch& s = call.scratch;
    const Index tasks = blocks_.experts();
    call.execution.parallel_for(rank(), [&](Index l) {  // row l of A
      for (Index k = 0; k < tasks && !gradients.lora_A.empty(); ++k)
        for (Index j = 0; j < rank(); ++j)
          if (const T* const d = row_of(s.tables.d_a, k * rank() + j);
              (!diagonal_ || l == j) && !detail::is_zero(d, in()))
            detail::add_scaled(lambda(k, j, l), d, gradients.lora_A.view().row_data(l), in());
    });
    call.execution.parallel_for(blocks_.ranks_up(), [&](Index row) {
      const Index k = row / rank(), j = row % rank();
      for (Index l = 0; l < rank() && !gradients.lora_lambda.empty(); ++l)
        if (!diagonal_ || l == j)
          (diagonal_ ? gradients.lora_lambda(k, j) : gradients.lora_lambda(row, l)) +=
              detail::dot(row_of(s.tables.d_a, row), row_of(parameters_.lora_A, l), in());
    });
    call.execution.parallel_for(up_matrices_ * rank(), [&](Index row) {  // of B
      for (Index k = 0; k < tasks && !gradients.lora_B.empty(); ++k)
        if (const T* const d = row_of(s.tables.d_b, k * rank() + row % rank()); !detail::is_zero(d, out()))
          detail::add_scaled(s.weights(k, row / rank()), d, gradients.lora_B.view().row_data(row), out());
    });
    if (gradients.lora_B_weights.empty()) return;
    call.execution.parallel_for(tasks, [&](Index k) {
      const std::span<T> d_w = s.d_weights.row(k);
      if (detail::is_zero(row_of(s.tables.d_b, k * rank()), rank() * out())) return;
      // With m the mean of d_w under w:   d_logit_i = w_i (d_w_i - m) / temperature
      T mean = 0;
      for (Index i = 0; i < up_matrices_; ++i) {
        T sum = 0;
        for (Index j = 0; j < rank(); ++j)
          sum += detail::dot(row_of(s.tables.d_b, k * rank() + j), row_of(parameters_.lora_B, i * rank() + j), out());
        d_w[std::size_t(i)] = sum;
        mean += s.weights(k, i) * sum;
      }
      for (Index i = 0; i < up_matrices_; ++i)
        gradients.lora_B_weights(k, i) += s.weights(k, i) * (d_w[std::size_t(i)] - mean) / T(temperature_);
    });
  }

 private:
  Index rank() const { return parameters_.lora_A.rows(); }
  T lambda(Index k, Index j, Index l) const {
    return diagonal_ ? parameters_.lora_lambda(k, j) : parameters_.lora_lambda(k * rank() + j, l);
  }
  static const T* row_of(View<const T> table, Index row) { return table.row_data(row); }

  void softmax(std::span<const T> logits, std::span<T> weights) const {
    const T largest = std::ranges::max(logits);
    T sum = 0;
    for (std::size_t i = 0; i < logits.size(); ++i)
      sum += weights[i] = T(std::exp((double(logits[i]) - double(largest)) / temperature_));
    for (T& weight : weights) weight /= sum;
  }

  double temperature_;
  bool diagonal_;
  Index up_matrices_;
  RankBlocks blocks_;
  Parameters parameters_;
};

static_assert(ComputedFactorPolicy<TaskFactors<float>>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
