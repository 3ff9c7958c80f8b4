// SPDX-License-Identifier: MIT
// CheckpointWriter, CheckpointReader: a training run in one file: parameters, state, optimizer, step and counters.
#pragma once

#include "mole/core/random.hpp"
#include "mole/io/safetensors_reader.hpp"
#include "mole/io/safetensors_writer.hpp"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <ostream>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

namespace detail {
/// Calls f("name.0", span), f("name.1", span) ... for the state of an optimizer.
template <class Optimizer, class F>
void for_each_span(Optimizer& optimizer, F f) {
  optimizer.for_each_state([&](std::string_view name, auto... state) {
    int number = 0;
    (f(std::string(name) + "." + std::to_string(number++), state), ...);
  });
}

/// The kind of an optimizer and the options that its state depends on, in words; a user's own need not name it.
template <class Optimizer>
std::string kind_of(const Optimizer& optimizer) {
  if constexpr (requires { optimizer.kind(); })
    return optimizer.kind();
  else
    return "unnamed";
}
}  // namespace detail

/// Collects what a run needs to continue, then writes it at once.
///
/// A *walk* calls its visitor with (name, View<T> parameter, ...) for each tensor, as the walks of layers and of
/// optimizers do. Every part has a name of its own, by which it is read. 64-bit numbers keep all their bits.
/// A run that continues from the file has the same bits as a run that never stopped.
/// Throws Error(option) for a name that is given twice.
class CheckpointWriter {
 public:
  CheckpointWriter() { set_text("format", "mole.checkpoint.2"); }

  /// Parameters and state of a layer: all that it computes with.
  template <class Layer>
  void add_layer(const std::string& part, Layer& layer) {
    add_parameters(part + ".parameters", [&](auto&& f) { layer.for_each_tensor(f); });
    add_state(part + ".state", layer);
  }

  /// All tensors of `walk`, including frozen ones, as "part.name". The walk of a layer visits its parameters alone.
  template <class Walk>
  void add_parameters(const std::string& part, Walk&& walk) {
    std::uint64_t tensors = 0;
    walk([&]<class T>(std::string_view name, View<T> parameter, auto...) {
      writer_.add(part + "." + std::string(name), View<const T>(parameter));
      ++tensors;
    });
    set_number(part + ".tensors", tensors);
  }

  /// State, step and kind of an optimizer, as "part.name.0", "part.name.1" ...
  template <class Optimizer>
  void add_optimizer(const std::string& part, Optimizer& optimizer) {
    std::uint64_t tensors = 0;
    detail::for_each_span(optimizer, [&](const std::string& name, auto span) {
      writer_.add_vector(part + "." + name, span);
      ++tensors;
    });
    set_number(part + ".tensors", tensors);
    set_number(part + ".steps", std::uint64_t(optimizer.steps()));
    set_text(part + ".kind", detail::kind_of(optimizer));
  }

  /// All that the for_each_state(f) of a layer, a balancer or another object visits, as "part.name".
  template <class Object>
  void add_state(const std::string& part, Object& object) {
    std::uint64_t tensors = 0;
    object.for_each_state([&]<class U>(std::string_view name, std::span<U> numbers) {
      const std::string full = part + "." + std::string(name);
      if constexpr (std::is_floating_point_v<U>)
        writer_.add_vector(full, std::span<const U>(numbers));
      else
        writer_.add_integers(full, std::span<const U>(numbers));
      ++tensors;
    });
    set_number(part + ".tensors", tensors);
  }

  /// A step, a seed, a count.
  void set_number(const std::string& name, std::uint64_t number) { set_text(name, std::to_string(number)); }
  void set_text(const std::string& name, const std::string& text) {
    require(names_.insert(name).second, ErrorCode::option, "CheckpointWriter: expected each name once, found '", name,
            "' twice");
    writer_.set_metadata(name, text);
  }
  void add_rng(const std::string& name, const Rng& rng) { set_number(name, rng.counter()); }
  /// A record of the run, such as its losses.
  void add_numbers(const std::string& name, std::span<const double> numbers) { writer_.add_vector(name, numbers); }

