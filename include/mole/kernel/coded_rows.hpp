// SPDX-License-Identifier: MIT
// CodedRows: rows of weights in reduced storage, decoded in registers by CodedProducts.
#pragma once

#include "mole/kernel/vector_conversions.hpp"

#include <concepts>
#include <cstring>

#include "mole/core/macros_off.hpp"

namespace mole::kernel {

/// The interface of all rows: `cols` elements per row, and row(o) with
///
///   load<Arch>(i)               elements i ... i + Pair::size - 1, i a multiple of Pair::size
///   load_first<Arch>(i, count)  `count` of them, then anything finite; reads no code beyond them
///
/// and row.address(i), the address of the code of element i; a row is rows.bytes() long (of four bits, rounded down).
///
/// `interleaved` rows put even indices into the first vector of a pair and odd ones into the second; others keep the
/// order of memory. Rows borrow all that they point to.
template <class R, class Arch>
concept CodedRows = requires(const R& rows, Index i) {
  { R::interleaved } -> std::convertible_to<bool>;
  { rows.cols } -> std::convertible_to<Index>;
  { rows.bytes() } -> std::convertible_to<Index>;
  { rows.row(i).template load<Arch>(i) } -> std::same_as<Pair<Arch>>;
  { rows.row(i).template load_first<Arch>(i, i) } -> std::same_as<Pair<Arch>>;
  { rows.row(i).address(i) } -> std::convertible_to<const void*>;
};

namespace detail {
/// load(codes) of `count` codes, padded with zeros.
template <class Arch, class Code, class Load>
Pair<Arch> load_first_codes(const Code* from, Index count, Load load) {
  Code codes[std::size_t(Pair<Arch>::size)] = {};
  std::copy_n(from, count, codes);
  return load(codes);
}
}  // namespace detail

/// 16-bit floats [rows x cols]: Format::load<Arch>(codes) gives one vector.
template <class Format>
struct ReducedFloatRows {
  static constexpr bool interleaved = false;

  struct Row {
    const std::uint16_t* codes;

    const void* address(Index i) const { return codes + i; }
    template <class Arch>
    static Pair<Arch> pair(const std::uint16_t* from) {
      return {Format::template load<Arch>(from), Format::template load<Arch>(from + Pair<Arch>::size / 2)};
    }
    template <class Arch>
    Pair<Arch> load(Index i) const {
      return pair<Arch>(codes + i);
    }
    template <class Arch>
    Pair<Arch> load_first(Index i, Index count) const {
      return detail::load_first_codes<Arch>(codes + i, count, pair<Arch>);
    }
  };

  const std::uint16_t* codes;
  Index cols;

  Index bytes() const { return 2 * cols; }
  Row row(Index o) const { return {codes + o * cols}; }
};

/// 8-bit integers [rows x cols] times scales [rows x blocks_per_row], one per 2^shift elements of a row; 2^shift is at
/// least a pair of vectors, 32.
struct Int8Rows {
  static constexpr bool interleaved = false;

  struct Row {
    const std::int8_t* codes;
    const float* scales;
    int shift;

    const void* address(Index i) const { return codes + i; }
    template <class Arch>
    static Pair<Arch> pair(const std::int8_t* from, float scale) {
      const Vector<Arch, float> factor(scale);
      return {load_int8<Arch>(from) * factor, load_int8<Arch>(from + Pair<Arch>::size / 2) * factor};
    }
    template <class Arch>
    Pair<Arch> load(Index i) const {
      return pair<Arch>(codes + i, scales[i >> shift]);
    }
    template <class Arch>
    Pair<Arch> load_first(Index i, Index count) const {
      const auto load = [&](const std::int8_t* from) { return pair<Arch>(from, scales[i >> shift]); };
      return detail::load_first_codes<Arch>(codes + i, count, load);
    }
  };

  const std::int8_t* codes;
  const float* scales;
  Index cols, blocks_per_row;
  int shift;

  Index bytes() const { return cols; }
  Row row(Index o) const { return {codes + o * cols, scales + o * blocks_per_row, shift}; }
};

/// Blocks of a scale in binary16 and 32 codes of 8 bits, one after the other: ggml's Q8_0 [rows x cols], cols a
/// multiple of 32, as files have it. No pair of vectors is longer than a block.
struct Q8Rows {
  static constexpr bool interleaved = false;
  static constexpr Index block = 32, block_bytes = 34;

