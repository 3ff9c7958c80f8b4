// SPDX-License-Identifier: MIT
// read_bitsandbytes(), add_bitsandbytes(): weights that bitsandbytes quantized, as its state dicts have them.
#pragma once

#include "mole/base/fp4_base.hpp"
#include "mole/base/int8_row_base.hpp"
#include "mole/base/nf4_base.hpp"
#include "mole/io/limited_json.hpp"
#include "mole/io/safetensors_reader.hpp"
#include "mole/io/safetensors_writer.hpp"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// A weight of a state dict. Make a base of it:
///     auto layer = std::visit([&](auto& weight) { return AnyLinear<float>(
///         lora({.rank = 8}, CodedBase(std::move(weight)), rng), max_tokens); }, found.weight);
struct BitsandbytesWeight {
  std::variant<Nf4Weight, Fp4Weight, Int8RowWeight> weight;
  std::string dtype = "float32";  ///< of the numbers that were quantized to four bits; bitsandbytes decodes to it
};

namespace detail {

/// The parts of one weight in a file, checked one by one.
template <class Tensors>
class BitsandbytesParts {
 public:
  BitsandbytesParts(const Tensors& tensors, std::string name) : tensors_(tensors), name_(std::move(name)) {}

  /// Of "q.weight.quant_state.bitsandbytes__nf4", the type; empty if there is no such tensor.
  std::string four_bit_type() const {
    for (const char* type : {"nf4", "fp4"})
      if (tensors_.has(name_ + state_ + type)) return type;
    return {};
  }

  /// Bytes of a weight are the same whatever dtype they are stored as (bnb_4bit_quant_storage).
  FourBitParts four_bits(const std::string& type, std::span<const float> levels, std::string& dtype) const {
    const auto state_bytes = bytes_of<char>(name_ + state_ + type, Dtype::u8);
    const auto state =
        LimitedJson::object({state_bytes.data(), state_bytes.size()}, tensors_.source() + ": " + name_ + state_ + type);
    if (text(state, "quant_type") != type) fail("quant_type " + type, text(state, "quant_type"));
    require_levels(levels);
    dtype = text(state, "dtype");

    const auto shape = state.find("shape");
    if (shape == state.end() || !shape->is_array() || shape->size() != 2)
      fail("a shape of two sizes", shape == state.end() ? "none" : shape->dump());
    FourBitParts parts{.rows = size((*shape)[0], "shape"),
                       .cols = size((*shape)[1], "shape"),
                       .block = size(state.value("blocksize", LimitedJson::Tree()), "blocksize")};
    const auto stored = tensors_.at(name_).bytes;
    parts.weight.resize(stored.size());
    std::ranges::transform(stored, parts.weight.begin(), [](std::byte byte) { return std::uint8_t(byte); });
    if (!state.contains("nested_offset")) {
      parts.absmax = floats(name_ + ".absmax");
      return parts;
    }
    if (const Index nested = size(state.value("nested_blocksize", LimitedJson::Tree()), "nested_blocksize");
        nested != 256)
      fail("nested_blocksize 256", std::to_string(nested));
    if (!state["nested_offset"].is_number()) fail("a number for nested_offset", state["nested_offset"].dump());
    parts.nested_offset = state["nested_offset"].template get<float>();
    parts.nested_codes = bytes_of<std::uint8_t>(name_ + ".absmax", Dtype::u8);
    parts.nested_absmax = floats(name_ + ".nested_absmax");
    parts.nested_quant_map = floats(name_ + ".nested_quant_map");
    return parts;
  }

  Int8RowWeight int8() const {
    const SafetensorsEntry& weight = tensors_.at(name_);
    if (weight.shape.size() != 2) fail("a matrix", std::to_string(weight.shape.size()) + " dimensions");
    if (tensors_.has(layer() + "weight_format")) {
      const auto format = bytes_of<std::uint8_t>(layer() + "weight_format", Dtype::u8);
      if (format != std::vector<std::uint8_t>{0})
        fail("weight_format 0, rows", format.empty() ? "none" : std::to_string(int(format[0])));
    }
    if (weight.dtype != Dtype::i8) fail("I8", std::string(name_of(weight.dtype)));
    const auto* const codes = reinterpret_cast<const std::int8_t*>(weight.bytes.data());
    return {View<const std::int8_t>(codes, weight.shape[0], weight.shape[1]), floats(layer() + "SCB")};
  }

