// SPDX-License-Identifier: MIT
// Adapts a real model on real text: plain LoRA against mixtures of LoRA experts, honestly compared.
#include "adapt/comparison.hpp"
#include "training/interrupt.hpp"
#include "adapt/options.hpp"

#include <cstdio>
#include <exception>

int main(int count, char** arguments) {
  try {
    const adapt::Options options = adapt::parse_options(count, arguments);
    training::note_interrupts();
    adapt::compare(options);
    return 0;
  } catch (const adapt::Exit& exit) {
    std::fputs(exit.text.c_str(), exit.code == 0 ? stdout : stderr);
    return exit.code;
  } catch (const training::Interrupted&) {
    std::fputs("\nadapt: stopped; the state is saved, --resume goes on\n", stderr);
    return 130;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "adapt: %s\n", error.what());
    return 2;
  }
}
