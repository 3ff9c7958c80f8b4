// SPDX-License-Identifier: MIT
#include "continual/options.hpp"

#include "training/methods/all_methods.hpp"

namespace continual {

Options parse_options(int count, char** arguments) {
  Options options;
  options.out = "continual-out";
  options.steps = 120;
  const training::Program program{
      .name = "continual",
      .about =
          "Pre-trains a small byte-level transformer on the first domain, freezes it, and teaches it the other domains "
          "one\n"
          "after the other, without going back. After each task it is tested on all domains: what is forgotten?",
      .steps = "Steps of each task",
      .methods = "Methods to compare (default: lora, codyra, moram): all, or one of " +
                 training::names_of(training::task_methods(1, mole::ThreadPool(1))),
      .counts = {{"--rank", "Trainable ranks of each task, for every method", &options.rank, 2, 256}}};
  training::parse(count, arguments, program, options);
  if (options.methods.empty()) options.methods = {"lora", "codyra", "moram"};
  return options;
}

}  // namespace continual
