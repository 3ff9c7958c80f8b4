// SPDX-License-Identifier: MIT
#include "mole/io/dtype.hpp"

#include "support/catch.hpp"

TEST_CASE("Every dtype is found by its own name", "[io]") {
  for (int i = 0; i <= int(mole::Dtype::c64); ++i) {
    const mole::Dtype dtype = mole::Dtype(i);
    CHECK(mole::dtype_named(mole::name_of(dtype)) == dtype);
    CHECK(mole::bits_of(dtype) >= 4);
  }
  CHECK_FALSE(mole::dtype_named("f32").has_value());
  CHECK_FALSE(mole::dtype_named("").has_value());
}

TEST_CASE("The dtype of a C++ type has its size", "[io]") {
  CHECK(mole::bits_of(mole::dtype_of<float>()) == 32);
  CHECK(mole::bits_of(mole::dtype_of<double>()) == 64);
  CHECK(mole::name_of(mole::dtype_of<std::int64_t>()) == "I64");
  CHECK(mole::name_of(mole::dtype_of<std::int32_t>()) == "I32");
  CHECK(mole::name_of(mole::dtype_of<std::uint8_t>()) == "U8");
  CHECK(mole::name_of(mole::dtype_of<std::int8_t>()) == "I8");
}
