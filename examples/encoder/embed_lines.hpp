// SPDX-License-Identifier: MIT
// embed_lines(): the embeddings of a file's lines, for other programs.
#pragma once

#include "encoder/options.hpp"

namespace encoder {

/// Writes `options.out`/embeddings.safetensors: "embeddings" [lines x W], "tokens", those of all lines, and "begin",
/// where each line's begin. Says how long the encoder took. Throws std::runtime_error for a file that cannot be read.
void embed_lines(const Options& options);

}  // namespace encoder
