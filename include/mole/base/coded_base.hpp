// SPDX-License-Identifier: MIT
// CodedBase: a frozen linear layer whose weight is in reduced storage.
#pragma once

#include "mole/base/base_policy.hpp"
#include "mole/core/bias_view.hpp"
#include "mole/core/error.hpp"
#include "mole/core/lasting_view.hpp"
#include "mole/core/matrix.hpp"
#include "mole/core/transposed.hpp"
#include "mole/kernel/coded_products.hpp"

#include <algorithm>
#include <cmath>
#include <concepts>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Whether a merge may re-round the whole weight.
enum class LossyMerge { refused, allowed };

namespace detail {
/// Does not compile, and says why.
template <class Codes>
void refuse_transposed_codes() {
  static_assert(!std::is_same_v<Codes, Codes>,
                "mole: codes [I x O] whose scales are of blocks: a block runs along the outputs of a weight there, and "
                "along its inputs here, so none has a scale: pass Transposed{weight} of the decoded weight, in float");
}
}  // namespace detail

/// A weight [rows x cols] in reduced storage: encoded from floats, or taken from a file.
///
///   Code(View<const float>, Options), options()     encodes with the same options again
///   w(o, i)                                         one element, decoded
///   with_rows(f)                                    calls f with the same numbers in the form of kernel::CodedRows
///   bytes()                                         of codes and scales
template <class C>
concept CodePolicy = std::copy_constructible<C> && requires(const C& code, View<const float> weight, Index i) {
  C(weight, code.options());
  { code.rows() } -> std::convertible_to<Index>;
  { code.cols() } -> std::convertible_to<Index>;
  { code(i, i) } -> std::same_as<float>;
  { code.bytes() } -> std::convertible_to<std::size_t>;
  code.with_rows([](const auto&) {});
};

/// y = x W^T (+ b) with W = the decoded weight;  d_x += d_y W.  Arithmetic is in float; the weight has no gradient.
///
///   weight [O x I], bias [O] or none, x [N x I], y [N x O]
///
/// The weight is never decoded as a whole: executions that name their Architecture decode in registers or, for many
/// tokens, one panel at a time; the others element by element, in the plain order. The bits do not depend on the number
/// of threads. Only merge() allocates after construction.
/// Throws Error(shape) when parts do not fit each other, Error(option) for numbers or options that the code cannot
/// represent.
template <class Code>
class CodedBase {
  static_assert(CodePolicy<Code>);

 public:
  using Scalar = float;
  using Options = typename Code::Options;

  template <detail::TransposedMatrix M, class... Rest>
  explicit CodedBase(const M&, Rest&&...) : code_(View<const float>()) {
    detail::refuse_transposed_weight<M>();
  }
  /// Rounds `weight` to the nearest codes; copies the bias.
  explicit CodedBase(View<const float> weight, BiasView<float> bias = {}, Options options = {})
      : CodedBase(Code(weight, options), bias) {}

  /// The same of a weight that lies in memory as [I x O]: the codes are those of the weight the usual way round, of
  /// which there is a copy in float for as long as this takes.
  explicit CodedBase(Transposed<float> weight, BiasView<float> bias = {}, Options options = {})
      : CodedBase(View<const float>(row_major(weight).data(), weight.rows(), weight.cols()), bias, options) {}
  /// Takes existing codes [I x O], if they have no scales.
  template <std::integral U>
  requires std::constructible_from<Code, Transposed<U>>
  explicit CodedBase(Transposed<U> codes, BiasView<float> bias = {}) : CodedBase(Code(codes), bias) {}
  template <std::integral U, class... Rest>
  requires(!std::constructible_from<Code, Transposed<U>>) explicit CodedBase(Transposed<U>, Rest&&...)
      : code_(View<const float>()) {
    detail::refuse_transposed_codes<U>();
  }

  /// Takes existing codes: those of a file stay unchanged, bit for bit.
  explicit CodedBase(Code code, BiasView<float> bias = {}) : code_(std::move(code)) {
    if (bias.empty()) return;
    require_equal(ErrorCode::shape, "CodedBase: size of the bias", out(), bias.size());
    bias_.assign(bias.row().data(), bias.row().data() + bias.size());
  }

  Index in() const { return code_.cols(); }
  Index out() const { return code_.rows(); }
  const Code& code() const { return code_; }
  std::span<const float> bias() const { return bias_; }

  /// Memory of codes, scales and bias.
  std::size_t bytes() const { return code_.bytes() + bias_.size() * sizeof(float); }

  /// to = W, decoded.   to [O x I]
  void weight(View<float> to) const {
    require_equal(ErrorCode::shape, "CodedBase: rows of the decoded weight", out(), to.rows());
    require_equal(ErrorCode::shape, "CodedBase: columns of the decoded weight", in(), to.cols());
    for (Index o = 0; o < out(); ++o)
      for (Index i = 0; i < in(); ++i) to(o, i) = code_(o, i);
  }

