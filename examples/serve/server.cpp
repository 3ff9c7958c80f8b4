// SPDX-License-Identifier: MIT
#include "serve/server.hpp"

#include <mole/core/error.hpp>

#include <atomic>
#include <cmath>
#include <stdexcept>
#include <thread>

namespace serve {

namespace {

mole::AdapterTable<float>::Options table_options(const Options& options) {
  return {.sites = std::vector<mole::AdapterSite>(std::size_t(options.layers), {options.width, options.width}),
          .max_adapters = options.adapters + 1,
          .max_rank = options.rank};
}

Clock::time_point moment(Clock::time_point begin, double seconds) {
  return begin + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

/// Sends requests of one client until time is over.
void send(double seconds, const mole::AdapterTable<float>& table, RequestQueue& queue, Traffic traffic, double rate,
          Clock::time_point begin, std::atomic<long>& refused) {
  double next = traffic.pause(rate);
  for (; next < seconds; next += traffic.pause(rate)) {
    std::this_thread::sleep_until(moment(begin, next));
    const int id = traffic.draw(next);
    auto adapter = id < 0 ? nullptr : table.find(id);
    if (id >= 0 && adapter == nullptr)
      ++refused;
    else
      queue.push({Clock::now(), std::move(adapter)});
  }
}

/// Replaces adapters in turn, and lets a guest come and go, until time is over; returns how often. What was replaced
/// comes back for the next one: loading is not what is measured.
long swap(const Options& options, double seconds, mole::AdapterTable<float>& table, Clock::time_point begin) {
  auto spare = std::make_shared<const mole::ServedAdapter<float>>(make_adapter(options, options.adapters, 1));
  const auto visitor = std::make_shared<const mole::ServedAdapter<float>>(make_adapter(options, options.adapters, 2));
  const int guest = options.adapters;
  long swaps = 0;
  for (double next; options.swaps > 0 && (next = double(swaps + 1) / options.swaps) < seconds; ++swaps) {
    std::this_thread::sleep_until(moment(begin, next));
    if (swaps % 8 == 3) {
      table.add(guest, visitor);
    } else if (swaps % 8 == 7) {
      table.remove(guest);
    } else {
      const int id = int(swaps % options.adapters);
      auto old = table.find(id);
      table.replace(id, std::move(spare));
      spare = std::move(old);
    }
  }
  if (table.find(guest)) table.remove(guest);
  return swaps;
}

}  // namespace

Server::Server(const Options& options) : options_(options), table_(table_options(options)), model_(options) {
  for (int id = 0; id < options_.adapters; ++id) table_.add(id, make_adapter(options_, id, 0));
}

void Server::fill_batch(Mix mix, mole::AdapterBatch<float>& batch) {
  Traffic traffic(mix, options_.adapters, options_.seed);
  std::vector<int> ids;
  while (Index(ids.size()) < batch.max_rows())
    if (const int id = traffic.draw(0); id < options_.adapters) ids.push_back(id);
  batch.begin(table_, ids);
}

void Server::measure_capacity(Result& result) {
  mole::AdapterBatch<float> batch(options_.batch);
  fill_batch(result.mix, batch);
  model_.forward(result.way, batch);
  const auto begin = Clock::now();
  long calls = 0;
  for (; calls < 3 || seconds_since(begin) < std::min(0.2, options_.seconds / 4); ++calls)
    model_.forward(result.way, batch);
  result.rows += double(calls) * options_.batch, result.row_seconds += seconds_since(begin);
}

void Server::check_ways() {
  mole::AdapterBatch<float> batch(options_.batch);
  fill_batch(Mix::skewed, batch);
  const View<const float> first = model_.forward(Way::grouped, batch);
  Matrix<float> expected(first.rows(), first.cols());
  copy(first, expected.view());
  for (const Way way : {Way::loop, Way::gather, Way::split}) {
    const View<const float> y = model_.forward(way, batch);
    for (Index n = 0; n < y.rows(); ++n)
      for (Index o = 0; o < y.cols(); ++o)
        if (!(std::abs(y(n, o) - expected(n, o)) <= 1e-3 * (1 + std::abs(expected(n, o)))))
          throw std::runtime_error("row " + std::to_string(n) + " of a batch differs between MultiAdapterLinear and " +
                                   std::string(name_of(way)));
  }
}

void Server::run(Result& result, double rate, double seconds, const std::function<void(const Result&)>& show) {
  const double seconds_before = result.seconds;
  RequestQueue queue;
  std::atomic<long> refused = 0;
  long swaps = 0;
  std::size_t waiting = 0;
  const auto begin = Clock::now();
  std::vector<std::thread> others;
  for (int c = 0; c < options_.clients; ++c)
    others.emplace_back([&, c] {
      Traffic traffic(result.mix, options_.adapters, options_.seed * 1000 + std::uint64_t(c));
      send(seconds, table_, queue, std::move(traffic), rate / options_.clients, begin, refused);
    });
  others.emplace_back([&] { swaps = swap(options_, seconds, table_, begin); });
  others.emplace_back([&] {
    std::this_thread::sleep_until(moment(begin, seconds));
    waiting = queue.waiting();
    queue.close();
  });

  mole::AdapterBatch<float> batch(options_.batch);
  std::vector<Request> requests;
  std::vector<const mole::ServedAdapter<float>*> adapters;
  auto shown = begin;
  while (queue.take(std::size_t(options_.batch), requests), !requests.empty()) {
    adapters.clear();
    for (const Request& request : requests) adapters.push_back(request.adapter.get());
    batch.begin(adapters);
    model_.forward(result.way, batch);
    batch.end();
    for (const Request& request : requests) result.latencies.add(seconds_since(request.came));
    ++result.batches;
    if (const auto now = Clock::now(); now - shown > std::chrono::milliseconds(200)) {
      shown = now;
      Result so_far = result;
      so_far.seconds = seconds_before + seconds_since(begin);
      show(so_far);
    }
  }
  for (std::thread& other : others) other.join();
  result.seconds += seconds_since(begin);
  result.refused += refused, result.swaps += swaps, result.waiting = std::max(result.waiting, waiting);
}

}  // namespace serve
