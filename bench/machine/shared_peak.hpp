// SPDX-License-Identifier: MIT
// SharedPeak: arithmetic and read bandwidth of several threads of this machine together.
#pragma once

#include "bench/machine/peak.hpp"
#include "mole/execution/thread_pool.hpp"

#include <memory>
#include <thread>

namespace bench {

/// The limits of Peak for several threads together, in time that passes, each reading a share of the bytes. More
/// threads than processors have the limits of as many as there are. Threads share memory and, on most machines, the
/// last cache, so bandwidth is less than so many times that of one.
template <class T>
class SharedPeak {
 public:
  static double flops(int threads) {
    static std::map<int, double> known;
    return measured_once(known, processors_of(threads), [](int count) {
      const MultiplyAdds<T> body{500'000};
      const mole::ThreadPool pool(count);
      return count * body.flops() / best_seconds(pool, count, [&](Index) { return body(); });
    });
  }

  static double bandwidth(int threads, double bytes) {
    static std::map<std::pair<int, double>, double> known;
    const double size = Peak<T>::rounded(bytes);
    return measured_once(known, std::pair(processors_of(threads), size), [](const auto& key) {
      const auto [count, all] = key;
      std::vector<std::unique_ptr<ReadBuffer<T>>> shares;
      double read = 0;
      for (int i = 0; i < count; ++i) {
        shares.push_back(std::make_unique<ReadBuffer<T>>(std::size_t(all / count)));
        read += shares.back()->bytes();
      }
      const int reads = std::max(1, int(4e6 / all));
      const mole::ThreadPool pool(count);
      return reads * read / best_seconds(pool, count, [&](Index i) {
               T sum = 0;
               for (int r = 0; r < reads; ++r) sum += (*shares[std::size_t(i)])();
               return sum;
             });
    });
  }

 private:
  using Index = mole::Index;

  static int processors_of(int threads) {
    return std::clamp(threads, 1, std::max(1, int(std::thread::hardware_concurrency())));
  }

  template <class Known, class Key, class Measure>
  static double measured_once(Known& known, const Key& key, Measure measure) {
    const auto [found, unknown] = known.try_emplace(key);
    if (unknown) found->second = measure(key);
    return found->second;
  }

  template <class F>
  static double best_seconds(const mole::ThreadPool& pool, int tasks, F f) {
    double best = 1e9;
    for (int run = 0; run < 15; ++run) {
      const double begin = wall_clock();
      pool.parallel_for(tasks, [&](Index i) {
        const volatile T used = f(i);
        static_cast<void>(used);
      });
      best = std::min(best, wall_clock() - begin);
    }
    return best;
  }
};

}  // namespace bench
