// SPDX-License-Identifier: MIT
// Two adapters, in folders as peft saves them, become one layer that routes between them; their merge becomes a folder.
#include <mole/io/peft/peft_bank.hpp>
#include <mole/io/peft/peft_layers.hpp>
#include <mole/io/peft/peft_writer.hpp>
#include <mole/io/peft/read_peft.hpp>
#include <mole/mole.hpp>

#include <cstdio>
#include <filesystem>

int main() {
  const std::filesystem::path folder = std::filesystem::temp_directory_path() / "mole-guide-peft";
  const std::string q_path = "model.layers.0.self_attn.q_proj";
  std::filesystem::remove_all(folder);
  mole::Rng rng(1);
  mole::Matrix<float> weights(16, 16), x(4, 16), y(4, 16);
  fill_uniform(weights.view(), 1, rng);
  fill_uniform(x.view(), 1, rng);
  for (const mole::Index rank : {2, 3}) {  // what somebody trained
    auto trained = mole::lora({.rank = rank}, mole::DenseBase{weights}, rng);
    fill_uniform(trained.experts().parameters().lora_B.view(), 1, rng);
    mole::PeftWriter writer;
    writer.add(q_path, trained.experts());
    writer.write(folder / ("rank" + std::to_string(rank)));
  }

  const std::vector<mole::PeftAdapter> adapters = mole::read_peft_adapters(folder);  // in its sub-folders
  std::printf("%s\n", adapters[0].report.text().c_str());  // 2 used: no tensor was missing, refused or left over

  auto bank = mole::peft_bank<float>(adapters, q_path);  // an expert for each, of its own rank and scale
  auto routed = mole::arrow({.k = 1}, bank, mole::DenseBase{weights});

  const auto experts = adapters_of(bank);
  mole::PeftWriter writer({.base = "org/model", .task = "CAUSAL_LM"});
  writer.add(q_path, mole::concatenate_adapters<float>({{experts[0], 0.5}, {experts[1], 0.5}}).adapter);
  writer.write(folder / "merged");  // for PeftModel.from_pretrained(model, "merged")

  mole::PeftLayers<float> layers(mole::read_peft(folder / "merged"), {.max_tokens = 4});
  mole::AnyLinear<float> merged = layers.layer(q_path, mole::DenseBase{weights});  // LoRA, DoRA, VeRA ... alike

  auto work = routed.workspace(4);
  routed.forward(x, y, work);
  std::printf("token 0 goes to adapter %d of %td: %.4f\n", int(work.routing.expert(0)), bank.experts(),
              double(y(0, 0)));
  merged.forward(x, y);
  std::printf("by the mean of both: %.4f\n", double(y(0, 0)));
  std::filesystem::remove_all(folder);
}
