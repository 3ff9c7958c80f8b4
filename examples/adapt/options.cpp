// SPDX-License-Identifier: MIT
#include "adapt/options.hpp"

#include "training/methods/all_methods.hpp"

#include <CLI/CLI.hpp>

#include <thread>

namespace adapt {

Options parse_options(int count, char** arguments) {
  Options options;
  CLI::App app(
      "Pre-trains a small byte-level transformer on the first domain, freezes it, swaps its linear layers for mixture\n"
      "layers and adapts them to all other domains together: plain LoRA against mixtures of LoRA experts.");
  app.add_option("paths", options.paths,
                 "Text: each file or sub-folder is a domain, the base's first. Without: C++ headers for the base, and "
                 "whatever other languages this machine has");
  app.add_option("--method", options.methods,
                 "Adapters to compare beside the default ones (lora, mola, lora-wide): all, or one of " +
                     training::names_of(training::all_methods({}, mole::ThreadPool(1))))
      ->allow_extra_args(false);
  app.add_flag("--only", options.only, "Compare just what --method names");
  app.add_option("--seed", options.seed, "The same seed gives the same bits on any number of threads")
      ->capture_default_str();
  app.add_option("--threads", options.threads, "Threads (default: as many as the machine runs at once)")
      ->check(CLI::Range(1, 1024));
  app.add_option("--steps", options.steps, "Steps of each adapter")
      ->check(CLI::Range(2L, 10'000'000L))
      ->capture_default_str();
  app.add_option("--batch", options.batch, "Sequences of 128 bytes in a step of an adapter")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--base-steps", options.base_steps, "Steps of the base, 1,024 bytes each")
      ->check(CLI::Range(2L, 10'000'000L))
      ->capture_default_str();
  app.add_option("--lr", options.learning_rate,
                 "Peak learning rate of every adapter (default: each method's own, tuned)")
      ->check(CLI::PositiveNumber);
  app.add_option("--rounds", options.rounds, "Forward passes of each model that its speed is the median of")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--out", options.out, "Folder for the report and the adapters")->capture_default_str();
  app.add_option("--cache", options.cache, "Folder for the pre-trained base (default: beside the program)");
  app.add_flag("--resume", options.resume, "Go on from where Ctrl-C stopped the run in --out");
  try {
    app.parse(count, arguments);
  } catch (const CLI::CallForHelp&) {
    throw Exit{0, app.help()};
  } catch (const CLI::ParseError& error) {
    throw Exit{2, "adapt: " + std::string(error.what()) + " (see --help)\n"};
  }
  if (options.only && options.methods.empty())
    throw Exit{2, "adapt: --only: expected --method with it, found none (see --help)\n"};
  if (options.threads == 0) options.threads = int(std::max(1u, std::thread::hardware_concurrency()));
  if (options.cache.empty()) options.cache = std::filesystem::absolute(arguments[0]).parent_path() / "adapt-cache";
  return options;
}

}  // namespace adapt
