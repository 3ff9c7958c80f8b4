// SPDX-License-Identifier: MIT
// read_gguf_lora(), write_gguf_lora(): LoRA adapters as llama.cpp loads them.
#pragma once

#include "mole/core/matrix.hpp"
#include "mole/io/gguf/gguf_reader.hpp"
#include "mole/io/gguf/gguf_writer.hpp"
#include "mole/io/read_report.hpp"
#include "mole/surgery/weighted_adapter.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// How many heads have a q and a k. llama.cpp's models of "llama", "granite" and others (gguf_reorders_heads()) have
/// the rows of a head's q and k in another order than PyTorch's: its row 2 i + c is row c d / 2 + i, of d in a head.
struct GgufHeads {
  Index q = 0;  ///< 0: rows stay in the file's order
  Index k = 0;  ///< 0: rows stay in the file's order
};

/// An adapter of llama.cpp.
struct GgufLora {
  std::string architecture;  ///< of the base, such as "llama"
  /// By the name of the base's tensor, such as "blk.0.attn_q.weight": one LoRA, or of stacked experts, which the base's
  /// own router chooses, one each. Their scale is alpha / rank of the file, or 1 where its alpha is 0.
  std::map<std::string, std::vector<Adapter<float>>, std::less<>> adapters = {};
  ReadReport report = {};
};

namespace detail {

/// Columns of B, rank-major, which are rows of the update, in the order of the file or back.
inline void reorder_rope(Matrix<float>& b, Index heads, bool to_file, const std::string& tensor) {
  require(b.cols() % (2 * heads) == 0, ErrorCode::shape, "GgufHeads: expected outputs of '", tensor,
          "' in heads of an even size, ", heads, " of them, found ", b.cols());
  const Index size = b.cols() / heads;
  Matrix<float> ordered(b.rows(), b.cols());
  for (Index r = 0; r < b.rows(); ++r)
    for (Index o = 0; o < b.cols(); ++o) {
      const Index head = o / size * size, i = o % size / 2, c = o % 2, other = head + c * size / 2 + i;
      to_file ? ordered(r, o) = b(r, other) : ordered(r, other) = b(r, o);
    }
  b = std::move(ordered);
}

inline Index rope_heads(const GgufHeads& heads, std::string_view tensor) {
  return tensor.ends_with(".attn_q.weight") ? heads.q : tensor.ends_with(".attn_k.weight") ? heads.k : 0;
}

inline bool is_embedding(std::string_view tensor) {
  return tensor == "token_embd.weight";
}

/// Rows `from` on, turned: what the file has as [cols x rows].
inline Matrix<float> turned_rows(const Matrix<float>& stored, Index from, Index rows) {
  Matrix<float> turned(stored.cols(), rows);
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < stored.cols(); ++c) turned(c, r) = stored(from + r, c);
  return turned;
}

/// Stacked experts [E x rows x cols] as one matrix [E rows x cols].
inline Matrix<float> flat_gguf_matrix(const GgufReader& reader, const std::string& name, Index& experts) {
  const GgufEntry& entry = reader.at(name);
  if (entry.shape.size() != 2 && entry.shape.size() != 3)
    throw file_error(reader.source(), "a matrix, or one for each expert, for '" + name + "'",
                     std::to_string(entry.shape.size()) + " dimensions");
  // Sizes must follow from numbers that are there: those beside a 0, such as that of experts, may be any.
  if (entry.bytes.empty()) throw file_error(reader.source(), "at least one number in '" + name + "'", "none");
  experts = entry.shape.size() == 3 ? entry.shape[0] : 1;
  const Matrix<float> read = reader.matrix<float>(name);
  Matrix<float> flat(experts * entry.shape[entry.shape.size() - 2], entry.shape.back());
  std::ranges::copy(read.elements(), flat.elements().begin());
  return flat;
}

inline std::vector<Adapter<float>> gguf_adapters(const GgufReader& reader, const std::string& tensor, double alpha) {
  Index experts = 0, of_b = 0;
  const Matrix<float> a = flat_gguf_matrix(reader, tensor + ".lora_a", experts);
  const Matrix<float> b = flat_gguf_matrix(reader, tensor + ".lora_b", of_b);
  // [r x I], but for an embedding, whose A lies turned; [O x r].
  const Index rank = is_embedding(tensor) ? a.cols() : a.rows() / experts;
  if (experts != of_b || rank != b.cols())
    throw file_error(reader.source(), "lora_a and lora_b of '" + tensor + "' of one rank and number of experts",
                     std::to_string(rank) + " and " + std::to_string(b.cols()) + " ranks of " +
                         std::to_string(experts) + " and " + std::to_string(of_b) + " experts");
  if (is_embedding(tensor) && experts != 1)
    throw file_error(reader.source(), "one adapter for '" + tensor + "'", std::to_string(experts));
  const double scale = alpha == 0 ? 1 : alpha / double(rank);
  std::vector<Adapter<float>> adapters;
  for (Index e = 0; e < experts; ++e) {
    const Index outputs = b.rows() / experts;
    Adapter<float> adapter{is_embedding(tensor) ? turned_rows(a, 0, a.rows()) : Matrix<float>(rank, a.cols()),
                           turned_rows(b, e * outputs, outputs), scale};
    if (!is_embedding(tensor)) copy(a.view().middle_rows(e * rank, rank), adapter.a.view());
    adapters.push_back(std::move(adapter));
  }
  return adapters;
}

}  // namespace detail

