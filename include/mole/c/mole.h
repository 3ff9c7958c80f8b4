/* SPDX-License-Identifier: MIT */
/* mole for C: layers of experts behind opaque handles. C89, and any C++. */
#ifndef MOLE_C_MOLE_H
#define MOLE_C_MOLE_H

#include <stddef.h>

/* What a shared library exports; a host of another linker may define its own. */
#ifndef MOLE_API
#ifdef __GNUC__
#define MOLE_API __attribute__((visibility("default")))
#else
#define MOLE_API
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* A layer computes, in float,

       y = W x + b + what its experts add        x [N x I]   y [N x O]

   for N tokens, the rows of x. I and O are those of the weight W [O x I]; rows of x and y lie without gaps, but for
   the functions ..._strided().

   Results. Every function that can fail returns a mole_status; MOLE_OK is 0. mole_last_error() has the text. A call
   that fails has written nothing, unless its comment says otherwise. Functions that return a number return -1 where
   they fail, those that return a pointer return NULL. A NULL where something is expected is MOLE_NULL_POINTER, never a
   crash. A handle that was destroyed, an array that is too short, or one that was freed while a layer borrows it, is
   the caller's mistake, which no function can see.

   Ownership. What ..._create() or ..._clone() makes, the caller destroys; destroying NULL does nothing. A layer may be
   destroyed before its workspaces and gradients, and threads before the layers that run on them. Texts and pointers
   that a function returns belong to the handle that it was asked of.

   Threads. Functions that take a const mole_layer may be called for one layer from any number of threads at once, as
   long as each thread has a workspace of its own, and gradients of its own (or none). All other functions change
   their layer: while one runs, no other call may use that layer. Different handles are independent of each other,
   except that layers may share an array of the caller's, or a pool (mole_layer_create_sharing). */

typedef ptrdiff_t mole_index;

typedef enum mole_status {
  MOLE_OK = 0,
  MOLE_SHAPE = 1,         /* two sizes that must agree differ */
  MOLE_OPTION = 2,        /* a name is not known, or an option lies outside its range */
  MOLE_FILE = 3,          /* a file cannot be read or written, or does not hold what its format demands */
  MOLE_CAPACITY = 4,      /* a workspace is for fewer tokens, or a buffer for fewer bytes */
  MOLE_NOT_MERGEABLE = 5, /* a mixture that depends on the token has no single weight */
  MOLE_NOT_TRAINABLE = 6, /* gradients of what has none */
  MOLE_ORDER = 7,         /* calls in an order without meaning, such as a backward without its forward */
  MOLE_UNKNOWN_ID = 8,    /* an id that nothing has */
  MOLE_DUPLICATE_ID = 9,  /* an id that something else has already */
  MOLE_NULL_POINTER = 100,
  MOLE_OUT_OF_MEMORY = 101,
  MOLE_UNEXPECTED = 102 /* anything else that was thrown inside */
} mole_status;

/* A few words for a status, such as "shape"; "unknown status" for other numbers. Never NULL. */
MOLE_API const char* mole_status_text(int status);

/* The whole message of the last call on this thread that failed: what was expected, and what was found. Empty at first.
   Valid until the next failing call on this thread. Cut after 1023 bytes. */
MOLE_API const char* mole_last_error(void);

/* "0.1.0" */
MOLE_API const char* mole_version(void);

/* ---- presets: the published methods by name */

MOLE_API mole_index mole_preset_count(void);
/* "lora", "mola" ..., in the order of the alphabet; NULL from mole_preset_count() on. */
MOLE_API const char* mole_preset_name(mole_index number);
/* All keys of a preset with their defaults: "experts=8 rank=8 k=2 alpha=16 ... seed=0". What they mean is in
   mole/method/`<preset>`.hpp. NULL for a name that is not known, or NULL. Valid for ever. */
MOLE_API const char* mole_preset_options(const char* preset);

/* 1 for presets of mole_layer_create_block(), 0 for those of mole_layer_create(), -1 for a name that is not known. */
MOLE_API int mole_preset_is_block(const char* preset);