  /// "model.q." of "model.q.weight".
  std::string layer() const { return name_.substr(0, name_.size() - std::min(name_.size(), weight_.size())); }

  /// What `make` returns; its complaints about parts that do not fit each other name the file and the weight, too.
  template <class Make>
  auto checked(Make make) const {
    try {
      return make();
    } catch (const Error& error) {
      if (error.code() == ErrorCode::file) throw;
      throw Error(ErrorCode::file, tensors_.source() + ": '" + name_ + "': " + error.what());
    }
  }

  [[noreturn]] void fail(const std::string& expected, const std::string& found) const {
    throw file_error(tensors_.source(), expected + " for '" + name_ + "'", found);
  }

 private:
  static constexpr std::string_view weight_ = "weight";
  static constexpr const char* state_ = ".quant_state.bitsandbytes__";

  template <class Element>
  std::vector<Element> bytes_of(const std::string& name, Dtype dtype) const {
    const SafetensorsEntry& entry = tensors_.at(name);
    if (entry.dtype != dtype)
      throw file_error(tensors_.source(), std::string(name_of(dtype)) + " for '" + name + "'",
                       std::string(name_of(entry.dtype)));
    std::vector<Element> elements(entry.bytes.size());
    if (!elements.empty()) std::memcpy(elements.data(), entry.bytes.data(), elements.size());
    return elements;
  }
  std::vector<float> floats(const std::string& name) const {
    const Matrix<float> matrix = tensors_.template matrix<float>(name);
    return {matrix.elements().begin(), matrix.elements().end()};
  }
  /// Codes mean what this library takes them for only if the file's levels are the same.
  void require_levels(std::span<const float> levels) const {
    const std::vector<float> found = floats(name_ + ".quant_map");
    if (found.size() != levels.size()) fail("a quant_map of 16 levels", std::to_string(found.size()));
    for (std::size_t code = 0; code < found.size(); ++code)
      if (found[code] != levels[code])
        fail("level " + std::to_string(levels[code]) + " of code " + std::to_string(code), std::to_string(found[code]));
  }
  std::string text(const LimitedJson::Tree& state, const char* key) const {
    const auto found = state.find(key);
    if (found == state.end() || !found->is_string())
      fail(std::string("a text for ") + key, found == state.end() ? "none" : found->dump());
    return found->template get<std::string>();
  }
  Index size(const LimitedJson::Tree& number, const char* what) const {
    if (!number.is_number_unsigned() || number.template get<std::uint64_t>() > std::uint64_t(1) << 62)
      fail(std::string("a size for ") + what, number.dump());
    return number.template get<Index>();
  }

  const Tensors& tensors_;
  std::string name_;
};

/// To the byte what bitsandbytes writes by Python's json.dumps.
template <class Levels>
std::string quant_state(const FourBitWeight<Levels>& weight, const std::string& type, const std::string& dtype) {
  const FourBitParts& parts = weight.parts();
  std::string json = "{\"quant_type\": \"" + type + "\", \"blocksize\": " + std::to_string(parts.block) +
                     ", \"dtype\": " + nlohmann::json(dtype).dump() + ", \"shape\": [" + std::to_string(parts.rows) +
                     ", " + std::to_string(parts.cols) + "]";
  if (weight.nested())
    json += ", \"nested_blocksize\": 256, \"nested_dtype\": \"float32\", \"nested_offset\": " +
            nlohmann::json(double(parts.nested_offset)).dump();
  return json + "}";
}

template <class Levels>
void add_four_bits(SafetensorsWriter& writer, const std::string& name, const FourBitWeight<Levels>& weight,
                   const std::string& type, const std::string& dtype) {
  const FourBitParts& parts = weight.parts();
  writer.add_bytes(name, Dtype::u8, {Index(parts.weight.size()), 1}, std::as_bytes(std::span(parts.weight)));
  writer.add_vector(name + ".quant_map", Levels::levels);
  if (weight.nested()) {
    writer.add_integers(name + ".absmax", parts.nested_codes);
    writer.add_vector(name + ".nested_absmax", parts.nested_absmax);
    writer.add_vector(name + ".nested_quant_map", parts.nested_quant_map);
  } else {
    writer.add_vector(name + ".absmax", parts.absmax);
  }
  const std::string state = quant_state(weight, type, dtype);
  writer.add_bytes(name + ".quant_state.bitsandbytes__" + type, Dtype::u8, {Index(state.size())},
                   std::as_bytes(std::span(state)));
}

}  // namespace detail