  /// Writes to another file in the same folder and renames it: a failure leaves the old file unchanged.
  void write(const std::filesystem::path& path) const { writer_.write(path); }
  /// The same bytes for an archive of the host's: CheckpointReader(SafetensorsReader::from_bytes(bytes, name)) reads
  /// them.
  void write(std::ostream& stream) const { writer_.write(stream); }
  std::vector<std::byte> bytes() const { return writer_.bytes(); }

 private:
  SafetensorsWriter writer_;
  std::set<std::string> names_;
};

/// Restores a run. Every call first compares all that it is about to read, in both directions: names, types, sizes,
/// kinds. A mismatch throws an Error with file, tensor, what was expected and what was found, and nothing has changed.
class CheckpointReader {
 public:
  explicit CheckpointReader(const std::filesystem::path& path) : CheckpointReader(SafetensorsReader(path)) {}
  explicit CheckpointReader(SafetensorsReader reader) : reader_(std::move(reader)), source_(reader_.source()) {
    const std::string found = text_or("format", "none");
    if (found != "mole.checkpoint.2") throw file_error(source_, "format mole.checkpoint.2", found);
  }

  template <class Layer>
  void read_layer(const std::string& part, Layer& layer) const {
    const auto walk = [&](auto&& f) { layer.for_each_tensor(f); };
    check_parameters(part + ".parameters", walk);
    read_state(part + ".state", layer);
    copy_parameters(part + ".parameters", walk);
  }

  template <class Walk>
  void read_parameters(const std::string& part, Walk&& walk) const {
    check_parameters(part, walk);
    copy_parameters(part, walk);
  }

  /// `walk` visits (name, parameter, gradient), as for optimizer.step(). The optimizer must be of the kind that was
  /// saved, with the options that its state depends on; rates and decay may be others.
  template <class Optimizer, class Walk>
  void read_optimizer(const std::string& part, Optimizer& optimizer, Walk&& walk) const {
    if (const std::string kind = text(part + ".kind"); kind != detail::kind_of(optimizer))
      throw file_error(source_, "optimizer '" + part + "' of kind " + detail::kind_of(optimizer), kind);
    const std::uint64_t steps = number(part + ".steps");
    if (steps > std::uint64_t(1) << 53)
      throw file_error(source_, "steps of '" + part + "' up to 2^53", text(part + ".steps"));
    Optimizer read = optimizer;
    read.reserve(walk);
    if (steps > 0) {  // one that has not stepped has no state yet
      Comparison compared(*this, part);
      detail::for_each_span(read, [&]<class T>(const std::string& name, std::span<T> state) {
        compared.expect(name, View<T>(state.data(), 1, Index(state.size())));
      });
      compared.end();
      detail::for_each_span(read, [&](const std::string& name, auto state) { read_numbers(part + "." + name, state); });
    }
    read.set_steps(Index(steps));
    optimizer = std::move(read);
  }

  /// Also throws if a part of the object refuses its numbers; then all of it is restored to what it was.
  template <class Object>
  void read_state(const std::string& part, Object& object) const {
    std::vector<std::vector<std::byte>> before;
    Comparison compared(*this, part);
    object.for_each_state([&]<class U>(std::string_view name, std::span<U> numbers) {
      compared.expect(name, View<U>(numbers.data(), 1, Index(numbers.size())));
      const auto bytes = std::as_bytes(numbers);
      before.emplace_back(bytes.begin(), bytes.end());
    });
    compared.end();
    try {
      object.for_each_state([&]<class U>(std::string_view name, std::span<U> numbers) {
        read_numbers(part + "." + std::string(name), numbers);
      });
    } catch (const Error& error) {
      std::size_t next = 0;
      object.for_each_state([&](std::string_view, auto numbers) {
        std::ranges::copy(before[next++], std::as_writable_bytes(numbers).begin());
      });
      throw Error(ErrorCode::file, source_ + ": state '" + part + "' is refused: " + error.what());
    }
  }

