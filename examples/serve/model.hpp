// SPDX-License-Identifier: MIT
// Way, Model: a few frozen linear layers, one on the other, and the ways to add adapters to them.
#pragma once

#include "serve/options.hpp"
#include "serve/peer_forms.hpp"

#include <mole/base/packed_base.hpp>
#include <mole/execution/thread_pool.hpp>
#include <mole/serve/multi_adapter_linear.hpp>

#include <array>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

namespace serve {

enum class Way { grouped, loop, gather, split };
inline constexpr std::array<Way, 4> all_ways{Way::grouped, Way::loop, Way::gather, Way::split};
inline constexpr std::array<std::string_view, 4> way_names{"MultiAdapterLinear", "loop over adapters",
                                                           "gather of matrices", "call for each adapter"};

inline std::string_view name_of(Way way) {
  return way_names[std::size_t(way)];
}

inline Matrix<float> random_matrix(Index rows, Index cols, double bound, std::uint64_t seed) {
  mole::Rng rng(seed);
  Matrix<float> matrix(rows, cols);
  fill_uniform(matrix.view(), bound, rng);
  return matrix;
}

/// An adapter for all layers. Ranks are the largest, a half and a quarter of it, in turn.
inline mole::ServedAdapter<float> make_adapter(const Options& options, int id, std::uint64_t version) {
  const Index d = options.width, rank = std::max(1, options.rank >> (id % 3));
  std::vector<mole::Adapter<float>> sites;
  for (int layer = 0; layer < options.layers; ++layer) {
    const std::uint64_t seed = (options.seed * 1000 + std::uint64_t(id)) * 1000 + version * 100 + std::uint64_t(layer);
    sites.push_back(
        {random_matrix(rank, d, 1 / std::sqrt(double(d)), 2 * seed), random_matrix(rank, d, 0.3, 2 * seed + 1)});
  }
  return mole::ServedAdapter<float>(std::move(sites));
}

class Model {
 public:
  explicit Model(const Options& options)
      : execution_(mole::ThreadPool(options.threads)),
        input_(random_matrix(options.batch, options.width, 1, options.seed)),
        loop_(options.batch, options.width, options.width, options.rank),
        gather_(options.batch, options.width, options.width, options.rank),
        split_(options.batch, options.width, options.width, options.rank) {
    for (int layer = 0; layer < options.layers; ++layer) {
      const Matrix<float> weight = random_matrix(options.width, options.width, 1.7 / std::sqrt(double(options.width)),
                                                 options.seed + 77 + std::uint64_t(layer));
      layers_.emplace_back(mole::PackedBase<float>(weight, {.backward = false}), layer, execution_);
      work_.push_back(layers_.back().workspace(options.batch));
      outputs_.emplace_back(options.batch, options.width);
    }
  }

  /// What the last layer gives for a batch, each row of it with its adapter.
  View<const float> forward(Way way, const mole::AdapterBatch<float>& batch) {
    View<const float> x = input_.view().top(batch.rows());
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      const View<float> y = outputs_[l].view().top(batch.rows());
      const mole::LinearWeights<float> weights = layers_[l].base().weights();
      if (way == Way::grouped) layers_[l].forward(x, batch, y, work_[l]);
      if (way == Way::split) split_.forward(x, batch, Index(l), weights, y, execution_);
      if (way == Way::loop || way == Way::gather) execution_.linear(x, weights, y);
      if (way == Way::loop) loop_.add(x, batch, Index(l), y, execution_);
      if (way == Way::gather) gather_.add(x, batch, Index(l), y, execution_);
      x = y;
    }
    return x;
  }

 private:
  using Execution = mole::Simd<mole::kernel::DefaultArchitecture, mole::ThreadPool>;
  using Layer = mole::MultiAdapterLinear<mole::PackedBase<float>, Execution>;

  Execution execution_;
  std::vector<Layer> layers_;
  std::vector<Layer::Workspace> work_;
  Matrix<float> input_;
  std::vector<Matrix<float>> outputs_;
  LoopOverAdapters loop_;
  GatherOfMatrices gather_;
  SplitByAdapter split_;
};

}  // namespace serve
