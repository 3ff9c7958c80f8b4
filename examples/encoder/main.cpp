// SPDX-License-Identifier: MIT
// Adapts a sentence encoder with published weights to the documents of a machine, or searches them.
#include "encoder/comparison.hpp"
#include "encoder/embed_lines.hpp"
#include "encoder/options.hpp"
#include "encoder/search.hpp"
#include "training/command_line.hpp"

int main(int count, char** arguments) {
  return training::run_program("encoder", "stopped; the state is saved, --resume goes on", [&] {
    const encoder::Options options = encoder::parse_options(count, arguments);
    if (!options.lines.empty()) return encoder::embed_lines(options);
    options.query.empty() ? encoder::compare(options) : encoder::search(options);
  });
}
