// SPDX-License-Identifier: MIT
// TorchCall, TorchFunction: a forward of a layer as a node in a graph of libtorch's autograd.
#pragma once

#include "mole/core/pass.hpp"
#include "mole/interop/torch/torch_core.hpp"

#include <torch/autograd.h>
#include <torch/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole::detail {

/// One forward, and what it leaves for a backward.
template <class T>
struct TorchCall : torch::CustomClassHolder {
  TorchCall(std::shared_ptr<TorchCore<T>> layer_, const Pass& pass_)
      : core(std::move(layer_)), pass(pass_), renewals(core->renewals) {}

  /// x [N x I] -> {y [N x O]}, or {y, the auxiliary loss}
  torch::autograd::variable_list run(const torch::Tensor& x) {
    const torch::Tensor y = torch::empty({x.size(0), std::int64_t(core->layer.out())}, torch_type<T>);
    forward(x, y);
    if (!core->auxiliary_loss) return {y};
    return {y, torch::scalar_tensor(core->auxiliary_loss(work->inside.trace()), torch_type<T>)};
  }
  void forward(const torch::Tensor& x, const torch::Tensor& y) {
    work = core->work_for(x.size(0));
    core->layer.forward(torch_view<const T>(x), torch_view<T>(y), work->inside, pass);
    x_data = x.data_ptr();
  }
  /// The workspace holds a forward of x without its backward, whether by then it is spent or x has moved.
  void renew(const torch::Tensor& x) {
    if (work && x_data == x.data_ptr()) return;
    forward(x, torch::empty({x.size(0), std::int64_t(core->layer.out())}, torch_type<T>));
    if (core->auxiliary_loss) core->auxiliary_loss(work->inside.trace());
  }
  /// The losses have added their gradients to the trace; autograd wants them times d_loss.
  void scale_auxiliary_loss(T d_loss) {
    if (!core->auxiliary_loss || d_loss == T(1)) return;
    Trace<T>& trace = work->inside.trace();
    const auto scale = [d_loss](std::span<T> numbers) {
      for (T& number : numbers) number = d_loss == T(0) ? T(0) : number * d_loss;
    };
    for (const View<T> matrix : {trace.d_logits(), trace.d_scores()})
      for (Index n = 0; n < matrix.rows(); ++n) scale(matrix.row(n));
    scale(trace.d_gate());
  }

  std::shared_ptr<TorchCore<T>> core;
  Pass pass;
  std::uint64_t renewals;
  std::shared_ptr<typename TorchCore<T>::Work> work;  // none after a backward
  const void* x_data = nullptr;
};

/// A TorchCall with the backward of its layer. Inputs: x, parameters, and what else backward reads; outputs as
/// TorchCall::run().
template <class T>
struct TorchFunction : torch::autograd::Function<TorchFunction<T>> {
  using Context = torch::autograd::AutogradContext;
  using Tensors = torch::autograd::variable_list;
  using Call = c10::intrusive_ptr<TorchCall<T>>;

  static Tensors forward(Context* context, const torch::Tensor& x, torch::TensorList others, const Call& call) {
    Tensors saved{x};
    saved.insert(saved.end(), others.begin(), others.end());
    context->save_for_backward(std::move(saved));
    context->set_materialize_grads(false);
    context->saved_data["call"] = torch::IValue::make_capsule(call);
    return call->run(x);
  }

  static Tensors backward(Context* context, const Tensors& d_outputs) {
    require(!torch::GradMode::is_enabled(), ErrorCode::not_trainable,
            "TorchLinear: expected a backward without create_graph, found one with: gradients have none of their own");
    // Throws where x or a parameter was written to since forward.
    const Tensors saved = context->get_saved_variables();
    const Call call = c10::static_intrusive_pointer_cast<TorchCall<T>>(context->saved_data["call"].toCapsule());
    TorchCore<T>& core = *call->core;
    require(call->renewals == core.renewals, ErrorCode::order,
            "TorchLinear: expected the parameters of forward, found others, from a file or another tensor");
    const torch::Tensor& x = saved.front();
    call->renew(x);
    const bool has_d_loss = d_outputs.size() > 1 && d_outputs[1].defined();
    call->scale_auxiliary_loss(has_d_loss ? d_outputs[1].template item<T>() : T(0));

    const Index out = core.layer.out();
    const torch::Tensor d_y = d_outputs[0].defined() ? rows_of<T>("the gradient of y", d_outputs[0], out)
                                                     : torch::zeros({x.size(0), std::int64_t(out)}, torch_type<T>);
    Tensors results(saved.size() + 1);  // the last one is of the call
    if (context->needs_input_grad(0)) results[0] = torch::zeros(x.sizes(), torch_type<T>);
    const View<T> d_x = results[0].defined() ? torch_view<T>(results[0]) : View<T>();
    const std::size_t parameters = core.layout.tensors.size();
    bool trains = false;
    for (std::size_t i = 1; i < saved.size(); ++i) trains |= context->needs_input_grad(i);
    if (saved.size() > parameters + 1) require_learns(!context->needs_input_grad(parameters + 1), "weight");
    const auto work = std::exchange(call->work, nullptr);  // is spent, even if backward throws
    if (!trains) {
      core.layer.backward(torch_view<const T>(x), torch_view<const T>(d_y), d_x, core.without_gradients, work->inside);
      return results;
    }
    const auto gradients = core.zero_gradients();
    core.layer.backward(torch_view<const T>(x), torch_view<const T>(d_y), d_x, *gradients, work->inside);
    std::size_t place = 0;
    core.layer.for_each_tensor(
        [&](std::string_view name, View<T>, View<T> gradient) {
          if (!context->needs_input_grad(++place)) return;
          require_learns(bool(gradient), name);
          // Not copied: the memory is taken again when autograd and the optimizer have let go of it.
          results[place] = torch::from_blob(
              gradient.data(), {gradient.rows(), gradient.cols()}, [gradients](void*) {}, torch_type<T>);
        },
        *gradients);
    return results;
  }

 private:
  static void require_learns(bool learns, std::string_view name) {
    require(learns, ErrorCode::not_trainable,
            "TorchLinear: expected requires_grad of parameters that learn, found it of ", name,
            ", whose gradient the layer does not compute");
  }
};

}  // namespace mole::detail

#include "mole/core/macros_on.hpp"
