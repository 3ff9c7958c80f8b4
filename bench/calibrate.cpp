// SPDX-License-Identifier: MIT
// Measures the constants by which the execution chooses (mole/execution/simd_costs.hpp), and prints the current value
// next to each.
//
// A line ends with the ratios that it comes from: at each size, the time of the algorithm for small sizes over that of
// the other, the median of alternating rounds (for threads: the best of each). The measured constant is the size that
// separates the ratios below a bound from those above with the fewest exceptions.
#include "bench/machine/multiply_adds.hpp"
#include "bench/machine/quantile.hpp"
#include "bench/machine/timed_body.hpp"
#include "mole/execution/simd_costs.hpp"
#include "mole/execution/thread_pool.hpp"
#include "mole/kernel/dot_products.hpp"
#include "mole/kernel/panel.hpp"
#include "tests/support/random_matrix.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <utility>
#include <vector>

namespace {

using mole::Index;
using Costs = mole::SimdCosts;
using Arch = xsimd::default_arch;
using Panel = mole::kernel::Panel<Arch, float>;
namespace kernel = mole::kernel;

/// y = x w^T both ways.   x [rows x d], w [columns x d]
class Product {
 public:
  Product(Index rows, Index columns, Index d)
      : x_(support::random_matrix<float>(rows, d, 1)),
        w_(support::random_matrix<float>(columns, d, 2)),
        y_(rows, columns) {
    for (Index n = 0; n < rows; ++n) {
      in_.push_back(x_.view().row_data(n));
      out_.push_back(y_.view().row_data(n));
    }
  }

  void by_dots() {
    kernel::DotProducts<Arch, float>{}(in_.data(), x_.rows(), w_.data(), w_.cols(), w_.rows(), w_.cols(), out_.data());
  }

  void by_panels() {
    std::vector<float*> to = out_;
    for (Index o = 0; o < w_.rows(); o += Panel::width) {
      const Index width = std::min(Panel::width, w_.rows() - o);
      for (Index k = 0; k < w_.cols(); k += Panel::depth) {
        const Index depth = std::min(Panel::depth, w_.cols() - k);
        panel_.pack_transposed(w_.view().row_data(o) + k, w_.cols(), depth, width);
        kernel::OuterProducts<Arch, float>{}(kernel::GatheredFactors<float>{in_.data(), k}, panel_.rows(), true, depth,
                                             x_.rows(), width, kernel::GatheredRows<float>{to.data()}, k > 0);
      }
      for (float*& row : to) row += width;
    }
  }

 private:
  mole::Matrix<float> x_, w_, y_;
  Panel panel_;
  std::vector<const float*> in_;
  std::vector<float*> out_;
};

/// Time of a / time of b.
double ratio(const std::function<void()>& a, const std::function<void()>& b, bench::Clock clock) {
  const bench::TimedBody first(a, 0.005, clock), second(b, 0.005, clock);
  std::vector<double> ratios;
  for (int round = 0; round < 7; ++round) {
    const double seconds = first.seconds();
    ratios.push_back(seconds / second.seconds());
  }
  return bench::median(ratios);
}

/// The same from the best slices: a neighbor on the second processor can only slow them down.
double ratio_of_best(const std::function<void()>& a, const std::function<void()>& b, bench::Clock clock) {
  const bench::TimedBody first(a, 0.001, clock), second(b, 0.001, clock);
  double best = 1e9, other = 1e9;
  for (int round = 0; round < 30; ++round) {
    best = std::min(best, first.seconds());
    other = std::min(other, second.seconds());
  }
  return best / other;
}

/// Sizes, and at each how much longer the algorithm for small sizes takes.
using Ratios = std::vector<std::pair<double, double>>;

/// The size at which ratios pass `bound`; 0 if none does.
double crossing(const Ratios& ratios, double bound) {
  std::size_t best = 0, fewest = ratios.size() + 1;
  for (std::size_t first = 0; first <= ratios.size(); ++first) {
    std::size_t exceptions = 0;
    for (std::size_t i = 0; i < ratios.size(); ++i) exceptions += (ratios[i].second > bound) != (i >= first);
    if (exceptions < fewest) best = first, fewest = exceptions;
  }
  return best < ratios.size() ? ratios[best].first : 0;
}

void print(const char* what, const Ratios& ratios, double bound, double today) {
  const double measured = crossing(ratios, bound);
  std::printf("%-58s %8.0f%s today %-7.0f", what, measured, measured == 0 ? " (never)" : "        ", today);
  for (const auto& [size, value] : ratios) std::printf(" %.0f: %.2f", size, value);
  std::printf("\n");
  std::fflush(stdout);
}

void rows_worth_a_panel(const char* what, Index columns, Index d, double today) {
  Ratios ratios;
  for (const Index rows : {4, 8, 12, 16, 24, 32, 48, 64, 96, 128}) {
    Product product(rows, columns, d);
    ratios.emplace_back(rows, ratio([&] { product.by_dots(); }, [&] { product.by_panels(); }, bench::thread_clock));
  }
  print(what, ratios, 1, today);
}

/// Operations per task from which two threads are worth it, and from which they are well used.
void work_worth_a_thread(double today) {
  const mole::ThreadPool pool(2);
  Ratios ratios;
  for (int rounds = 50; rounds < 100'000; rounds *= 2) {
    const bench::MultiplyAdds<float> adds{rounds};
    const auto task = [adds](Index) {
      const volatile float used = adds();
      static_cast<void>(used);
    };
    const auto both = [&] {
      task(0);
      task(1);
    };
    ratios.emplace_back(adds.flops(), ratio_of_best(
                                          both, [&] { pool.parallel_for(2, task); }, bench::wall_clock));
  }
  print("task_work: operations, two threads beat one", ratios, 1, today);
  print("task_work: ..., two are 1.8 times as fast", ratios, 1.8, today);
}

/// Rows that repay a panel which so many ranks fill only partly.
double rows_for(Index ranks) {
  return double(Costs::rows_for_a_panel * Panel::width) / double(std::min(ranks, Panel::width));
}

}  // namespace

int main() {
  double load = 0;
  getloadavg(&load, 1);
  std::printf("load %.2f; task_work needs two free processors\n", load);
  rows_worth_a_panel("product_nt: rows, 768 x 768", 768, 768, Costs::rows_for_a_panel);
  rows_worth_a_panel("product_nt: rows, 2048 x 2048", 2048, 2048, Costs::rows_for_a_panel);
  rows_worth_a_panel("project: rows, 4 ranks, d = 768", 4, 768, rows_for(4));
  rows_worth_a_panel("project: rows, 16 ranks, d = 768", 16, 768, rows_for(16));
  rows_worth_a_panel("project: rows, 16 ranks, d = 4096", 16, 4096, rows_for(16));
  rows_worth_a_panel("project: rows, 64 ranks, d = 768", 64, 768, rows_for(64));
  work_worth_a_thread(Costs::task_work);
}
