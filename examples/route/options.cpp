// SPDX-License-Identifier: MIT
#include "route/options.hpp"

#include "training/command_line.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <string>
#include <thread>

namespace route {

Options parse_options(int count, char** arguments) {
  Options options;
  CLI::App app(
      "Shows what the experts of an adapter do: which bytes go to which expert, and what that expert adds to them.");
  app.add_option("adapter", options.adapter, "A safetensors file that `adapt` wrote")->required();
  app.add_option("paths", options.paths,
                 "Text: each file or sub-folder is a domain. Without: what `adapt` finds on this machine");
  app.add_option("--base", options.base, "File of the frozen base (default: where the adapter says)");
  app.add_option("--out", options.out, "The page")->capture_default_str();
  app.add_option("--windows", options.windows, "Pieces of 128 bytes of each domain to count in; the first is shown")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--threads", options.threads, "Threads (default: as many as the machine runs at once)")
      ->check(CLI::Range(1, 1024));
  try {
    app.parse(count, arguments);
  } catch (const CLI::CallForHelp&) {
    throw training::Exit{0, app.help()};
  } catch (const CLI::ParseError& error) {
    throw training::Exit{2, std::string("route: ") + error.what() + " (see --help)\n"};
  }
  if (options.threads == 0) options.threads = int(std::max(1u, std::thread::hardware_concurrency()));
  return options;
}

}  // namespace route
