// SPDX-License-Identifier: MIT
// LoopOverAdapters, GatherOfMatrices: how others add the adapters of a batch, made of this library's own products.
#pragma once

#include <mole/execution/simd.hpp>
#include <mole/serve/adapter_batch.hpp>

#include <algorithm>
#include <vector>

namespace serve {

using mole::Index;
using mole::Matrix;
using mole::View;

/// One adapter after the other, as peft does with `adapter_names`: its rows are copied side by side, multiplied by A
/// and B, and the result is added to theirs.
class LoopOverAdapters {
 public:
  LoopOverAdapters(Index max_rows, Index in, Index out, Index max_rank)
      : x_(max_rows, in), y_(max_rows, out), h_(std::size_t(max_rows * max_rank)) {}

  /// y += what the adapters of `batch` add at a site.
  template <class Execution>
  void add(View<const float> x, const mole::AdapterBatch<float>& batch, Index site, View<float> y,
           const Execution& execution) {
    for (const auto& run : batch.runs()) {
      const mole::Adapter<float>& adapter = run.adapter->site(site);
      if (adapter.rank() == 0) continue;
      const auto rows = batch.order().subspan(std::size_t(run.first), std::size_t(run.count));
      const View<float> some = x_.view().top(run.count), added = y_.view().top(run.count);
      for (Index q = 0; q < run.count; ++q) std::copy_n(x.row_data(rows[std::size_t(q)]), x.cols(), some.row_data(q));
      add_one(adapter, some, added, execution);
      for (Index q = 0; q < run.count; ++q)
        for (Index o = 0; o < y.cols(); ++o) y.row_data(rows[std::size_t(q)])[o] += added.row_data(q)[o];
    }
  }

  /// y = scale B^T A x
  template <class Execution>
  void add_one(const mole::Adapter<float>& adapter, View<const float> x, View<float> y, const Execution& execution) {
    const View<float> h(h_.data(), x.rows(), adapter.rank());
    execution.product_nt(x, adapter.a.view(), h);
    for (Index i = 0; i < h.size(); ++i) h.data()[i] *= float(adapter.scale);
    fill(y, 0);
    execution.product_nn(h, adapter.b.view(), y);
  }

 private:
  Matrix<float> x_, y_;
  std::vector<float> h_;
};

/// The matrices of each row's adapter are copied side by side, and then all rows are multiplied at once, as vLLM does
/// where it has no kernel of its own. There, ranks are padded to the largest; here they are not.
class GatherOfMatrices {
 public:
  GatherOfMatrices(Index max_rows, Index in, Index out, Index max_rank)
      : a_(max_rows * max_rank, in), b_(max_rows * max_rank, out), h_(max_rows, max_rank), max_rank_(max_rank) {}

  template <class Execution>
  void add(View<const float> x, const mole::AdapterBatch<float>& batch, Index site, View<float> y,
           const Execution& execution) {
    execution.parallel_for(Index(batch.order().size()), [&](Index place) {
      const auto& run = batch.runs()[std::size_t(batch.run_at(place))];
      const mole::Adapter<float>& adapter = run.adapter->site(site);
      const Index n = batch.order()[std::size_t(place)], first = place * max_rank_;
      const View<float> a = a_.view().middle_rows(first, adapter.rank()), h = h_.view().middle_rows(place, 1);
      const View<float> b = b_.view().middle_rows(first, adapter.rank());
      copy(adapter.a.view(), a);
      copy(adapter.b.view(), b);
      const mole::Simd<> here;
      const View<float> used = h.middle_cols(0, adapter.rank());
      here.product_nt(x.middle_rows(n, 1), a, used);
      for (float& element : used.row(0)) element *= float(adapter.scale);
      here.product_nn(used, b, y.middle_rows(n, 1));
    });
  }

 private:
  Matrix<float> a_, b_, h_;
  Index max_rank_;
};

}  // namespace serve
