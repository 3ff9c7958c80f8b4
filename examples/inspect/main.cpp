// SPDX-License-Identifier: MIT
// Says what an adapter or a base on disk is, checks its numbers, converts it, or merges it into a checkpoint.
#include "inspect/conversion.hpp"
#include "inspect/description.hpp"
#include "inspect/options.hpp"
#include "inspect/text.hpp"
#include "training/command_line.hpp"

#include <iostream>

namespace {

void run(const inspect::Options& options) {
  const inspect::Found found = inspect::open(options.path);
  inspect::Json json;
  if (!options.merge_into.empty())
    json = inspect::merge(found, options);
  else if (!options.to.empty())
    json = inspect::convert(found, options);
  else
    json = inspect::describe(found, options.path);
  std::cout << (options.json ? json.dump(2, ' ', true, inspect::Json::error_handler_t::replace) + "\n"
                             : inspect::text(json));
}

}  // namespace

int main(int count, char** arguments) {
  return training::run_program("inspect", "stopped", [&] { run(inspect::parse_options(count, arguments)); });
}
