// SPDX-License-Identifier: MIT
// TorchLinear: a layer as a module of libtorch.
#pragma once

#include "mole/base/base_policy.hpp"
#include "mole/core/bias_view.hpp"
#include "mole/core/trace.hpp"
#include "mole/interop/torch/torch_call.hpp"
#include "mole/interop/torch/torch_state.hpp"

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>
#include <torch/serialize.h>
#include <torch/types.h>

#include <concepts>
#include <cstdint>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// y = layer(x): any MixtureLinear or AnyLinear of T = float or double, on the CPU, where a torch::nn::Linear was.
///
///   x [..., I] of T   y [..., O]
///
///     mole::TorchLinear<float> layer(mole::mola(options, mole::DenseBase{weight}, rng));
///
/// Parameters have the names of the library (named_parameters(): "router.weight", "experts.lora_A"), and are parts of
/// one tensor that the layer computes with: what an optimizer writes is what the next forward reads. After torch::load,
/// set_data() or to() they may lie elsewhere; the next call copies them back into that tensor, or throws Error(option)
/// for another type or device. State that is no parameter, such as a balancing bias, is saved and loaded with them.
///
/// Gradients go through autograd, so that hooks, clipping and torch::autograd::grad() see them; they are not copied
/// either. Each forward has a workspace of its own until its backward, so that any number may be in flight, and what is
/// evaluated under torch::NoGradGuard in between changes nothing. A second backward of one graph computes its forward
/// again. One through gradients (create_graph) throws Error(not_trainable). Without gradients to compute, nothing is
/// kept. x and gradients of y that are transposed or expanded are copied once.
///
/// train() sets Pass::training, with a seed of libtorch's generator in each forward. Calls of one module from several
/// threads are fine while nobody changes its parameters, but for auxiliary losses.
template <class T>
class TorchLinearImpl : public torch::nn::Module {
 public:
  /// Computes with another weight from now on: any.set_base(...)
  using SetBase = std::function<void(AnyLinear<T>&, View<const T> weight, BiasView<T> bias)>;

  /// `weight` and `bias` are those of the layer's base, as tensors: they are frozen, kept alive, and saved as "weight"
  /// and "bias". When they move, or change, the base is made anew of them by `set_base`; without it the next forward
  /// throws Error(order).
  explicit TorchLinearImpl(AnyLinear<T> layer, torch::Tensor weight = {}, torch::Tensor bias = {},
                           SetBase set_base = {})
      : core_(std::make_shared<detail::TorchCore<T>>(std::move(layer))),
        weight_(std::move(weight)),
        bias_(std::move(bias)),
        set_base_(std::move(set_base)) {
    if (weight_.defined()) {
      check_weight();
      register_parameter("weight", weight_, false);
      if (bias_.defined()) register_parameter("bias", bias_, false);
      weight_seen_ = weight_now();
    }
    register_parts();
    saved_ = parameters_in_order_;
    if (weight_.defined()) saved_.push_back(weight_);
  }

  /// Of a layer of any type, whose base tells how it is made.
  template <class Layer>
  requires(!std::same_as<Layer, AnyLinear<T>> && std::same_as<typename Layer::Scalar, T>) explicit TorchLinearImpl(
      Layer layer, torch::Tensor weight = {}, torch::Tensor bias = {}, TrainableParts trainable = {})
      : TorchLinearImpl(AnyLinear<T>(std::move(layer), 1, trainable), std::move(weight), std::move(bias),
                        detail::base_setter<Layer>()) {}

  torch::Tensor forward(const torch::Tensor& x) {
    settle();
    const torch::Tensor rows = detail::rows_of<T>("x", x, core_->layer.in());
    Pass now = pass;
    now.training = is_training();
    if (now.training)
      now.seed = std::uint64_t(torch::randint(std::int64_t(1) << 62, {1}, torch::kInt64).item<std::int64_t>());
    const auto call = c10::make_intrusive<detail::TorchCall<T>>(core_, now);
    const auto results = torch::GradMode::is_enabled()
                             ? detail::TorchFunction<T>::apply(rows, torch::TensorList(saved_), call)
                             : call->run(rows);
    if (results.size() > 1) loss_ = results[1];
    std::vector<std::int64_t> sizes = x.sizes().vec();
    sizes.back() = core_->layer.out();
    return results[0].view(sizes);
  }

  /// Token masks, labels and so on of the next forwards; what its spans refer to must stay until their backwards.
  Pass pass;

  /// Calls loss(trace) after each forward: it returns a value, and adds its gradient to the trace, as the functions of
  /// mole/loss/ do. In training:
  ///     layer->set_auxiliary_loss([](auto& trace) { return load_balance(trace, {.coefficient = 0.01}); });
  ///     const torch::Tensor y = layer(x);  // first: its loss is that of the last forward
  ///     (criterion(y, goal) + layer->auxiliary_loss()).backward();
  void set_auxiliary_loss(std::function<double(Trace<T>&)> loss) { core_->auxiliary_loss = std::move(loss); }
  /// Of the last forward: a part of the graph. Undefined before, and where none was set.
  torch::Tensor auxiliary_loss() const { return loss_; }

  /// The layer inside, with the parameters as they are now: for files, surgery and statistics. Its sizes, and which
  /// parts of it learn, must stay.
  AnyLinear<T>& layer() {
    settle();
    return core_->layer;
  }

  void save(torch::serialize::OutputArchive& archive) const override {
    torch::nn::Module::save(archive);
    detail::save_state(core_->layer, archive);
  }
  void load(torch::serialize::InputArchive& archive) override {
    torch::nn::Module::load(archive);
    detail::load_state(core_->layer, archive);
    ++core_->renewals;
    settle();
  }

