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

struct Pretrained {
  std::string configuration;   // all that the base depends on: part of that of what is trained on top of it
  std::filesystem::path file;  // where it is, to be loaded again by SavedAdapter
};

/// A transformer with random weights, which computes on `pool`.
Model fresh_model(std::uint64_t seed, const mole::ThreadPool& pool);

/// Trains `model` on the first domain, or loads what an earlier run did, and freezes it. Throws as train().
Pretrained pretrain(Model& model, const text::Corpus& corpus, const Pretraining& options);

}  // namespace training
