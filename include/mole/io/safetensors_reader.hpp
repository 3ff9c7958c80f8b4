// SPDX-License-Identifier: MIT
// SafetensorsReader: reads the tensors of a safetensors file.
#pragma once

#include "mole/core/matrix.hpp"
#include "mole/core/reduced_floats.hpp"
#include "mole/io/mapped_file.hpp"
#include "mole/io/safetensors_header.hpp"

#include <bit>
#include <concepts>
#include <cstring>
#include <functional>
#include <istream>
#include <iterator>
#include <memory>
#include <optional>
#include <string_view>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The tensors and the metadata of a file that passed every check of SafetensorsHeader.
///
/// `matrix`, `transposed` and `integers` copy and convert, from any address; `view` borrows without copying, if the
/// file allows. As a matrix, shape [] is 1 x 1, [n] is 1 x n, [r, c] is r x c, [n, r, c] is n x (r c) and so on.
/// Entries and views live as long as the reader, or as the bytes that were passed to `from_bytes`. Move-only. Throws
/// Error(file) for a broken file, a missing tensor or a dtype that the call cannot return, Error(shape) for a shape
/// that it cannot return.
class SafetensorsReader {
 public:
  using Entry = SafetensorsEntry;

  explicit SafetensorsReader(const std::filesystem::path& path)
      : source_(path.string()), file_(std::in_place, path), header_(Header::parse(file_->bytes(), source_)) {
    index();
  }

  /// Reads `bytes`, which stay the caller's; `source` is their name in messages.
  static SafetensorsReader from_bytes(std::span<const std::byte> bytes, std::string source) {
    return SafetensorsReader(bytes, std::move(source));
  }

  /// Reads the rest of `stream` into memory; `source` is its name in messages.
  static SafetensorsReader from_stream(std::istream& stream, std::string source) {
    const std::string rest{std::istreambuf_iterator<char>(stream), {}};
    const auto bytes = std::as_bytes(std::span(rest));
    return SafetensorsReader(std::make_unique<std::vector<std::byte>>(bytes.begin(), bytes.end()), std::move(source));
  }

  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }
  /// All tensors, in the order of their bytes.
  std::span<const Entry> tensors() const { return header_.tensors; }
  /// All of the file before the tensors.
  std::span<const std::byte> header_bytes() const { return header_.bytes; }

  /// The path of the file, or the name of the bytes.
  const std::string& source() const { return source_; }

  bool has(std::string_view name) const { return by_name_.contains(name); }
  const Entry& at(std::string_view name) const;

  /// A copy of F64, F32, F16 or BF16 as float or double.  O(size)
  template <std::floating_point T>
  Matrix<T> matrix(std::string_view name) const;
  /// The same with rows as columns.  O(size)
  template <std::floating_point T>
  Matrix<T> transposed(std::string_view name) const;

  /// A copy of I64, I32, I8 or U8 of any shape, row by row.  O(size)
  std::vector<std::int64_t> integers(std::string_view name) const;

  /// The tensor in place. T must be exactly the type in the file, and the address must be aligned for T: the format
  /// promises no alignment, though common writers, including this library's, keep it.  O(1)
  template <class T>
  View<const T> view(std::string_view name) const;

 private:
  using Header = SafetensorsHeader;

  SafetensorsReader(std::span<const std::byte> bytes, std::string source)
      : source_(std::move(source)), header_(Header::parse(bytes, source_)) {
    index();
  }
  SafetensorsReader(std::unique_ptr<std::vector<std::byte>> owned, std::string source)
      : source_(std::move(source)), owned_(std::move(owned)), header_(Header::parse(*owned_, source_)) {
    index();
  }
  void index() {
    for (std::size_t i = 0; i < header_.tensors.size(); ++i) by_name_[header_.tensors[i].name] = i;
  }

  std::pair<Index, Index> rows_and_cols(const Entry& entry) const;
  Error unsuitable(const Entry& entry, const std::string& expected) const {
    return file_error(source_, expected + " for '" + entry.name + "'", std::string(name_of(entry.dtype)));
  }

  std::string source_;
  std::optional<MappedFile> file_;
  std::unique_ptr<std::vector<std::byte>> owned_;  // of a stream
  Header header_;
  std::map<std::string, std::size_t, std::less<>> by_name_;
};

