// SPDX-License-Identifier: MIT
// What the handles of mole.h hold, and guarded(), through which every function passes.
#pragma once

#include "mole/c/mole.h"
#include "mole/c/preset.hpp"
#include "mole/core/error.hpp"
#include "mole/core/matrix.hpp"
#include "mole/layer/any_linear.hpp"
#include "mole/layer/parameter_layout.hpp"
#include "mole/optim/adamw.hpp"

#include <functional>
#include <memory>
#include <new>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>

#include "mole/core/macros_off.hpp"

/// An AnyLinear, and the numbers that it shares with others if it has made these: a layer to walks, bind_parameters()
/// and checkpoints. Its walks are const, as those of const functions only read.
struct mole_layer {
  using Scalar = float;
  using Visitor = mole::AnyLinear<float>::Visitor;
  using Place = mole::AnyLinear<float>::Place;

  mole_layer(mole::AnyLinear<float> layer, mole::c::LayerThreads its_threads)
      : any(std::move(layer)), threads(std::move(its_threads)) {}

  void for_each_tensor(const Visitor& f) const {
    any.for_each_tensor(f);
    if (owns_shared) shared->for_each_tensor(f);
  }
  template <class F>
  void for_each_state(F&& f) const {
    any.for_each_state(f);
    if (owns_shared)
      shared->for_each_state([&](std::string_view name, mole::StateSpan numbers) {
        std::visit([&](auto span) { f(name, span); }, numbers);
      });
  }
  void move_tensors(const Place& place) {
    any.move_tensors(place);
    if (owns_shared) shared->move_tensors(place);
  }
  void move_gradients(const Place& place) {
    any.move_gradients(place);
    if (owns_shared) shared->move_gradients(place);
  }
  void zero_gradients() {
    any.zero_gradients();
    if (owns_shared) shared->zero_gradients();
  }

  mutable mole::AnyLinear<float> any;
  mole::c::LayerThreads threads;  ///< those of its execution
  mole::ParameterLayout layout;
  std::string preset, options;
  std::shared_ptr<const mole::Matrix<float>> weight;  ///< a copy, where the experts compute with one
  bool holds_weight = false;                          ///< they compute with it, copy or not
  bool parameters_bound = false, gradients_bound = false;
  std::shared_ptr<mole::c::SharedNumbers> shared;
  bool owns_shared = false;
  std::function<void(mole::AnyLinear<float>&)> attach, renew_router;  ///< as in Site
};

struct mole_workspace {
  mutable mole::AnyLinear<float>::Workspace inside;
  mole::Index max_tokens;
  mole::Matrix<float> unread_y;  ///< of a recompute that is a forward; empty until the first of these
};

struct mole_gradients {
  mole::AnyLinear<float>::Gradients inside;
};

struct mole_adamw {
  mutable mole::AdamW<float> inside;
};

struct mole_threads {
  std::shared_ptr<const mole::c::Threads> inside;
};

namespace mole::c {

/// A pointer that must not be null was.
struct NullPointer : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Throws NullPointer, naming the function and its argument.
void require_pointer(const void* pointer, const char* function, const char* argument);

/// Keeps the text of what is being handled for mole_last_error(), and returns its status.
mole_status status_of_current_exception() noexcept;

/// f(), and what came of it.
template <class F>
mole_status guarded(F&& f) noexcept {
  try {
    f();
    return MOLE_OK;
  } catch (...) {
    return status_of_current_exception();
  }
}

/// f(), or `failed`.
template <class Result, class F>
Result guarded_or(Result failed, F&& f) noexcept {
  Result result = failed;
  return guarded([&] { result = f(); }) == MOLE_OK ? result : failed;
}

/// For tensors that no array is to hold any longer.
inline View<float> memory_of_its_own(std::string_view, View<float>) {
  return {};
}

}  // namespace mole::c

#include "mole/core/macros_on.hpp"
