// SPDX-License-Identifier: MIT
// expect: found one without; CheckpointWriter::add_layer (mole/io/checkpoint.hpp) saves the numbers of any layer
#include "parts.hpp"

#include "mole/io/layer/layer_file.hpp"

int main() {
  mole::MixtureLinear layer{parts::InferenceRouter{}, parts::gate(), parts::experts(), parts::base()};
  mole::LayerWriter writer;
  writer.add("layer", layer);
}
