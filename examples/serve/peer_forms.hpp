// SPDX-License-Identifier: MIT
// LoopOverAdapters, SplitByAdapter, GatherOfMatrices: how others add the adapters of a batch, made of this library's
// own products.
#pragma once

#include <mole/execution/simd.hpp>
#include <mole/serve/adapter_batch.hpp>

#include <algorithm>
#include <span>
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

/// A call of the whole layer for the rows of each adapter, and one for those of none, as llama.cpp splits its batches:
/// the weight is read once for each of them.
class SplitByAdapter {
 public:
  SplitByAdapter(Index max_rows, Index in, Index out, Index max_rank)
      : x_(max_rows, in), y_(max_rows, out), sum_(max_rows, out), loop_(max_rows, in, out, max_rank) {}

  /// y = base(x) + what the adapters of `batch` add at a site.
  template <class Execution>
  void forward(View<const float> x, const mole::AdapterBatch<float>& batch, Index site,
               const mole::LinearWeights<float>& weights, View<float> y, const Execution& execution) {
    alone_.assign(std::size_t(x.rows()), 1);
    for (const int row : batch.order()) alone_[std::size_t(row)] = 0;
    rows_.clear();
    for (int n = 0; n < int(x.rows()); ++n)
      if (alone_[std::size_t(n)] != 0) rows_.push_back(n);
    if (!rows_.empty()) some(x, rows_, nullptr, weights, y, execution);
    for (const auto& run : batch.runs())
      some(x, batch.order().subspan(std::size_t(run.first), std::size_t(run.count)), &run.adapter->site(site), weights,
           y, execution);
  }

 private:
  template <class Execution>
  void some(View<const float> x, std::span<const int> rows, const mole::Adapter<float>* adapter,
            const mole::LinearWeights<float>& weights, View<float> y, const Execution& execution) {
    const Index count = Index(rows.size());
    const View<float> in = x_.view().top(count), out = y_.view().top(count), sum = sum_.view().top(count);
    for (Index q = 0; q < count; ++q) std::copy_n(x.row_data(rows[std::size_t(q)]), x.cols(), in.row_data(q));
    execution.linear(View<const float>(in), weights, out);
    if (adapter != nullptr && adapter->rank() > 0) {
      loop_.add_one(*adapter, in, sum, execution);
      for (Index i = 0; i < out.size(); ++i) out.data()[i] += sum.data()[i];
    }
    for (Index q = 0; q < count; ++q) std::copy_n(out.row_data(q), y.cols(), y.row_data(rows[std::size_t(q)]));
  }

  Matrix<float> x_, y_, sum_;
  LoopOverAdapters loop_;
  std::vector<char> alone_;
  std::vector<int> rows_;
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
