// SPDX-License-Identifier: MIT
// LastingView: a view that somebody keeps, and so is none of a temporary.
#pragma once

#include "mole/core/matrix.hpp"
#include "mole/core/view.hpp"

#include <concepts>
#include <span>
#include <type_traits>

#include "mole/core/macros_off.hpp"

namespace mole {

namespace detail {

/// Containers and matrices that own their elements.
template <class M>
concept OwnsElements = std::same_as<M, Matrix<typename M::Scalar>> || requires {
  requires std::same_as<M, typename M::PlainObject>;  // Eigen's Matrix and Array, not its Map, Ref or Block
} ||(
    !std::ranges::enable_borrowed_range<M> && !requires { typename M::PlainObject; } &&
    requires(M & m) {
      m.begin();
      m.data();
    });

/// The M of an M&& that is bound to a temporary which owns its elements: what borrows from it would outlive it.
template <class M>
concept OwningTemporary = !std::is_lvalue_reference_v<M> && OwnsElements<std::remove_const_t<M>>;

/// A row-major expression of a column-major matrix: its transpose, or a part of that.
template <class M>
constexpr bool is_transposed() {
  if constexpr (requires(const M& m) { m.nestedExpression(); }) {
    using Nested = std::remove_cvref_t<decltype(std::declval<const M&>().nestedExpression())>;
    return ColumnMajorMatrix<Nested> || is_transposed<Nested>();
  } else {
    return false;
  }
}
template <class M>
concept TransposedMatrix = RowMajorMatrix<M> && is_transposed<M>();

/// Does not compile for a TransposedMatrix, and says what to write instead.
template <class M>
void refuse_transposed_weight() {
  static_assert(
      !TransposedMatrix<M>,
      "mole: the transpose of a column-major matrix as a weight [O x I]: where it holds [I x O], pass "
      "View<const T>(m.transpose()); where it holds [O x I], pass Transposed{View<const T>(m.transpose())} to "
      "TransposedBase, PackedBase or a base in reduced storage");
}

}  // namespace detail

/// The parameter of what keeps a view of a weight: made of views, and of matrices that stay, such as `weight` or an
/// Eigen::Map. A matrix that would be gone at the end of the statement does not compile, nor does the transpose of a
/// column-major one, which is nobody's [O x I] without a word.
template <class T>
class LastingView {
 public:
  LastingView() = default;
  LastingView(View<T> view) : view_(view) {}
  template <class M>
  requires(std::convertible_to<M, View<T>> && !detail::OwningTemporary<M> &&
           !detail::TransposedMatrix<std::remove_cvref_t<M>>) LastingView(M&& matrix)
      : view_(matrix) {}
  template <detail::OwningTemporary M>
  requires std::convertible_to<M, View<T>> LastingView(M&&)
  = delete;
  template <detail::TransposedMatrix M>
  requires std::convertible_to<const M&, View<T>> LastingView(const M&) { detail::refuse_transposed_weight<M>(); }

  View<T> view() const { return view_; }
  operator View<T>() const { return view_; }

 private:
  View<T> view_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
