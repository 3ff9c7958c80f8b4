// SPDX-License-Identifier: MIT
// A guitar amplifier as a plug-in would run it. A mixture of LoRA experts learns another tone for a frozen model of an
// amplifier; then a thread that may not allocate, lock or call the system plays through it, 64 samples at a time,
// frozen and as the layer itself, while the tone is switched from outside. Exit code 1 if that thread did what it
// should not.
//
//   hosts_plugin [allocation | lock | system_call]      does so on purpose, to show that it is noticed
#include "hosts/real_time_check.hpp"

#include <mole/mole.hpp>

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <mutex>
#include <numbers>
#include <string>
#include <thread>
#include <vector>

namespace {

using mole::Index;
constexpr Index taps = 16, buffer = 64;
constexpr double rate = 48000;
using Frozen = mole::FixedLinear<float, taps, taps, 4, 4, 2>;  // In, Out, Rank, Experts, K

/// The host's own model: y = readout . tanh(W (the last 16 samples)), a linear layer with something around it.
struct Amplifier {
  mole::Matrix<float> weight{taps, taps};
  std::array<float, std::size_t(taps)> readout{};

  Amplifier() {
    mole::Rng rng(3);
    fill_uniform(weight.view(), 0.6f, rng);
    for (float& number : readout) number = float(mole::unit_interval(rng()) - 0.5);
  }
  float output(const float* hidden) const {
    float sum = 0;
    for (std::size_t o = 0; o < readout.size(); ++o) sum += readout[o] * std::tanh(hidden[o]);
    return sum;
  }
};

/// Two strings, plucked again every half a second.
float guitar(Index sample) {
  const double t = double(sample) / rate, since = std::fmod(t, 0.5), turn = 2 * std::numbers::pi * t;
  return float(std::exp(-6 * since) * (0.7 * std::sin(110 * turn) + 0.5 * std::sin(277.2 * turn)));
}

/// What the experts learn: an amplifier that clips what is loud.
float lead_tone(float clean, float in) {
  return std::abs(in) > 0.3f ? std::clamp(3 * clean, -0.4f, 0.4f) : 1.5f * clean;
}

/// Rows of the last 16 samples.
mole::Matrix<float> windows(Index first, Index count) {
  mole::Matrix<float> x(count, taps);
  for (Index n = 0; n < count; ++n)
    for (Index i = 0; i < taps; ++i) x(n, i) = guitar(first + n - i);
  return x;
}

template <class Layer>
double train(const Amplifier& amplifier, Layer& layer) {
  constexpr Index tokens = 512;
  auto work = layer.workspace(tokens);
  auto gradients = layer.gradients();
  mole::AdamW adamw({.learning_rate = 3e-3, .weight_decay = 0});
  mole::Matrix<float> hidden(tokens, taps), clean(tokens, taps), d_hidden(tokens, taps);
  double loss = 0;
  for (int step = 0; step < 400; ++step) {
    const auto x = windows(1000 + step % 40 * 600, tokens);
    mole::Simd<>{}.product_nt(x, amplifier.weight, clean.view());
    set_zero(gradients);
    layer.forward(x, hidden, work, {.training = true, .step = std::uint64_t(step)});
    loss = 0;
    for (Index n = 0; n < tokens; ++n) {
      const float* const row = hidden.view().row_data(n);
      const float goal = lead_tone(amplifier.output(clean.view().row_data(n)), x(n, 0));
      const float error = amplifier.output(row) - goal;
      loss += double(error) * error / tokens;
      for (Index o = 0; o < taps; ++o) {
        const float slope = std::tanh(row[o]);
        d_hidden(n, o) = 2 * error / tokens * amplifier.readout[std::size_t(o)] * (1 - slope * slope);
      }
    }
    layer.backward(x, d_hidden, {}, gradients, work);
    adamw.step(layer, gradients);
    if (step % 100 == 0) std::printf("step %3d  loss %.5f\n", step, loss);
  }
  return loss;
}

/// One buffer of sound at a time, handed over by two counters: the device asks for the next, the thread answers.
struct Device {
  std::array<float, std::size_t(buffer)> in{}, out{};
  std::atomic<Index> asked{0}, answered{0};

