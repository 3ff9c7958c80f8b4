// SPDX-License-Identifier: MIT
// ExpertLinear: a linear layer with experts that serve a routing from the caller.
#pragma once

#include "mole/base/base_policy.hpp"
#include "mole/core/random.hpp"
#include "mole/core/state.hpp"
#include "mole/execution/default_execution.hpp"
#include "mole/expert/expert_policy.hpp"
#include "mole/layer/layer_parameters.hpp"
#include "mole/layer/layer_shape.hpp"
#include "mole/layer/workspace.hpp"

#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// y = base(x) + sum_e s_e g_e B_e (A_e x), with the gates g of a routing from outside: of another layer (k and v reuse
/// q's), from labels, from a classifier over the whole model (X-LoRA), or a replayed trace.
///
///   x, d_x [N x I]   y, d_y [N x O]   d_gate [pairs]
///
/// The layer is const in both directions: all that a call needs or leaves is in the caller's workspace, so threads may
/// share a layer if each has its own workspace. Gradients accumulate, d_x too; an empty d_x or d_gate is not wanted.
///
/// Calls check their arguments, in every build, before anything is written: Error(shape) for tensors, gradients and
/// passes that do not fit, and for results in the memory of what is read; Error(capacity) for a workspace that is too
/// small; Error(order) for a backward that does not follow a forward of this layer with this x and this routing.
/// Allocates in workspace() and gradients() only.
template <class Experts, class Base, class Execution = DefaultExecution>
class ExpertLinear {
 public:
  using Scalar = typename Experts::Scalar;
  using T = Scalar;
  using Gradients = ExpertParameters<Experts, Base>;
  using Workspace = ExpertWorkspace<Experts, Base>;

  static_assert(ExpertPolicy<Experts, Execution>,
                "mole: Experts do not model ExpertPolicy (mole/expert/expert_policy.hpp)");
  static_assert(BasePolicy<Base, Execution>, "mole: Base does not model BasePolicy (mole/base/base_policy.hpp)");
  static_assert(ExecutionPolicy<Execution, T>,
                "mole: Execution does not model ExecutionPolicy (mole/execution/execution_policy.hpp)");
  static_assert(std::is_same_v<T, typename Base::Scalar>, "mole: Experts and Base have different Scalars");

  /// Throws Error(shape) when the roles do not fit each other.
  ExpertLinear(Experts experts, Base base, Execution execution = {})
      : experts_(std::move(experts)), base_(std::move(base)), execution_(std::move(execution)) {
    shape();  // throws here already
  }

  Index in() const { return experts_.in(); }
  Index out() const { return experts_.out(); }
  /// A part that is changed in its sizes, or replaced, makes gradients from before invalid; workspaces adapt. From then
  /// on each call of this object, though not of a copy, checks the parts anew, which takes some hundred nanoseconds,
  /// and so does each call of a layer with a part that borrows parameters (borrows_parameters). A const layer,
  /// for_each_tensor() and for_each_state() show the same numbers, whose sizes cannot change.
  Experts& experts() { return shape_.may_change(), experts_; }
  Base& base() { return shape_.may_change(), base_; }
  /// Replaces the base by one of the same sizes: of a weight that the host has moved, or changed after it was packed.
  /// Throws Error(shape) for other sizes, and stays as it was.
  void set_base(Base base) {
    check_base(base);
    base_ = std::move(base);
    shape_ = {};
  }
  const Experts& experts() const { return experts_; }
  const Base& base() const { return base_; }
  const Execution& execution() const { return execution_; }

  /// Memory for calls of up to `max_tokens` tokens and `max_pairs` pairs of token and expert; 0 stands for the largest
  /// possible number. Serves every layer of this type that does not need more bytes; `bytes` asks for more at once.
  Workspace workspace(Index max_tokens, Index max_pairs = 0,
                      std::pmr::memory_resource* memory = std::pmr::get_default_resource(),
                      std::size_t bytes = 0) const {
    const std::uint64_t own = shape();
    return detail::workspace_in(memory, make_workspace(max_tokens, max_pairs), own, bytes);
  }
  /// Bytes that such a workspace takes from `memory`, known before it is made: a buffer of this size, aligned to
  /// Arena::line, holds it all.
  std::size_t workspace_bytes(Index max_tokens, Index max_pairs = 0) const {
    shape();
    return bytes_of(make_workspace(max_tokens, max_pairs));
  }

