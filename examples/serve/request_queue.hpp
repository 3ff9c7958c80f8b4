// SPDX-License-Identifier: MIT
// Request, RequestQueue: what clients wait for.
#pragma once

#include <mole/serve/served_adapter.hpp>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

namespace serve {

using Clock = std::chrono::steady_clock;

inline double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// One row of a batch. It keeps the version of its adapter that there was when it came; null for the base alone.
struct Request {
  Clock::time_point came;
  std::shared_ptr<const mole::ServedAdapter<float>> adapter;
};

class RequestQueue {
 public:
  void push(Request request) {
    const std::lock_guard lock(mutex_);
    waiting_.push_back(std::move(request));
    if (waiting_.size() == 1) some_.notify_one();
  }
  /// Waits for a request, and takes up to `most` of those that wait; none once the queue is closed.
  void take(std::size_t most, std::vector<Request>& taken) {
    taken.clear();
    std::unique_lock lock(mutex_);
    some_.wait(lock, [&] { return closed_ || !waiting_.empty(); });
    while (!closed_ && !waiting_.empty() && taken.size() < most) {
      taken.push_back(std::move(waiting_.front()));
      waiting_.pop_front();
    }
  }
  void close() {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    some_.notify_all();
  }
  std::size_t waiting() const {
    const std::lock_guard lock(mutex_);
    return waiting_.size();
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable some_;
  std::deque<Request> waiting_;
  bool closed_ = false;
};

}  // namespace serve
