// SPDX-License-Identifier: MIT
#include "adapt/options.hpp"

#include "training/methods/all_methods.hpp"

namespace adapt {

Options parse_options(int count, char** arguments) {
  Options options;
  options.out = "adapt-out";
  const training::Program program{
      .name = "adapt",
      .about =
          "Pre-trains a small byte-level transformer on the first domain, freezes it, swaps its linear layers for "
          "mixture\n"
          "layers and adapts them to all other domains together: plain LoRA against mixtures of LoRA experts.",
      .steps = "Steps of each adapter",
      .methods = "Adapters to compare beside the default ones (lora, mola, lora-wide): all, or one of " +
                 training::names_of(training::all_methods({}, mole::ThreadPool(1))),
      .switches = {{"--only", "Compare just what --method names", &options.only},
                   {"--resume", "Go on from where Ctrl-C stopped the run in --out", &options.resume}},
      .counts = {
          {"--rounds", "Forward passes of each model that its speed is the median of", &options.rounds, 1, 1000}}};
  training::parse(count, arguments, program, options);
  if (options.only && options.methods.empty())
    throw training::Exit{2, "adapt: --only: expected --method with it, found none (see --help)\n"};
  return options;
}

}  // namespace adapt
