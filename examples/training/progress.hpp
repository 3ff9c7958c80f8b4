// SPDX-License-Identifier: MIT
#pragma once

// Says how far a training run is: a redrawn line on a terminal, a few plain lines elsewhere.

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <string>
#include <string_view>

#if defined(_WIN32)
#include <io.h>
#else
#include <unistd.h>
#endif

namespace training {

inline bool is_terminal(std::FILE* stream) {
#if defined(_WIN32)
  return _isatty(_fileno(stream)) != 0;
#else
  return isatty(fileno(stream)) != 0;
#endif
}

/// One run of `total` steps. On a terminal the line is redrawn about ten times a second; elsewhere there is a line at
/// every tenth of the run and no control character. The clock starts with the object, or with resume_at.
class Progress {
 public:
  Progress(std::string_view name, std::size_t total, std::FILE* stream = stderr)
      : name_(name), total_(std::max<std::size_t>(total, 1)), stream_(stream), terminal_(is_terminal(stream)) {}

  /// Does not count the steps before `step` into the speed.
  void resume_at(std::size_t step) {
    first_ = step;
    start_ = Clock::now();
  }

  /// After `step` steps of this run, `tokens` each; loss in whatever unit the program shows.
  void show(std::size_t step, std::size_t tokens, double loss) {
    const auto time = Clock::now();
    const bool last = step >= total_;
    const std::size_t tenth = step * 10 / total_;
    if (terminal_ ? !last && time - drawn_ < std::chrono::milliseconds(100) : tenth == tenth_) return;
    drawn_ = time;
    tenth_ = tenth;
    const double seconds = std::max(std::chrono::duration<double>(time - start_).count(), 1e-9);
    const double per_second = static_cast<double>(step - std::min(step, first_)) / seconds;
    const double left = per_second > 0 ? static_cast<double>(total_ - std::min(step, total_)) / per_second : 0;
    std::fprintf(stream_, "%s%-16s %s%5zu/%zu  loss %.3f  %7.0f tokens/s  %s left%s", terminal_ ? "\r\x1b[K" : "",
                 name_.c_str(), terminal_ ? bar(step).c_str() : "", step, total_, loss,
                 per_second * static_cast<double>(tokens), clock_time(left).c_str(), terminal_ && !last ? "" : "\n");
    std::fflush(stream_);
  }

 private:
  using Clock = std::chrono::steady_clock;

  [[nodiscard]] std::string bar(std::size_t step) const {
    constexpr std::size_t width = 24;
    const std::size_t filled = std::min(step, total_) * width / total_;
    return "[" + std::string(filled, '#') + std::string(width - filled, '.') + "] ";
  }

  static std::string clock_time(double seconds) {
    const auto whole = static_cast<long>(seconds + 0.5);
    const std::string rest = std::to_string(whole % 60);
    return std::to_string(whole / 60) + (rest.size() < 2 ? ":0" : ":") + rest;
  }

  std::string name_;
  std::size_t total_;
  std::FILE* stream_;
  bool terminal_;
  std::size_t first_ = 0;
  std::size_t tenth_ = 0;
  Clock::time_point start_ = Clock::now();
  Clock::time_point drawn_{};
};

}  // namespace training
