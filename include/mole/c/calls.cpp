// SPDX-License-Identifier: MIT
// Workspaces, forward and backward, routing and losses.
#include "mole/c/handles.hpp"
#include "mole/core/checked_size.hpp"
#include "mole/loss/load_balance.hpp"
#include "mole/loss/router_z.hpp"

#include <algorithm>
#include <vector>

namespace mole::c {

template <>
struct Words<BalanceNorm> {
  static constexpr const char* words[] = {"one_at_uniform", "k_at_uniform", "without_experts", "k_without_experts"};
};
template <>
struct Words<BalanceCount> {
  static constexpr const char* words[] = {"all_choices", "first_choice", "first_choice_if_served", "gates"};
};
template <>
struct Words<BalanceScore> {
  static constexpr const char* words[] = {"scores", "above_threshold", "gates"};
};
template <>
struct Words<BalanceScope> {
  static constexpr const char* words[] = {"global", "sequence"};
};

namespace {

/// An array with an entry for each token, if there is one.
template <class T>
std::span<const T> per_token(const T* data, Index count) {
  return {data, data == nullptr ? 0 : std::size_t(count)};
}

Pass pass_of(const mole_pass* given, Index tokens, const char* function) {
  Pass pass;
  if (given == nullptr) return pass;
  pass.training = given->training != 0;
  pass.seed = given->seed, pass.layer = given->layer, pass.step = given->step, pass.first_token = given->first_token;
  pass.token_mask = per_token(given->token_mask, tokens);
  pass.routed = per_token(given->routed, tokens);
  pass.forced = per_token(given->forced, tokens);
  pass.labels = per_token(given->labels, tokens);
  if (given->allowed != nullptr)
    pass.allowed = per_token(given->allowed, checked_product(function, tokens, given->allowed_experts));
  require(given->sequences >= 0, ErrorCode::option, function, ": expected at least 0 sequences in the pass, found ",
          given->sequences);
  if (given->sequences > 0) require_pointer(given->sequence_begin, function, "pass->sequence_begin");
  pass.sequence_begin = per_token(given->sequence_begin, given->sequences);
  return pass;
}

/// Checks what all calls have; views may be made of `tokens` rows then.
void check_call(const mole_layer* layer, const mole_workspace* workspace, const float* x, Index tokens,
                const char* function) {
  require_pointer(layer, function, "layer");
  require_pointer(workspace, function, "workspace");
  require(tokens >= 0, ErrorCode::shape, function, ": expected at least 0 tokens, found ", tokens);
  require(tokens <= workspace->max_tokens, ErrorCode::capacity, function, ": expected at most the ",
          workspace->max_tokens, " tokens that the workspace is made for, found ", tokens);
  if (tokens > 0) require_pointer(x, function, "x");
}

/// The routing of the last forward, which has `finished`.
const Routing<float>& routing_of(const mole_workspace* workspace, const char* function) {
  require_pointer(workspace, function, "workspace");
  const Routing<float>& routing = workspace->inside.trace().routing;
  require(routing.finished(), ErrorCode::order, function, ": expected a forward in this workspace before, found none");
  return routing;
}

}  // namespace
}  // namespace mole::c

using namespace mole;
using namespace mole::c;

mole_status mole_workspace_create(const mole_layer* layer, mole_index max_tokens, mole_workspace** workspace) {
  return guarded([&] {
    constexpr const char* function = "mole_workspace_create";
    require_pointer(workspace, function, "workspace");
    *workspace = nullptr;
    require_pointer(layer, function, "layer");
    require(max_tokens >= 0, ErrorCode::option, function, ": expected at least 0 tokens, found ", max_tokens);
    *workspace = new mole_workspace{layer->any.new_workspace(max_tokens), max_tokens, {}};
  });
}

void mole_workspace_destroy(mole_workspace* workspace) {
  delete workspace;
}

mole_status mole_gradients_create(const mole_layer* layer, mole_gradients** gradients) {
  return guarded([&] {
    constexpr const char* function = "mole_gradients_create";
    require_pointer(gradients, function, "gradients");
    *gradients = nullptr;
    require_pointer(layer, function, "layer");
    require(layer->shared == nullptr, ErrorCode::option, function,
            ": expected a layer that shares no numbers, found one of ", layer->preset,
            ", which adds to those of its pool");
    *gradients = new mole_gradients{layer->any.new_gradients(layer->any.trainable())};
  });
}