  std::uint64_t number(const std::string& name) const {
    const std::string digits = text(name);
    std::uint64_t number = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    if (error != std::errc{} || end != digits.data() + digits.size())
      throw file_error(source_, "a number for '" + name + "'", "'" + digits + "'");
    return number;
  }
  std::string text(const std::string& name) const {
    const auto found = reader_.metadata().find(name);
    if (found == reader_.metadata().end()) throw file_error(source_, "metadata '" + name + "'", "none of that name");
    return found->second;
  }
  std::string text_or(const std::string& name, const std::string& fallback) const {
    const auto found = reader_.metadata().find(name);
    return found == reader_.metadata().end() ? fallback : found->second;
  }
  /// All tensors and all texts.
  const SafetensorsReader& tensors() const { return reader_; }
  void read_rng(const std::string& name, Rng& rng) const { rng.set_counter(number(name)); }
  std::vector<double> numbers(const std::string& name) const {
    const Matrix<double> stored = reader_.matrix<double>(name);
    return {stored.elements().begin(), stored.elements().end()};
  }

 private:
  /// Compares the tensors of one part with those that are to be read: each one exactly, and their number.
  class Comparison {
   public:
    Comparison(const CheckpointReader& reader, const std::string& part) : reader_(reader), part_(part) {}

    /// Exactly this type and shape: a conversion would not give the same bits.
    template <class T>
    void expect(std::string_view name, View<T> wanted) {
      ++tensors_;
      const auto& entry = reader_.reader_.at(part_ + "." + std::string(name));
      constexpr Dtype dtype = dtype_of<std::remove_const_t<T>>();
      if (entry.dtype != dtype)
        throw file_error(reader_.source_, std::string(name_of(dtype)) + " for '" + entry.name + "'",
                         std::string(name_of(entry.dtype)));
      const auto shape = [](Index rows, Index cols) { return std::to_string(rows) + " x " + std::to_string(cols); };
      const Index cols = entry.shape.empty() ? 1 : entry.shape.back();
      const Index rows = entry.shape.size() == 2 ? entry.shape.front() : 1;
      if (entry.shape.size() > 2 || rows != wanted.rows() || cols != wanted.cols())
        throw file_error(reader_.source_, shape(wanted.rows(), wanted.cols()) + " for '" + entry.name + "'",
                         shape(rows, cols));
    }
    void end() const {
      if (const std::uint64_t stored = reader_.number(part_ + ".tensors"); stored != tensors_)
        throw file_error(reader_.source_, std::to_string(tensors_) + " tensors of '" + part_ + "'",
                         std::to_string(stored));
    }

   private:
    const CheckpointReader& reader_;
    const std::string& part_;
    std::uint64_t tensors_ = 0;
  };

  void check_parameters(const std::string& part, const auto& walk) const {
    Comparison compared(*this, part);
    walk([&]<class T>(std::string_view name, View<T> parameter, auto...) { compared.expect(name, parameter); });
    compared.end();
  }
  void copy_parameters(const std::string& part, const auto& walk) const {
    walk([&]<class T>(std::string_view name, View<T> parameter, auto...) {
      copy(reader_.matrix<T>(part + "." + std::string(name)), parameter);
    });
  }

  template <class U>
  void read_numbers(const std::string& name, std::span<U> numbers) const {
    if constexpr (std::is_floating_point_v<U>)
      std::ranges::copy(reader_.matrix<U>(name).elements(), numbers.begin());
    else
      std::ranges::transform(reader_.integers(name), numbers.begin(), [](std::int64_t i) { return U(i); });
  }

  SafetensorsReader reader_;
  std::string source_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