/// The adapter of a file, in F32, F16, BF16, Q8_0 or Q4_0. With `heads`, outputs of q and k are in PyTorch's order.
///
/// Throws Error(file) for a file that is no LoRA adapter, for one of activated LoRA (adapter.alora.invocation_tokens),
/// for a lora_a without its lora_b or the reverse, for other ranks, for a tensor without numbers, and if nothing is in
/// it.
/// Source: llama.cpp 0650ea8, llama-adapter.cpp; convert_lora_to_gguf.py.
inline GgufLora read_gguf_lora(const GgufReader& reader, const GgufHeads& heads = {}) {
  for (const auto& [key, expected] : {std::pair{"general.type", "adapter"}, {"adapter.type", "lora"}})
    if (const std::string& found = reader.value<std::string>(key); found != expected)
      throw file_error(reader.source(), std::string(key) + " '" + expected + "'", "'" + found + "'");
  if (reader.metadata().contains("adapter.alora.invocation_tokens"))
    throw file_error(reader.source(), "an adapter of all tokens", "adapter.alora.invocation_tokens");
  const double alpha =
      reader.metadata().contains("adapter.lora.alpha") ? reader.value<double>("adapter.lora.alpha") : 0;
  if (!std::isfinite(alpha)) throw file_error(reader.source(), "a finite adapter.lora.alpha", std::to_string(alpha));

  GgufLora lora{.architecture = reader.value<std::string>("general.architecture")};
  for (const GgufEntry& entry : reader.tensors()) {
    const bool a = entry.name.ends_with(".lora_a"), b = entry.name.ends_with(".lora_b");
    if (!a && !b) {
      lora.report.unused.push_back(entry.name);
      continue;
    }
    const std::string tensor = entry.name.substr(0, entry.name.size() - 7);
    lora.report.used.push_back(entry.name);
    if (lora.adapters.contains(tensor)) continue;
    auto& adapters = lora.adapters[tensor] = detail::gguf_adapters(reader, tensor, alpha);
    if (const Index count = detail::rope_heads(heads, tensor); count > 0)
      for (Adapter<float>& adapter : adapters) detail::reorder_rope(adapter.b, count, false, tensor);
  }
  if (lora.adapters.empty())
    throw file_error(reader.source(), "tensors whose names end in .lora_a and .lora_b",
                     std::to_string(lora.report.unused.size()) + " others");
  return lora;
}

/// Writes what read_gguf_lora() returns. llama.cpp gives every tensor the scale alpha / rank of one alpha, which is
/// that of the first; where another's differs, its B is multiplied by what is left, with a rounding.
/// Throws Error(option) for no adapter, for experts of other sizes, and for a scale of 0 or one that is not finite.
inline void write_gguf_lora(const std::filesystem::path& path, const GgufLora& lora, GgufType type = GgufType::f32,
                            const GgufHeads& heads = {}) {
  require(!lora.adapters.empty() && !lora.adapters.begin()->second.empty(), ErrorCode::option,
          "write_gguf_lora: expected an adapter, found none");
  const Adapter<float>& first = lora.adapters.begin()->second.front();
  const float alpha = float(first.scale * double(first.rank()));
  require(std::isfinite(alpha) && alpha != 0, ErrorCode::option,
          "write_gguf_lora: expected a scale that is finite and not 0, found ", first.scale);
  GgufWriter writer;
  writer.set("general.type", "adapter");
  writer.set("general.architecture", lora.architecture);
  writer.set("adapter.type", "lora");
  writer.set("adapter.lora.alpha", alpha);
  for (const auto& [tensor, adapters] : lora.adapters) {
    const Index experts = Index(adapters.size()), rank = adapters.empty() ? 0 : adapters[0].rank();
    require(rank > 0, ErrorCode::option, "write_gguf_lora: expected an adapter of a rank for '", tensor,
            "', found none");
    const Index in = adapters[0].in(), out = adapters[0].out();
    Matrix<float> a(experts * rank, in), b(experts * out, rank);
    for (Index e = 0; e < experts; ++e) {
      const Adapter<float>& adapter = adapters[std::size_t(e)];
      require(adapter.rank() == rank && adapter.in() == in && adapter.out() == out, ErrorCode::option,
              "write_gguf_lora: expected experts of '", tensor, "' of one size, found others");
      require(std::isfinite(adapter.scale), ErrorCode::option, "write_gguf_lora: expected a finite scale of '", tensor,
              "', found ", adapter.scale);
      const double own = adapter.scale * double(rank), left = float(own) == alpha ? 1 : own / double(alpha);
      Matrix<float> rank_major = adapter.b;
      if (const Index count = detail::rope_heads(heads, tensor); count > 0)
        detail::reorder_rope(rank_major, count, true, tensor);
      copy(adapter.a.view(), a.view().middle_rows(e * rank, rank));
      for (Index r = 0; r < rank; ++r)
        for (Index o = 0; o < out; ++o) b(e * out + o, r) = float(left * double(rank_major(r, o)));
    }
    if (detail::is_embedding(tensor)) a = detail::turned_rows(a, 0, rank);
    const auto shape = [&](const Matrix<float>& flat) {
      return experts == 1 ? std::vector<Index>{flat.rows(), flat.cols()}
                          : std::vector<Index>{experts, flat.rows() / experts, flat.cols()};
    };
    // Rows of B are ranks, too short for blocks of 32, as a rule: llama.cpp's converter leaves them in F32, too.
    const auto type_of = [&](const Matrix<float>& flat) {
      return type == GgufType::q8_0 && flat.cols() % 32 != 0 ? GgufType::f32 : type;
    };
    writer.add(tensor + ".lora_a", shape(a), a, type_of(a));
    writer.add(tensor + ".lora_b", shape(b), b, type_of(b));
  }
  writer.write(path);
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
