// SPDX-License-Identifier: MIT
#include "encoder/peft_folder.hpp"

#include "mole/io/peft/peft_layers.hpp"
#include "mole/io/peft/peft_writer.hpp"
#include "mole/io/peft/read_peft.hpp"
#include "training/methods/sizes.hpp"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

namespace encoder {
namespace {

mole::Matrix<float> copy_of(mole::View<const float> view) {
  mole::Matrix<float> copy(view.rows(), view.cols());
  for (mole::Index r = 0; r < view.rows(); ++r) std::ranges::copy(view.row(r), copy.view().row(r).begin());
  return copy;
}

}  // namespace

bool is_plain_lora(BertAdapter& adapter) {
  bool plain = true;
  for (std::size_t i = 0; i < adapter.size(); ++i)
    adapter.layer(i).for_each_tensor([&](std::string_view name, mole::View<float>, mole::View<float>) {
      plain = plain && (name == "experts.lora_A" || name == "experts.lora_B");
    });
  return plain && adapter.method().name.starts_with("lora");
}

void write_peft_folder(BertAdapter& adapter, const std::filesystem::path& folder) {
  mole::PeftWriter writer({.base = "", .task = "FEATURE_EXTRACTION"});
  for (std::size_t i = 0; i < adapter.size(); ++i) {
    mole::Adapter<float> lora;
    lora.scale = training::scale;
    adapter.layer(i).for_each_tensor([&](std::string_view name, mole::View<float> parameter, mole::View<float>) {
      (name == "experts.lora_A" ? lora.a : lora.b) = copy_of(parameter);
    });
    writer.add(adapter.name_of(i), lora);
  }
  writer.write(folder);
}

PeftFolder::PeftFolder(const std::filesystem::path& folder, Bert<float>& bert, mole::Index max_tokens) : bert_(bert) {
  mole::PeftLayers<float, Execution> layers(mole::read_peft(folder), {.max_tokens = max_tokens}, bert.execution());
  for_each_linear(bert, [&](BertLinear<float>& linear, const std::string& name) {
    if (!layers.adapter().has(name)) return;
    layers_.push_back(
        std::make_unique<mole::AnyLinear<float>>(layers.layer(name, mole::DenseBase{linear.weight, linear.bias})));
    mole::AnyLinear<float>& layer = *layers_.back();
    linear.forward_instead = [&layer](auto x, auto y) { layer.forward(x, y); };
    linear.backward_instead = [&layer](auto x, auto d_y, auto d_x) { layer.backward(x, d_y, d_x); };
  });
  if (layers_.size() != layers.adapter().modules.size())
    throw mole::Error(mole::ErrorCode::file, folder.string() + ": expected modules of the encoder alone, found " +
                                                 std::to_string(layers.adapter().modules.size() - layers_.size()) +
                                                 " others of " + std::to_string(layers.adapter().modules.size()));
}

PeftFolder::~PeftFolder() {
  restore_linears(bert_);
}

}  // namespace encoder