  /// Can the base learn? One that borrows its weight, or stores it in codes, cannot.
  static constexpr bool has_trainable_base = !std::is_same_v<ParametersOf<Base>, NoParameters>;

  /// Zero gradients for the parts that learn, empty ones for the others. Throws Error(not_trainable) for a base that
  /// cannot.
  Gradients gradients(TrainableParts trainable = {}) const {
    require(!trainable.base || has_trainable_base, ErrorCode::not_trainable,
            "gradients: expected a base with trainable tensors, found one that borrows or encodes its weight");
    Gradients gradients;
    if (trainable.experts) gradients.experts = zeros_like(ParametersOf<Experts>(parameters_of(experts_)));
    if (trainable.base) gradients.base = zeros_like(ParametersOf<Base>(parameters_of(base_)));
    return gradients;
  }

  /// Calls f(name, parameter, other...) with one View per tensor of the layer, for its parameters and each of `others`,
  /// such as gradients.
  template <class F, class... Others>
  void for_each_tensor(F&& f, Others&... others) {
    auto own = own_parameters();
    detail::for_each_view<Gradients>(f, own, others...);
  }

  /// Moves the numbers of each tensor to the memory that place(name, tensor) returns for it, a View of the tensor's
  /// shape without gaps, where they live from now on; an empty view stands for memory of the tensor's own. Throws
  /// Error(shape) for another shape, at the tensor that it belongs to: bind_parameters() checks before it moves any.
  template <class Place>
  void move_tensors(Place&& place) {
    auto own = own_parameters();
    detail::move_tensors<Gradients>(place, own);
  }

  /// Calls f(name, span) for all state that is no parameter: scales, frozen atoms and projections. A checkpoint holds
  /// both.
  template <class F>
  void for_each_state(F&& f) {
    for_each_state_within("experts", experts_, f);
    for_each_state_within("base", base_, f);
  }

  /// y = base(x) + what the experts of `routing` add.
  void apply(View<const T> x, const Routing<T>& routing, View<T> y, Workspace& work, const Pass& pass = {}) const {
    prepare(work);
    apply_in(work, x, routing, y, pass);
  }

  /// After apply() on the same workspace, with the same x and routing. Several layers that share a routing add to one
  /// d_gate.
  void apply_backward(View<const T> x, const Routing<T>& routing, View<const T> d_y, std::span<T> d_gate, View<T> d_x,
                      Gradients& gradients, Workspace& work) const requires TrainableExpertPolicy<Experts, Execution> {
    check_unchanged(work, shape());
    apply_backward_in(work, x, routing, d_y, d_gate, d_x, gradients);
  }

 protected:
  /// References to the parameters of the parts.
  auto own_parameters() {
    struct {
      decltype(parameters_of(std::declval<Experts&>())) experts;
      decltype(parameters_of(std::declval<Base&>())) base;
    } own{parameters_of(experts_), parameters_of(base_)};
    return own;
  }

