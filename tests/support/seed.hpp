// SPDX-License-Identifier: MIT
// TestRng: random numbers from the runner's seed, which is printed when the test fails.
#pragma once

#include "mole/core/random.hpp"
#include "support/catch.hpp"

namespace mole::test {

/// The seed of Catch's runner: `--rng-seed <number>` repeats a run.
inline std::uint64_t test_seed() {
#if __has_include(<catch2/catch_all.hpp>)
  return Catch::getSeed();
#else
  return Catch::rngSeed();
#endif
}

/// A generator on that seed; as long as it lives, a failure names the seed.
class TestRng : public Rng {
 public:
  TestRng()
      : Rng(test_seed()),
        note_(Catch::MessageBuilder("INFO", CATCH_INTERNAL_LINEINFO, Catch::ResultWas::Info)
              << "--rng-seed " << test_seed()) {}

 private:
  Catch::ScopedMessage note_;
};

}  // namespace mole::test
