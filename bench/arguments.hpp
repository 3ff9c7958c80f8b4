// SPDX-License-Identifier: MIT
// Arguments: options of a program, "--name value" each.
#pragma once

#include <charconv>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace bench {

/// What the command line says, over defaults; a default for each option that there is.
class Arguments {
 public:
  /// Throws std::invalid_argument for an option that has no default, or no value.
  Arguments(int count, char** values, std::map<std::string, std::string, std::less<>> defaults)
      : options_(std::move(defaults)) {
    for (int i = 1; i < count; i += 2) {
      const std::string_view name = values[i];
      const auto found = name.substr(0, 2) == "--" ? options_.find(name.substr(2)) : options_.end();
      if (found == options_.end()) throw std::invalid_argument("no option is called " + std::string(name) + usage());
      if (i + 1 == count) throw std::invalid_argument(std::string(name) + " needs a value" + usage());
      found->second = values[i + 1];
    }
  }

  const std::string& text(std::string_view name) const { return options_.find(name)->second; }

  /// Throws std::invalid_argument where it is not a number of at least 1.
  int number(std::string_view name) const { return parsed(name, text(name)); }

  /// Numbers with commas between them.
  std::vector<int> numbers(std::string_view name) const {
    std::vector<int> result;
    std::string_view rest = text(name);
    while (!rest.empty()) {
      const std::size_t comma = std::min(rest.find(','), rest.size());
      result.push_back(parsed(name, rest.substr(0, comma)));
      rest.remove_prefix(std::min(rest.size(), comma + 1));
    }
    return result;
  }

 private:
  static int parsed(std::string_view name, std::string_view text) {
    int number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc{} || end != text.data() + text.size() || number < 1)
      throw std::invalid_argument("--" + std::string(name) + ": expected a number of at least 1, found '" +
                                  std::string(text) + "'");
    return number;
  }

  std::string usage() const {
    std::string text = "; there are";
    for (const auto& [name, value] : options_) text.append(" --").append(name).append(" '").append(value).append("'");
    return text;
  }

  std::map<std::string, std::string, std::less<>> options_;
};

}  // namespace bench
