// SPDX-License-Identifier: MIT
// FirstFailure: many comparisons, of which the first that fails is told in words.
#pragma once

#include <sstream>
#include <string>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole::laws {

/// Remembers the first of many expectations that failed. An assertion of a test framework takes about a microsecond,
/// some fifty times that under a sanitizer: for each number of a matrix that is most of a test.
///
///   FirstFailure failure("my loop");
///   for (...) failure.expect(a[n] == b[n], "token ", n, ": expected ", b[n], ", found ", a[n]);
///   return failure.text();   // "" or "my loop: token 3: expected 1, found 2"
class FirstFailure {
 public:
  explicit FirstFailure(std::string subject = "") : subject_(std::move(subject)) {}

  /// By value: so one instantiation serves all texts of one form.
  template <class... Where>
  void expect(bool good, Where... where) {
    if (good || failed()) return;
    std::ostringstream text;
    if (!subject_.empty()) text << subject_ << ": ";
    (text << ... << where);
    text_ = text.str();
  }

  bool failed() const { return !text_.empty(); }
  const std::string& text() const { return text_; }

 private:
  std::string subject_, text_;
};

}  // namespace mole::laws

#include "mole/core/macros_on.hpp"
