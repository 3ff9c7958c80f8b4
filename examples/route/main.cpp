// SPDX-License-Identifier: MIT
// Shows what the experts of an adapter do: which bytes go to which expert, and what that expert adds to them.
#include "route/explanation.hpp"
#include "route/options.hpp"
#include "training/command_line.hpp"

int main(int count, char** arguments) {
  return training::run_program("route", "stopped", [&] { route::explain(route::parse_options(count, arguments)); });
}