void mole_gradients_destroy(mole_gradients* gradients) {
  delete gradients;
}

mole_status mole_gradients_set_zero(mole_gradients* gradients) {
  return guarded([&] {
    require_pointer(gradients, "mole_gradients_set_zero", "gradients");
    gradients->inside.set_zero();
  });
}

mole_status mole_layer_add_gradients(mole_layer* layer, mole_gradients* gradients) {
  return guarded([&] {
    constexpr const char* function = "mole_layer_add_gradients";
    require_pointer(layer, function, "layer");
    require_pointer(gradients, function, "gradients");
    std::vector<View<float>> added;
    layer->any.for_each_tensor([&](std::string_view, View<float>, View<float> gradient) { added.push_back(gradient); },
                               gradients->inside);
    std::size_t next = 0;
    layer->any.for_each_tensor([&](std::string_view name, View<float>, View<float> to) {
      const View<float> from = added[next++];
      require(bool(from) == bool(to), ErrorCode::order, function, ": expected gradients of the same tensors, found '",
              name, "' frozen in one of both");
    });
    next = 0;
    layer->any.for_each_tensor([&](std::string_view, View<float>, View<float> to) {
      const View<float> from = added[next++];
      for (Index r = 0; r < to.rows(); ++r)
        for (Index c = 0; c < to.cols(); ++c) to(r, c) += from(r, c);
    });
  });
}

mole_status mole_gradients_get(const mole_layer* layer, mole_gradients* gradients, float* array, mole_index size) {
  return guarded([&] {
    constexpr const char* function = "mole_gradients_get";
    require_pointer(layer, function, "layer");
    require_pointer(gradients, function, "gradients");
    require_pointer(array, function, "array");
    require_equal(ErrorCode::shape, "mole_gradients_get: numbers of the array", layer->layout.size, size);
    float* to = array;
    layer->any.for_each_tensor(
        [&](std::string_view, View<float> parameter, View<float> gradient) {
          const Index numbers = parameter.rows() * parameter.cols();
          if (gradient)
            std::copy_n(gradient.data(), numbers, to);
          else
            std::fill_n(to, numbers, 0.0f);
          to += numbers;
        },
        gradients->inside);
  });
}

// ---- calls

namespace {

/// [tokens x cols] with rows `stride` apart, 0 for rows without gaps.
template <class T>
View<T> rows_of(const char* function, const char* what, T* data, Index tokens, Index cols, Index stride) {
  require(stride == 0 || stride >= cols, ErrorCode::shape, function, ": expected a stride of 0 or at least ", cols,
          " for ", what, ", found ", stride);
  const Index distance = stride == 0 ? cols : stride;
  checked_product(function, checked_product(function, tokens, distance), Index(sizeof(T)));
  return {data, tokens, cols, distance};
}

mole_status forward(const char* function, const mole_layer* layer, const float* x, Index x_stride, float* y,
                    Index y_stride, Index tokens, const mole_pass* pass, mole_workspace* workspace) {
  return guarded([&] {
    check_call(layer, workspace, x, tokens, function);
    if (tokens > 0) require_pointer(y, function, "y");
    layer->any.forward(rows_of(function, "x", x, tokens, layer->any.in(), x_stride),
                       rows_of(function, "y", y, tokens, layer->any.out(), y_stride), workspace->inside,
                       pass_of(pass, tokens, function));
  });
}

mole_status recompute(const char* function, const mole_layer* layer, const float* x, Index x_stride, Index tokens,
                      const mole_pass* pass, mole_workspace* workspace) {
  return guarded([&] {
    check_call(layer, workspace, x, tokens, function);
    const View<const float> rows = rows_of(function, "x", x, tokens, layer->any.in(), x_stride);
    const Pass given = pass_of(pass, tokens, function);
    Matrix<float>& y = workspace->unread_y;
    if (y.cols() != layer->any.out() || y.empty()) {
      try {
        return layer->any.recompute(rows, workspace->inside, given);
      } catch (const Error& error) {  // experts that leave nothing without y
        if (error.code() != ErrorCode::not_trainable) throw;
        y = Matrix<float>(workspace->max_tokens, layer->any.out());
      }
    }
    layer->any.forward(rows, y.view().top(tokens), workspace->inside, given);
  });
}

struct BackwardRows {
  const float* x;
  Index x_stride;
  const float* d_y;
  Index d_y_stride;
  float* d_x;
  Index d_x_stride, tokens;
};

/// call(x, d_y, d_x) with views of the rows.
mole_status backward(const char* function, const mole_layer* layer, const BackwardRows& rows,
                     const mole_workspace* workspace, auto call) {
  return guarded([&] {
    check_call(layer, workspace, rows.x, rows.tokens, function);
    if (rows.tokens > 0) require_pointer(rows.d_y, function, "d_y");
    const Index in = layer->any.in();
    const View<float> d_x = rows_of(function, "d_x", rows.d_x, rows.tokens, in, rows.d_x_stride);
    call(rows_of(function, "x", rows.x, rows.tokens, in, rows.x_stride),
         rows_of(function, "d_y", rows.d_y, rows.tokens, layer->any.out(), rows.d_y_stride),
         rows.d_x == nullptr ? View<float>() : d_x);
  });
}

mole_status backward(const char* function, mole_layer* layer, const BackwardRows& rows, mole_workspace* workspace) {
  return backward(function, layer, rows, workspace, [&](View<const float> x, View<const float> d_y, View<float> d_x) {
    layer->any.backward(x, d_y, d_x, workspace->inside);
  });
}

mole_status backward_into(const char* function, const mole_layer* layer, const BackwardRows& rows,
                          mole_gradients* gradients, mole_workspace* workspace) {
  return backward(function, layer, rows, workspace, [&](View<const float> x, View<const float> d_y, View<float> d_x) {
    require_pointer(gradients, function, "gradients");
    layer->any.backward(x, d_y, d_x, gradients->inside, workspace->inside);
  });
}

}  // namespace

