// SPDX-License-Identifier: MIT
// Times the layer cases, plain layers of other libraries and the machine's limits; prints one JSON object per line.
// Made for bench/compare, which runs it in turn with programs in other languages.
//
//   layer_times [--d 768,2048] [--T 1,16,512] [--threads 1] [--rounds 5]
//
// Everything of one shape takes turns; seconds are medians of slices: CPU time of one thread, wall time of several.
#include "bench/arguments.hpp"
#include "bench/layers/bench_layer.hpp"
#include "bench/layers/plain_peers.hpp"
#include "bench/machine/peak.hpp"
#include "bench/machine/quantile.hpp"
#include "bench/machine/timed_body.hpp"

#include <cstdlib>
#include <iostream>
#include <sstream>

namespace {

using bench::Work;
using mole::Index;

struct Shape {
  Index tokens, d;
  int threads;
};

/// One line of output: what is timed, and what its object says besides its time.
struct Entry {
  std::string text;
  bench::TimedBody body;
  std::vector<double> seconds = {};
};

std::string text_of(const Shape& shape, std::string_view library, std::string_view one, std::string_view direction,
                    const Work& work, double ideal) {
  std::ostringstream text;
  text.precision(9);
  text << "\"library\": \"" << library << "\", \"case\": \"" << one << "\", \"direction\": \"" << direction
       << "\", \"T\": " << shape.tokens << ", \"d\": " << shape.d << ", \"threads\": " << shape.threads
       << ", \"flops\": " << work.flops << ", \"bytes\": " << work.bytes << ", \"ideal\": " << ideal;
  return text.str();
}

std::vector<Entry> entries(const Shape& shape) {
  constexpr double slice = 0.01;
  const bench::Clock clock = shape.threads == 1 ? bench::thread_clock : bench::wall_clock;
  std::vector<Entry> all;
  for (const bench::LayerCase& one : bench::layer_cases) {
    const bench::BenchLayer layer = bench_layer(one, shape.tokens, shape.d, shape.threads);
    const auto add = [&](const char* direction, const std::function<void()>& body, Work work, Work plain) {
      all.push_back({text_of(shape, "mole", one.name, direction, work, work.flops / plain.flops),
                     bench::TimedBody(body, slice, clock)});
    };
    add("forward", layer.forward, layer.cost.forward(), layer.cost.plain().forward());
    add("forward_backward", layer.forward_backward, layer.cost.forward_backward(),
        layer.cost.plain().forward_backward());
  }
  if (shape.threads == 1)
    for (const bench::PlainPeer& peer : bench::plain_peers()) {
      const Work work = bench::LayerCost{shape.tokens, shape.d}.forward();
      all.push_back({text_of(shape, peer.name, "plain", "forward", work, 1),
                     bench::TimedBody(peer.forward(shape.tokens, shape.d), slice, clock)});
    }
  return all;
}

void print_times(const Shape& shape, int rounds) {
  std::vector<Entry> all = entries(shape);
  for (int round = 0; round < rounds; ++round)
    for (Entry& entry : all) entry.seconds.push_back(entry.body.seconds());
  for (const Entry& entry : all)
    std::cout << "{" << entry.text << ", \"seconds\": " << bench::median(entry.seconds) << "}" << std::endl;
}

void print_machine() {
  double load = 0;
  getloadavg(&load, 1);
  std::cout << "{\"library\": \"build\", \"compiler\": \"" BENCH_COMPILER "\", \"flags\": \"" BENCH_FLAGS
            << "\", \"load\": " << load << "}" << std::endl;
}

/// The limits of one thread for a weight [d x d].
void print_limits(int d) {
  std::cout << "{\"library\": \"machine\", \"d\": " << d << ", \"flops\": " << bench::Peak<float>::flops()
            << ", \"bandwidth\": " << bench::Peak<float>::bandwidth(4.0 * d * d) << "}" << std::endl;
}

void run(const bench::Arguments& arguments) {
  std::cout.precision(9);
  print_machine();
  for (const int d : arguments.numbers("d")) {
    print_limits(d);
    for (const int tokens : arguments.numbers("T"))
      print_times({tokens, d, arguments.number("threads")}, arguments.number("rounds"));
  }
}

}  // namespace

int main(int count, char** values) {
  try {
    run(bench::Arguments(count, values, {{"d", "768,2048"}, {"T", "1,16,512"}, {"threads", "1"}, {"rounds", "5"}}));
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "layer_times: " << error.what() << "\n";
    return 2;
  }
}
