// SPDX-License-Identifier: MIT
// LayerWriter, LayerReader, write_layer(), read_layer(): layers with what they are composed of.
#pragma once

#include "mole/io/checkpoint.hpp"
#include "mole/io/layer/base_fingerprint.hpp"
#include "mole/io/layer/block_kinds.hpp"
#include "mole/io/layer/layer_kinds.hpp"
#include "mole/io/limited_json.hpp"
#include "mole/io/read_report.hpp"
#include "mole/layer/any_linear.hpp"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

namespace detail {
/// What a layer has beside its bases, which are the caller's.
template <class Layer>
struct WithoutBase {
  Layer& layer;

  static bool own(std::string_view name) { return !name.starts_with("base.") && name.find(".base.") == name.npos; }

  template <class F>
  void for_each_tensor(F&& f) {
    layer.for_each_tensor([&](std::string_view name, auto tensor, auto...) {
      if (own(name)) f(name, tensor);
    });
  }
  template <class F>
  void for_each_state(F&& f) {
    layer.for_each_state([&](std::string_view name, auto numbers) {
      if (own(name)) f(name, numbers);
    });
  }
};

inline const std::string layer_key = ".description";
inline constexpr Index layer_version = 1;
}  // namespace detail

/// Collects layers by name, then writes them at once.
///
/// A layer is its composition, options, router and experts, or experts alone (ExpertLinear), or a block of
/// three maps with experts on each (BlockKind); the base is not in the
/// file but for its fingerprint. The file is a checkpoint (io/checkpoint.hpp) with a description of each layer in its
/// metadata:
///
///     "<name>.description": {"version": 1, "method": "mola", "in": 768, "out": 768, "base": "16 hexadecimal digits",
///         "router": {"type": "LinearRouter", ...}, "gating": {...}, "experts": {...}}
///
/// with the tensors `<name>.parameters.<tensor>` and `<name>.state.<state>`. Equal layers give equal bytes.
/// Throws Error(option) for a name that is given twice.
class LayerWriter {
 public:
  /// A MixtureLinear, an ExpertLinear, or a feed-forward block of experts (BlockKind).
  template <class Layer>
  requires requires { typename detail::KindOf<Layer>::type; }
  void add(const std::string& name, Layer& layer) { add(name, layer, detail::kinds_of<Layer>()); }
  template <class Layer, class Kinds>
  requires requires { typename detail::KindOf<Layer>::type; }
  void add(const std::string& name, Layer& layer, const Kinds& kinds) {
    using Kind = typename detail::KindOf<Layer>::type;
    static_assert(Kinds::template has<Kind>,
                  "mole: expected a layer whose composition is among the LayerKinds; LayerKinds::with() adds it");
    LayerFieldsWriter fields;
    fields.set("version", detail::layer_version);
    fields.set("method", kinds.template method<Kind>());
    fields.set("in", layer.in());
    fields.set("out", layer.out());
    Kind::describe(std::as_const(layer), fields);
    writer_.set_text(name + detail::layer_key, fields.text());
    detail::WithoutBase<Layer> all{layer};
    writer_.add_layer(name, all);
  }
  /// A layer with a part that no description is known of.
  template <class Layer, class... Kinds>
  requires(
      !requires { typename detail::KindOf<Layer>::type; } &&
      requires(Layer & layer) { layer.experts(); }) void add(const std::string&, Layer&, const Kinds&...) {
    static_assert(sizeof(Layer) == 0,
                  "mole: expected a router, a gating and experts that have a PolicyDescription "
                  "(mole/io/layer/policy_description.hpp), found one without; CheckpointWriter::add_layer "
                  "(mole/io/checkpoint.hpp) saves the numbers of any layer");
  }