  struct Row {
    const std::int8_t* blocks;

    const std::int8_t* block_of(Index i) const { return blocks + i / block * block_bytes; }
    const std::int8_t* codes(Index i) const { return block_of(i) + sizeof(std::uint16_t) + i % block; }
    const void* address(Index i) const { return codes(i); }
    template <class Arch>
    Vector<Arch, float> scale(Index i) const {
      std::uint16_t bits;
      std::memcpy(&bits, block_of(i), sizeof bits);
      return Vector<Arch, float>(detail::float_of_half(bits));
    }
    template <class Arch>
    Pair<Arch> load(Index i) const {
      static_assert(block % Pair<Arch>::size == 0);
      const std::int8_t* const from = codes(i);
      const Vector<Arch, float> factor = scale<Arch>(i);
      return {load_int8<Arch>(from) * factor, load_int8<Arch>(from + Pair<Arch>::size / 2) * factor};
    }
    template <class Arch>
    Pair<Arch> load_first(Index i, Index) const {
      return load<Arch>(i);  // there is no rest
    }
  };

  const std::int8_t* blocks;
  Index cols;

  Index bytes() const { return cols / block * block_bytes; }
  Row row(Index o) const { return {blocks + o * bytes()}; }
};

/// The largest magnitude of every block of four-bit numbers, uncoded: from block b on.
struct PlainMaxima {
  const float* values;

  float operator()(Index b) const { return values[b]; }
  PlainMaxima from(Index b) const { return {values + b}; }
};

/// The same, quantized itself: map[codes[b]] * nested[b / 256] + offset.
struct NestedMaxima {
  const std::uint8_t* codes;
  const float *map, *nested;
  float offset;
  Index first = 0;

  float operator()(Index b) const { return map[codes[first + b]] * nested[(first + b) >> 8] + offset; }
  NestedMaxima from(Index b) const { return {codes, map, nested, offset, first + b}; }
};

/// Numbers of four bits [rows x cols], indices of one of 16 levels, two per byte, the higher nibble first, in blocks of
/// 2^shift >= 32. Every row consists of whole blocks, so it begins with a byte and a block.
template <class Maxima>
struct FourBitRows {
  static constexpr bool interleaved = true;

  struct Row {
    const std::uint8_t* codes;
    const float* levels;
    Maxima maxima;
    int shift;

    const void* address(Index i) const { return codes + (i >> 1); }
    template <class Arch>
    Pair<Arch> load(Index i) const {
      return load_four_bits<Arch>(codes + (i >> 1), levels, maxima(i >> shift));
    }
    template <class Arch>
    Pair<Arch> load_first(Index i, Index) const {
      return load<Arch>(i);  // a block is at least as long as a pair, so there is no rest
    }
  };

  const std::uint8_t* codes;
  const float* levels;
  Maxima maxima;
  Index cols;
  int shift;

  Index bytes() const { return cols / 2; }
  Row row(Index o) const { return {codes + o * cols / 2, levels, maxima.from(o * cols >> shift), shift}; }
};

/// Numbers of four bits whose blocks cross rows: each element finds its own nibble and its own block.
template <class Maxima>
struct FlatFourBitRows {
  static constexpr bool interleaved = false;

  struct Row {
    const std::uint8_t* codes;
    const float* levels;
    Maxima maxima;
    Index begin;  // of the row, in elements of the matrix
    int shift;

    const void* address(Index i) const { return codes + ((begin + i) >> 1); }
    float operator()(Index i) const {
      const Index at = begin + i;
      const unsigned byte = codes[at >> 1];
      return levels[(at & 1) != 0 ? byte & 15u : byte >> 4] * maxima(at >> shift);
    }
    template <class Arch>
    Pair<Arch> load(Index i) const {
      return load_first<Arch>(i, Pair<Arch>::size);
    }
    template <class Arch>
    Pair<Arch> load_first(Index i, Index count) const {
      alignas(64) float elements[std::size_t(Pair<Arch>::size)] = {};
      for (Index k = 0; k < count; ++k) elements[k] = (*this)(i + k);
      return Pair<Arch>::load(elements);
    }
  };

  const std::uint8_t* codes;
  const float* levels;
  Maxima maxima;
  Index cols;
  int shift;

  Index bytes() const { return cols / 2; }
  Row row(Index o) const { return {codes, levels, maxima, o * cols, shift}; }
};

}  // namespace mole::kernel

#include "mole/core/macros_on.hpp"