/// The weight `name`, such as "model.layers.0.self_attn.q_proj.weight", byte for byte: four bits where the file has its
/// quant_state, otherwise eight bits in rows (LLM.int8).
///
///   tensors   SafetensorsReader or SafetensorsShards
///
/// Codes of int8 are borrowed and live as long as `tensors`; all other parts are copied. Throws Error(file) for a
/// missing or contradictory part, for levels that are not those of NF4 or FP4, for layouts of other versions, and for
/// parts that do not fit each other. O(bytes). Source: bitsandbytes 95f9af30, functional.py, QuantState.as_dict,
/// nn/modules.py.
template <class Tensors>
BitsandbytesWeight read_bitsandbytes(const Tensors&&, const std::string&) = delete;  // its files would be gone
template <class Tensors>
BitsandbytesWeight read_bitsandbytes(const Tensors& tensors, const std::string& name) {
  const detail::BitsandbytesParts<Tensors> parts(tensors, name);
  const std::string type = parts.four_bit_type();
  std::string dtype = "float32";
  if (type == "nf4") {
    Nf4Weight weight = parts.checked([&] { return Nf4Weight(parts.four_bits(type, Nf4Levels::levels, dtype)); });
    return {std::move(weight), dtype};
  }
  if (type == "fp4") {
    Fp4Weight weight = parts.checked([&] { return Fp4Weight(parts.four_bits(type, Fp4Levels::levels, dtype)); });
    return {std::move(weight), dtype};
  }
  if (!tensors.has(parts.layer() + "SCB"))
    parts.fail("quant_state.bitsandbytes__nf4 or __fp4, or an SCB", "none of them");
  return {parts.checked([&] { return parts.int8(); }), dtype};
}

/// Adds the weight under its name and the names of its parts, as bitsandbytes loads it.
inline void add_bitsandbytes(SafetensorsWriter& writer, const std::string& name, const Nf4Weight& weight,
                             const std::string& dtype = "float32") {
  detail::add_four_bits(writer, name, weight, "nf4", dtype);
}
inline void add_bitsandbytes(SafetensorsWriter& writer, const std::string& name, const Fp4Weight& weight,
                             const std::string& dtype = "float32") {
  detail::add_four_bits(writer, name, weight, "fp4", dtype);
}
/// The name ends in "weight", beside which the scales are "SCB".
inline void add_bitsandbytes(SafetensorsWriter& writer, const std::string& name, const Int8RowWeight& weight) {
  require(name.ends_with("weight"), ErrorCode::option,
          "add_bitsandbytes: expected a name that ends in 'weight', found '", name, "'");
  const std::string layer = name.substr(0, name.size() - std::string_view("weight").size());
  writer.add_bytes(name, Dtype::i8, {weight.rows(), weight.cols()}, std::as_bytes(weight.codes()));
  writer.add_vector(layer + "SCB", weight.scb());
  const std::uint8_t rows = 0;
  writer.add_bytes(layer + "weight_format", Dtype::u8, {}, std::as_bytes(std::span(&rows, 1)));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
