// SPDX-License-Identifier: MIT
// Result, Server: clients, batches and swaps, for a few seconds.
#pragma once

#include "serve/latencies.hpp"
#include "serve/model.hpp"
#include "serve/options.hpp"
#include "serve/request_queue.hpp"

#include <mole/serve/adapter_table.hpp>

#include <functional>

namespace serve {

/// What became of the requests of one mix, served in one way.
struct Result {
  Mix mix = Mix::skewed;
  Way way = Way::grouped;
  double seconds = 0;
  Latencies latencies;  // from entering the queue to the end of the batch
  long batches = 0;
  long refused = 0;         // whose adapter was gone
  std::size_t waiting = 0;  // when time was over
  long swaps = 0;
  double rows = 0, row_seconds = 0;  // of full batches, without clients and queue

  double capacity() const { return rows / row_seconds; }
  double per_second() const { return double(latencies.total()) / seconds; }
  double mean_batch() const { return double(latencies.total()) / double(std::max(batches, 1L)); }
};

class Server {
 public:
  explicit Server(const Options& options);

  /// Full batches for a moment, which add to result.rows.
  void measure_capacity(Result& result);
  /// Throws std::runtime_error if the ways differ in what they compute.
  void check_ways();
  /// Requests at `rate` a second for some seconds, which add to the result. Calls show(result so far) about five times
  /// a second.
  void run(Result& result, double rate, double seconds, const std::function<void(const Result&)>& show);

 private:
  void fill_batch(Mix mix, mole::AdapterBatch<float>& batch);

  Options options_;
  mole::AdapterTable<float> table_;
  Model model_;
};

}  // namespace serve