  /// With parameters, weight and bias of its own. Throws Error(option) for another device than the CPU.
  std::shared_ptr<torch::nn::Module> clone(
      const torch::optional<torch::Device>& device = torch::nullopt) const override {
    require(!device || device->is_cpu(), ErrorCode::option,
            "TorchLinear: clone: expected the CPU, found another device");
    settle();
    const torch::NoGradGuard no_grad;
    const auto copy_of = [](const torch::Tensor& tensor) { return tensor.defined() ? tensor.clone() : tensor; };
    const bool own = bool(set_base_);  // else both share the weight
    const auto copy = std::make_shared<TorchLinearImpl>(core_->layer.clone(), own ? copy_of(weight_) : weight_,
                                                        own ? copy_of(bias_) : bias_, set_base_);
    if (own && weight_.defined()) copy->renew_base();
    for (std::size_t i = 0; i < parameters_in_order_.size(); ++i)
      copy->parameters_in_order_[i].set_requires_grad(parameters_in_order_[i].requires_grad());
    copy->pass = pass;
    copy->core_->auxiliary_loss = core_->auxiliary_loss;
    copy->train(is_training());
    return copy;
  }

  void pretty_print(std::ostream& stream) const override {
    stream << "mole::TorchLinear(in=" << core_->layer.in() << ", out=" << core_->layer.out()
           << ", parameters=" << core_->layout.size << ")";
  }

 private:
  using WeightSeen = std::tuple<const void*, std::int64_t, const void*, std::int64_t>;

  /// A module for each part, so that "experts.lora_A" is the name that it gets: names themselves have no dots.
  void register_parts() {
    std::vector<bool> trained;
    core_->layer.for_each_tensor([&](auto, auto, auto gradient) { trained.push_back(bool(gradient)); });
    for (std::size_t i = 0; i < trained.size(); ++i) {
      torch::nn::Module* part = this;
      std::string name = core_->layout.tensors[i].name;
      for (std::size_t dot; (dot = name.find('.')) != std::string::npos; name.erase(0, dot + 1)) {
        const std::string child = name.substr(0, dot);
        const auto children = part->named_children();
        const auto* found = children.find(child);
        part = found ? found->get() : part->register_module(child, std::make_shared<torch::nn::Module>(child)).get();
      }
      // Not views for autograd, each of which would count the writes to all.
      parameters_in_order_.push_back(part->register_parameter(name, core_->home_of(i).variable_data(), trained[i]));
    }
  }

  /// Before a call: parameters that are elsewhere come home, and a weight that is elsewhere becomes that of the base.
  void settle() const {
    for (std::size_t i = 0; i < parameters_in_order_.size(); ++i) {
      torch::Tensor parameter = parameters_in_order_[i];
      const T* const home = core_->numbers.template data_ptr<T>() + core_->layout.tensors[i].first;
      if (parameter.scalar_type() != detail::torch_type<T> || parameter.data_ptr() != home) come_home(parameter, i);
    }
    if (weight_.defined() && weight_seen_ != weight_now()) renew_base();
  }
  void come_home(torch::Tensor& parameter, std::size_t place) const {
    const torch::NoGradGuard no_grad;
    const torch::Tensor home = core_->home_of(place).variable_data();
    const std::string& name = core_->layout.tensors[place].name;
    detail::require_tensor_of<T>(name, parameter);
    require(parameter.sizes() == home.sizes(), ErrorCode::shape, "TorchLinear: expected ", name, " of ",
            detail::text_of(home.sizes()), ", found ", detail::text_of(parameter.sizes()));
    home.copy_(parameter);
    parameter.set_data(home);
    ++core_->renewals;
  }

  void check_weight() const {
    const View<const T> weight = torch_view<const T>(weight_);
    require(weight.rows() == core_->layer.out() && weight.cols() == core_->layer.in(), ErrorCode::shape,
            "TorchLinear: expected a weight of [", core_->layer.out(), " x ", core_->layer.in(), "], found [",
            weight.rows(), " x ", weight.cols(), "]");
    const BiasView<T> bias = torch_bias<T>(bias_);
    if (bias_.defined())
      require_equal(ErrorCode::shape, "TorchLinear: size of the bias", core_->layer.out(), bias.size());
  }
  WeightSeen weight_now() const {
    const auto version = [](const torch::Tensor& tensor) {
      return tensor.defined() && !tensor.is_inference() ? std::int64_t(tensor._version()) : 0;
    };
    return {weight_.data_ptr(), version(weight_), bias_.defined() ? bias_.data_ptr() : nullptr, version(bias_)};
  }
  void renew_base() const {
    require(bool(set_base_), ErrorCode::order,
            "TorchLinear: expected the weight as it was when the layer was made, found it elsewhere or changed: this "
            "base is not made anew without a set_base");
    check_weight();
    set_base_(core_->layer, torch_view<const T>(weight_), torch_bias<T>(bias_));
    weight_seen_ = weight_now();
    ++core_->renewals;
  }

  std::shared_ptr<detail::TorchCore<T>> core_;
  std::vector<torch::Tensor> parameters_in_order_;  // of the layout
  std::vector<torch::Tensor> saved_;                // these, and the weight, must be in backward what they were
  torch::Tensor weight_, bias_, loss_;
  mutable WeightSeen weight_seen_;
  SetBase set_base_;
};

/// Holds a TorchLinearImpl, as torch::nn::Linear does its own.
template <class T>
class TorchLinear : public torch::nn::ModuleHolder<TorchLinearImpl<T>> {
 public:
  using torch::nn::ModuleHolder<TorchLinearImpl<T>>::ModuleHolder;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
