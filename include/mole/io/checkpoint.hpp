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
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace mole {

/// Collects what a run needs to continue, then writes it at once.
///
/// A *walk* calls its visitor with (name, View<T> parameter, ...) for each tensor, as the walks of layers and of
/// optimizers do. Every part has a name of its own, by which it is read. 64-bit numbers keep all their bits.
/// A run that continues from the file has the same bits as a run that never stopped.
class CheckpointWriter {
 public:
  CheckpointWriter() { writer_.set_metadata("format", "mole.checkpoint.1"); }

  /// All tensors of `walk`, including frozen ones, as "part.name". The walk of a layer visits its parameters; its
  /// for_each_state visits the rest, such as a bank's frozen atoms: add both, as two parts.
  template <class Walk>
  void add_parameters(const std::string& part, Walk&& walk) {
    walk([&]<class T>(std::string_view name, View<T> parameter, auto...) {
      writer_.add(part + "." + std::string(name), View<const T>(parameter));
    });
  }

  /// State and step of an optimizer, as "part.name.0", "part.name.1" ...
  template <class Optimizer>
  void add_optimizer(const std::string& part, Optimizer& optimizer) {
    optimizer.for_each_state([&](std::string_view name, auto... state) {
      int number = 0;
      (writer_.add_vector(part + "." + std::string(name) + "." + std::to_string(number++), state), ...);
    });
    set_number(part + ".steps", std::uint64_t(optimizer.steps()));
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
  void set_number(const std::string& name, std::uint64_t number) { writer_.set_metadata(name, std::to_string(number)); }
  void set_text(const std::string& name, const std::string& text) { writer_.set_metadata(name, text); }
  void add_rng(const std::string& name, const Rng& rng) { set_number(name, rng.counter()); }
  /// A record of the run, such as its losses.
  void add_numbers(const std::string& name, std::span<const double> numbers) { writer_.add_vector(name, numbers); }

  /// Writes to another file in the same folder and renames it: a failure leaves the old file unchanged.
  void write(const std::filesystem::path& path) const { writer_.write(path); }

 private:
  SafetensorsWriter writer_;
};

/// Restores a run. Every call checks all that it is about to read before it changes anything; a mismatch throws an
/// Error with file, tensor, what was expected and what was found.
class CheckpointReader {
 public:
  explicit CheckpointReader(const std::filesystem::path& path) : reader_(path), source_(path.string()) {
    const std::string found = text_or("format", "none");
    if (found != "mole.checkpoint.1") throw file_error(source_, "format mole.checkpoint.1", found);
  }

  template <class Walk>
  void read_parameters(const std::string& part, Walk&& walk) const {
    walk([&]<class T>(std::string_view name, View<T> parameter, auto...) { check<T>(part, name, parameter); });
    walk([&]<class T>(std::string_view name, View<T> parameter, auto...) {
      copy(reader_.matrix<T>(part + "." + std::string(name)), parameter);
    });
  }

  /// `walk` visits (name, parameter, gradient), as for optimizer.step().
  template <class Optimizer, class Walk>
  void read_optimizer(const std::string& part, Optimizer& optimizer, Walk&& walk) const {
    const std::uint64_t steps = number(part + ".steps");
    if (steps == 0) return;  // an optimizer that has not stepped has no state yet
    optimizer.reserve(walk);
    const auto for_each = [&](auto&& f) {
      optimizer.for_each_state([&](std::string_view name, auto... state) {
        int number = 0;
        (f(std::string(name) + "." + std::to_string(number++), state), ...);
      });
    };
    for_each([&]<class T>(const std::string& name, std::span<T> state) {
      check<T>(part, name, View<T>(state.data(), 1, Index(state.size())));
    });
    for_each([&]<class T>(const std::string& name, std::span<T> state) {
      const Matrix<T> stored = reader_.matrix<T>(part + "." + name);
      std::copy(stored.elements().begin(), stored.elements().end(), state.begin());
    });
    optimizer.set_steps(Index(steps));
  }

  /// Throws on a mismatch, on state in the file that `object` does not have, and if a part of it rejects its numbers;
  /// all other parts are then restored.
  template <class Object>
  void read_state(const std::string& part, Object& object) const {
    std::vector<std::vector<std::byte>> before;
    object.for_each_state([&]<class U>(std::string_view name, std::span<U> numbers) {
      check<U>(part, name, View<const U>(numbers.data(), 1, Index(numbers.size())));
      const auto bytes = std::as_bytes(numbers);
      before.emplace_back(bytes.begin(), bytes.end());
    });
    if (const std::uint64_t stored = number(part + ".tensors"); stored != before.size())
      throw file_error(source_, std::to_string(before.size()) + " tensors of state '" + part + "'",
                       std::to_string(stored));
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
  void read_rng(const std::string& name, Rng& rng) const { rng.set_counter(number(name)); }
  std::vector<double> numbers(const std::string& name) const {
    const Matrix<double> stored = reader_.matrix<double>(name);
    return {stored.elements().begin(), stored.elements().end()};
  }

 private:
  /// Exactly this type and shape: a conversion would not give the same bits.
  template <class T>
  void check(const std::string& part, std::string_view name, View<const T> wanted) const {
    const auto& entry = reader_.at(part + "." + std::string(name));
    if (entry.dtype != dtype_of<T>())
      throw file_error(source_, std::string(name_of(dtype_of<T>())) + " for '" + entry.name + "'",
                       std::string(name_of(entry.dtype)));
    const auto shape = [](Index rows, Index cols) { return std::to_string(rows) + " x " + std::to_string(cols); };
    const Index cols = entry.shape.empty() ? 1 : entry.shape.back();
    const Index rows = entry.shape.size() == 2 ? entry.shape.front() : 1;
    if (entry.shape.size() > 2 || rows != wanted.rows() || cols != wanted.cols())
      throw file_error(source_, shape(wanted.rows(), wanted.cols()) + " for '" + entry.name + "'", shape(rows, cols));
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
