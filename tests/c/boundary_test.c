/* SPDX-License-Identifier: MIT */
/* The boundary for C, from C89: every preset, every function, and what they refuse. */
#include "mole/c/mole.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures = 0;

#define CHECK(holds)                                                     \
  do {                                                                   \
    if (!(holds)) {                                                      \
      ++failures;                                                        \
      printf("%s:%d: in %s: %s\n", __FILE__, __LINE__, subject, #holds); \
    }                                                                    \
  } while (0)
#define CHECK_STATUS(expected, call)                                                                                 \
  do {                                                                                                               \
    const mole_status status_found = (call);                                                                         \
    if (status_found != (expected)) {                                                                                \
      ++failures;                                                                                                    \
      printf("%s:%d: in %s: expected status %d of %s, found %d: %s\n", __FILE__, __LINE__, subject, (int)(expected), \
             #call, (int)status_found, mole_last_error());                                                           \
    }                                                                                                                \
  } while (0)
#define OK(call) CHECK_STATUS(MOLE_OK, call)

static const char* subject = "the test";

enum { IN = 16, OUT = 12, TOKENS = 5 };

/* Numbers from -1 to 1. */
static void fill(float* numbers, mole_index count, unsigned long seed) {
  mole_index i;
  for (i = 0; i < count; ++i) {
    seed = (seed * 1103515245UL + 12345UL) & 0x7fffffffUL;
    numbers[i] = (float)seed / 1073741824.0f - 1.0f;
  }
}

static int same(const float* a, const float* b, mole_index count) {
  return memcmp(a, b, (size_t)count * sizeof(float)) == 0;
}

static double largest_difference(const float* a, const float* b, mole_index count) {
  double largest = 0;
  mole_index i;
  for (i = 0; i < count; ++i) {
    const double difference = fabs((double)a[i] - (double)b[i]);
    if (!(difference <= largest)) largest = difference;
  }
  return largest;
}

static float weight_numbers[OUT * IN], bias_numbers[OUT], transposed_numbers[IN * OUT];
static float x[TOKENS * IN], d_y[TOKENS * OUT], base_y[TOKENS * OUT];

static mole_weight host_weight(int pack) {
  mole_weight weight;
  memset(&weight, 0, sizeof weight);
  weight.data = weight_numbers;
  weight.out = OUT;
  weight.in = IN;
  weight.bias = bias_numbers;
  weight.pack = pack;
  return weight;
}

static void make_numbers(void) {
  int n, o, i;
  fill(weight_numbers, OUT * IN, 1);
  fill(bias_numbers, OUT, 2);
  fill(x, TOKENS * IN, 3);
  fill(d_y, TOKENS * OUT, 4);
  for (o = 0; o < OUT; ++o)
    for (i = 0; i < IN; ++i) transposed_numbers[i * OUT + o] = weight_numbers[o * IN + i];
  for (n = 0; n < TOKENS; ++n)
    for (o = 0; o < OUT; ++o) {
      double sum = bias_numbers[o];
      for (i = 0; i < IN; ++i) sum += (double)weight_numbers[o * IN + i] * (double)x[n * IN + i];
      base_y[n * OUT + o] = (float)sum;
    }
}

/* Options that fit the small layer here. */
static const char* options_of(const char* preset) {
  if (strcmp(preset, "oft") == 0) return "block=4";
  if (strcmp(preset, "vera") == 0) return "rank=8";
  if (strcmp(preset, "randlora") == 0) return "rank=4";
  if (strcmp(preset, "nola") == 0) return "bases=6, rank=2";
  if (strcmp(preset, "moram") == 0) return "ranks=10:8 k=6";
  if (strcmp(preset, "mos") == 0) return "rank=6 layers=2 dropout=0.1";
  if (strcmp(preset, "vblora") == 0) return "vectors=8 length=4 rank=3";
  return "";
}

static mole_layer* made(const char* preset, const char* options, int pack) {
  const mole_weight weight = host_weight(pack);
  mole_layer* layer = NULL;
  OK(mole_layer_create(preset, options, &weight, &layer));
  return layer;
}

/* What a forward and a backward give. */
typedef struct results {
  float y[TOKENS * OUT], d_x[TOKENS * IN];
  float* gradients;
} results;

static results results_of(mole_layer* layer, const mole_pass* pass) {
  results found;
  mole_workspace* work = NULL;
  const mole_index size = mole_layer_size(layer);
  found.gradients = (float*)calloc((size_t)size + 1, sizeof(float));
  memset(found.d_x, 0, sizeof found.d_x);
  OK(mole_workspace_create(layer, TOKENS, &work));
  OK(mole_layer_zero_gradients(layer));
  OK(mole_forward(layer, x, found.y, TOKENS, pass, work));
  OK(mole_backward(layer, x, d_y, found.d_x, TOKENS, work));
  OK(mole_layer_get_gradients(layer, found.gradients, size));
  mole_workspace_destroy(work);
  return found;
}

static void check_same(const results* a, const results* b, mole_index size) {
  CHECK(same(a->y, b->y, TOKENS * OUT));
  CHECK(same(a->d_x, b->d_x, TOKENS * IN));
  CHECK(same(a->gradients, b->gradients, size));
}

/* ---- every preset */

static void check_preset(const char* preset) {
  const char* const options = options_of(preset);
  mole_layer *const layer = made(preset, options, 0), *copy = NULL, *again = NULL;
  mole_index size, count, i;
  float *parameters, *gradients, *other;
  int labels[TOKENS];
  mole_pass pass;
  results first, second;
  const int starts_elsewhere =
      strncmp(preset, "mofme", 5) == 0 || strcmp(preset, "prompt_bank") == 0 || strcmp(preset, "vblora") == 0;
  const int has_pool = strcmp(preset, "mos") == 0 || strcmp(preset, "vblora") == 0 || strcmp(preset, "diffora") == 0;

  if (layer == NULL) return;
  memset(&pass, 0, sizeof pass);
  CHECK(mole_layer_in(layer) == IN && mole_layer_out(layer) == OUT);
  CHECK(strcmp(mole_layer_preset(layer), preset) == 0);
  size = mole_layer_size(layer);
  count = mole_layer_tensor_count(layer);
  CHECK(size > 0 && count > 0);
  parameters = (float*)malloc((size_t)size * sizeof(float));
  gradients = (float*)calloc((size_t)size, sizeof(float));
  other = (float*)malloc((size_t)size * sizeof(float));

  for (i = 0; i < TOKENS; ++i) labels[i] = (int)(i % 2);
  pass.labels = labels;
  if (strcmp(preset, "poly") == 0 || strcmp(preset, "mtl_lora") == 0) pass.forced = labels;

  /* A fresh layer is the base. */
  first = results_of(layer, &pass);
  if (!starts_elsewhere) CHECK(largest_difference(first.y, base_y, TOKENS * OUT) < 1e-5);
  free(first.gradients);

  /* The text of its options makes it again. */
  again = made(preset, mole_layer_options(layer), 0);
  OK(mole_layer_get_parameters(layer, parameters, size));
  OK(mole_layer_get_parameters(again, other, size));
  CHECK(same(parameters, other, size));
  CHECK(strcmp(mole_layer_options(layer), mole_layer_options(again)) == 0);
  mole_layer_destroy(again);

  /* Tensors lie one behind the other. */
  {
    mole_index end = 0;
    for (i = 0; i < count; ++i) {
      mole_tensor tensor;
      OK(mole_layer_tensor(layer, i, &tensor));
      CHECK(tensor.first == end && strlen(tensor.name) > 0 && tensor.parameter != NULL);
      CHECK(same(tensor.parameter, parameters + tensor.first, tensor.rows * tensor.cols));
      end += tensor.rows * tensor.cols;
    }
    CHECK(end == size);
  }

  /* Other numbers, a training pass with tasks, and what it gives: alone, bound to arrays, as a clone, from a buffer. */
  fill(parameters, size, 9);
  for (i = 0; i < size; ++i) parameters[i] *= 0.5f;
  OK(mole_layer_set_parameters(layer, parameters, size));
  pass.training = 1;
  pass.seed = 11;
  pass.step = 3;
  first = results_of(layer, &pass);
  second = results_of(layer, &pass);
  check_same(&first, &second, size);
  free(second.gradients);

  if (has_pool) {
    CHECK_STATUS(MOLE_OPTION, mole_layer_clone(layer, &copy));
    CHECK(copy == NULL);
    copy = made(preset, options, 0);
    OK(mole_layer_set_parameters(copy, parameters, size));
  } else {
    OK(mole_layer_clone(layer, &copy));
  }
  if (strcmp(preset, "moram") == 0) {
    CHECK_STATUS(MOLE_OPTION, mole_layer_bind_parameters(copy, other, size, MOLE_OF_LAYER));
  } else {
    OK(mole_layer_bind_parameters(copy, other, size, MOLE_OF_LAYER));
    CHECK(same(other, parameters, size));
    OK(mole_layer_bind_gradients(copy, gradients, size, MOLE_OF_LAYER));
  }
  second = results_of(copy, &pass);
  check_same(&first, &second, size);
  if (strcmp(preset, "moram") != 0) {
    CHECK(same(first.gradients, gradients, size));
    for (i = 0; i < size; ++i) other[i] = 0.25f * parameters[i];
    OK(mole_layer_release(copy));
    memset(other, 0, (size_t)size * sizeof(float));
    OK(mole_layer_get_parameters(copy, other, size));
    CHECK(other[size - 1] == 0.25f * parameters[size - 1]);
    for (i = 0; i < size; ++i) other[i] = parameters[i];
    OK(mole_layer_bind_parameters(copy, other, size, MOLE_OF_ARRAY));
  }
  OK(mole_layer_release(copy));
  OK(mole_layer_release(copy));
  free(second.gradients);
  second = results_of(copy, &pass);
  check_same(&first, &second, size);
  free(second.gradients);

  {
    size_t bytes = 0, written = 0;
    char* buffer;
    OK(mole_layer_save_to(layer, NULL, 0, &bytes));
    buffer = (char*)malloc(bytes);
    CHECK_STATUS(MOLE_CAPACITY, mole_layer_save_to(layer, buffer, bytes - 1, &written));
    CHECK(written == bytes);
    OK(mole_layer_save_to(layer, buffer, bytes, &written));
    CHECK_STATUS(MOLE_FILE, mole_layer_load_from(copy, buffer, bytes - 1));
    OK(mole_layer_load_from(copy, buffer, bytes));
    second = results_of(copy, &pass);
    check_same(&first, &second, size);
    free(second.gradients);
    free(buffer);

    /* The state alone, with the parameters by hand, makes the same layer of one with another seed. */
    {
      char other_seed[80];
      mole_layer* stranger;
      sprintf(other_seed, "%s seed=77", options);
      stranger = made(preset, other_seed, 0);
      OK(mole_layer_save_state_to(layer, NULL, 0, &bytes));
      buffer = (char*)malloc(bytes);
      CHECK_STATUS(MOLE_CAPACITY, mole_layer_save_state_to(layer, buffer, bytes - 1, &written));
      OK(mole_layer_save_state_to(layer, buffer, bytes, &written));
      CHECK(written == bytes);
      CHECK_STATUS(MOLE_FILE, mole_layer_load_state_from(stranger, buffer, bytes - 1));
      OK(mole_layer_load_state_from(stranger, buffer, bytes));
      OK(mole_layer_set_parameters(stranger, parameters, size));
      second = results_of(stranger, &pass);
      check_same(&first, &second, size);
      free(second.gradients);
      free(buffer);
      mole_layer_destroy(stranger);
    }
  }

  /* recompute() stands for forward(); two backward passes add up. */
  if (has_pool) {
    mole_gradients* apart = (mole_gradients*)&failures;
    CHECK_STATUS(MOLE_OPTION, mole_gradients_create(layer, &apart));
    CHECK(apart == NULL);
  } else {
    mole_workspace* work = NULL;
    mole_gradients* apart = NULL;
    float d_x[TOKENS * IN];
    memset(d_x, 0, sizeof d_x);
    OK(mole_workspace_create(layer, TOKENS + 3, &work));
    OK(mole_gradients_create(layer, &apart));
    OK(mole_recompute(layer, x, TOKENS, &pass, work));
    OK(mole_backward_into(layer, x, d_y, d_x, TOKENS, apart, work));
    CHECK(same(d_x, first.d_x, TOKENS * IN));
    CHECK_STATUS(MOLE_ORDER, mole_backward_into(layer, x, d_y, d_x, TOKENS, apart, work));
    OK(mole_layer_zero_gradients(layer));
    OK(mole_layer_add_gradients(layer, apart));
    OK(mole_layer_get_gradients(layer, gradients, size));
    CHECK(same(first.gradients, gradients, size));
    memset(gradients, 0, (size_t)size * sizeof(float));
    OK(mole_gradients_get(layer, apart, gradients, size));
    CHECK(same(first.gradients, gradients, size));
    CHECK_STATUS(MOLE_SHAPE, mole_gradients_get(layer, apart, gradients, size - 1));
    OK(mole_gradients_set_zero(apart));
    OK(mole_layer_add_gradients(layer, apart));
    OK(mole_layer_get_gradients(layer, gradients, size));
    CHECK(same(first.gradients, gradients, size));
    OK(mole_recompute(layer, x, TOKENS, &pass, work));
    OK(mole_backward(layer, x, d_y, NULL, TOKENS, work));
    OK(mole_layer_get_gradients(layer, gradients, size));
    for (i = 0; i < size; ++i) other[i] = 2 * first.gradients[i];
    CHECK(largest_difference(gradients, other, size) < 1e-3);
    OK(mole_forward(layer, x, first.y, 0, NULL, work));
    OK(mole_forward(layer, NULL, NULL, 0, NULL, work));
    mole_gradients_destroy(apart);
    mole_workspace_destroy(work);
  }

  /* Packed, from either layout, it is the same layer but for rounding. */
  if (strcmp(preset, "prompt_bank") != 0) {
    mole_weight weight = host_weight(1);
    results packed;
    mole_layer* in_out = NULL;
    mole_layer* const out_in = made(preset, options, 1);
    weight.data = transposed_numbers;
    weight.layout = MOLE_IN_OUT;
    OK(mole_layer_create(preset, options, &weight, &in_out));
    OK(mole_layer_set_parameters(out_in, parameters, size));
    OK(mole_layer_set_parameters(in_out, parameters, size));
    second = results_of(out_in, &pass);
    packed = results_of(in_out, &pass);
    check_same(&second, &packed, size);
    CHECK(largest_difference(first.d_x, packed.d_x, TOKENS * IN) < 1e-2);
    free(second.gradients);
    free(packed.gradients);
    mole_layer_destroy(in_out);
    mole_layer_destroy(out_in);
  }

  free(first.gradients);
  free(parameters);
  free(gradients);
  free(other);
  mole_layer_destroy(copy);
  mole_layer_destroy(layer);
}

static void check_every_preset(void) {
  const mole_index count = mole_preset_count();
  mole_index i;
  CHECK(count == 42);
  for (i = 0; i < count; ++i) {
    const char* const name = mole_preset_name(i);
    if (i > 0) CHECK(strcmp(mole_preset_name(i - 1), name) < 0);
    subject = name;
    CHECK(strstr(mole_preset_options(name), "seed=0") != NULL);
    if (mole_preset_is_block(name) == 0)
      check_preset(name);
    else
      CHECK(strcmp(name, "mixlora") == 0 || strcmp(name, "mixtral") == 0);
    subject = "the test";
  }
  CHECK(mole_preset_name(count) == NULL && mole_preset_name(-1) == NULL);
  CHECK(strcmp(mole_preset_options("mola"),
               "experts=8 rank=8 k=2 alpha=16 scaling=alpha_over_rank dropout=0.05 seed=0") == 0);
}

/* ---- layers that share a pool */

static void check_sharing(const char* preset, const char* first_options, const char* second_options) {
  mole_layer *first = made(preset, first_options, 0), *second = NULL, *other = made("lora", "", 0);
  const mole_weight weight = host_weight(1);
  mole_workspace* work = NULL;
  mole_adamw* adamw = NULL;
  mole_layer* both[2];
  mole_index own, size = mole_layer_size(first), i, pool_tensors = 0;
  float *bound, *gradients, *once, y[TOKENS * OUT], changed[TOKENS * OUT];
  mole_tensor tensor;
  subject = preset;
  OK(mole_layer_create_sharing(preset, second_options, &weight, first, &second));
  own = mole_layer_size(second);
  CHECK(own < size && mole_layer_tensor_count(second) < mole_layer_tensor_count(first));
  for (i = 0; i < mole_layer_tensor_count(first); ++i) {
    OK(mole_layer_tensor(first, i, &tensor));
    pool_tensors += strncmp(tensor.name, "pool.", 5) == 0;
  }
  CHECK(pool_tensors == mole_layer_tensor_count(first) - mole_layer_tensor_count(second));

  /* The second layer's share of the pool's gradient is found with the first, and is nothing without the parts that
     learn. */
  bound = (float*)malloc((size_t)size * sizeof(float));
  gradients = (float*)calloc((size_t)size, sizeof(float));
  once = (float*)malloc((size_t)size * sizeof(float));
  fill(bound, size, 5);
  OK(mole_layer_bind_parameters(first, bound, size, MOLE_OF_ARRAY));
  OK(mole_layer_bind_gradients(first, gradients, size, MOLE_OF_LAYER));
  OK(mole_workspace_create(second, TOKENS, &work));
  OK(mole_forward(second, x, y, TOKENS, NULL, work));
  OK(mole_backward(second, x, d_y, NULL, TOKENS, work));
  memcpy(once, gradients, (size_t)size * sizeof(float));
  CHECK(gradients[0] == 0 || own == 0);
  CHECK(largest_difference(gradients + own, bound + own, size - own) > 0 && gradients[size - 1] != 0);
  OK(mole_forward(second, x, y, TOKENS, NULL, work));
  OK(mole_backward(second, x, d_y, NULL, TOKENS, work));
  for (i = 0; i < size; ++i) once[i] *= 2;
  CHECK(largest_difference(gradients, once, size) < 1e-4);
  OK(mole_layer_set_trainable(second, 1, 0));
  OK(mole_forward(second, x, y, TOKENS, NULL, work));
  OK(mole_backward(second, x, d_y, NULL, TOKENS, work));
  CHECK(largest_difference(gradients, once, size) < 1e-4);
  OK(mole_layer_set_trainable(second, 1, 1));
  OK(mole_layer_zero_gradients(first));
  OK(mole_forward(second, x, y, TOKENS, NULL, work));
  OK(mole_backward(second, x, d_y, NULL, TOKENS, work));
  for (i = 0; i < size; ++i) once[i] /= 2;
  CHECK(same(gradients + own, once + own, size - own));

  /* A step of the first moves the second. */
  both[0] = first;
  both[1] = second;
  OK(mole_adamw_create("learning_rate=0.1", &adamw));
  OK(mole_adamw_step(adamw, both, 2));
  OK(mole_forward(second, x, changed, TOKENS, NULL, work));
  CHECK(largest_difference(y, changed, TOKENS * OUT) > 1e-3);

  /* The pool outlives its owner. */
  OK(mole_layer_set_trainable(first, 1, 1));
  OK(mole_layer_release(first));
  free(bound);
  free(gradients);
  mole_layer_destroy(first);
  OK(mole_forward(second, x, y, TOKENS, NULL, work));
  CHECK(same(y, changed, TOKENS * OUT));
  OK(mole_backward(second, x, d_y, NULL, TOKENS, work));

  first = NULL;
  CHECK_STATUS(MOLE_OPTION, mole_layer_create_sharing(preset, second_options, &weight, other, &first));
  CHECK_STATUS(MOLE_OPTION, mole_layer_create_sharing("lora", "", &weight, second, &first));
  CHECK_STATUS(MOLE_OPTION, mole_layer_create_sharing(strcmp(preset, "mos") == 0 ? "vblora" : "mos",
                                                      "rank=3 length=4 layers=2", &weight, second, &first));
  CHECK_STATUS(MOLE_OPTION, mole_layer_create_sharing(preset, "", &weight, second, &first));
  CHECK_STATUS(MOLE_NULL_POINTER, mole_layer_create_sharing(preset, "", &weight, NULL, &first));
  CHECK_STATUS(MOLE_NULL_POINTER, mole_layer_create_sharing(preset, "", NULL, second, &first));
  CHECK_STATUS(MOLE_NULL_POINTER, mole_layer_create_sharing(NULL, "", &weight, second, &first));
  CHECK_STATUS(MOLE_NULL_POINTER, mole_layer_create_sharing(preset, "", &weight, second, NULL));
  CHECK(first == NULL);
  free(once);
  mole_adamw_destroy(adamw);
  mole_workspace_destroy(work);
  mole_layer_destroy(second);
  mole_layer_destroy(other);
  subject = "the test";
}

/* ---- diffora's gates, arrow's router */

static void check_diffora(void) {
  const mole_weight weight = host_weight(0);
  mole_layer *kept = made("diffora", "modules=2 rank=2", 0), *dropped = NULL, *loaded = NULL;
  mole_layer *plain = made("lora", "rank=2 alpha=16", 0), *none = NULL;
  mole_workspace *work = NULL, *work_of_plain = NULL;
  float numbers[2 + 2 * (IN + OUT)], y[TOKENS * OUT], relaxed[TOKENS * OUT], expected[TOKENS * OUT],
      gated[TOKENS * OUT];
  float d_x[TOKENS * IN];
  const mole_index experts = 2 * (IN + OUT), size = experts + 2;
  mole_index i;
  char* buffer;
  size_t bytes;
  subject = "diffora";
  OK(mole_layer_create_sharing("diffora", "modules=2 module=1 rank=2 seed=4", &weight, kept, &dropped));
  CHECK(mole_layer_size(kept) == size && mole_layer_size(dropped) == experts && mole_layer_size(plain) == experts);
  fill(numbers, size, 6);
  numbers[size - 2] = 0.5f; /* alpha, of the gates */
  numbers[size - 1] = -0.5f;
  OK(mole_layer_set_parameters(kept, numbers, size));
  OK(mole_layer_set_parameters(dropped, numbers, experts));
  OK(mole_layer_set_parameters(plain, numbers, experts));
  OK(mole_workspace_create(kept, TOKENS, &work));
  OK(mole_workspace_create(plain, TOKENS, &work_of_plain));
  OK(mole_forward(plain, x, expected, TOKENS, NULL, work_of_plain));

  /* Gates of 1 / (1 + exp(-1)) and the rest; a gradient of either layer reaches both numbers. */
  OK(mole_forward(kept, x, relaxed, TOKENS, NULL, work));
  for (i = 0; i < TOKENS * OUT; ++i) gated[i] = base_y[i] + 0.7310586f * (expected[i] - base_y[i]);
  CHECK(largest_difference(relaxed, gated, TOKENS * OUT) < 1e-4);
  OK(mole_forward(dropped, x, y, TOKENS, NULL, work));
  for (i = 0; i < TOKENS * OUT; ++i) gated[i] = base_y[i] + 0.2689414f * (expected[i] - base_y[i]);
  CHECK(largest_difference(y, gated, TOKENS * OUT) < 1e-4);
  memset(d_x, 0, sizeof d_x);
  OK(mole_layer_zero_gradients(kept));
  OK(mole_backward(dropped, x, d_y, d_x, TOKENS, work));
  OK(mole_layer_get_gradients(kept, numbers, size));
  CHECK(numbers[0] == 0 && numbers[size - 1] != 0 && fabs((double)(numbers[size - 2] + numbers[size - 1])) < 1e-4);

  OK(mole_layer_discretize(dropped, 0.5));
  OK(mole_forward(kept, x, y, TOKENS, NULL, work));
  CHECK(same(y, expected, TOKENS * OUT));
  OK(mole_forward(dropped, x, y, TOKENS, NULL, work));
  CHECK(largest_difference(y, base_y, TOKENS * OUT) < 1e-5);
  OK(mole_layer_save_to(kept, NULL, 0, &bytes));
  buffer = (char*)malloc(bytes);
  OK(mole_layer_save_to(kept, buffer, bytes, &bytes));
  loaded = made("diffora", "modules=2 rank=2", 0);
  OK(mole_layer_load_from(loaded, buffer, bytes));
  OK(mole_forward(loaded, x, y, TOKENS, NULL, work));
  CHECK(same(y, expected, TOKENS * OUT));
  OK(mole_layer_discretize(kept, -1));
  OK(mole_forward(kept, x, y, TOKENS, NULL, work));
  CHECK(same(y, relaxed, TOKENS * OUT));
  CHECK_STATUS(MOLE_OPTION, mole_layer_discretize(kept, 1.5));
  CHECK_STATUS(MOLE_OPTION, mole_layer_discretize(plain, 0.5));
  CHECK_STATUS(MOLE_OPTION, mole_layer_renew_router(kept));
  CHECK_STATUS(MOLE_NULL_POINTER, mole_layer_discretize(NULL, 0.5));
  CHECK_STATUS(MOLE_OPTION, mole_layer_create_sharing("diffora", "modules=3", &weight, kept, &none));
  CHECK(none == NULL);
  free(buffer);
  mole_workspace_destroy(work);
  mole_workspace_destroy(work_of_plain);
  mole_layer_destroy(loaded);
  mole_layer_destroy(dropped);
  mole_layer_destroy(kept);
  mole_layer_destroy(plain);
  subject = "the test";
}

static void check_arrow(void) {
  mole_layer *layer = made("arrow", "experts=2 rank=1 k=1 alpha=1", 0), *copy = NULL;
  mole_tensor router, lora_a;
  mole_index size = mole_layer_size(layer), e, i;
  float* const numbers = (float*)malloc((size_t)size * sizeof(float));
  subject = "arrow";
  OK(mole_layer_tensor(layer, 0, &router));
  OK(mole_layer_tensor(layer, 1, &lora_a));
  CHECK(strcmp(router.name, "router.weight") == 0 && router.gradient == NULL && lora_a.gradient != NULL);
  for (i = 0; i < 2 * IN; ++i) CHECK(router.parameter[i] == 0);
  fill(numbers, size, 7);
  OK(mole_layer_bind_parameters(layer, numbers, size, MOLE_OF_ARRAY));
  OK(mole_layer_clone(layer, &copy));
  OK(mole_layer_renew_router(layer));
  OK(mole_layer_tensor(layer, 0, &router));
  CHECK(router.parameter == numbers);
  OK(mole_layer_tensor(layer, 1, &lora_a));
  for (e = 0; e < 2; ++e) { /* of rank 1: A itself, of length 1 */
    double length = 0, dot = 0;
    for (i = 0; i < IN; ++i) {
      length += (double)lora_a.parameter[e * IN + i] * (double)lora_a.parameter[e * IN + i];
      dot += (double)lora_a.parameter[e * IN + i] * (double)router.parameter[e * IN + i];
    }
    CHECK(fabs(fabs(dot) - sqrt(length)) < 1e-5);
  }
  OK(mole_layer_renew_router(copy));
  OK(mole_layer_tensor(copy, 0, &lora_a));
  CHECK(same(lora_a.parameter, router.parameter, 2 * IN));
  CHECK_STATUS(MOLE_NULL_POINTER, mole_layer_renew_router(NULL));
  CHECK_STATUS(MOLE_OPTION, mole_layer_discretize(layer, 0.5));
  OK(mole_layer_release(layer));
  free(numbers);
  mole_layer_destroy(copy);
  mole_layer_destroy(layer);
  subject = "the test";
}

/* ---- blocks */

static mole_weight weight_of(const float* data, mole_index out, mole_index in) {
  mole_weight weight;
  memset(&weight, 0, sizeof weight);
  weight.data = data;
  weight.out = out;
  weight.in = in;
  return weight;
}

static void check_blocks(void) {
  enum { HIDDEN = 6 };
  static float numbers[3][HIDDEN * IN];
  mole_weight gate, up, down, sizes;
  mole_layer *block = NULL, *copy = NULL, *mixtral = NULL, *none = (mole_layer*)&failures;
  mole_workspace* work = NULL;
  float y[TOKENS * OUT], again[TOKENS * OUT], d_x[TOKENS * IN], wide[TOKENS * IN];
  double largest = 0;
  char* buffer;
  size_t bytes;
  int n, o, h, i;
  subject = "blocks";
  for (i = 0; i < 3; ++i) fill(numbers[i], HIDDEN * IN, 20 + (unsigned long)i);
  gate = weight_of(numbers[0], HIDDEN, IN);
  up = weight_of(numbers[1], HIDDEN, IN);
  down = weight_of(numbers[2], OUT, HIDDEN);
  OK(mole_layer_create_block("mixlora", "experts=4 rank=2 dropout=0", &gate, &up, &down, &block));
  CHECK(mole_layer_in(block) == IN && mole_layer_out(block) == OUT);
  OK(mole_workspace_create(block, TOKENS, &work));
  OK(mole_forward(block, x, y, TOKENS, NULL, work));
  for (n = 0; n < TOKENS; ++n)
    for (o = 0; o < OUT; ++o) { /* fresh, it is the block of the weights */
      double sum = 0;
      for (h = 0; h < HIDDEN; ++h) {
        double g = 0, u = 0;
        for (i = 0; i < IN; ++i) {
          g += (double)numbers[0][h * IN + i] * (double)x[n * IN + i];
          u += (double)numbers[1][h * IN + i] * (double)x[n * IN + i];
        }
        sum += (double)numbers[2][o * HIDDEN + h] * u * g / (1 + exp(-g));
      }
      if (fabs(sum - (double)y[n * OUT + o]) > largest) largest = fabs(sum - (double)y[n * OUT + o]);
    }
  CHECK(largest < 1e-4);
  memset(d_x, 0, sizeof d_x);
  OK(mole_backward(block, x, d_y, d_x, TOKENS, work));
  CHECK(d_x[0] != 0);
  OK(mole_layer_clone(block, &copy));
  OK(mole_layer_save_to(block, NULL, 0, &bytes));
  buffer = (char*)malloc(bytes);
  OK(mole_layer_save_to(block, buffer, bytes, &bytes));
  OK(mole_layer_load_from(copy, buffer, bytes));
  OK(mole_forward(copy, x, again, TOKENS, NULL, work));
  CHECK(same(y, again, TOKENS * OUT));
  OK(mole_recompute(copy, x, TOKENS, NULL, work));
  CHECK_STATUS(MOLE_OPTION, mole_layer_set_weight(block, &gate));
  CHECK_STATUS(MOLE_NOT_MERGEABLE, mole_layer_merge(block, again));

  sizes = weight_of(NULL, IN, HIDDEN);
  gate.data = up.data = NULL;
  OK(mole_layer_create_block("mixtral", "experts=3 k=2", &gate, &up, &sizes, &mixtral));
  CHECK(mole_layer_in(mixtral) == IN && mole_layer_out(mixtral) == IN);
  CHECK(mole_layer_size(mixtral) == 3 * IN + 3 * 3 * IN * HIDDEN);
  mole_workspace_destroy(work);
  OK(mole_workspace_create(mixtral, TOKENS, &work));
  OK(mole_forward(mixtral, x, wide, TOKENS, NULL, work));
  CHECK(wide[0] != 0);

  CHECK_STATUS(MOLE_SHAPE, mole_layer_create_block("mixtral", "", &gate, &up, &down, &none));
  CHECK(none == NULL && strstr(mole_last_error(), "down of [16 x 6]") != NULL);
  CHECK_STATUS(MOLE_SHAPE, mole_layer_create_block("mixlora", "", &down, &down, &down, &none));
  CHECK_STATUS(MOLE_NULL_POINTER, mole_layer_create_block("mixlora", "", &gate, &up, &down, &none));
  CHECK_STATUS(MOLE_OPTION, mole_layer_create_block("lora", "", &down, &down, &down, &none));
  CHECK_STATUS(MOLE_OPTION, mole_layer_create("mixlora", "", &down, &none));
  CHECK(strstr(mole_last_error(), "mole_layer_create_block()") != NULL);
  CHECK_STATUS(MOLE_NULL_POINTER, mole_layer_create_block(NULL, "", &down, &down, &down, &none));
  CHECK_STATUS(MOLE_NULL_POINTER, mole_layer_create_block("mixlora", "", NULL, &down, &down, &none));
  CHECK_STATUS(MOLE_NULL_POINTER, mole_layer_create_block("mixlora", "", &down, NULL, &down, &none));
  CHECK_STATUS(MOLE_NULL_POINTER, mole_layer_create_block("mixlora", "", &down, &down, NULL, &none));
  CHECK_STATUS(MOLE_NULL_POINTER, mole_layer_create_block("mixlora", "", &down, &down, &down, NULL));
  CHECK(mole_preset_is_block("mola") == 0 && mole_preset_is_block("mixtral") == 1);
  CHECK(mole_preset_is_block("none") == -1 && mole_preset_is_block(NULL) == -1);
  free(buffer);
  mole_workspace_destroy(work);
  mole_layer_destroy(mixtral);
  mole_layer_destroy(copy);
  mole_layer_destroy(block);
  subject = "the test";
}

/* ---- rows that do not lie one after the other */

static void check_strides(void) {
  enum { X = IN + 3, Y = OUT + 5 };
  mole_layer* const layer = made("mola", "experts=4 rank=2 dropout=0", 0);
  mole_workspace* work = NULL;
  mole_gradients* gradients = NULL;
  results expected;
  float wide_x[TOKENS * X], wide_y[TOKENS * Y], wide_d_y[TOKENS * Y], wide_d_x[TOKENS * X];
  const mole_index size = mole_layer_size(layer);
  float* const numbers = (float*)malloc((size_t)size * sizeof(float));
  int n, i;
  subject = "strides";
  fill(numbers, size, 8);
  OK(mole_layer_set_parameters(layer, numbers, size));
  expected = results_of(layer, NULL);
  for (i = 0; i < TOKENS * X; ++i) wide_x[i] = wide_d_x[i] = 777;
  for (i = 0; i < TOKENS * Y; ++i) wide_y[i] = wide_d_y[i] = 777;
  for (n = 0; n < TOKENS; ++n) {
    memcpy(wide_x + n * X, x + n * IN, IN * sizeof(float));
    memcpy(wide_d_y + n * Y, d_y + n * OUT, OUT * sizeof(float));
    memset(wide_d_x + n * X, 0, IN * sizeof(float));
  }
  OK(mole_workspace_create(layer, TOKENS, &work));
  OK(mole_gradients_create(layer, &gradients));
  OK(mole_layer_zero_gradients(layer));
  OK(mole_forward_strided(layer, wide_x, X, wide_y, Y, TOKENS, NULL, work));
  OK(mole_backward_strided(layer, wide_x, X, wide_d_y, Y, wide_d_x, X, TOKENS, work));
  OK(mole_layer_get_gradients(layer, numbers, size));
  CHECK(same(numbers, expected.gradients, size));
  OK(mole_recompute_strided(layer, wide_x, X, TOKENS, NULL, work));
  OK(mole_backward_into_strided(layer, wide_x, X, wide_d_y, Y, NULL, 0, TOKENS, gradients, work));
  OK(mole_gradients_get(layer, gradients, numbers, size));
  CHECK(same(numbers, expected.gradients, size));
  for (n = 0; n < TOKENS; ++n) {
    CHECK(same(wide_y + n * Y, expected.y + n * OUT, OUT) && same(wide_d_x + n * X, expected.d_x + n * IN, IN));
    for (i = IN; i < X; ++i) CHECK(wide_d_x[n * X + i] == 777);
    for (i = OUT; i < Y; ++i) CHECK(wide_y[n * Y + i] == 777);
  }
  OK(mole_forward_strided(layer, x, 0, wide_y, 0, TOKENS, NULL, work));
  CHECK(same(wide_y, expected.y, TOKENS * OUT));

  CHECK_STATUS(MOLE_SHAPE, mole_forward_strided(layer, wide_x, IN - 1, wide_y, Y, TOKENS, NULL, work));
  CHECK(strstr(mole_last_error(), "mole_forward_strided: expected a stride of 0 or at least 16 for x") != NULL);
  CHECK_STATUS(MOLE_SHAPE, mole_forward_strided(layer, wide_x, X, wide_y, -Y, TOKENS, NULL, work));
  CHECK_STATUS(MOLE_SHAPE, mole_recompute_strided(layer, wide_x, 1, TOKENS, NULL, work));
  CHECK_STATUS(MOLE_SHAPE, mole_backward_strided(layer, wide_x, X, wide_d_y, 1, NULL, 0, TOKENS, work));
  CHECK_STATUS(MOLE_SHAPE, mole_backward_strided(layer, wide_x, X, wide_d_y, Y, wide_d_x, 1, TOKENS, work));
  CHECK_STATUS(MOLE_OPTION, mole_forward_strided(layer, wide_x, LONG_MAX / 2, wide_y, Y, TOKENS, NULL, work));
  CHECK_STATUS(MOLE_NULL_POINTER, mole_forward_strided(NULL, wide_x, X, wide_y, Y, TOKENS, NULL, work));
  CHECK_STATUS(MOLE_NULL_POINTER, mole_recompute_strided(layer, NULL, X, TOKENS, NULL, work));
  CHECK_STATUS(MOLE_NULL_POINTER, mole_backward_strided(NULL, x, X, d_y, Y, NULL, 0, TOKENS, work));
  CHECK_STATUS(MOLE_NULL_POINTER,
               mole_backward_into_strided(layer, wide_x, X, wide_d_y, Y, NULL, 0, TOKENS, NULL, work));
  free(expected.gradients);
  free(numbers);
  mole_gradients_destroy(gradients);
  mole_workspace_destroy(work);
  mole_layer_destroy(layer);
  subject = "the test";
}

/* ---- options */

/* The call fails with MOLE_OPTION, and its text has all of these words. */
static void check_refused(const char* preset, const char* options, const char* word, const char* other) {
  const mole_weight weight = host_weight(0);
  mole_layer* layer = (mole_layer*)&failures;
  CHECK_STATUS(MOLE_OPTION, mole_layer_create(preset, options, &weight, &layer));
  CHECK(layer == NULL);
  if (strstr(mole_last_error(), word) == NULL || strstr(mole_last_error(), other) == NULL) {
    ++failures;
    printf("expected '%s' and '%s' in: %s\n", word, other, mole_last_error());
  }
}

static void check_options(void) {
  char garbage[4096];
  mole_layer* layer =
      made("mola", " experts=3,rank=2;\n alpha=+8\tk=1 scaling=alpha_over_sqrt_rank dropout=1e-1 seed=7 ", 0);
  int i;
  CHECK(strcmp(mole_layer_options(layer),
               "experts=3 rank=2 k=1 alpha=8 scaling=alpha_over_sqrt_rank dropout=0.1 seed=7") == 0);
  mole_layer_destroy(layer);
  layer = made("mola", NULL, 0);
  CHECK(strcmp(mole_layer_options(layer), mole_preset_options("mola")) == 0);
  mole_layer_destroy(layer);
  layer = made("nola", "basis_seed=auto variant=vit bases=4", 0);
  mole_layer_destroy(layer);

  check_refused("mixtral_of_mine", "", "mola", "'mixtral_of_mine'");
  check_refused("", "", "mola", "found ''");
  check_refused("mola", "expert=3", "experts, rank, k", "'expert'");
  check_refused("mola", "experts", "key=value", "'experts'");
  check_refused("mola", "experts=", "key=value", "'experts='");
  check_refused("mola", "=3", "key=value", "'=3'");
  check_refused("mola", "experts = 3", "key=value", "'experts'");
  check_refused("mola", "experts=3 experts=4", "once", "'experts' twice");
  check_refused("mola", "experts=three", "an integer", "'three'");
  check_refused("mola", "experts=3.5", "an integer", "'3.5'");
  check_refused("mola", "experts=99999999999999999999", "an integer", "'99999999999999999999'");
  check_refused("mola", "experts=0", "expected", "0");
  check_refused("mola", "experts=-1", "expected", "-1");
  check_refused("mola", "k=9", "k from 1 to 8", "9");
  check_refused("mola", "rank=-4", "expected", "-4");
  check_refused("mola", "alpha=nan", "a finite number", "'nan'");
  check_refused("mola", "alpha=inf", "a finite number", "'inf'");
  check_refused("mola", "alpha=1e999", "a finite number", "'1e999'");
  check_refused("mola", "dropout=1.5", "expected", "1.5");
  check_refused("mola", "scaling=large", "alpha_over_sqrt_rank", "'large'");
  check_refused("mola", "seed=-1", "from 0", "'-1'");
  check_refused("loramoe", "shared_down=true", "0 or 1", "'true'");
  check_refused("moram", "ranks=4::4", "':'", "'4::4'");
  check_refused("moram", "ranks=4:99999999999", "':'", "'4:99999999999'");
  check_refused("oft", "block=5", "expected", "5");
  check_refused("vera", "rank=0", "expected", "0");
  check_refused("mola", "experts=9223372036854775807", "expected", "9223372036854775807");

  /* Whatever stands there is refused, or understood; nothing else. */
  for (i = 0; i < 2000; ++i) {
    const char alphabet[] = "experts=rank k alpha,;\n=:.-+e0123456789\xff\x01";
    const mole_weight weight = host_weight(0);
    mole_status status;
    unsigned long seed = (unsigned long)i + 1;
    int j, length = 1 + i % 40;
    for (j = 0; j < length; ++j) {
      seed = (seed * 1103515245UL + 12345UL) & 0x7fffffffUL;
      garbage[j] = alphabet[(seed >> 8) % (sizeof alphabet - 1)];
    }
    garbage[length] = '\0';
    layer = NULL;
    status = mole_layer_create("mola", garbage, &weight, &layer);
    CHECK(status == MOLE_OPTION || status == MOLE_OUT_OF_MEMORY || status == MOLE_OK);
    CHECK((layer != NULL) == (status == MOLE_OK));
    mole_layer_destroy(layer);
  }
  memset(garbage, 'x', sizeof garbage - 1);
  garbage[sizeof garbage - 1] = '\0';
  check_refused("mola", garbage, "key=value", "xxx");
  CHECK(strlen(mole_last_error()) < 1024);
}

/* ---- weights */

static void check_weights(void) {
  mole_weight weight = host_weight(0);
  mole_layer* layer = NULL;
  float wide[OUT * (IN + 3)], moved[OUT * IN], y[TOKENS * OUT];
  mole_workspace* work = NULL;
  mole_status status;
  int o, pack;

  weight.out = 0;
  CHECK_STATUS(MOLE_SHAPE, mole_layer_create("lora", "", &weight, &layer));
  weight.out = -1;
  CHECK_STATUS(MOLE_SHAPE, mole_layer_create("lora", "", &weight, &layer));
  weight = host_weight(0);
  weight.in = LONG_MAX;
  status = mole_layer_create("lora", "", &weight, &layer);
  CHECK(status == MOLE_OPTION || status == MOLE_OUT_OF_MEMORY);
  weight = host_weight(0);
  weight.stride = IN - 1;
  CHECK_STATUS(MOLE_SHAPE, mole_layer_create("lora", "", &weight, &layer));
  weight.stride = LONG_MAX;
  CHECK_STATUS(MOLE_OPTION, mole_layer_create("lora", "", &weight, &layer));
  weight.stride = -IN;
  CHECK_STATUS(MOLE_SHAPE, mole_layer_create("lora", "", &weight, &layer));
  weight = host_weight(0);
  weight.layout = MOLE_IN_OUT;
  CHECK_STATUS(MOLE_OPTION, mole_layer_create("lora", "", &weight, &layer));
  weight.layout = 7;
  CHECK_STATUS(MOLE_OPTION, mole_layer_create("lora", "", &weight, &layer));
  weight = host_weight(0);
  weight.data = NULL;
  CHECK_STATUS(MOLE_NULL_POINTER, mole_layer_create("lora", "", &weight, &layer));
  CHECK_STATUS(MOLE_OK, mole_layer_create("prompt_bank", "", &weight, &layer));
  mole_layer_destroy(layer);
  layer = NULL;

  /* Rows with gaps; a weight that moves; one that changes where it lies. */
  for (o = 0; o < OUT; ++o) {
    memcpy(wide + o * (IN + 3), weight_numbers + o * IN, IN * sizeof(float));
    memcpy(moved + o * IN, weight_numbers + o * IN, IN * sizeof(float));
  }
  for (pack = 0; pack < 2; ++pack) {
    weight = host_weight(pack);
    weight.data = wide;
    weight.stride = IN + 3;
    OK(mole_layer_create("dora", "", &weight, &layer));
    CHECK_STATUS(MOLE_OPTION, mole_layer_set_weight(layer, &weight));
    mole_layer_destroy(layer);
    OK(mole_layer_create("lora", "", &weight, &layer));
    OK(mole_workspace_create(layer, TOKENS, &work));
    OK(mole_forward(layer, x, y, TOKENS, NULL, work));
    CHECK(largest_difference(y, base_y, TOKENS * OUT) < 1e-5);
    weight = host_weight(1 - pack);
    weight.data = moved;
    OK(mole_layer_set_weight(layer, &weight));
    OK(mole_forward(layer, x, y, TOKENS, NULL, work));
    CHECK(largest_difference(y, base_y, TOKENS * OUT) < 1e-5);
    weight.out = OUT - 1;
    CHECK_STATUS(MOLE_SHAPE, mole_layer_set_weight(layer, &weight));
    mole_workspace_destroy(work);
    mole_layer_destroy(layer);
  }

  /* A LoRA is a weight; a mixture is none. */
  layer = made("lora", "rank=2", 0);
  memcpy(moved, weight_numbers, sizeof moved);
  OK(mole_layer_merge(layer, moved));
  CHECK(same(moved, weight_numbers, OUT * IN));
  mole_layer_destroy(layer);
  layer = made("mola", "", 0);
  CHECK_STATUS(MOLE_NOT_MERGEABLE, mole_layer_merge(layer, moved));
  mole_layer_destroy(layer);
}

/* ---- calls out of order, of wrong sizes, with nothing */

static void check_calls(void) {
  mole_layer *layer = made("mola", "experts=4 rank=2 dropout=0", 0), *other = made("lora", "", 0);
  mole_workspace *work = NULL, *work_of_other = NULL;
  mole_gradients *gradients = NULL, *gradients_of_other = NULL;
  float y[TOKENS * OUT], d_x[TOKENS * IN], many[64];
  mole_index loads[4], tokens = -1, experts = -1, pairs = -1, nan_tokens = -1, count = 0, i, sum = 0;
  const int* chosen = NULL;
  const float* gates = NULL;
  unsigned char flags[TOKENS * 4];
  int forced[TOKENS];
  mole_index begin[2];
  mole_pass pass;
  double value = -1, norm = -1;
  mole_status status;

  OK(mole_workspace_create(layer, TOKENS, &work));
  OK(mole_workspace_create(other, TOKENS, &work_of_other));
  OK(mole_gradients_create(layer, &gradients));
  OK(mole_gradients_create(other, &gradients_of_other));
  memset(d_x, 0, sizeof d_x);
  {
    const mole_index size = mole_layer_size(layer);
    float* const numbers = (float*)malloc((size_t)size * sizeof(float));
    fill(numbers, size, 8);
    OK(mole_layer_set_parameters(layer, numbers, size));
    free(numbers);
  }

  CHECK_STATUS(MOLE_ORDER, mole_backward(layer, x, d_y, d_x, TOKENS, work));
  CHECK_STATUS(MOLE_ORDER, mole_routing_sizes(work, &tokens, &experts, &pairs, NULL));
  CHECK_STATUS(MOLE_ORDER, mole_routing_pairs(work, NULL, TOKENS, NULL, NULL, 0));
  CHECK_STATUS(MOLE_ORDER, mole_routing_logits(work, NULL, NULL, NULL));
  CHECK_STATUS(MOLE_ORDER, mole_routing_scores(work, NULL, NULL, NULL));
  CHECK_STATUS(MOLE_ORDER, mole_load_balance(work, "", &value));
  CHECK_STATUS(MOLE_ORDER, mole_router_z(work, 1, &value));
  CHECK_STATUS(MOLE_CAPACITY, mole_forward(layer, x, y, TOKENS + 1, NULL, work));
  CHECK_STATUS(MOLE_CAPACITY, mole_forward(layer, x, y, LONG_MAX, NULL, work));
  CHECK_STATUS(MOLE_SHAPE, mole_forward(layer, x, y, -1, NULL, work));
  CHECK_STATUS(MOLE_SHAPE, mole_forward(layer, x, y, LONG_MIN, NULL, work));
  CHECK_STATUS(MOLE_SHAPE, mole_forward(layer, x, x, TOKENS, NULL, work));
  CHECK_STATUS(MOLE_NULL_POINTER, mole_forward(layer, NULL, y, TOKENS, NULL, work));
  CHECK_STATUS(MOLE_NULL_POINTER, mole_forward(layer, x, NULL, TOKENS, NULL, work));
  CHECK_STATUS(MOLE_ORDER, mole_forward(layer, x, y, TOKENS, NULL, work_of_other));

  OK(mole_forward(layer, x, y, TOKENS, NULL, work));
  OK(mole_routing_sizes(work, &tokens, &experts, &pairs, &nan_tokens));
  CHECK(tokens == TOKENS && experts == 4 && pairs == 2 * TOKENS && nan_tokens == 0);
  OK(mole_routing_sizes(work, NULL, NULL, NULL, NULL));
  OK(mole_routing_loads(work, loads, 4));
  for (i = 0; i < 4; ++i) sum += loads[i];
  CHECK(sum == pairs);
  CHECK_STATUS(MOLE_SHAPE, mole_routing_loads(work, loads, 3));
  for (i = 0; i < TOKENS; ++i) {
    OK(mole_routing_of_token(work, i, &count, &chosen, &gates));
    CHECK(count == 2 && chosen[0] != chosen[1] && fabs((double)gates[0] + (double)gates[1] - 1) < 1e-6);
  }
  {
    mole_index first[TOKENS + 1], columns = 0, stride = 0, n;
    int all_experts[2 * TOKENS];
    float all_gates[2 * TOKENS];
    const float *logits = NULL, *scores = NULL;
    OK(mole_routing_pairs(work, first, TOKENS, all_experts, all_gates, 2 * TOKENS));
    CHECK(first[0] == 0);
    for (n = 0; n < TOKENS; ++n) {
      OK(mole_routing_of_token(work, n, &count, &chosen, &gates));
      CHECK(first[n + 1] == first[n] + count);
      CHECK(memcmp(all_experts + first[n], chosen, (size_t)count * sizeof(int)) == 0);
      CHECK(same(all_gates + first[n], gates, count));
    }
    OK(mole_routing_pairs(work, NULL, TOKENS, NULL, NULL, 2 * TOKENS));
    CHECK_STATUS(MOLE_SHAPE, mole_routing_pairs(work, first, TOKENS - 1, all_experts, all_gates, 2 * TOKENS));
    CHECK_STATUS(MOLE_SHAPE, mole_routing_pairs(work, first, TOKENS, all_experts, all_gates, 2 * TOKENS + 1));

    /* The first expert of a token has its largest logit; scores are a softmax. */
    OK(mole_routing_logits(work, &logits, &columns, &stride));
    CHECK(columns == 4 && stride >= 4);
    OK(mole_routing_scores(work, &scores, &columns, &stride));
    CHECK(columns == 4 && stride >= 4);
    for (n = 0; n < TOKENS; ++n) {
      double total = 0;
      for (i = 0; i < 4; ++i) {
        CHECK(logits[n * stride + i] <= logits[n * stride + all_experts[first[n]]]);
        total += (double)scores[n * stride + i];
      }
      CHECK(fabs(total - 1) < 1e-6);
    }
    OK(mole_routing_logits(work, NULL, NULL, NULL));
    OK(mole_routing_scores(work, NULL, NULL, NULL));
  }
  CHECK_STATUS(MOLE_OPTION, mole_routing_of_token(work, TOKENS, &count, &chosen, &gates));
  CHECK_STATUS(MOLE_OPTION, mole_routing_of_token(work, -1, &count, NULL, NULL));
  OK(mole_load_balance(work, "coefficient=0.01 norm=k_at_uniform", &value));
  CHECK(value > 0.01 && value < 0.08);
  CHECK_STATUS(MOLE_OPTION, mole_load_balance(work, "norm=none", &value));
  CHECK_STATUS(MOLE_OPTION, mole_load_balance(work, "k=0", &value));
  OK(mole_router_z(work, 0.001, &value));
  CHECK(value > 0);
  CHECK_STATUS(MOLE_OPTION, mole_router_z(work, HUGE_VAL, &value));

  CHECK_STATUS(MOLE_ORDER, mole_backward(layer, d_y, d_y, d_x, TOKENS, work));
  CHECK_STATUS(MOLE_SHAPE, mole_backward(layer, x, d_y, d_x, TOKENS - 1, work));
  CHECK_STATUS(MOLE_ORDER, mole_backward_into(layer, x, d_y, d_x, TOKENS, gradients_of_other, work));
  CHECK_STATUS(MOLE_ORDER, mole_backward(other, x, d_y, d_x, TOKENS, work));
  CHECK_STATUS(MOLE_NULL_POINTER, mole_backward(layer, x, NULL, d_x, TOKENS, work));
  CHECK_STATUS(MOLE_NULL_POINTER, mole_backward_into(layer, x, d_y, d_x, TOKENS, NULL, work));
  OK(mole_backward_into(layer, x, d_y, d_x, TOKENS, gradients, work));
  CHECK_STATUS(MOLE_ORDER, mole_backward(layer, x, d_y, d_x, TOKENS, work));
  CHECK_STATUS(MOLE_ORDER, mole_layer_add_gradients(layer, gradients_of_other));
  {
    const mole_index size = mole_layer_size(layer);
    float* const numbers = (float*)malloc((size_t)size * sizeof(float));
    CHECK_STATUS(MOLE_ORDER, mole_gradients_get(layer, gradients_of_other, numbers, size));
    free(numbers);
  }

  /* Passes that do not fit. */
  memset(&pass, 0, sizeof pass);
  memset(flags, 1, sizeof flags);
  pass.allowed = flags;
  pass.allowed_experts = 3;
  CHECK_STATUS(MOLE_SHAPE, mole_forward(layer, x, y, TOKENS, &pass, work));
  pass.allowed_experts = LONG_MAX;
  CHECK_STATUS(MOLE_OPTION, mole_forward(layer, x, y, TOKENS, &pass, work));
  pass.allowed_experts = -4;
  CHECK_STATUS(MOLE_OPTION, mole_forward(layer, x, y, TOKENS, &pass, work));
  pass.allowed_experts = 4;
  for (i = 0; i < TOKENS; ++i) flags[4 * i + 1] = 0;
  OK(mole_forward(layer, x, y, TOKENS, &pass, work));
  OK(mole_routing_loads(work, loads, 4));
  CHECK(loads[1] == 0);
  memset(&pass, 0, sizeof pass);
  for (i = 0; i < TOKENS; ++i) forced[i] = 2;
  pass.forced = forced;
  OK(mole_forward(layer, x, y, TOKENS, &pass, work));
  OK(mole_routing_loads(work, loads, 4));
  CHECK(loads[2] == TOKENS);
  forced[1] = 4;
  CHECK_STATUS(MOLE_OPTION, mole_forward(layer, x, y, TOKENS, &pass, work));
  memset(&pass, 0, sizeof pass);
  OK(mole_forward(layer, x, y, TOKENS, &pass, work));
  CHECK(largest_difference(y, base_y, TOKENS * OUT) > 1e-2);
  memset(flags, 0, sizeof flags);
  pass.routed = flags;
  OK(mole_forward(layer, x, y, TOKENS, &pass, work));
  CHECK(largest_difference(y, base_y, TOKENS * OUT) < 1e-5);
  pass.routed = NULL;
  pass.token_mask = flags;
  OK(mole_forward(layer, x, y, TOKENS, &pass, work));
  CHECK(largest_difference(y, base_y, TOKENS * OUT) > 1e-2);
  OK(mole_load_balance(work, NULL, &value));
  CHECK(value == 0); /* no token counts */
  memset(&pass, 0, sizeof pass);
  begin[0] = 0;
  begin[1] = 3;
  pass.sequence_begin = begin;
  pass.sequences = 2;
  OK(mole_forward(layer, x, y, TOKENS, &pass, work));
  OK(mole_load_balance(work, "scope=global", &value));
  OK(mole_load_balance(work, "scope=sequence", &norm));
  CHECK(value != norm);
  begin[1] = LONG_MAX;
  CHECK_STATUS(MOLE_SHAPE, mole_forward(layer, x, y, TOKENS, &pass, work));
  pass.sequences = -1;
  CHECK_STATUS(MOLE_OPTION, mole_forward(layer, x, y, TOKENS, &pass, work));
  pass.sequences = 1;
  pass.sequence_begin = NULL;
  CHECK_STATUS(MOLE_NULL_POINTER, mole_forward(layer, x, y, TOKENS, &pass, work));

  /* A part that does not learn has no gradient. */
  OK(mole_layer_set_trainable(layer, 0, 1));
  {
    mole_tensor tensor;
    OK(mole_layer_tensor(layer, 0, &tensor));
    CHECK(strcmp(tensor.name, "router.weight") == 0 && tensor.gradient == NULL);
    OK(mole_layer_tensor(layer, 1, &tensor));
    CHECK(tensor.gradient != NULL);
  }
  CHECK_STATUS(MOLE_ORDER, mole_layer_add_gradients(layer, gradients));

  /* Arrays of wrong sizes. */
  CHECK_STATUS(MOLE_SHAPE, mole_layer_bind_parameters(layer, many, 64, MOLE_OF_LAYER));
  CHECK_STATUS(MOLE_SHAPE, mole_layer_bind_gradients(layer, many, LONG_MAX, MOLE_OF_LAYER));
  CHECK_STATUS(MOLE_SHAPE, mole_layer_get_parameters(layer, many, -1));
  CHECK_STATUS(MOLE_SHAPE, mole_layer_set_parameters(layer, many, 64));
  CHECK_STATUS(MOLE_SHAPE, mole_layer_get_gradients(layer, many, 64));
  CHECK_STATUS(MOLE_OPTION, mole_layer_bind_parameters(layer, many, mole_layer_size(layer), 9));

  /* Workspaces of senseless sizes. */
  mole_workspace_destroy(work);
  work = NULL;
  CHECK_STATUS(MOLE_OPTION, mole_workspace_create(layer, -1, &work));
  status = mole_workspace_create(layer, LONG_MAX, &work);
  CHECK(status == MOLE_OPTION || status == MOLE_OUT_OF_MEMORY);
  CHECK(work == NULL);
  OK(mole_workspace_create(layer, 0, &work));
  OK(mole_forward(layer, NULL, NULL, 0, NULL, work));
  OK(mole_routing_sizes(work, &tokens, NULL, NULL, NULL));
  CHECK(tokens == 0);

  mole_workspace_destroy(work);
  mole_workspace_destroy(work_of_other);
  mole_gradients_destroy(gradients);
  mole_gradients_destroy(gradients_of_other);
  mole_layer_destroy(layer);
  mole_layer_destroy(other);
}

static void ignore_tensor(void* user, const mole_tensor* tensor) {
  ++*(int*)user;
  (void)tensor;
}

static void check_null(void) {
  mole_layer *layer = made("lora", "", 0), *made_of_null = (mole_layer*)&failures;
  mole_layer* none[1];
  mole_workspace *work = NULL, *work_of_null = NULL;
  mole_gradients* gradients = NULL;
  mole_adamw* adamw = NULL;
  mole_threads* threads = NULL;
  mole_tensor tensor;
  const mole_weight weight = host_weight(0);
  float y[TOKENS * OUT], numbers[4];
  mole_index loads[1], count = 0;
  double value;
  size_t size;
  int visits = 0;
  none[0] = NULL;
#define REFUSES_NULL(call)                                  \
  do {                                                      \
    CHECK_STATUS(MOLE_NULL_POINTER, call);                  \
    CHECK(strstr(mole_last_error(), "found NULL") != NULL); \
  } while (0)
  OK(mole_workspace_create(layer, TOKENS, &work));
  OK(mole_adamw_create("", &adamw));
  OK(mole_forward(layer, x, y, TOKENS, NULL, work));
  REFUSES_NULL(mole_layer_create(NULL, "", &weight, &made_of_null));
  REFUSES_NULL(mole_layer_create("lora", "", NULL, &made_of_null));
  REFUSES_NULL(mole_layer_create("lora", "", &weight, NULL));
  REFUSES_NULL(mole_layer_clone(NULL, &made_of_null));
  CHECK(made_of_null == NULL);
  REFUSES_NULL(mole_layer_clone(layer, NULL));
  CHECK(mole_layer_in(NULL) == -1 && mole_layer_out(NULL) == -1 && mole_layer_size(NULL) == -1);
  CHECK(mole_layer_tensor_count(NULL) == -1 && mole_layer_preset(NULL) == NULL && mole_layer_options(NULL) == NULL);
  CHECK(mole_preset_options(NULL) == NULL && mole_preset_options("none") == NULL);
  REFUSES_NULL(mole_layer_set_weight(NULL, &weight));
  REFUSES_NULL(mole_layer_set_weight(layer, NULL));
  REFUSES_NULL(mole_layer_set_trainable(NULL, 1, 1));
  REFUSES_NULL(mole_layer_merge(NULL, numbers));
  REFUSES_NULL(mole_layer_merge(layer, NULL));
  REFUSES_NULL(mole_layer_tensor(NULL, 0, &tensor));
  REFUSES_NULL(mole_layer_tensor(layer, 0, NULL));
  CHECK_STATUS(MOLE_OPTION, mole_layer_tensor(layer, -1, &tensor));
  CHECK_STATUS(MOLE_OPTION, mole_layer_tensor(layer, 99, &tensor));
  REFUSES_NULL(mole_layer_walk(NULL, ignore_tensor, &visits));
  REFUSES_NULL(mole_layer_walk(layer, NULL, &visits));
  OK(mole_layer_walk(layer, ignore_tensor, &visits));
  CHECK(visits == 2);
  REFUSES_NULL(mole_layer_bind_parameters(NULL, numbers, 4, MOLE_OF_LAYER));
  REFUSES_NULL(mole_layer_bind_parameters(layer, NULL, mole_layer_size(layer), MOLE_OF_LAYER));
  REFUSES_NULL(mole_layer_bind_gradients(NULL, numbers, 4, MOLE_OF_LAYER));
  REFUSES_NULL(mole_layer_bind_gradients(layer, NULL, mole_layer_size(layer), MOLE_OF_LAYER));
  REFUSES_NULL(mole_layer_release(NULL));
  REFUSES_NULL(mole_layer_get_parameters(NULL, numbers, 4));
  REFUSES_NULL(mole_layer_get_parameters(layer, NULL, mole_layer_size(layer)));
  REFUSES_NULL(mole_layer_set_parameters(NULL, numbers, 4));
  REFUSES_NULL(mole_layer_set_parameters(layer, NULL, mole_layer_size(layer)));
  REFUSES_NULL(mole_layer_get_gradients(NULL, numbers, 4));
  REFUSES_NULL(mole_layer_get_gradients(layer, NULL, mole_layer_size(layer)));
  REFUSES_NULL(mole_layer_zero_gradients(NULL));
  REFUSES_NULL(mole_workspace_create(NULL, 1, &work_of_null));
  CHECK(work_of_null == NULL);
  REFUSES_NULL(mole_workspace_create(layer, 1, NULL));
  REFUSES_NULL(mole_gradients_create(NULL, &gradients));
  REFUSES_NULL(mole_gradients_create(layer, NULL));
  REFUSES_NULL(mole_gradients_set_zero(NULL));
  REFUSES_NULL(mole_layer_add_gradients(layer, NULL));
  REFUSES_NULL(mole_gradients_get(NULL, NULL, numbers, 4));
  REFUSES_NULL(mole_gradients_get(layer, NULL, numbers, 4));
  REFUSES_NULL(mole_forward(NULL, x, y, TOKENS, NULL, work));
  REFUSES_NULL(mole_forward(layer, x, y, TOKENS, NULL, NULL));
  REFUSES_NULL(mole_recompute(NULL, x, TOKENS, NULL, work));
  REFUSES_NULL(mole_recompute(layer, NULL, TOKENS, NULL, work));
  REFUSES_NULL(mole_recompute(layer, x, TOKENS, NULL, NULL));
  REFUSES_NULL(mole_backward(NULL, x, d_y, NULL, TOKENS, work));
  REFUSES_NULL(mole_backward(layer, x, d_y, NULL, TOKENS, NULL));
  REFUSES_NULL(mole_routing_sizes(NULL, &count, NULL, NULL, NULL));
  REFUSES_NULL(mole_routing_of_token(NULL, 0, &count, NULL, NULL));
  REFUSES_NULL(mole_routing_loads(NULL, loads, 1));
  REFUSES_NULL(mole_routing_pairs(NULL, NULL, 0, NULL, NULL, 0));
  REFUSES_NULL(mole_routing_logits(NULL, NULL, NULL, NULL));
  REFUSES_NULL(mole_routing_scores(NULL, NULL, NULL, NULL));
  REFUSES_NULL(mole_load_balance(NULL, "", &value));
  REFUSES_NULL(mole_router_z(NULL, 1, &value));
  OK(mole_forward(layer, x, y, TOKENS, NULL, work));
  REFUSES_NULL(mole_routing_of_token(work, 0, NULL, NULL, NULL));
  REFUSES_NULL(mole_routing_loads(work, NULL, 1));
  REFUSES_NULL(mole_load_balance(work, "", NULL));
  REFUSES_NULL(mole_router_z(work, 1, NULL));
  REFUSES_NULL(mole_adamw_create("", NULL));
  REFUSES_NULL(mole_adamw_set_learning_rate(NULL, 1));
  REFUSES_NULL(mole_adamw_step(NULL, &layer, 1));
  REFUSES_NULL(mole_adamw_step(adamw, NULL, 1));
  REFUSES_NULL(mole_adamw_step(adamw, none, 1));
  CHECK_STATUS(MOLE_OPTION, mole_adamw_step(adamw, &layer, -1));
  REFUSES_NULL(mole_clip_norm(none, 1, 1, NULL));
  REFUSES_NULL(mole_layer_save(NULL, "nowhere"));
  REFUSES_NULL(mole_layer_save(layer, NULL));
  REFUSES_NULL(mole_layer_save_to(NULL, NULL, 0, &size));
  REFUSES_NULL(mole_layer_save_to(layer, NULL, 0, NULL));
  REFUSES_NULL(mole_layer_load(NULL, "nowhere"));
  REFUSES_NULL(mole_layer_load(layer, NULL));
  REFUSES_NULL(mole_layer_load_from(NULL, numbers, 4));
  REFUSES_NULL(mole_layer_load_from(layer, NULL, 4));
  REFUSES_NULL(mole_layer_save_state_to(NULL, NULL, 0, &size));
  REFUSES_NULL(mole_layer_save_state_to(layer, NULL, 0, NULL));
  REFUSES_NULL(mole_layer_load_state_from(NULL, numbers, 4));
  REFUSES_NULL(mole_layer_load_state_from(layer, NULL, 4));
  REFUSES_NULL(mole_adamw_save(NULL, "nowhere"));
  REFUSES_NULL(mole_adamw_save(adamw, NULL));
  REFUSES_NULL(mole_adamw_load(NULL, "nowhere", &layer, 1));
  REFUSES_NULL(mole_adamw_load(adamw, NULL, &layer, 1));
  REFUSES_NULL(mole_threads_create(1, NULL));
  REFUSES_NULL(mole_threads_of_host(1, NULL, NULL, &threads));
  REFUSES_NULL(mole_layer_set_threads(NULL, NULL));
  mole_layer_destroy(NULL);
  mole_workspace_destroy(NULL);
  mole_gradients_destroy(NULL);
  mole_adamw_destroy(NULL);
  mole_threads_destroy(NULL);
  mole_adamw_destroy(adamw);
  mole_workspace_destroy(work);
  mole_layer_destroy(layer);
}

/* ---- balancing, training, files, threads */

static void check_balancing(void) {
  static const char* const presets[] = {"deepseek_v3", "flylora", "smora"};
  static const char* const options[] = {"experts=5 shared=1 groups=2 kept_groups=1 k=2 dropout=0",
                                        "rank=4 k=2 select=signed_value", "rank=4 k=2"};
  mole_layer* unbalanced = made("mola", "experts=4", 0);
  const mole_index loads[4] = {9, 0, 0, 1}, wrong[4] = {1, 1, -1, 1};
  mole_index found[5], before = 0;
  int i, turn;
  CHECK_STATUS(MOLE_OPTION, mole_layer_balance(unbalanced, loads, 4, 1e-3));
  CHECK(strstr(mole_last_error(), "mola") != NULL);
  for (i = 0; i < 3; ++i) {
    mole_layer* layer = made(presets[i], options[i], 0);
    mole_workspace* work = NULL;
    float y[TOKENS * OUT];
    const mole_index experts = i == 0 ? 5 : 4;
    OK(mole_workspace_create(layer, TOKENS, &work));
    OK(mole_forward(layer, x, y, TOKENS, NULL, work));
    OK(mole_routing_loads(work, found, experts));
    before += found[0];
    /* An expert that is loaded over and over is chosen no more. */
    for (turn = 0; turn < 20; ++turn) OK(mole_layer_balance(layer, loads, 4, 1));
    OK(mole_forward(layer, x, y, TOKENS, NULL, work));
    OK(mole_routing_loads(work, found, experts));
    CHECK(found[0] == 0);
    CHECK_STATUS(MOLE_SHAPE, mole_layer_balance(layer, loads, 3, 1));
    CHECK_STATUS(MOLE_SHAPE, mole_layer_balance(layer, loads, LONG_MAX, 1));
    CHECK_STATUS(MOLE_SHAPE, mole_layer_balance(layer, loads, -1, 1));
    CHECK_STATUS(MOLE_OPTION, mole_layer_balance(layer, wrong, 4, 1));
    CHECK_STATUS(MOLE_OPTION, mole_layer_balance(layer, loads, 4, -1));
    CHECK_STATUS(MOLE_NULL_POINTER, mole_layer_balance(layer, NULL, 4, 1));
    mole_workspace_destroy(work);
    mole_layer_destroy(layer);
  }
  CHECK(before > 0);
  CHECK_STATUS(MOLE_NULL_POINTER, mole_layer_balance(NULL, loads, 4, 1));

  /* The loss reaches the router, and nothing else. */
  {
    mole_workspace* work = NULL;
    float y[TOKENS * OUT], zeros[TOKENS * OUT], nothing[8 * IN];
    double value;
    mole_tensor tensor;
    memset(zeros, 0, sizeof zeros);
    memset(nothing, 0, sizeof nothing);
    OK(mole_workspace_create(unbalanced, TOKENS, &work));
    OK(mole_forward(unbalanced, x, y, TOKENS, NULL, work));
    OK(mole_load_balance(work, "", &value));
    OK(mole_backward(unbalanced, x, zeros, NULL, TOKENS, work));
    OK(mole_layer_tensor(unbalanced, 0, &tensor));
    CHECK(largest_difference(tensor.gradient, nothing, 4 * IN) > 1e-6);
    OK(mole_layer_tensor(unbalanced, 1, &tensor));
    CHECK(same(tensor.gradient, nothing, 8 * IN));
    mole_workspace_destroy(work);
  }
  mole_layer_destroy(unbalanced);
}

/* A step of |y - target|^2 / 2; its loss. */
static double train(mole_layer* layer, mole_workspace* work, mole_adamw* adamw, const float* target) {
  float y[TOKENS * OUT];
  double loss = 0;
  int i;
  OK(mole_layer_zero_gradients(layer));
  OK(mole_forward(layer, x, y, TOKENS, NULL, work));
  for (i = 0; i < TOKENS * OUT; ++i) {
    y[i] -= target[i];
    loss += 0.5 * (double)y[i] * (double)y[i];
  }
  OK(mole_backward(layer, x, y, NULL, TOKENS, work));
  OK(mole_clip_norm(&layer, 1, 100, NULL));
  OK(mole_adamw_step(adamw, &layer, 1));
  return loss;
}

static void check_training(void) {
  const char *const path = "boundary_test.safetensors", *const optimizer_path = "boundary_test_adamw.safetensors";
  mole_layer *layer = made("mola", "experts=3 rank=2 dropout=0", 0),
             *resumed = made("mola", "experts=3 rank=2 dropout=0 seed=5", 0);
  mole_layer *other = made("loramoe", "experts=3 rank=2", 0), *wide = made("mola", "experts=3 rank=3", 0);
  mole_workspace* work = NULL;
  mole_adamw *adamw = NULL, *resumed_adamw = NULL;
  float target[TOKENS * OUT], *parameters, *expected;
  const mole_index size = mole_layer_size(layer);
  double first, last = 0, norm = 0;
  int step;
  fill(target, TOKENS * OUT, 77);
  OK(mole_adamw_create("learning_rate=0.05 weight_decay=0", &adamw));
  CHECK_STATUS(MOLE_OPTION, mole_adamw_create("beta1=1", &resumed_adamw));
  CHECK(resumed_adamw == NULL);
  OK(mole_adamw_create("learning_rate=1 weight_decay=0", &resumed_adamw));
  OK(mole_adamw_set_learning_rate(resumed_adamw, 0.05));
  CHECK_STATUS(MOLE_OPTION, mole_adamw_set_learning_rate(resumed_adamw, -1));
  OK(mole_workspace_create(layer, TOKENS, &work));
  first = train(layer, work, adamw, target);
  for (step = 0; step < 60; ++step) last = train(layer, work, adamw, target);
  CHECK(last < 0.2 * first);
  OK(mole_clip_norm(&layer, 1, 1e-3, &norm));
  CHECK(norm > 1e-3);
  CHECK_STATUS(MOLE_OPTION, mole_clip_norm(&layer, 1, 0, NULL));

  /* A run that continues from files has the bits of one that never stopped. */
  OK(mole_layer_save(layer, path));
  OK(mole_adamw_save(adamw, optimizer_path));
  OK(mole_layer_load(resumed, path));
  OK(mole_adamw_load(resumed_adamw, optimizer_path, &resumed, 1));
  train(layer, work, adamw, target);
  train(resumed, work, resumed_adamw, target);
  parameters = (float*)malloc((size_t)size * sizeof(float));
  expected = (float*)malloc((size_t)size * sizeof(float));
  OK(mole_layer_get_parameters(layer, expected, size));
  OK(mole_layer_get_parameters(resumed, parameters, size));
  CHECK(same(expected, parameters, size));

  CHECK_STATUS(MOLE_FILE, mole_layer_load(other, path));
  CHECK(strstr(mole_last_error(), "loramoe") != NULL);
  CHECK_STATUS(MOLE_FILE, mole_layer_load(wide, path));
  CHECK_STATUS(MOLE_FILE, mole_layer_load(layer, optimizer_path));
  CHECK_STATUS(MOLE_FILE, mole_layer_load(layer, "no_such_folder/no_such_file"));
  CHECK_STATUS(MOLE_FILE, mole_layer_save(layer, "no_such_folder/no_such_file"));
  CHECK_STATUS(MOLE_FILE, mole_adamw_load(adamw, path, &layer, 1));
  CHECK_STATUS(MOLE_FILE, mole_layer_load_from(layer, "", 0));
  CHECK_STATUS(MOLE_SHAPE, mole_adamw_step(adamw, &wide, 1));
  OK(mole_layer_get_parameters(layer, parameters, size));
  CHECK(same(expected, parameters, size));
  remove(path);
  remove(optimizer_path);
  free(parameters);
  free(expected);
  mole_workspace_destroy(work);
  mole_adamw_destroy(adamw);
  mole_adamw_destroy(resumed_adamw);
  mole_layer_destroy(layer);
  mole_layer_destroy(resumed);
  mole_layer_destroy(other);
  mole_layer_destroy(wide);
}

/* The loop of a host, backwards; *host counts its calls. */
static void loop_backwards(void* host, mole_index tasks, mole_task task, void* context) {
  ++*(int*)host;
  while (tasks > 0) task(context, --tasks);
}

static void check_threads(void) {
  enum { WIDTH = 512, ROWS = 96 };
  const mole_index numbers = (mole_index)WIDTH * WIDTH;
  float* const w = (float*)malloc((size_t)numbers * sizeof(float));
  float* const many = (float*)malloc((size_t)(ROWS * WIDTH) * sizeof(float));
  float* const y = (float*)malloc((size_t)(ROWS * WIDTH) * sizeof(float));
  float* const serial = (float*)malloc((size_t)(ROWS * WIDTH) * sizeof(float));
  mole_threads *pool = NULL, *host = NULL;
  mole_layer* layer = NULL;
  mole_workspace* work = NULL;
  mole_weight weight = host_weight(0);
  int loops = 0;
  fill(w, numbers, 1);
  fill(many, (mole_index)ROWS * WIDTH, 2);
  weight.data = w;
  weight.out = weight.in = WIDTH;
  weight.bias = NULL;
  OK(mole_layer_create("mola", "rank=4", &weight, &layer));
  OK(mole_workspace_create(layer, ROWS, &work));
  CHECK_STATUS(MOLE_OPTION, mole_threads_create(0, &pool));
  CHECK_STATUS(MOLE_OPTION, mole_threads_of_host(0, loop_backwards, &loops, &host));
  OK(mole_threads_create(2, &pool));
  OK(mole_threads_of_host(3, loop_backwards, &loops, &host));
  OK(mole_forward(layer, many, serial, ROWS, NULL, work));
  OK(mole_layer_set_threads(layer, pool));
  mole_threads_destroy(pool); /* the layer keeps it */
  OK(mole_forward(layer, many, y, ROWS, NULL, work));
  CHECK(same(serial, y, (mole_index)ROWS * WIDTH));
  OK(mole_layer_set_threads(layer, host));
  OK(mole_forward(layer, many, y, ROWS, NULL, work));
  CHECK(same(serial, y, (mole_index)ROWS * WIDTH) && loops > 0);
  loops = 0;
  OK(mole_layer_set_threads(layer, NULL));
  OK(mole_forward(layer, many, y, ROWS, NULL, work));
  CHECK(same(serial, y, (mole_index)ROWS * WIDTH) && loops == 0);
  mole_threads_destroy(host);
  mole_workspace_destroy(work);
  mole_layer_destroy(layer);
  free(w);
  free(many);
  free(y);
  free(serial);
}

int main(void) {
  int status;
  CHECK(strcmp(mole_last_error(), "") == 0);
  CHECK(strcmp(mole_status_text(MOLE_ORDER), "order of calls") == 0);
  for (status = MOLE_SHAPE; status <= MOLE_DUPLICATE_ID; ++status)
    CHECK(strcmp(mole_status_text(status), "unknown status") != 0);
  CHECK(strcmp(mole_status_text(MOLE_DUPLICATE_ID + 1), "unknown status") == 0);
  CHECK(strcmp(mole_status_text(-55), "unknown status") == 0);
  CHECK(strlen(mole_version()) >= 5);
  make_numbers();
  check_every_preset();
  check_sharing("mos", "rank=6 layers=2 dropout=0", "rank=6 layers=2 layer=1 dropout=0 seed=3");
  check_sharing("vblora", "vectors=8 length=4 rank=3", "vectors=8 length=4 rank=2 seed=3");
  check_diffora();
  check_arrow();
  check_blocks();
  check_strides();
  check_options();
  check_weights();
  check_calls();
  check_null();
  check_balancing();
  check_training();
  check_threads();
  if (failures > 0) printf("%d checks failed\n", failures);
  return failures > 0;
}
