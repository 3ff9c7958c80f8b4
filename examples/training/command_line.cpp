// SPDX-License-Identifier: MIT
#include "training/command_line.hpp"

#include "training/interrupt.hpp"
#include "training/printable.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <thread>

namespace training {

void parse(int count, char** arguments, const Program& program, RunOptions& options) {
  CLI::App app(program.about);
  const auto steps = CLI::Range(2L, 10'000'000L);
  app.add_option("paths", options.paths,
                 "Text: each file or sub-folder is a domain, the base's first. Without: C++ headers for the base, and "
                 "whatever other languages this machine has");
  app.add_option("--method", options.methods, program.methods)->allow_extra_args(false);
  app.add_option("--seed", options.seed, "The same seed gives the same bits on any number of threads")
      ->capture_default_str();
  app.add_option("--threads", options.threads, "Threads (default: as many as the machine runs at once)")
      ->check(CLI::Range(1, 1024));
  app.add_option("--steps", options.steps, program.steps)->check(steps)->capture_default_str();
  app.add_option("--batch", options.batch, "Sequences of 128 bytes in such a step")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--base-steps", options.base_steps, "Steps of the base, 1,024 bytes each")
      ->check(steps)
      ->capture_default_str();
  app.add_option("--windows", options.windows, "Windows of 128 bytes of each domain's held-out text")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  app.add_option("--lr", options.learning_rate,
                 "Peak learning rate of every adapter (default: each method's own, tuned)")
      ->check(CLI::PositiveNumber);
  app.add_option("--out", options.out, "Folder for what the program writes")->capture_default_str();
  app.add_option("--cache", options.cache, "Folder for the pre-trained base (default: beside the program)");
  for (const Count& own : program.counts)
    app.add_option(own.name, *own.value, own.text)->check(CLI::Range(own.least, own.most))->capture_default_str();
  for (const Switch& own : program.switches) app.add_flag(own.name, *own.value, own.text);
  try {
    app.parse(count, arguments);
  } catch (const CLI::CallForHelp&) {
    throw Exit{0, app.help()};
  } catch (const CLI::ParseError& error) {
    throw Exit{2, program.name + ": " + error.what() + " (see --help)\n"};
  }
  if (options.threads == 0) options.threads = int(std::max(1u, std::thread::hardware_concurrency()));
  if (options.cache.empty()) options.cache = std::filesystem::absolute(arguments[0]).parent_path() / "adapt-cache";
}

int run_program(const std::string& name, const std::string& when_stopped, const std::function<void()>& body) {
  try {
    note_interrupts();
    body();
    return 0;
  } catch (const Exit& exit) {
    std::fputs(exit.text.c_str(), exit.code == 0 ? stdout : stderr);
    return exit.code;
  } catch (const Interrupted&) {
    std::fprintf(stderr, "\n%s: %s\n", name.c_str(), when_stopped.c_str());
    return 130;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", name.c_str(), printable(error.what()).c_str());
    return 2;
  }
}

}  // namespace training