mole_status mole_forward(const mole_layer* layer, const float* x, float* y, mole_index tokens, const mole_pass* pass,
                         mole_workspace* workspace) {
  return forward("mole_forward", layer, x, 0, y, 0, tokens, pass, workspace);
}

mole_status mole_forward_strided(const mole_layer* layer, const float* x, mole_index x_stride, float* y,
                                 mole_index y_stride, mole_index tokens, const mole_pass* pass,
                                 mole_workspace* workspace) {
  return forward("mole_forward_strided", layer, x, x_stride, y, y_stride, tokens, pass, workspace);
}

mole_status mole_recompute(const mole_layer* layer, const float* x, mole_index tokens, const mole_pass* pass,
                           mole_workspace* workspace) {
  return recompute("mole_recompute", layer, x, 0, tokens, pass, workspace);
}

mole_status mole_recompute_strided(const mole_layer* layer, const float* x, mole_index x_stride, mole_index tokens,
                                   const mole_pass* pass, mole_workspace* workspace) {
  return recompute("mole_recompute_strided", layer, x, x_stride, tokens, pass, workspace);
}

mole_status mole_backward(mole_layer* layer, const float* x, const float* d_y, float* d_x, mole_index tokens,
                          mole_workspace* workspace) {
  return backward("mole_backward", layer, {x, 0, d_y, 0, d_x, 0, tokens}, workspace);
}

mole_status mole_backward_strided(mole_layer* layer, const float* x, mole_index x_stride, const float* d_y,
                                  mole_index d_y_stride, float* d_x, mole_index d_x_stride, mole_index tokens,
                                  mole_workspace* workspace) {
  return backward("mole_backward_strided", layer, {x, x_stride, d_y, d_y_stride, d_x, d_x_stride, tokens}, workspace);
}

mole_status mole_backward_into(const mole_layer* layer, const float* x, const float* d_y, float* d_x, mole_index tokens,
                               mole_gradients* gradients, mole_workspace* workspace) {
  return backward_into("mole_backward_into", layer, {x, 0, d_y, 0, d_x, 0, tokens}, gradients, workspace);
}

mole_status mole_backward_into_strided(const mole_layer* layer, const float* x, mole_index x_stride, const float* d_y,
                                       mole_index d_y_stride, float* d_x, mole_index d_x_stride, mole_index tokens,
                                       mole_gradients* gradients, mole_workspace* workspace) {
  return backward_into("mole_backward_into_strided", layer, {x, x_stride, d_y, d_y_stride, d_x, d_x_stride, tokens},
                       gradients, workspace);
}