  /// W = code(W + delta): every element is rounded again, so merging and unmerging drift. Throws Error(not_mergeable)
  /// unless the loss is allowed. Takes the memory of a decoded weight.   delta [O x I]
  void merge(View<const float> delta, LossyMerge loss = LossyMerge::refused) {
    require(loss != LossyMerge::refused, ErrorCode::not_mergeable,
            "CodedBase: merging into reduced storage rounds the whole weight anew; expected LossyMerge::allowed, "
            "found LossyMerge::refused");
    require_equal(ErrorCode::shape, "CodedBase: rows of the merged weight", out(), delta.rows());
    require_equal(ErrorCode::shape, "CodedBase: columns of the merged weight", in(), delta.cols());
    Matrix<float> sum(out(), in());
    for (Index o = 0; o < out(); ++o)
      for (Index i = 0; i < in(); ++i) sum(o, i) = code_(o, i) + delta(o, i);
    code_ = Code(sum.view(), code_.options());
  }

  void forward(View<const float> x, View<float> y, auto call) const {
    if (x.rows() == 0) return;  // no rows may be no memory, into which nothing points
    using Execution = std::remove_cvref_t<decltype(call.execution)>;
    if constexpr (requires { typename Execution::Architecture; }) {
      const kernel::CodedProducts<typename Execution::Architecture> products;
      const Index per_task = outputs_per_task(x.rows() * in(), 1);
      call.execution.parallel_for(tasks_of(out(), per_task), [&](Index task) {
        const Index first = task * per_task, rows = std::min(per_task, out() - first);
        code_.with_rows([&](const auto& w) {
          products.nt({x.data(), x.stride()}, x.rows(), w, first, rows, {y.data() + first, y.stride()});
        });
        add_bias(y, first, rows);
      });
    } else {
      for (Index n = 0; n < y.rows(); ++n)
        for (Index o = 0; o < out(); ++o) {
          float sum = 0;
          for (Index i = 0; i < in(); ++i) sum += x(n, i) * code_(o, i);
          y(n, o) = sum;
        }
      add_bias(y, 0, out());
    }
  }

  void backward(View<const float>, View<const float> d_y, View<float> d_x, NoParameters&, auto call) const {
    if (!d_x || d_x.rows() == 0) return;
    using Execution = std::remove_cvref_t<decltype(call.execution)>;
    if constexpr (requires { typename Execution::Architecture; }) {
      const kernel::CodedProducts<typename Execution::Architecture> products;
      // Rows are read along the columns: no more tasks than there are threads.
      const Index per_task = outputs_per_task(d_y.rows() * out(), in() / call.execution.threads());
      call.execution.parallel_for(tasks_of(in(), per_task), [&](Index task) {
        const Index first = task * per_task, cols = std::min(per_task, in() - first);
        code_.with_rows([&](const auto& w) {
          products.nn({d_y.data(), d_y.stride()}, d_y.rows(), w, out(), first, cols, {d_x.data(), d_x.stride()});
        });
      });
    } else {
      for (Index n = 0; n < d_x.rows(); ++n)
        for (Index i = 0; i < in(); ++i) {
          float sum = 0;
          for (Index o = 0; o < out(); ++o) sum += d_y(n, o) * code_(o, i);
          d_x(n, i) += sum;
        }
    }
  }

 private:
  static Index tasks_of(Index outputs, Index per_task) { return (outputs + per_task - 1) / per_task; }

  /// Outputs per task: 200'000 operations, some 10 us, and no fewer than `at_least`; whole panels.
  static Index outputs_per_task(Index terms, Index at_least) {
    constexpr Index grain = 64, work = 200'000;
    const Index outputs = std::max(at_least, work / std::max<Index>(1, 2 * terms) + 1);
    return (outputs + grain - 1) / grain * grain;
  }

  void add_bias(View<float> y, Index first, Index outputs) const {
    if (bias_.empty()) return;
    for (Index n = 0; n < y.rows(); ++n)
      for (Index o = first; o < first + outputs; ++o) y(n, o) += bias_[std::size_t(o)];
  }

  Code code_;
  std::vector<float> bias_;
};

namespace detail {
/// Throws Error(option) with the first element of `weight` that is not finite.
inline void require_finite(const char* what, View<const float> weight) {
  for (Index o = 0; o < weight.rows(); ++o)
    for (Index i = 0; i < weight.cols(); ++i)
      require(std::isfinite(weight(o, i)), ErrorCode::option, what, ": expected finite numbers, found ", weight(o, i),
              " at (", o, ", ", i, ")");
}

/// The exponent of a block of 2^shift elements. Throws Error(option) unless it is a power of two in [32, 4096].
inline int shift_of_block(const char* what, Index block) {
  for (int shift = 5; shift <= 12; ++shift)
    if (block == Index(1) << shift) return shift;
  fail(ErrorCode::option, {what, ": expected a block of 32, 64, ... or 4096 elements, found ", block});
}
}  // namespace detail

}  // namespace mole

#include "mole/core/macros_on.hpp"
