// SPDX-License-Identifier: MIT
#include "serve/options.hpp"

#include "training/command_line.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <string>
#include <thread>

namespace serve {

Options parse_options(int count, char** arguments) {
  Options options;
  std::string mix = "all";
  CLI::App app(
      "Serves requests for hundreds of adapters, which are replaced meanwhile, by MultiAdapterLinear and in three ways "
      "of "
      "others, and writes a page of latencies and throughput.");
  app.add_option("--seconds", options.seconds, "Seconds of each way and mix")
      ->check(CLI::Range(0.05, 3600.0))
      ->capture_default_str();
  app.add_option("--rounds", options.rounds, "Rounds in which the ways take turns")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--adapters", options.adapters, "Adapters")->check(CLI::Range(1, 100'000))->capture_default_str();
  app.add_option("--rank", options.rank, "Ranks of the largest adapter; others have half and a quarter")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--width", options.width, "Inputs and outputs of each layer")
      ->check(CLI::Range(1, 16'384))
      ->capture_default_str();
  app.add_option("--layers", options.layers, "Layers of the model")->check(CLI::Range(1, 256))->capture_default_str();
  app.add_option("--threads", options.threads, "Threads of a batch (default: as many as the machine runs at once)")
      ->check(CLI::Range(1, 1024));
  app.add_option("--clients", options.clients, "Threads that send requests")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  app.add_option("--batch", options.batch, "Requests of a batch at most")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--rate", options.rate, "Requests a second (default: 0.6 of what MultiAdapterLinear can)")
      ->check(CLI::Range(1.0, 1e7));
  app.add_option("--swaps", options.swaps, "Adapters replaced, added and removed a second")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();
  app.add_option("--mix", mix, "Which adapters requests want")
      ->check(CLI::IsMember({"skewed", "spread", "hot-set", "all"}))
      ->capture_default_str();
  app.add_option("--seed", options.seed, "Seed of weights, adapters and requests")->capture_default_str();
  app.add_option("--out", options.out, "The page")->capture_default_str();
  try {
    app.parse(count, arguments);
  } catch (const CLI::CallForHelp&) {
    throw training::Exit{0, app.help()};
  } catch (const CLI::ParseError& error) {
    throw training::Exit{2, std::string("serve: ") + error.what() + " (see --help)\n"};
  }
  for (const Mix one : {Mix::skewed, Mix::spread, Mix::hot_set})
    if (mix == "all" || mix == name_of(one)) options.mixes.push_back(one);
  if (options.threads == 0) options.threads = int(std::max(1u, std::thread::hardware_concurrency()));
  return options;
}

}  // namespace serve
