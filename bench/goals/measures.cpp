// SPDX-License-Identifier: MIT
#include "bench/goals/measures.hpp"

#include "bench/layers/bench_layer.hpp"
#include "bench/layers/coded_layer.hpp"
#include "bench/layers/frozen_layer.hpp"
#include "bench/machine/multiply_adds.hpp"
#include "bench/machine/read_buffer.hpp"
#include "bench/machine/timed_body.hpp"
#include "mole/execution/thread_pool.hpp"

#include <memory>

namespace bench {

namespace {

constexpr double slice = 0.02;  // long compared to a change of clock speed, short compared to other load

BenchLayer layer_of(const Subject& subject, int threads = 1) {
  return bench_layer(layer_case(subject.name), subject.tokens, subject.d, threads);
}

/// Time of a / time of b.
Round ratio(std::function<void()> a, std::function<void()> b, Clock clock = thread_clock) {
  return [first = TimedBody(std::move(a), slice, clock), second = TimedBody(std::move(b), slice, clock)] {
    const double seconds = first.seconds();
    return seconds / second.seconds();
  };
}

/// Bare multiply-adds: seconds an operation.
class Arithmetic {
 public:
  double seconds() const { return body_.seconds() / adds_.flops(); }

 private:
  MultiplyAdds<float> adds_{500'000};
  TimedBody body_{[adds = adds_] {
                    const volatile float used = adds();
                    static_cast<void>(used);
                  },
                  slice};
};

/// Bare reading of a buffer as large as the weight: seconds a byte.
class Reading {
 public:
  explicit Reading(Index d) : buffer_(std::make_shared<ReadBuffer<float>>(sizeof(float) * std::size_t(d * d))) {}
  double seconds() const { return body_.seconds() / buffer_->bytes(); }

 private:
  std::shared_ptr<ReadBuffer<float>> buffer_;
  TimedBody body_{[buffer = buffer_] {
                    const volatile float used = (*buffer)();
                    static_cast<void>(used);
                  },
                  slice};
};

LayerCase with_experts(std::string_view name, Index experts) {
  LayerCase one = layer_case(name);
  one.experts = experts;
  return one;
}

Round growth(const Subject& subject, Index from, Index to) {
  return ratio(bench_layer(with_experts(subject.name, to), subject.tokens, subject.d).apply,
               bench_layer(with_experts(subject.name, from), subject.tokens, subject.d).apply);
}

}  // namespace

Round share_of_flops(const Subject& subject) {
  const BenchLayer layer = layer_of(subject);
  return [body = TimedBody(layer.forward, slice), flops = layer.cost.forward().flops, bare = Arithmetic()] {
    const double seconds = body.seconds();
    return flops * bare.seconds() / seconds;
  };
}

Round share_of_bandwidth(const Subject& subject) {
  const BenchLayer layer = layer_of(subject);
  return [body = TimedBody(layer.forward, slice), bytes = layer.cost.forward().bytes, bare = Reading(subject.d)] {
    const double seconds = body.seconds();
    return bytes * bare.seconds() / seconds;
  };
}

Round share_of_roofline(const Subject& subject) {
  const BenchLayer layer = layer_of(subject);
  return [body = TimedBody(layer.forward, slice), work = layer.cost.forward(), arithmetic = Arithmetic(),
          reading = Reading(subject.d)] {
    const double seconds = body.seconds();
    return work.least_seconds(1 / arithmetic.seconds(), 1 / reading.seconds()) / seconds;
  };
}

Round over_plain(const Subject& subject) {
  return ratio(layer_of(subject).forward, layer_of({"plain", subject.tokens, subject.d}).forward);
}

Round both_ways_over_plain(const Subject& subject) {
  const std::function<void()> plain = layer_of({"plain", subject.tokens, subject.d}).forward;
  return ratio(layer_of(subject).forward_backward, [plain] {
    plain();
    plain();
  });
}

Round times_faster_than_f32(const Subject& subject) {
  return ratio(layer_of({"plain", subject.tokens, subject.d}).forward,
               coded_layer(subject.name, subject.tokens, subject.d));
}

Round growth_with_experts(const Subject& subject) {
  return growth(subject, 8, 1024);
}
Round growth_with_ranks(const Subject& subject) {
  return growth(subject, 64, 1024);
}

Round two_threads_over_one(const Subject& subject) {
  return ratio(layer_of(subject, 1).forward, layer_of(subject, 2).forward, wall_clock);
}
Round five_threads_over_two(const Subject& subject) {
  return ratio(layer_of(subject, 2).forward, layer_of(subject, 5).forward, wall_clock);
}

Round bare_arithmetic_on_two_threads() {
  const auto share = [](int rounds) {
    return [adds = MultiplyAdds<float>{rounds}](Index) {
      const volatile float used = adds();
      static_cast<void>(used);
    };
  };
  constexpr int rounds = 500'000;
  return ratio([one = share(rounds)] { one(0); },
               [pool = mole::ThreadPool(2), half = share(rounds / 2)] { pool.parallel_for(2, half); }, wall_clock);
}

}  // namespace bench