/* ---- layers */

typedef struct mole_layer mole_layer;

typedef enum mole_layout {
  MOLE_OUT_IN = 0, /* [O x I], row by row: a row for each output, as in torch.nn.Linear and llm.c */
  MOLE_IN_OUT = 1  /* [I x O], row by row; also a column-major [O x I] */
} mole_layout;

/* The frozen weight that a layer adds experts to. Set all of it to zero first, for fields that come later. */
typedef struct mole_weight {
  const float* data;  /* never written */
  mole_index out, in; /* O and I */
  int layout;         /* a mole_layout */
  mole_index stride;  /* numbers from one row of `data` to the next; 0: rows without gaps */
  const float* bias;  /* O numbers, or NULL */
  /* 0: data and bias are borrowed, and must stay where they are while the layer and its clones live. What is written
        there, the next call computes with. [O x I] only.
     1: both are copied once into the form that is computed with: faster, above all for few tokens and many calls, for
        twice the weight's memory. The caller may free its own. */
  int pack;
} mole_weight;

/* Makes a layer. `options` are pairs key=value with spaces, commas, semicolons or line ends between them, such as
   "experts=8 rank=16 alpha=32 dropout=0.1 seed=1"; keys that are not named have their defaults, and NULL or "" is all
   defaults. Every preset has the key seed, of the initial numbers. Flags are 0 or 1, lists 16:16:8, choices words.
   Equal seeds give equal numbers on any machine.

   A fresh layer gives W x + b, except by presets that their papers start otherwise (mofme, mofme_uar, prompt_bank,
   vblora, nola of variant vit).

   dora and oft compute with the weight itself: packed, they keep a copy of it more. prompt_bank has no weight, but its
   sizes: data may be NULL there. poly and mtl_lora serve each token by its task, which mole_pass.forced names.

   MOLE_OPTION for an unknown preset or key, a bad number, or one out of range; the text lists what was expected.
   MOLE_SHAPE for sizes that do not fit. *layer is NULL after a failure. */
MOLE_API mole_status mole_layer_create(const char* preset, const char* options, const mole_weight* weight,
                                       mole_layer** layer);
/* A layer whose experts are whole feed-forward blocks, of the presets mixlora and mixtral:

       y = sum of gate_e down_e(silu(gate_e x) * up_e x)      gate, up [H x I]   down [O x H]

   The experts of mixlora are the block of these weights, each with LoRAs of its own; a fresh layer is the block.
   mixtral has weights of its own, which learn, and takes sizes alone: data is NULL, and O is I. mole_layer_in() is I,
   mole_layer_out() O; all functions take these layers, but for mole_layer_set_weight() and mole_layer_merge(). */
MOLE_API mole_status mole_layer_create_block(const char* preset, const char* options, const mole_weight* gate,
                                             const mole_weight* up, const mole_weight* down, mole_layer** layer);
/* A layer of mos, vblora or diffora that uses the pool, or the gates, of `owner`, a layer of the same preset and the
   same options but for `layer`, `module`, `seed` and those that no pool has. What it learns of the pool is added to the
   gradients of `owner`, among whose tensors the pool is, as "pool...": calls that change either of them may not run at
   once. The pool lives as long as a layer that uses it, and so must an array that `owner` binds it to. A layer from
   mole_layer_create() has a pool of its own, and may be an owner. MOLE_OPTION for other presets. */
MOLE_API mole_status mole_layer_create_sharing(const char* preset, const char* options, const mole_weight* weight,
                                               mole_layer* owner, mole_layer** layer);
/* A copy with numbers of its own, also where those of `layer` live with the caller; zero gradients; the same weight and
   the same threads: mole_layer_set_threads() of either is for both. MOLE_OPTION for mos, vblora and diffora. */
MOLE_API mole_status mole_layer_clone(const mole_layer* layer, mole_layer** copy);
MOLE_API void mole_layer_destroy(mole_layer* layer);

