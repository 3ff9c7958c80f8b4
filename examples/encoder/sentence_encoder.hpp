// SPDX-License-Identifier: MIT
// SentenceEncoder: a checkpoint and its tokenizer.
#pragma once

#include "encoder/bert.hpp"
#include "encoder/token_batch.hpp"
#include "encoder/word_piece.hpp"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <vector>

namespace encoder {

struct SentenceEncoder {
  WordPiece tokenizer;
  Bert<float> bert;

  /// Throws what a reader of a file of `folder` throws.
  static SentenceEncoder read(const std::filesystem::path& folder, const mole::ThreadPool& pool) {
    return {WordPiece::read(folder),
            {BertWeights<float>(mole::SafetensorsShards(folder)), BertConfig::read(folder), Execution(pool)}};
  }

  /// Embeddings [sequences x W], a batch of at most `max_rows` tokens at a time, but of one sequence at least; `before`
  /// is called with each batch.
  mole::Matrix<float> embed(const std::vector<const std::vector<int>*>& sequences, mole::Index max_rows,
                            const std::function<void(const TokenBatch&)>& before = {}) {
    mole::Matrix<float> result(mole::Index(sequences.size()), bert.config().width);
    TokenBatch batch;
    mole::Index done = 0;
    const auto flush = [&] {
      if (batch.sequences() == 0) return;
      if (before) before(batch);
      bert.forward(batch, result.view().middle_rows(done, batch.sequences()));
      done += batch.sequences();
      batch.clear();
    };
    for (const std::vector<int>* sequence : sequences) {
      if (batch.rows() + mole::Index(sequence->size()) > max_rows) flush();
      batch.add(*sequence);
    }
    flush();
    return result;
  }
};

}  // namespace encoder
