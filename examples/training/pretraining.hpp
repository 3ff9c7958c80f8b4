// SPDX-License-Identifier: MIT
// pretrain(): the frozen base that every adapter starts from.
#pragma once

#include "mole/execution/thread_pool.hpp"
#include "text/corpus.hpp"
#include "training/model.hpp"

#include <cstdint>
#include <filesystem>
#include <string>

namespace training {

struct Pretraining {
  std::uint64_t seed = 1;
  mole::Index steps = 800;
  std::filesystem::path cache;  // a folder; a base that is there is never trained again
};

/// A transformer with random weights, which computes on `pool`.
Model fresh_model(std::uint64_t seed, const mole::ThreadPool& pool);

/// Trains `model` on the first domain, or loads what an earlier run did, and freezes it. Returns all that the base
/// depends on, as part of the configuration of what is trained on top of it. Throws as train().
std::string pretrain(Model& model, const text::Corpus& corpus, const Pretraining& options);

}  // namespace training
