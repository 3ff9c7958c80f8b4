// SPDX-License-Identifier: MIT
// Checks the goals of the library on this machine, one line per goal; exits with 1 if any is missed.
//
//   goals [--only SUBSTRING] [--rounds N] [--json FILE]
//
// A value is the median of rounds; each round times both sides of a ratio in turn, so that a busy neighbor affects
// both.
// In brackets: the quartiles. Takes some minutes on an idle machine.
#include "bench/arguments.hpp"
#include "bench/goals/goal.hpp"
#include "bench/machine/quantile.hpp"

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <sstream>

namespace {

using bench::Goal;

struct Result {
  const Goal* goal;
  int width;
  double value, low, high;

  bool met() const { return goal->met(value, width); }
  const char* bound() const { return goal->bound == bench::Bound::at_least ? ">=" : "<="; }
  long d() const { return Goal::widths[width]; }
};

Result measured(const Goal& goal, int width, int rounds) {
  const bench::Round round = goal.measure({goal.subject, goal.tokens, Goal::widths[width]});
  std::vector<double> values;
  for (int r = 0; r < rounds; ++r) values.push_back(round());
  return {&goal, width, bench::median(values), bench::quantile(values, 0.25), bench::quantile(values, 0.75)};
}

std::string title(const Goal& goal, int width) {
  std::ostringstream text;
  text << goal.text << ", T = " << goal.tokens << ", d = " << Goal::widths[width];
  return text.str();
}

void print(const Result& result) {
  std::printf("%-54s %7.3f [%.3f %.3f]   goal %s %.2f   %s\n", title(*result.goal, result.width).c_str(), result.value,
              result.low, result.high, result.bound(), result.goal->goal[result.width],
              result.met() ? "met" : "MISSED");
  std::fflush(stdout);
}

void write(std::ostream& out, const Result& result) {
  out << "{\"goal\": \"" << result.goal->text << "\", \"T\": " << result.goal->tokens << ", \"d\": " << result.d()
      << ", \"value\": " << result.value << ", \"quartiles\": [" << result.low << ", " << result.high
      << "], \"bound\": \"" << result.bound() << "\", \"of\": " << result.goal->goal[result.width]
      << ", \"met\": " << (result.met() ? "true" : "false") << "}\n";
}

/// The load of the machine, since figures of two threads need two free processors.
void print_machine() {
  double load = 0;
  getloadavg(&load, 1);
  const bench::Round bare = bench::bare_arithmetic_on_two_threads();
  std::vector<double> speeds;
  for (int round = 0; round < 5; ++round) speeds.push_back(bare());
  std::printf("load %.2f; bare arithmetic on two threads: %.2f times as fast as on one\n", load, bench::median(speeds));
}

/// The number of goals missed.
int check(const bench::Arguments& arguments) {
  std::ofstream json;
  if (!arguments.text("json").empty()) {
    json.open(arguments.text("json"));
    if (!json) throw std::runtime_error("cannot write " + arguments.text("json"));
  }
  print_machine();
  int checked = 0, missed = 0;
  for (const Goal& goal : bench::goals())
    for (int width = 0; width < 3; ++width) {
      if (goal.goal[width] == 0 || title(goal, width).find(arguments.text("only")) == std::string::npos) continue;
      const Result result = measured(goal, width, arguments.number("rounds"));
      print(result);
      if (json.is_open()) write(json, result);
      ++checked;
      missed += !result.met();
    }
  print_machine();
  std::printf("%d of %d goals met\n", checked - missed, checked);
  if (checked == 0) throw std::invalid_argument("--only leaves no goal");
  return missed;
}

}  // namespace

int main(int count, char** values) {
  try {
    return check(bench::Arguments(count, values, {{"only", ""}, {"rounds", "9"}, {"json", ""}})) == 0 ? 0 : 1;
  } catch (const std::exception& error) {
    std::cerr << "goals: " << error.what() << "\n";
    return 2;
  }
}
