// SPDX-License-Identifier: MIT
// Many comparisons as one assertion.
#pragma once

#include <sstream>
#include <string>

namespace support {

/// Remembers the first of many expectations that failed. An assertion of Catch takes about a microsecond, some fifty
/// times that under a sanitizer: for each number of a matrix that is most of a test.
///
///   FirstFailure failure;
///   for (...) failure.expect(a[n] == b[n], "token ", n);
///   CHECK(failure.text() == "");
class FirstFailure {
 public:
  template <class... Where>
  void expect(bool good, const Where&... where) {
    if (good || !text_.empty()) return;
    std::ostringstream text;
    (text << ... << where);
    text_ = text.str();
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

}  // namespace support