  /// A layer that read_layer() gave back for a Base. Throws Error(option) if it holds none of these kinds on a Base.
  template <BasePolicy Base, class Execution = DefaultExecution, class Kinds = PresetKinds<typename Base::Scalar>>
  void add(const std::string& name, AnyLinear<typename Base::Scalar>& layer,
           const Kinds& kinds = preset_kinds<typename Base::Scalar>()) {
    bool found = false;
    kinds.for_each([&]<class Kind>(const Kind&) {
      if (auto* inner = layer.template target<typename Kind::template Layer<Base, Execution>>())
        add(name, *inner, kinds), found = true;
    });
    require(found, ErrorCode::option, "LayerWriter: expected '", name, "' of one of the kinds ", kinds.methods(),
            ", on the base and execution of add(), found another layer");
  }

  /// As CheckpointWriter::write.
  void write(const std::filesystem::path& path) const { writer_.write(path); }
  void write(std::ostream& stream) const { writer_.write(stream); }
  std::vector<std::byte> bytes() const { return writer_.bytes(); }

 private:
  CheckpointWriter writer_;
};

/// How a layer that is read is set up, and onto which base.
struct ReadLayerOptions {
  Index max_tokens = 1;  ///< of one call
  TrainableParts trainable = {};
  Index max_pairs = 0;      ///< as of AnyLinear
  bool other_base = false;  ///< true: also onto a base with another fingerprint, or with none that could be compared
};

/// Makes layers of a file, each on the base that it is given.
///
/// Throws Error(file), with file, layer, what was expected and what was found, for a version, method, policy, option or
/// tensor that is unknown, absent, left over or does not fit, for a base of other sizes, and for one with another
/// fingerprint. Takes memory by what the file holds, not by what it says.
class LayerReader {
 public:
  explicit LayerReader(const std::filesystem::path& path) : LayerReader(SafetensorsReader(path)) {}
  explicit LayerReader(SafetensorsReader reader) : file_(std::move(reader)) {
    for (const auto& [key, text] : file_.tensors().metadata())
      if (key.ends_with(detail::layer_key)) names_.push_back(key.substr(0, key.size() - detail::layer_key.size()));
    std::ranges::sort(names_);
    if (names_.empty()) throw file_error(source(), "a '<name>.description' in the metadata", "none");
    Index bytes = 0;
    for (const SafetensorsEntry& tensor : file_.tensors().tensors()) bytes += Index(tensor.bytes.size());
    numbers_ = bytes / 4;  // parameters and state have four bytes at least
  }

  /// Of all layers, in order.
  const std::vector<std::string>& names() const { return names_; }
  /// The description of a layer, JSON.
  std::string description(const std::string& name) const { return file_.text(name + detail::layer_key); }
  const std::string& source() const { return file_.tensors().source(); }

  /// What the description of a layer says, before there is a base; sizes are at most the numbers of the file.
  struct Sizes {
    Index in, out;
  };
  Sizes sizes(const std::string& name) const {
    const LayerFieldsReader fields = unread(name);
    return {fields.size("in", 1), fields.size("out", 1)};
  }
  std::string method(const std::string& name) const { return unread(name).text("method"); }

  template <BasePolicy Base, class Execution = DefaultExecution, class Kinds = PresetKinds<typename Base::Scalar>>
  AnyLinear<typename Base::Scalar> read(const std::string& name, Base base, const ReadLayerOptions& options = {},
                                        const Kinds& kinds = preset_kinds<typename Base::Scalar>(),
                                        Execution execution = {}) {
    const LayerFieldsReader fields = unread(name, base.in(), base.out());
    check_sizes(fields);
    detail::check_base(fields, base_fingerprint(base), options.other_base);
    return made<typename Base::Scalar>(name, fields, options, kinds, std::move(execution), std::move(base));
  }

  /// A feed-forward block of experts, on the three maps of the host's own.
  template <BasePolicy Base, class Execution = DefaultExecution, class Kinds = BlockKinds<typename Base::Scalar>>
  AnyLinear<typename Base::Scalar> read_block(const std::string& name, Base gate, Base up, Base down,
                                              const ReadLayerOptions& options = {},
                                              const Kinds& kinds = block_kinds<typename Base::Scalar>(),
                                              Execution execution = {}) {
    const LayerFieldsReader fields = unread(name, gate.in(), down.out());
    check_sizes(fields);
    detail::check_blocks_bases(fields, gate, up, down, options.other_base);
    return made<typename Base::Scalar>(name, fields, options, kinds, std::move(execution), std::move(gate),
                                       std::move(up), std::move(down));
  }

