// SPDX-License-Identifier: MIT
// Adapts a real model on real text: plain LoRA against mixtures of LoRA experts, honestly compared.
#include "adapt/comparison.hpp"
#include "adapt/options.hpp"

int main(int count, char** arguments) {
  return training::run_program("adapt", "stopped; the state is saved, --resume goes on",
                               [&] { adapt::compare(adapt::parse_options(count, arguments)); });
}