MOLE_API mole_index mole_layer_in(const mole_layer* layer);
MOLE_API mole_index mole_layer_out(const mole_layer* layer);
MOLE_API const char* mole_layer_preset(const mole_layer* layer);
/* All of its options, also those that were not named, as mole_layer_create() takes them. */
MOLE_API const char* mole_layer_options(const mole_layer* layer);

/* Of another weight of the same sizes: where the caller moved it, or changed one that was packed. MOLE_OPTION for
   presets whose experts hold the weight (dora, oft, mofme, mofme_uar) or that have none (prompt_bank). */
MOLE_API mole_status mole_layer_set_weight(mole_layer* layer, const mole_weight* weight);
/* Which parts learn from now on, 0 or 1 each; both at first, but for arrow, whose router does not. With 0, 0 a layer
   that only infers keeps no gradients. Those that there are start at zero, in memory of the layer's own: bind them
   again. The gradient of a part that does not learn is NULL: neither computed nor touched. */
MOLE_API mole_status mole_layer_set_trainable(mole_layer* layer, int router, int experts);
/* weight += what the experts add, [O x I] without gaps: of a copy of W this makes a plain linear layer that computes
   the same. MOLE_NOT_MERGEABLE, with the reason, for a layer whose experts depend on the token. */
MOLE_API mole_status mole_layer_merge(const mole_layer* layer, float* weight);

/* ---- trained numbers: one array, in the order of mole_layer_tensor() */

typedef struct mole_tensor {
  const char* name;      /* "router.weight", "experts.lora_A" ... */
  mole_index rows, cols; /* row by row, without gaps */
  mole_index first;      /* where it begins in the array of all numbers */
  float* parameter;
  float* gradient; /* NULL: frozen */
} mole_tensor;

/* How many tensors, and how many numbers they have together, frozen ones included. */
MOLE_API mole_index mole_layer_tensor_count(const mole_layer* layer);
MOLE_API mole_index mole_layer_size(const mole_layer* layer);
/* One of them. Its pointers hold until the layer is bound, released, made trainable otherwise, or destroyed; its name
   until the layer is destroyed. */
MOLE_API mole_status mole_layer_tensor(mole_layer* layer, mole_index number, mole_tensor* tensor);
/* visit(user, tensor) for each of them. */
typedef void (*mole_visitor)(void* user, const mole_tensor* tensor);
MOLE_API mole_status mole_layer_walk(mole_layer* layer, mole_visitor visit, void* user);

typedef enum mole_numbers {
  MOLE_OF_LAYER = 0, /* the layer's numbers are written to the array */
  MOLE_OF_ARRAY = 1  /* what stands in the array already, read from a file, say */
} mole_numbers;

/* Parameters, or gradients, live in an array of the caller's from now on, mole_layer_size() numbers that must outlive
   the layer or a release: what the caller's optimizer writes there, the next call computes with. `whose` is a
   mole_numbers. Places of frozen gradients stay untouched. MOLE_SHAPE for another `size`; MOLE_OPTION for moram, whose
   tensors are parts of larger ones: copy them. */
MOLE_API mole_status mole_layer_bind_parameters(mole_layer* layer, float* parameters, mole_index size, int whose);
MOLE_API mole_status mole_layer_bind_gradients(mole_layer* layer, float* gradients, mole_index size, int whose);
/* Both in memory of the layer's own again, with the same numbers: before the caller frees its arrays. */
MOLE_API mole_status mole_layer_release(mole_layer* layer);

/* For arrow, whose router is computed from its experts: anew, of these as they are now, after a load or a step.
   MOLE_OPTION for other presets. */
MOLE_API mole_status mole_layer_renew_router(mole_layer* layer);
/* For diffora, whose gates are those of a whole model: the largest ceil(ratio * modules) of each of its layers are 1
   from now on, the others 0; nothing moves them then. A negative ratio makes them as they were trained again. For the
   layer that made the gates, and those that share them. MOLE_OPTION for a ratio beyond 1, and other presets. */
MOLE_API mole_status mole_layer_discretize(mole_layer* layer, double ratio);

/* Copies, for callers that do not bind. MOLE_SHAPE unless `size` is mole_layer_size(). Gradients of frozen tensors are
   read as 0. */