  /// Lets `work` serve this layer, as whose workspace it was made or not.
  void prepare(Workspace& work) const {
    if (const std::uint64_t own = shape(); work.shape != own) adapt(work, own);
  }
  MOLE_COLD void adapt(Workspace& work, std::uint64_t shape) const {
    require(!work.routed, ErrorCode::order,
            "apply: expected a workspace of this layer, found that of a layer with a router, whose routing it holds");
    detail::lay_out_anew(work, make_workspace(work.max_tokens, work.asked_pairs), shape);
  }
  /// Throws unless the parts fit each other.
  void check_parts() const {
    detail::check_sizes(experts_);
    check_base(base_);
  }
  void check_base(const Base& base) const {
    detail::check_sizes(base);
    require_equal(ErrorCode::shape, "layer: inputs of the base", Index(experts_.in()), Index(base.in()));
    require_equal(ErrorCode::shape, "layer: outputs of the base", Index(experts_.out()), Index(base.out()));
  }
  /// What a workspace of this layer is laid out for. Throws unless the layer has parts, and these fit each other.
  std::uint64_t shape() const {
    return shape_.number(LayerShape::Of::experts, borrows, [this] {
      check_parts();
      return layout_of(make_workspace(3, 5));
    });
  }
  /// The layout of a small workspace, and how many experts a larger one has pairs for.
  std::uint64_t layout_of(const auto& make) const {
    Arena measure;
    make(measure);
    return mix_bits(measure.layout() ^ std::uint64_t(experts_.experts()));
  }
  /// Do experts or base refer to parameters that are not the layer's?
  static constexpr bool borrows = borrows_parameters<Experts> || borrows_parameters<Base>;

  static void check_unchanged(const Workspace& work, std::uint64_t shape) {
    require(work.shape == shape, ErrorCode::order,
            "backward: expected the workspace of a forward of this layer, found one of another, or parts of another "
            "size than in forward");
  }

  /// The execution adds the ranks of the experts while a tile of a linear base's result is in cache.
  static constexpr bool fuses = LinearBasePolicy<Base> && RankedExpertPolicy<Experts, Execution>;

  auto experts_call(Workspace& work) const {
    return Call<Execution, ScratchOf<Experts>>{execution_, work.pass, work.experts_scratch};
  }
  auto base_call(Workspace& work) const {
    return Call<Execution, ScratchOf<Base>>{execution_, work.pass, work.base_scratch};
  }

  /// apply() in a workspace that is laid out for this layer.
  void apply_in(Workspace& work, View<const T> x, const Routing<T>& routing, View<T> y, const Pass& pass) const {
    check_tokens(x, work);
    pass.check(x.rows(), experts_.experts());
    check_application(x, routing, y, work);
    work.pass = pass;
    add_experts(x, {}, routing, y, work);
  }

  /// apply_backward() after a forward in a workspace of this layer's shape.
  void apply_backward_in(Workspace& work, View<const T> x, const Routing<T>& routing, View<const T> d_y,
                         std::span<T> d_gate, View<T> d_x, Gradients& gradients) const {
    work.expert_calls.check("apply_backward", this, x, routing);
    check_backward(x, routing, d_y, d_gate, d_x, gradients);
    experts_backward(x, routing, d_y, d_gate, d_x, gradients, work, fuses_d_x(work.pass));
  }

  /// apply() after its checks; a `latent` that is not empty belongs to this x.
  void add_experts(View<const T> x, View<const T> latent, const Routing<T>& routing, View<T> y, Workspace& work) const {
    work.expert_calls.begin();
    if constexpr (fuses) {
      execution_.linear(x, base_.weights(), y, experts_.down(x, latent, routing, experts_call(work)));
    } else {
      base_.forward(x, y, base_call(work));
      experts_.forward(x, latent, routing, y, experts_call(work));
    }
    work.expert_calls.end(this, x, routing);
  }

  /// apply_backward() after its checks; d_x only where the caller does not add all shares together.
  void experts_backward(View<const T> x, const Routing<T>& routing, View<const T> d_y, std::span<T> d_gate, View<T> d_x,
                        Gradients& gradients, Workspace& work, bool fused) const {
    work.expert_calls.spend();
    const View<T> apart = fused ? View<T>{} : d_x;
    experts_.backward(x, routing, d_y, d_gate, apart, gradients.experts, experts_call(work));
    if constexpr (TrainableBasePolicy<Base, Execution>) base_.backward(x, d_y, apart, gradients.base, base_call(work));
    if (fused && d_x) add_d_x(d_y, routing, d_x, work);
  }