// ---- routing and losses

mole_status mole_routing_sizes(const mole_workspace* workspace, mole_index* tokens, mole_index* experts,
                               mole_index* pairs, mole_index* nan_tokens) {
  return guarded([&] {
    const Routing<float>& routing = routing_of(workspace, "mole_routing_sizes");
    if (tokens != nullptr) *tokens = routing.tokens();
    if (experts != nullptr) *experts = routing.experts();
    if (pairs != nullptr) *pairs = routing.pairs();
    if (nan_tokens != nullptr) *nan_tokens = workspace->inside.trace().nan_tokens;
  });
}

mole_status mole_routing_of_token(const mole_workspace* workspace, mole_index token, mole_index* count,
                                  const int** experts, const float** gates) {
  return guarded([&] {
    constexpr const char* function = "mole_routing_of_token";
    const Routing<float>& routing = routing_of(workspace, function);
    require_pointer(count, function, "count");
    require(token >= 0 && token < routing.tokens(), ErrorCode::option, function, ": expected a token below ",
            routing.tokens(), ", found ", token);
    const std::span<const int> chosen = routing.experts_of(token);
    *count = Index(chosen.size());
    if (experts != nullptr) *experts = chosen.data();
    if (gates != nullptr) *gates = routing.gates_of(token).data();
  });
}

mole_status mole_routing_pairs(const mole_workspace* workspace, mole_index* first, mole_index tokens, int* experts,
                               float* gates, mole_index pairs) {
  return guarded([&] {
    const Routing<float>& routing = routing_of(workspace, "mole_routing_pairs");
    require_equal(ErrorCode::shape, "mole_routing_pairs: tokens", routing.tokens(), tokens);
    require_equal(ErrorCode::shape, "mole_routing_pairs: pairs", routing.pairs(), pairs);
    for (Index n = 0; n <= tokens && first != nullptr; ++n) first[n] = routing.first_pair(n);
    for (Index p = 0; p < pairs && experts != nullptr; ++p) experts[p] = routing.expert(p);
    if (gates != nullptr) std::ranges::copy(routing.gates(), gates);
  });
}

namespace {

void show_matrix(View<const float> matrix, const float** data, mole_index* columns, mole_index* stride) {
  if (data != nullptr) *data = matrix.data();
  if (columns != nullptr) *columns = matrix.cols();
  if (stride != nullptr) *stride = matrix.stride();
}

}  // namespace

mole_status mole_routing_logits(const mole_workspace* workspace, const float** logits, mole_index* columns,
                                mole_index* stride) {
  return guarded([&] {
    routing_of(workspace, "mole_routing_logits");
    show_matrix(workspace->inside.trace().logits(), logits, columns, stride);
  });
}

mole_status mole_routing_scores(const mole_workspace* workspace, const float** scores, mole_index* columns,
                                mole_index* stride) {
  return guarded([&] {
    routing_of(workspace, "mole_routing_scores");
    show_matrix(workspace->inside.trace().scores(), scores, columns, stride);
  });
}

mole_status mole_routing_loads(const mole_workspace* workspace, mole_index* loads, mole_index experts) {
  return guarded([&] {
    constexpr const char* function = "mole_routing_loads";
    const Routing<float>& routing = routing_of(workspace, function);
    require_pointer(loads, function, "loads");
    require_equal(ErrorCode::shape, "mole_routing_loads: experts", routing.experts(), experts);
    for (Index e = 0; e < experts; ++e) loads[e] = routing.load(e);
  });
}

mole_status mole_load_balance(mole_workspace* workspace, const char* options, double* value) {
  return guarded([&] {
    constexpr const char* function = "mole_load_balance";
    routing_of(workspace, function);
    require_pointer(value, function, "value");
    LoadBalanceOptions o;
    OptionReader f(function, options);
    f("coefficient", o.coefficient), f("norm", o.norm), f("count", o.count), f("score", o.score);
    f("scope", o.scope), f("k", o.k);
    f.end();
    *value = load_balance(workspace->inside.trace(), o);
  });
}

mole_status mole_router_z(mole_workspace* workspace, double coefficient, double* value) {
  return guarded([&] {
    routing_of(workspace, "mole_router_z");
    require_pointer(value, "mole_router_z", "value");
    *value = router_z(workspace->inside.trace(), {.coefficient = coefficient});
  });
}