MOLE_API mole_status mole_layer_get_parameters(const mole_layer* layer, float* parameters, mole_index size);
MOLE_API mole_status mole_layer_set_parameters(mole_layer* layer, const float* parameters, mole_index size);
MOLE_API mole_status mole_layer_get_gradients(const mole_layer* layer, float* gradients, mole_index size);
MOLE_API mole_status mole_layer_zero_gradients(mole_layer* layer);

/* ---- calls */

/* The memory of a call: what a forward leaves for its backward. One for each forward in flight. Calls allocate nothing.
   A workspace serves any layer of the same preset that needs no more memory than the one it was made for. */
typedef struct mole_workspace mole_workspace;
MOLE_API mole_status mole_workspace_create(const mole_layer* layer, mole_index max_tokens, mole_workspace** workspace);
MOLE_API void mole_workspace_destroy(mole_workspace* workspace);

/* Gradients beside those in the layer: one for each thread that trains it. What is frozen in the layer when they are
   made is frozen in them. MOLE_OPTION for mos, vblora and diffora. */
typedef struct mole_gradients mole_gradients;
MOLE_API mole_status mole_gradients_create(const mole_layer* layer, mole_gradients** gradients);
MOLE_API void mole_gradients_destroy(mole_gradients* gradients);
MOLE_API mole_status mole_gradients_set_zero(mole_gradients* gradients);
/* Adds them to those in the layer. */
MOLE_API mole_status mole_layer_add_gradients(mole_layer* layer, mole_gradients* gradients);
/* Copies them, as mole_layer_get_gradients() does. MOLE_ORDER for gradients of a layer of another kind. */
MOLE_API mole_status mole_gradients_get(const mole_layer* layer, mole_gradients* gradients, float* array,
                                        mole_index size);

/* Settings of a forward. All zero, and NULL instead of it, is inference. Arrays have one entry for each token, and must
   stay until the backward; NULL where they are not used. */
typedef struct mole_pass {
  int training; /* 1: with dropout and noise */
  /* The key of all random numbers, with the number of the token. */
  unsigned long seed, layer, step, first_token;
  const unsigned char* token_mask;  /* 0 leaves a token out of losses and statistics */
  const unsigned char* routed;      /* 0 leaves a token to W x + b */
  const int* forced;                /* the only expert of a token; -1: the gate chooses */
  const int* labels;                /* the task of a token, for routers that read it (moelora) */
  const unsigned char* allowed;     /* [N x allowed_experts], 0 rules an expert out for a token */
  mole_index allowed_experts;       /* the number of experts that have a logit */
  const mole_index* sequence_begin; /* first rows of sequences, ascending from 0 */
  mole_index sequences;             /* how many there are; 0: one */
} mole_pass;

/* y = W x + b + what the experts add. y lies in other memory than x. MOLE_CAPACITY for more tokens than the workspace
   is made for. After a failure y is undefined. */
MOLE_API mole_status mole_forward(const mole_layer* layer, const float* x, float* y, mole_index tokens,
                                  const mole_pass* pass, mole_workspace* workspace);
/* Fills a workspace as forward does, without y: for callers that kept only x. Experts that are maps compute y all the
   same, into memory of the workspace that the first such call allocates. */
MOLE_API mole_status mole_recompute(const mole_layer* layer, const float* x, mole_index tokens, const mole_pass* pass,
                                    mole_workspace* workspace);
/* After a forward or recompute of the same x in the same workspace, once:

       d_x += gradient of x [N x I]         unless d_x is NULL
       gradients += those of the parameters

   MOLE_ORDER where the forward is missing, or was another one. mole_backward() adds to the gradients in the layer, and
   so is for one thread at a time; mole_backward_into() to others. */
MOLE_API mole_status mole_backward(mole_layer* layer, const float* x, const float* d_y, float* d_x, mole_index tokens,
                                   mole_workspace* workspace);
MOLE_API mole_status mole_backward_into(const mole_layer* layer, const float* x, const float* d_y, float* d_x,
                                        mole_index tokens, mole_gradients* gradients, mole_workspace* workspace);

