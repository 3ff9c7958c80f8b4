// SPDX-License-Identifier: MIT
// OptionVisitor, OptionReader, OptionPrinter: options as text, key=value.
#pragma once

#include "mole/core/config.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole::c {

/// The words for the values of an enumeration, which are 0, 1 ...; specialized where the enumeration is used.
template <class Enum>
struct Words;

/// Is shown the options of a type one by one, with their keys: f("rank", options.rank).
class OptionVisitor {
 public:
  virtual ~OptionVisitor() = default;

  virtual void operator()(const char* key, Index& number) = 0;
  virtual void operator()(const char* key, double& number) = 0;
  virtual void operator()(const char* key, bool& on) = 0;
  virtual void operator()(const char* key, std::uint64_t& seed) = 0;
  /// Unset: "auto".
  virtual void operator()(const char* key, std::optional<std::uint64_t>& seed) = 0;
  virtual void operator()(const char* key, std::vector<int>& numbers) = 0;

  template <class Enum>
  requires std::is_enum_v<Enum>
  void operator()(const char* key, Enum& value) { value = Enum(choice(key, std::size_t(value), Words<Enum>::words)); }

 private:
  virtual std::size_t choice(const char* key, std::size_t value, std::span<const char* const> words) = 0;
};

/// Sets the options that a text names. Throws Error(option), naming `who` and the key, for a text that is not made of
/// key=value, a key that is given twice, and a value of another kind; end() does so for keys that nobody asked for.
///
///     OptionReader read("mola", "experts=4, rank=16");
///     read("experts", options.experts), read("rank", options.rank);
///     read.end();
class OptionReader final : public OptionVisitor {
 public:
  /// Spaces, commas, semicolons and line ends stand between pairs. A null text is an empty one.
  OptionReader(std::string who, const char* text);

  using OptionVisitor::operator();
  void operator()(const char* key, Index& number) override;
  void operator()(const char* key, double& number) override;
  void operator()(const char* key, bool& on) override;
  void operator()(const char* key, std::uint64_t& seed) override;
  void operator()(const char* key, std::optional<std::uint64_t>& seed) override;
  void operator()(const char* key, std::vector<int>& numbers) override;

  void end() const;

 private:
  std::size_t choice(const char* key, std::size_t value, std::span<const char* const> words) override;
  /// The value of a key, none if the text does not have it.
  std::optional<std::string_view> find(const char* key);
  [[noreturn]] void refuse(std::string_view key, std::string_view expected, std::string_view found) const;
  template <class Number>
  void read(const char* key, Number& number, std::string_view expected);

  std::string who_;
  std::map<std::string, std::string, std::less<>> values_;
  std::string asked_;  ///< keys, with commas
};

/// The text that an OptionReader makes the same options of.
class OptionPrinter final : public OptionVisitor {
 public:
  using OptionVisitor::operator();
  void operator()(const char* key, Index& number) override;
  void operator()(const char* key, double& number) override;
  void operator()(const char* key, bool& on) override;
  void operator()(const char* key, std::uint64_t& seed) override;
  void operator()(const char* key, std::optional<std::uint64_t>& seed) override;
  void operator()(const char* key, std::vector<int>& numbers) override;

  const std::string& text() const { return text_; }

 private:
  std::size_t choice(const char* key, std::size_t value, std::span<const char* const> words) override;
  void add(const char* key, std::string_view value);

  std::string text_;
};

}  // namespace mole::c

#include "mole/core/macros_on.hpp"
