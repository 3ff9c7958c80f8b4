// SPDX-License-Identifier: MIT
#include "inspect/options.hpp"

#include "training/command_line.hpp"

#include <CLI/CLI.hpp>

#include <map>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace inspect {

namespace {
training::Exit refusal(const std::string& text) {
  return {2, "inspect: " + text + " (see --help)\n"};
}
}  // namespace

Options parse_options(int count, char** arguments) {
  Options options;
  CLI::App app(
      "Says what an adapter or a base on disk is, and checks its numbers: a folder of peft, X-LoRA or MoE-PEFT, a GGUF "
      "file, a file of layers, a checkpoint in safetensors. Converts an adapter, or merges it into a checkpoint.");
  std::pair<std::string, std::string> to, merge;
  std::vector<long> heads;
  std::string dtype = "F32";
  app.add_option("path", options.path, "A file or a folder")->required();
  app.add_flag("--json", options.json, "Print JSON, with every tensor");
  auto* const converts =
      app.add_option("--to", to, "Write the adapter as peft (a folder), gguf (a file) or mole (a file of layers)")
          ->type_name("FORMAT OUT");
  app.add_option("--merge-into", merge,
                 "Write the checkpoint (a folder, an index or a file) with peft's adapter in its "
                 "weights, into the folder OUT")
      ->type_name("CHECKPOINT OUT")
      ->excludes(converts);
  app.add_flag(
      "--base-is-changed", options.base_is_changed,
      "The base is what the adapter was trained on, with what its initialization (PiSSA and others) took out of "
      "the weights and, for --to, with the tensors that the adapter would replace");
  app.add_option("--base", options.base, "Checkpoint whose weights the layers of --to mole are for")->needs(converts);
  app.add_option("--dtype", dtype, "Of what --to peft and --to gguf write: F32, F16, BF16")
      ->check(CLI::IsMember({"F32", "F16", "BF16"}))
      ->capture_default_str();
  app.add_option("--architecture", options.architecture, "Of the model, for --to gguf")->capture_default_str();
  app.add_option(
         "--heads", heads,
         "Heads of q and of k, whose rows GGUF files of llama, granite and others have in an order of their own; 0 0: "
         "in PyTorch's")
      ->expected(2)
      ->type_name("Q K");
  try {
    app.parse(count, arguments);
  } catch (const CLI::CallForHelp&) {
    throw training::Exit{0, app.help()};
  } catch (const CLI::ParseError& error) {
    throw refusal(error.what());
  }
  if (!to.first.empty() && to.first != "peft" && to.first != "gguf" && to.first != "mole")
    throw refusal("--to: expected peft, gguf or mole, found '" + to.first + "'");
  options.to = to.first;
  options.merge_into = merge.first;
  options.out = to.first.empty() ? merge.second : to.second;
  options.dtype = *mole::dtype_named(dtype);
  for (const long each : heads)
    if (each < 0 || each > 65536) throw refusal("--heads: expected 0 to 65536, found " + std::to_string(each));
  if (!heads.empty()) options.heads = mole::GgufHeads{.q = heads[0], .k = heads[1]};
  std::error_code ignored;
  if (!options.out.empty() && std::filesystem::exists(options.out, ignored))
    throw refusal("expected a path that is not taken, found '" + options.out.string() + "'");
  return options;
}

}  // namespace inspect