/* The same of rows that do not lie one after the other: columns of a wider matrix, padded rows. A stride is the
   distance from one row to the next, in numbers: 0, or at least the width of the row, else MOLE_SHAPE. What lies
   between rows is neither read nor written. */
MOLE_API mole_status mole_forward_strided(const mole_layer* layer, const float* x, mole_index x_stride, float* y,
                                          mole_index y_stride, mole_index tokens, const mole_pass* pass,
                                          mole_workspace* workspace);
MOLE_API mole_status mole_recompute_strided(const mole_layer* layer, const float* x, mole_index x_stride,
                                            mole_index tokens, const mole_pass* pass, mole_workspace* workspace);
MOLE_API mole_status mole_backward_strided(mole_layer* layer, const float* x, mole_index x_stride, const float* d_y,
                                           mole_index d_y_stride, float* d_x, mole_index d_x_stride, mole_index tokens,
                                           mole_workspace* workspace);
MOLE_API mole_status mole_backward_into_strided(const mole_layer* layer, const float* x, mole_index x_stride,
                                                const float* d_y, mole_index d_y_stride, float* d_x,
                                                mole_index d_x_stride, mole_index tokens, mole_gradients* gradients,
                                                mole_workspace* workspace);

/* ---- routing and losses of the last forward in a workspace */

/* How many tokens, experts, pairs of token and expert, and tokens with a NaN among their logits. Any may be NULL. */
MOLE_API mole_status mole_routing_sizes(const mole_workspace* workspace, mole_index* tokens, mole_index* experts,
                                        mole_index* pairs, mole_index* nan_tokens);
/* The experts of one token with their gates, `count` of each, until the next call in this workspace. */
MOLE_API mole_status mole_routing_of_token(const mole_workspace* workspace, mole_index token, mole_index* count,
                                           const int** experts, const float** gates);
/* The pairs of all tokens: those of token n are at first[n] ... first[n + 1] - 1 of `experts` and `gates`, as
   mole_routing_of_token() has them. `first` has room for tokens + 1, the others for `pairs`; each may be NULL.
   MOLE_SHAPE unless `tokens` and `pairs` are those of mole_routing_sizes(). */
MOLE_API mole_status mole_routing_pairs(const mole_workspace* workspace, mole_index* first, mole_index tokens,
                                        int* experts, float* gates, mole_index pairs);
/* What the router said, and what the gate made of it before it chose: [tokens x columns] in the workspace, without gaps
   in a row, until the next call there. A column for each expert that has a logit comes first. Any may be NULL. */
MOLE_API mole_status mole_routing_logits(const mole_workspace* workspace, const float** logits, mole_index* columns,
                                         mole_index* stride);
MOLE_API mole_status mole_routing_scores(const mole_workspace* workspace, const float** scores, mole_index* columns,
                                         mole_index* stride);
/* loads[e] = tokens that expert e serves, for all experts. MOLE_SHAPE for another number of them. */
MOLE_API mole_status mole_routing_loads(const mole_workspace* workspace, mole_index* loads, mole_index experts);

/* The loss that spreads tokens over experts, called between forward and backward: *value is the loss, and the backward
   sends its gradient to the router together with that of y. Keys and defaults:
   "coefficient=1 norm=one_at_uniform count=all_choices score=scores scope=global k=1" (mole/loss/load_balance.hpp). */
MOLE_API mole_status mole_load_balance(mole_workspace* workspace, const char* options, double* value);
/* The same for the loss that keeps logits small: coefficient * mean of logsumexp(logits)^2. */
MOLE_API mole_status mole_router_z(mole_workspace* workspace, double coefficient, double* value);

/* The balancing bias of deepseek_v3, smora and flylora, which no gradient moves: bias_e += rate sign(mean of loads -
   loads_e), after a step. `loads` are sums of mole_routing_loads() over the calls of the step, for the `experts` that
   have a logit, which come first. MOLE_SHAPE for another number, MOLE_OPTION for a layer without such a bias or a
   negative rate. */
