// SPDX-License-Identifier: MIT
// Architectures: the instruction sets of xsimd from 8.1 on, their vectors, and the tag by which operations overload.
#pragma once

#include "mole/kernel/scalar_vector.hpp"

#include <type_traits>

#include "mole/core/macros_off.hpp"

// Warnings of g++ before 13 in its own AVX-512 headers, which belong to whoever includes them first; and, for clang's
// -fassociative-math, which no macro tells, xsimd's rounding by adding and subtracting 2^23.
#if defined(__clang__)
#pragma float_control(push)
#pragma clang fp reassociate(off)
#elif defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <xsimd/xsimd.hpp>
#if defined(__clang__)
#pragma float_control(pop)
#elif defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

#if defined(XSIMD_NO_SUPPORTED_ARCHITECTURE)
// For an unknown processor, xsimd declares its architectures, but not the vectors that are named below.
namespace xsimd {
template <class T, class Arch>
class batch;
}
#endif

namespace mole::kernel {

/// The widest instruction set that xsimd knows and the compiler's flags allow; else, one element per vector.
using DefaultArchitecture = std::conditional_t<xsimd::default_arch::supported(), xsimd::default_arch, Scalar>;

/// A vector register of an instruction set, or the one element of Scalar.
template <class Arch, class T>
using Vector = std::conditional_t<std::is_same_v<Arch, Scalar>, ScalarVector<T>, xsimd::batch<T, Arch>>;

/// Elements of one vector register.
template <class Arch, class T>
constexpr Index step_of = Index(Vector<Arch, T>::size);

/// Vector registers of an instruction set, which limit the tile of accumulators.
template <class Arch>
constexpr int registers_of =
    std::is_base_of_v<xsimd::avx512f, Arch> || std::is_base_of_v<xsimd::neon64, Arch> ? 32 : 16;

/// The last argument of an operation that instruction sets implement in their own way. It converts to Arch and to every
/// set that Arch extends; the nearest set that has an overload is called, else the overload of AnyArchitecture:
///
///   load_int8<Arch>(from, Tag<Arch>())   Arch = avx512bw -> (from, avx512f),   sse2 -> (from, AnyArchitecture)
///
/// Overloads are in one file per instruction set, vector_<set>.hpp, which vector.hpp includes. As the tag is a type of
/// this namespace, argument-dependent lookup finds them in any order of headers.
template <class Arch>
struct Tag : Arch {};

/// The tag of what every instruction set can do. Not the root of xsimd's own tags, whose name depends on its version.
struct AnyArchitecture {
  template <class Arch>
  AnyArchitecture(Tag<Arch>) {}
};

}  // namespace mole::kernel

#include "mole/core/macros_on.hpp"