  static constexpr Index last = -1;
};

/// Plays `buffers` buffers through `process(in, out)` on a thread of its own. Seconds of each, sorted.
template <class Process>
std::vector<double> play(Index buffers, Process process, const std::string& fault, auto between) {
  Device device;
  std::atomic<bool> ready{false}, trapped{false};
  std::mutex mutex;
  std::vector<float> grown;
  std::vector<double> seconds(std::size_t(buffers), 0.0);
  std::thread audio([&] {
    trapped = real_time::trap_system_calls();
    ready = true;
    for (Index done = 0;;) {
      const Index asked = device.asked.load(std::memory_order_acquire);
      if (asked == Device::last) return;
      if (asked == done) continue;
      {
        const real_time::Section section;
        const auto begin = std::chrono::steady_clock::now();  // reads a page that the kernel shares: no system call
        process(device.in.data(), device.out.data());
        const auto end = std::chrono::steady_clock::now();
        seconds[std::size_t(asked - 1)] = std::chrono::duration<double>(end - begin).count();
        if (fault == "allocation") grown.resize(std::size_t(1000 * asked));
        if (fault == "lock") std::lock_guard{mutex};
        if (fault == "system_call") static_cast<void>(write(1, "", 0));
      }
      done = asked;
      device.answered.store(done, std::memory_order_release);
    }
  });
  while (!ready) std::this_thread::yield();
  if (!trapped) std::puts("this system cannot trap system calls: only allocations and locks are counted");

  for (Index b = 1; b <= buffers; ++b) {
    for (Index n = 0; n < buffer; ++n) device.in[std::size_t(n)] = guitar((b - 1) * buffer + n);
    between(b);
    device.asked.store(b, std::memory_order_release);
    while (device.answered.load(std::memory_order_acquire) != b) std::this_thread::yield();
    for (const float number : device.out)
      if (!std::isfinite(number)) std::puts("not a finite sample");
  }
  device.asked.store(Device::last, std::memory_order_release);
  audio.join();
  std::ranges::sort(seconds);
  return seconds;
}

void print(const char* what, const std::vector<double>& seconds) {
  const double budget = double(buffer) / rate;
  std::printf("%-28s %6.1f us a buffer, 99 of 100 within %6.1f, longest %6.1f; there are %.0f us\n", what,
              1e6 * seconds[seconds.size() / 2], 1e6 * seconds[seconds.size() * 99 / 100], 1e6 * seconds.back(),
              1e6 * budget);
}

}  // namespace

int main(int arguments, char** argument) {
  const std::string fault = arguments > 1 ? argument[1] : "";
  const Amplifier amplifier;
  mole::Rng rng(1);
  auto layer = mole::mola({.experts = 4, .rank = 4, .k = 2}, mole::DenseBase{amplifier.weight}, rng);
  const Frozen clean = mole::freeze<Frozen>(layer);  // B is 0: the amplifier as it was
  const double loss = train(amplifier, layer);
  std::printf("trained    loss %.5f\n", loss);
  const Frozen lead = mole::freeze<Frozen>(layer);

  // The foot switch: both tones outlive the thread, so a pointer is all that changes.
  std::atomic<const Frozen*> tone{&clean};
  std::array<float, std::size_t(taps + buffer - 1)> past{};  // newest last
  const auto frozen = [&](const float* in, float* out) {
    const Frozen& chosen = *tone.load(std::memory_order_acquire);
    std::copy_n(in, buffer, past.end() - buffer);
    for (Index n = 0; n < buffer; ++n) {
      std::array<float, std::size_t(taps)> x, hidden;
      for (Index i = 0; i < taps; ++i) x[std::size_t(i)] = past[std::size_t(taps - 1 + n - i)];
      chosen.forward(x.data(), hidden.data());
      out[n] = amplifier.output(hidden.data());
    }
    std::copy(past.end() - (taps - 1), past.end(), past.begin());
  };
  const auto switched = [&](Index b) { tone.store(b % 50 < 25 ? &clean : &lead, std::memory_order_release); };
  print("frozen, tones switched", play(1000, frozen, fault, switched));

  // The layer itself, which a control thread could go on training: a workspace per thread, and no more.
  auto work = layer.workspace(buffer);
  mole::Matrix<float> x(buffer, taps), hidden(buffer, taps);
  past.fill(0);
  const auto whole = [&](const float* in, float* out) {
    std::copy_n(in, buffer, past.end() - buffer);
    for (Index n = 0; n < buffer; ++n)
      for (Index i = 0; i < taps; ++i) x(n, i) = past[std::size_t(taps - 1 + n - i)];
    layer.forward(x, hidden, work);
    for (Index n = 0; n < buffer; ++n) out[n] = amplifier.output(hidden.view().row_data(n));
    std::copy(past.end() - (taps - 1), past.end(), past.begin());
  };
  print("the layer itself", play(1000, whole, "", [](Index) {}));

  const real_time::Violations found = real_time::violations();
  std::printf("in the audio thread: %lld allocations and frees, %lld locks, %lld system calls",
              static_cast<long long>(found.allocations), static_cast<long long>(found.locks),
              static_cast<long long>(found.system_calls));
  std::puts(found.system_calls > 0 ? (" (the last: " + std::to_string(found.system_call) + ")").c_str() : "");
  return found.any() ? 1 : 0;
}
