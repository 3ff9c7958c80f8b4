// SPDX-License-Identifier: MIT
#include "mole/io/limited_json.hpp"

#include "support/catch.hpp"

#include "mole/core/error.hpp"

namespace {

std::string json_complaint(const std::string& text) {
  try {
    mole::detail::LimitedJson::object(text, "test");
    return {};
  } catch (const mole::Error& error) {
    return error.code() == mole::ErrorCode::file ? error.what() : "another code";
  }
}

}  // namespace

TEST_CASE("JSON keeps the order of its keys, and every kind of value", "[io]") {
  const auto tree = mole::detail::LimitedJson::object(
      R"({"z":1,"a":[-2,2.5,"x",null,true,{"b":[]}],"m":{"y":{},"c":18446744073709551615}})", "test");
  CHECK(tree.dump() == R"({"z":1,"a":[-2,2.5,"x",null,true,{"b":[]}],"m":{"y":{},"c":18446744073709551615}})");
}

TEST_CASE("JSON beyond the limits, broken or ambiguous, is refused", "[io]") {
  CHECK(json_complaint("{}").empty());
  CHECK(json_complaint("[1]") == "test: expected a JSON object, found array");
  CHECK(json_complaint(R"({"a":1,"b":{"a":1,"a":2}})") == "test: expected each key of an object once, found 'a' twice");
  CHECK(json_complaint(R"({"a":1,"b":{"a":1}})").empty());
  const auto nested = [](std::size_t depth) {
    return "{\"a\":" + std::string(depth - 1, '[') + std::string(depth - 1, ']') + "}";
  };
  CHECK(json_complaint(nested(32)).empty());
  CHECK(json_complaint(nested(33)) == "test: expected JSON of at most 32 levels, found more");
  CHECK(json_complaint("{\"a\":" + std::string(1000000, '[')) ==
        "test: expected JSON of at most 32 levels, found more");
  CHECK(json_complaint(std::string("{}\0 and more", 12)) == "test: expected JSON text, found a byte 0");
  CHECK(json_complaint("{} x").find("expected a JSON object, found '") != std::string::npos);
  CHECK(json_complaint("{\"a\":\"\xff\"}").find("expected a JSON object, found '") != std::string::npos);
  CHECK(json_complaint("{\"a\":NaN}").find("expected a JSON object, found '") != std::string::npos);
  CHECK(json_complaint("").find("expected a JSON object, found '") != std::string::npos);
  CHECK(json_complaint(std::string(mole::detail::LimitedJson::max_bytes + 1, ' ')).find("at most 67108864 bytes") !=
        std::string::npos);
}
