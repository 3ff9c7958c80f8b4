// SPDX-License-Identifier: MIT
// BertConfig: the sizes of an encoder, as its config.json has them.
#pragma once

#include "mole/core/config.hpp"

#include <filesystem>

namespace encoder {

/// Only what changes arithmetic; the rest of the file concerns training.
struct BertConfig {
  mole::Index layers = 0;
  mole::Index width = 0;
  mole::Index heads = 0;
  mole::Index hidden = 0;     // of the feed-forward block
  mole::Index positions = 0;  // the longest sequence
  double norm_eps = 1e-12;

  mole::Index head_width() const { return width / heads; }

  /// Throws std::invalid_argument unless sizes are positive and heads divide the width.
  void check() const;

  /// Of `folder`/config.json. Throws std::runtime_error, naming the file and the key, for what is no BERT, or one of
  /// another activation or kind of positions.
  static BertConfig read(const std::filesystem::path& folder);
};

}  // namespace encoder