MOLE_API mole_status mole_layer_balance(mole_layer* layer, const mole_index* loads, mole_index experts, double rate);

/* ---- AdamW, for callers without an optimizer of their own */

typedef struct mole_adamw mole_adamw;
/* Keys and defaults: "learning_rate=0.001 beta1=0.9 beta2=0.999 epsilon=1e-08 weight_decay=0.01 epsilon_on_raw=0
   bias_correction=1". */
MOLE_API mole_status mole_adamw_create(const char* options, mole_adamw** adamw);
MOLE_API void mole_adamw_destroy(mole_adamw* adamw);
MOLE_API mole_status mole_adamw_set_learning_rate(mole_adamw* adamw, double learning_rate);
/* One step of all trained tensors of these layers, the same layers in the same order every time, by the gradients in
   them, which stay as they are. */
MOLE_API mole_status mole_adamw_step(mole_adamw* adamw, mole_layer* const* layers, mole_index count);
/* Scales all their gradients so that their common norm is at most max_norm. *norm, unless NULL, is that before. */
MOLE_API mole_status mole_clip_norm(mole_layer* const* layers, mole_index count, double max_norm, double* norm);

/* ---- files: safetensors, which mole::CheckpointReader reads, as "layer" */

/* Parameters and state, beside the file at first and then renamed: a failure leaves an old file as it was. */
MOLE_API mole_status mole_layer_save(mole_layer* layer, const char* path);
/* The same bytes into a buffer. *size, which may not be NULL, is how many they are, also where the buffer is NULL or
   too small: that is MOLE_OK for NULL, else MOLE_CAPACITY. */
MOLE_API mole_status mole_layer_save_to(mole_layer* layer, void* buffer, size_t capacity, size_t* size);
/* Into a layer of the same preset, options and sizes. All is compared first: after a failure the layer is as before.
   MOLE_FILE for a file of another layer, or a damaged one. Also reads what CheckpointWriter::add_layer("layer", ...)
   and LayerWriter::add("layer", ...) wrote. */
MOLE_API mole_status mole_layer_load(mole_layer* layer, const char* path);
MOLE_API mole_status mole_layer_load_from(mole_layer* layer, const void* bytes, size_t size);
/* What a layer has besides its parameters, such as a balancing bias or a frozen projection, for callers that keep the
   parameters themselves. As mole_layer_save_to() and mole_layer_load_from(). */
MOLE_API mole_status mole_layer_save_state_to(mole_layer* layer, void* buffer, size_t capacity, size_t* size);
MOLE_API mole_status mole_layer_load_state_from(mole_layer* layer, const void* bytes, size_t size);
/* The moments and steps of an optimizer, for training to continue with the same bits. Loading needs the layers that it
   is for, and one of the same options but for rate and decay. */
MOLE_API mole_status mole_adamw_save(mole_adamw* adamw, const char* path);
MOLE_API mole_status mole_adamw_load(mole_adamw* adamw, const char* path, mole_layer* const* layers, mole_index count);

/* ---- threads: a layer runs on the calling thread, unless it is given others */

typedef struct mole_threads mole_threads;
/* A pool of `count` threads with the calling one, for any number of layers. The bits of results do not depend on it. */
MOLE_API mole_status mole_threads_create(int count, mole_threads** threads);
/* The threads of the caller: loop(host, tasks, task, context) calls task(context, i) once for each i from 0 to tasks -
   1, in any order, `count` at most at once, and returns when all have returned. */
typedef void (*mole_task)(void* context, mole_index number);
typedef void (*mole_loop)(void* host, mole_index tasks, mole_task task, void* context);
MOLE_API mole_status mole_threads_of_host(int count, mole_loop loop, void* host, mole_threads** threads);
MOLE_API void mole_threads_destroy(mole_threads* threads);
/* NULL: the calling thread again. For the layer's clones, too. */
MOLE_API mole_status mole_layer_set_threads(mole_layer* layer, const mole_threads* threads);

#ifdef __cplusplus
}
#endif

#endif