  /// May base, experts and a router add their shares of d_x in one pass over it? This saves one read and one write of
  /// d_x for each of them.
  bool fuses_d_x(const Pass& pass) const {
    if constexpr (fuses) return experts_.fuses_d_x(pass);
    return false;
  }
  /// If fuses_d_x(), after the backward of base and experts without d_x:   d_x += all shares
  void add_d_x(View<const T> d_y, const Routing<T>& routing, View<T> d_x, Workspace& work,
               const auto&... router) const {
    if constexpr (fuses)
      execution_.linear_backward(d_y, base_.weights(), d_x, experts_.d_x_terms(routing, experts_call(work)), router...);
  }

  // Views by reference: a copy on the stack is read before it can be forwarded, which costs as much as the checks.
  void check_tokens(const View<const T>& x, const Workspace& work) const {
    require_equal(ErrorCode::shape, "forward: columns of x", in(), x.cols());
    require(x.rows() <= work.max_tokens, ErrorCode::capacity, "forward: workspace made for ", work.max_tokens,
            " tokens, x has ", x.rows());
  }
  void check_output(const View<const T>& x, const View<const T>& y) const {
    require(y.rows() == x.rows() && y.cols() == out(), ErrorCode::shape, "forward: expected a y of [", x.rows(), " x ",
            out(), "], found [", y.rows(), " x ", y.cols(), "]");
    require(!overlap(x, y), ErrorCode::shape, "forward: expected y in other memory than x, found both in the same");
  }
  void check_application(const View<const T>& x, const Routing<T>& routing, const View<const T>& y,
                         const Workspace& work) const {
    check_output(x, y);
    require(routing.finished(), ErrorCode::order, "apply: expected a routing after finish(), found one before");
    require_equal(ErrorCode::shape, "apply: tokens of the routing", x.rows(), routing.tokens());
    require_equal(ErrorCode::shape, "apply: experts of the routing", Index(experts_.experts()), routing.experts());
    require(routing.pairs() <= work.room_for_pairs, ErrorCode::capacity, "apply: workspace made for ",
            work.room_for_pairs, " pairs of token and expert, the routing has ", routing.pairs());
  }
  void check_backward(const View<const T>& x, const Routing<T>& routing, const View<const T>& d_y,
                      std::span<const T> d_gate, const View<const T>& d_x, const Gradients& gradients) const {
    if constexpr (!TrainableBasePolicy<Base, Execution>)
      require(!d_x, ErrorCode::not_trainable, "backward: this base has no backward, so d_x must be an empty view");
    require(d_y.rows() == x.rows() && d_y.cols() == out(), ErrorCode::shape, "backward: expected a d_y of [", x.rows(),
            " x ", out(), "], found [", d_y.rows(), " x ", d_y.cols(), "]");
    check_d_x(x, d_x);
    require(!overlap(d_y, d_x), ErrorCode::shape,
            "backward: expected d_x in other memory than d_y, found both in the same");
    require(d_gate.empty() || Index(d_gate.size()) == routing.pairs(), ErrorCode::shape,
            "backward: expected a d_gate of ", routing.pairs(), " pairs, found ", d_gate.size());
    detail::require_gradients_of(experts_, gradients.experts, "experts");
    detail::require_gradients_of(base_, gradients.base, "base");
  }
  static void check_d_x(const View<const T>& x, const View<const T>& d_x) {
    if (!d_x) return;
    require(d_x.rows() == x.rows() && d_x.cols() == x.cols(), ErrorCode::shape, "backward: expected a d_x of [",
            x.rows(), " x ", x.cols(), "], found [", d_x.rows(), " x ", d_x.cols(), "]");
    require(!overlap(x, d_x), ErrorCode::shape,
            "backward: expected d_x in other memory than x, found both in the same");
  }

  Experts experts_;
  Base base_;
  [[no_unique_address]] Execution execution_;
  LayerShape shape_;

 private:
  auto make_workspace(Index max_tokens, Index max_pairs) const {
    const CallSize size{
        .tokens = max_tokens,
        .pairs = max_pairs > 0 ? max_pairs : checked_product("workspace", max_tokens, Index(experts_.experts())),
        .experts = experts_.experts()};
    size.check();
    return [this, size, max_pairs](Arena& arena) {
      Workspace work(experts_, base_, size, arena);
      work.asked_pairs = max_pairs;
      return work;
    };
  }
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
