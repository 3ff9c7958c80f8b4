// SPDX-License-Identifier: MIT
#include "encoder/options.hpp"

#include "training/command_line.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <string>
#include <thread>

namespace encoder {

Options parse_options(int count, char** arguments) {
  Options options;
  CLI::App app(
      "Adapts a sentence encoder to the documents of this machine, and compares how often a short text finds the "
      "longer "
      "one that it belongs to: plain LoRA against mixtures of LoRA experts. With --query it searches instead.");
  app.add_option("--model", options.model,
                 "Folder of a BERT checkpoint: config.json, model.safetensors, tokenizer.json")
      ->required();
  app.add_option("--adapter", options.adapter,
                 "With --query and --embed: folder of an adapter, as peft saves it, or as this "
                 "program writes LoRA");
  app.add_option("--query", options.query, "Print the documents nearest to this text, and train nothing");
  app.add_option("--embed", options.lines, "Embed the lines of this file, and train nothing");
  app.add_option("--method", options.methods, "Methods to compare: all, enforced, or names of adapt's")
      ->allow_extra_args(false);
  app.add_option("--seed", options.seed, "The same seed gives the same bits on any number of threads")
      ->capture_default_str();
  app.add_option("--threads", options.threads, "Threads (default: as many as the machine runs at once)")
      ->check(CLI::Range(1, 1024));
  app.add_option("--steps", options.steps, "Steps of each method")
      ->check(CLI::Range(2L, 1'000'000L))
      ->capture_default_str();
  app.add_option("--pairs", options.pairs, "Pairs of a step")->check(CLI::Range(2L, 4096L))->capture_default_str();
  app.add_option("--tokens", options.tokens, "Tokens of a text at most")
      ->check(CLI::Range(3L, 512L))
      ->capture_default_str();
  app.add_option("--documents", options.documents, "Pairs of a domain to train on at most")
      ->check(CLI::Range(1L, 1'000'000L))
      ->capture_default_str();
  app.add_option("--temperature", options.temperature, "Of the contrastive loss")
      ->check(CLI::Range(1e-3, 1e3))
      ->capture_default_str();
  app.add_option("--lr", options.learning_rate, "Peak learning rate (default: a tenth of each method's own in adapt)")
      ->check(CLI::PositiveNumber);
  app.add_option("--out", options.out, "Folder for what the program writes")->capture_default_str();
  app.add_flag("--resume", options.resume, "Go on from where Ctrl-C stopped the run in --out");
  try {
    app.parse(count, arguments);
  } catch (const CLI::CallForHelp&) {
    throw training::Exit{0, app.help()};
  } catch (const CLI::ParseError& error) {
    throw training::Exit{2, std::string("encoder: ") + error.what() + " (see --help)\n"};
  }
  if (options.threads == 0) options.threads = int(std::max(1u, std::thread::hardware_concurrency()));
  if (options.methods.empty()) options.methods = {"lora", "lora-wide", "mola", "smora", "flylora", "enforced"};
  return options;
}

}  // namespace encoder