namespace detail {

static_assert(std::endian::native == std::endian::little, "safetensors: expected a little-endian machine");

/// to[i] = convert(element i of `bytes`), each read as `Stored` from an address of any alignment.
template <class Stored, class To, class Convert>
void copy_elements(std::span<const std::byte> bytes, To* to, Convert convert) {
  for (std::size_t at = 0; at < bytes.size(); at += sizeof(Stored)) {
    Stored element;
    std::memcpy(&element, bytes.data() + at, sizeof element);
    *to++ = To(convert(element));
  }
}

}  // namespace detail

inline const SafetensorsEntry& SafetensorsReader::at(std::string_view name) const {
  const auto found = by_name_.find(name);
  if (found != by_name_.end()) return header_.tensors[found->second];
  throw file_error(source_, "a tensor named '" + std::string(name) + "'",
                   "none of that name among " + std::to_string(by_name_.size()));
}

template <std::floating_point T>
Matrix<T> SafetensorsReader::matrix(std::string_view name) const {
  const Entry& entry = at(name);
  const auto [rows, cols] = rows_and_cols(entry);
  Matrix<T> matrix(rows, cols);
  switch (entry.dtype) {
    case Dtype::f64:
      detail::copy_elements<double>(entry.bytes, matrix.data(), std::identity{});
      break;
    case Dtype::f32:
      detail::copy_elements<float>(entry.bytes, matrix.data(), std::identity{});
      break;
    case Dtype::f16:
      detail::copy_elements<std::uint16_t>(entry.bytes, matrix.data(), from_float16);
      break;
    case Dtype::bf16:
      detail::copy_elements<std::uint16_t>(entry.bytes, matrix.data(), from_bfloat16);
      break;
    default:
      throw unsuitable(entry, "F64, F32, F16 or BF16");
  }
  return matrix;
}

template <std::floating_point T>
Matrix<T> SafetensorsReader::transposed(std::string_view name) const {
  const Matrix<T> stored = matrix<T>(name);
  Matrix<T> turned(stored.cols(), stored.rows());
  if (stored.empty()) return turned;  // a size beside a 0 may be any number
  for (Index r = 0; r < stored.rows(); ++r)
    for (Index c = 0; c < stored.cols(); ++c) turned(c, r) = stored(r, c);
  return turned;
}

inline std::vector<std::int64_t> SafetensorsReader::integers(std::string_view name) const {
  const Entry& entry = at(name);
  const auto copied_as = [&]<class Stored>(Stored) {
    std::vector<std::int64_t> integers(entry.bytes.size() / sizeof(Stored));
    detail::copy_elements<Stored>(entry.bytes, integers.data(), std::identity{});
    return integers;
  };
  switch (entry.dtype) {
    case Dtype::i64:
      return copied_as(std::int64_t{});
    case Dtype::i32:
      return copied_as(std::int32_t{});
    case Dtype::i8:
      return copied_as(std::int8_t{});
    case Dtype::u8:
      return copied_as(std::uint8_t{});
    default:
      throw unsuitable(entry, "I64, I32, I8 or U8");
  }
}

template <class T>
View<const T> SafetensorsReader::view(std::string_view name) const {
  const Entry& entry = at(name);
  if (entry.dtype != dtype_of<T>()) throw unsuitable(entry, std::string(name_of(dtype_of<T>())));
  const auto [rows, cols] = rows_and_cols(entry);
  const void* const data = entry.bytes.data();
  const std::uintptr_t beyond = reinterpret_cast<std::uintptr_t>(data) % alignof(T);
  if (beyond != 0 && !entry.bytes.empty())
    throw file_error(source_, "'" + entry.name + "' at a multiple of " + std::to_string(alignof(T)) + " bytes",
                     std::to_string(beyond) + " more");
  return {static_cast<const T*>(data), rows, cols};
}

inline std::pair<Index, Index> SafetensorsReader::rows_and_cols(const Entry& entry) const {
  const std::vector<Index>& shape = entry.shape;
  if (shape.size() < 2) return {1, shape.empty() ? 1 : shape[0]};
  Index cols = 1;  // SafetensorsHeader has checked that all sizes fit in the file
  for (std::size_t i = 1; i < shape.size(); ++i) cols = checked_product("safetensors: columns", cols, shape[i]);
  return {shape[0], cols};
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