  /// The tensors of the layers that were read are used, all others not.
  ReadReport report() const {
    ReadReport report;
    for (const SafetensorsEntry& tensor : file_.tensors().tensors()) {
      (belongs_to_read(tensor.name) ? report.used : report.unused).push_back(tensor.name);
    }
    return report;
  }

 private:
  /// Is it of a layer that was read? Its layer is that of the longest name, as names may hold such steps themselves.
  bool belongs_to_read(const std::string& tensor) const {
    std::string layer;
    for (const char* const step : {".parameters.", ".state."})
      for (std::size_t at = tensor.find(step); at != tensor.npos; at = tensor.find(step, at + 1))
        if (at > layer.size() && std::ranges::binary_search(names_, tensor.substr(0, at))) layer = tensor.substr(0, at);
    return read_.contains(layer);
  }
  LayerFieldsReader unread(const std::string& name, Index in = 0, Index out = 0) const {
    const std::string where = source() + ": layer '" + name + "'";
    return LayerFieldsReader(detail::LimitedJson::object(description(name), where), where, numbers_, in, out);
  }

  static void check_sizes(const LayerFieldsReader& fields) {
    if (const Index version = fields.integer("version"); version != detail::layer_version)
      throw fields.error(std::to_string(detail::layer_version), "version", std::to_string(version));
    for (const auto& [name, size] : {std::pair{"in", fields.in()}, {"out", fields.out()}})
      if (const Index found = fields.integer(name); found != size)
        throw fields.error(std::to_string(size) + ", of the base,", name, std::to_string(found));
  }

  template <class T, class Kinds, class Execution, class... Bases>
  AnyLinear<T> made(const std::string& name, const LayerFieldsReader& fields, const ReadLayerOptions& options,
                    const Kinds& kinds, Execution execution, Bases... bases) {
    const std::string method = fields.text("method");
    std::optional<AnyLinear<T>> made;
    kinds.for_each([&]<class Kind>(const Kind& kind) {
      if (kind.method == method)
        made.emplace(layer<Kind>(name, fields, std::move(execution), std::move(bases)...), options.max_tokens,
                     options.trainable, options.max_pairs);
    });
    if (!made) throw fields.error("one of " + kinds.methods(), "method", method);
    read_.insert(name);
    return std::move(*made);
  }

  template <class Kind, class Execution, class... Bases>
  auto layer(const std::string& name, const LayerFieldsReader& fields, Execution execution, Bases... bases) const try {
    auto layer = Kind::make(fields, std::move(bases)..., std::move(execution));
    fields.end();
    detail::WithoutBase<decltype(layer)> all{layer};
    file_.read_layer(name, all);
    return layer;
  } catch (const Error& error) {
    if (error.code() == ErrorCode::file) throw;
    throw Error(ErrorCode::file, source() + ": layer '" + name + "': " + error.what());
  }

  CheckpointReader file_;
  std::vector<std::string> names_;
  std::set<std::string> read_;
  Index numbers_ = 0;
};

/// A file of one layer.
template <class Layer, class... Kinds>
void write_layer(const std::filesystem::path& path, Layer& layer, const Kinds&... kinds) {
  LayerWriter writer;
  writer.add("layer", layer, kinds...);
  writer.write(path);
}

/// Throws as LayerReader does, and Error(file) for a file of several layers.
template <BasePolicy Base, class Execution = DefaultExecution, class Kinds = PresetKinds<typename Base::Scalar>>
AnyLinear<typename Base::Scalar> read_layer(const std::filesystem::path& path, Base base,
                                            const ReadLayerOptions& options = {},
                                            const Kinds& kinds = preset_kinds<typename Base::Scalar>(),
                                            Execution execution = {}) {
  LayerReader reader(path);
  if (reader.names().size() != 1) throw file_error(reader.source(), "one layer", std::to_string(reader.names().size()));
  return reader.read(reader.names().front(), std::move(base), options, kinds, std::move(execution));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
