// SPDX-License-Identifier: MIT
// Teaches a frozen model one domain of text after the other, and measures what it forgets.
#include "continual/options.hpp"
#include "continual/sequence.hpp"

int main(int count, char** arguments) {
  return training::run_program("continual", "stopped; nothing is saved but the base",
                               [&] { continual::run_sequence(continual::parse_options(count, arguments)); });
}
