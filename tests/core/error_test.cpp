// SPDX-License-Identifier: MIT
#include "mole/core/error.hpp"

#include "core/error_code.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace mole::test;

TEST_CASE("An error is a runtime_error with a code and a text", "[core]") {
  try {
    throw Error(ErrorCode::capacity, "no room");
  } catch (const std::runtime_error& error) {
    CHECK(std::string(error.what()) == "no room");
    const auto* own = dynamic_cast<const Error*>(&error);
    REQUIRE(own);
    CHECK(own->code() == ErrorCode::capacity);
  }
}

TEST_CASE("The numbers of the codes stay what they were", "[core]") {
  CHECK(int(ErrorCode::shape) == 1);
  CHECK(int(ErrorCode::option) == 2);
  CHECK(int(ErrorCode::file) == 3);
  CHECK(int(ErrorCode::capacity) == 4);
  CHECK(int(ErrorCode::not_mergeable) == 5);
  CHECK(int(ErrorCode::not_trainable) == 6);
  CHECK(int(ErrorCode::order) == 7);
  CHECK(int(ErrorCode::unknown_id) == 8);
  CHECK(int(ErrorCode::duplicate_id) == 9);
}

TEST_CASE("Numbers that must agree are named when they do not", "[core]") {
  CHECK_NOTHROW(require_equal(ErrorCode::shape, "rows", 3, 3));
  CHECK(code_of([] { require_equal(ErrorCode::shape, "rows", 3, 4); }) == ErrorCode::shape);
  CHECK(text_of([] { require_equal(ErrorCode::option, "rows of y", 3, 4); }) == "rows of y: expected 3, found 4");
}
