/* SPDX-License-Identifier: MIT */
/* A trainer in C, as llm.c is one: all parameters in one flat array, gradients in a second, and the moments of its own
   AdamW in two more. It trains a small model of characters on one text, then freezes it, puts a mixture of LoRA experts
   around one of its linear layers, and adapts that to another text. The experts' numbers are a part of the same arrays,
   so that its AdamW steps them, and would save them, without knowing what they are. */
#include <mole/c/mole.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the model: the last CONTEXT characters -> embedding -> linear -> tanh -> linear -> softmax over characters */

enum { VOCABULARY = 96, CONTEXT = 6, WIDTH = 12, INPUTS = CONTEXT * WIDTH, HIDDEN = 48, BATCH = 32 };

/* What stands where in the flat arrays, and how many numbers it has. */
enum { EMBEDDING, HIDDEN_WEIGHT, HIDDEN_BIAS, OUTPUT_WEIGHT, OUTPUT_BIAS, EXPERTS, PARTS };

typedef struct model {
  size_t sizes[PARTS];
  size_t count;
  float *parameters, *gradients, *moments, *squares;
  float *parts[PARTS], *d_parts[PARTS];
  /* The layer that stands for the first linear one; NULL: the model's own code computes it. */
  mole_layer* layer;
  mole_workspace* work;
  int step; /* of AdamW */
} model;

typedef struct activations {
  int characters[BATCH * CONTEXT], targets[BATCH];
  float x[BATCH * INPUTS], hidden[BATCH * HIDDEN], probabilities[BATCH * VOCABULARY];
  float d_x[BATCH * INPUTS], d_hidden[BATCH * HIDDEN];
} activations;

static void stop_unless_ok(mole_status status) {
  if (status == MOLE_OK) return;
  fprintf(stderr, "c_trainer: %s\n", mole_last_error());
  exit(1);
}

static unsigned long random_state = 1;
/* From -1 to 1. */
static float random_number(void) {
  random_state = (random_state * 1103515245UL + 12345UL) & 0x7fffffffUL;
  return (float)random_state / 1073741824.0f - 1.0f;
}

static float* allocated(size_t count) {
  float* const numbers = (float*)calloc(count, sizeof(float));
  if (numbers == NULL) {
    fprintf(stderr, "c_trainer: out of memory\n");
    exit(1);
  }
  return numbers;
}

/* Makes the flat arrays for `sizes`, with what the arrays before had in common with them. */
static void allocate(model* m, const size_t sizes[PARTS]) {
  float* const old = m->parameters;
  const size_t common = m->count;
  size_t first = 0;
  int part;
  m->count = 0;
  for (part = 0; part < PARTS; ++part) m->count += m->sizes[part] = sizes[part];
  free(m->gradients);
  free(m->moments);
  free(m->squares);
  m->parameters = allocated(m->count);
  m->gradients = allocated(m->count);
  m->moments = allocated(m->count);
  m->squares = allocated(m->count);
  if (old != NULL) memcpy(m->parameters, old, common * sizeof(float));
  free(old);
  for (part = 0; part < PARTS; first += m->sizes[part++]) {
    m->parts[part] = m->parameters + first;
    m->d_parts[part] = m->gradients + first;
  }
  m->step = 0;
}

static void start(model* m) {
  const size_t sizes[PARTS] = {VOCABULARY * WIDTH, HIDDEN * INPUTS, HIDDEN, VOCABULARY * HIDDEN, VOCABULARY, 0};
  const float bounds[PARTS] = {1.0f, 0.12f, 0.0f, 0.12f, 0.0f, 0.0f};
  int part;
  size_t i;
  memset(m, 0, sizeof *m);
  allocate(m, sizes);
  for (part = 0; part < PARTS; ++part)
    for (i = 0; i < m->sizes[part]; ++i) m->parts[part][i] = bounds[part] * random_number();
}

/* y = x W^T + b    x [N x I], W [O x I] */
static void linear(const float* x, const float* w, const float* b, float* y, int tokens, int in, int out) {
  int n, o, i;
  for (n = 0; n < tokens; ++n)
    for (o = 0; o < out; ++o) {
      float sum = b[o];
      for (i = 0; i < in; ++i) sum += w[o * in + i] * x[n * in + i];
      y[n * out + o] = sum;
    }
}

/* Adds to all of d_x, d_w and d_b. */
static void linear_backward(const float* x, const float* w, const float* d_y, float* d_x, float* d_w, float* d_b,
                            int tokens, int in, int out) {
  int n, o, i;
  for (n = 0; n < tokens; ++n)
    for (o = 0; o < out; ++o) {
      const float d = d_y[n * out + o];
      d_b[o] += d;
      for (i = 0; i < in; ++i) {
        d_x[n * in + i] += d * w[o * in + i];
        d_w[o * in + i] += d * x[n * in + i];
      }
    }
}

/* The mean loss of a batch, in nats for each character. */
static double forward(model* m, activations* a, int training) {
  double loss = 0;
  int n, i;
  for (n = 0; n < BATCH; ++n)
    for (i = 0; i < CONTEXT; ++i)
      memcpy(a->x + n * INPUTS + i * WIDTH, m->parts[EMBEDDING] + a->characters[n * CONTEXT + i] * WIDTH,
             WIDTH * sizeof(float));

  if (m->layer == NULL) {
    linear(a->x, m->parts[HIDDEN_WEIGHT], m->parts[HIDDEN_BIAS], a->hidden, BATCH, INPUTS, HIDDEN);
  } else {
    mole_pass pass = {0};
    pass.training = training; /* with dropout */
    pass.step = (unsigned long)m->step;
    stop_unless_ok(mole_forward(m->layer, a->x, a->hidden, BATCH, &pass, m->work));
  }

  for (i = 0; i < BATCH * HIDDEN; ++i) a->hidden[i] = tanhf(a->hidden[i]);
  linear(a->hidden, m->parts[OUTPUT_WEIGHT], m->parts[OUTPUT_BIAS], a->probabilities, BATCH, HIDDEN, VOCABULARY);
  for (n = 0; n < BATCH; ++n) {
    float* const p = a->probabilities + n * VOCABULARY;
    float most = p[0], sum = 0;
    for (i = 1; i < VOCABULARY; ++i) most = p[i] > most ? p[i] : most;
    for (i = 0; i < VOCABULARY; ++i) sum += p[i] = expf(p[i] - most);
    for (i = 0; i < VOCABULARY; ++i) p[i] /= sum;
    loss -= log((double)p[a->targets[n]] + 1e-30) / BATCH;
  }
  return loss;
}

static void backward(model* m, activations* a) {
  int n, i;
  memset(m->gradients, 0, m->count * sizeof(float)); /* those of the experts, too */
  memset(a->d_x, 0, sizeof a->d_x);
  memset(a->d_hidden, 0, sizeof a->d_hidden);
  for (n = 0; n < BATCH; ++n) {
    float* const p = a->probabilities + n * VOCABULARY;
    p[a->targets[n]] -= 1;
    for (i = 0; i < VOCABULARY; ++i) p[i] /= BATCH;
  }
  linear_backward(a->hidden, m->parts[OUTPUT_WEIGHT], a->probabilities, a->d_hidden, m->d_parts[OUTPUT_WEIGHT],
                  m->d_parts[OUTPUT_BIAS], BATCH, HIDDEN, VOCABULARY);
  for (i = 0; i < BATCH * HIDDEN; ++i) a->d_hidden[i] *= 1 - a->hidden[i] * a->hidden[i];

  if (m->layer == NULL)
    linear_backward(a->x, m->parts[HIDDEN_WEIGHT], a->d_hidden, a->d_x, m->d_parts[HIDDEN_WEIGHT],
                    m->d_parts[HIDDEN_BIAS], BATCH, INPUTS, HIDDEN);
  else
    stop_unless_ok(mole_backward(m->layer, a->x, a->d_hidden, a->d_x, BATCH, m->work));

  for (n = 0; n < BATCH * CONTEXT; ++n)
    for (i = 0; i < WIDTH; ++i) m->d_parts[EMBEDDING][a->characters[n] * WIDTH + i] += a->d_x[n * WIDTH + i];
}

/* AdamW on the numbers from `first` on. */
static void update(model* m, size_t first, float learning_rate) {
  const float beta1 = 0.9f, beta2 = 0.999f, epsilon = 1e-8f;
  float rest1, rest2;
  size_t i;
  ++m->step;
  rest1 = 1 - powf(beta1, (float)m->step);
  rest2 = 1 - powf(beta2, (float)m->step);
  for (i = first; i < m->count; ++i) {
    const float g = m->gradients[i];
    m->moments[i] = beta1 * m->moments[i] + (1 - beta1) * g;
    m->squares[i] = beta2 * m->squares[i] + (1 - beta2) * g * g;
    m->parameters[i] -= learning_rate * (m->moments[i] / rest1) / (sqrtf(m->squares[i] / rest2) + epsilon);
  }
}

/* ---- the experts */

/* A mixture of experts around the first linear layer, whose weight stays where it is; the router's and experts' numbers
   become the last part of the flat arrays. */
static void add_experts(model* m) {
  size_t sizes[PARTS];
  mole_weight weight = {0};
  mole_index size;
  weight.data = m->parts[HIDDEN_WEIGHT];
  weight.out = HIDDEN;
  weight.in = INPUTS;
  weight.bias = m->parts[HIDDEN_BIAS];
  weight.pack = 1; /* it is frozen from here on; packed, it is also free to move with the flat array */
  stop_unless_ok(mole_layer_create("mola", "experts=4 rank=4 k=2 alpha=8 dropout=0.02", &weight, &m->layer));
  stop_unless_ok(mole_workspace_create(m->layer, BATCH, &m->work));

  size = mole_layer_size(m->layer);
  memcpy(sizes, m->sizes, sizeof sizes);
  sizes[EXPERTS] = (size_t)size;
  allocate(m, sizes);
  stop_unless_ok(mole_layer_bind_parameters(m->layer, m->parts[EXPERTS], size, MOLE_OF_LAYER));
  stop_unless_ok(mole_layer_bind_gradients(m->layer, m->d_parts[EXPERTS], size, MOLE_OF_ARRAY));
}

static void print_tensor(void* user, const mole_tensor* tensor) {
  (void)user;
  printf("  %-18s [%ld x %ld]\n", tensor->name, (long)tensor->rows, (long)tensor->cols);
}

/* ---- texts and training */

static const char first_text[] =
    "the weight of a layer is a matrix, and a layer is what the weight makes of a token. a token is a row of numbers, "
    "and a row of numbers is what the layer before it has made. so the rows go from layer to layer, and each of the "
    "layers turns them a little, until the last one tells which character is the next one of the text.";
static const char second_text[] =
    "LORA := A PAIR OF NARROW MATRICES; MIXTURE := SOME PAIRS, AND A ROUTER THAT CHOOSES; GATE := HOW MUCH OF A PAIR A "
    "TOKEN GETS; EXPERT := THE PAIR; RANK := HOW NARROW IT IS; BASE := WHAT STAYS AS IT WAS; TOKEN := A ROW; LAYER := "
    "BASE, AND WHAT THE EXPERTS OF THE TOKEN ADD TO IT; TRAINING := THE PAIRS AND THE ROUTER, AND NOTHING ELSE;";

static void read_batch(activations* a, const char* text, unsigned long number) {
  const unsigned long places = (unsigned long)strlen(text) - CONTEXT;
  int n, i;
  for (n = 0; n < BATCH; ++n) {
    const char* const at = text + (number * BATCH + (unsigned long)n) * 31 % places;
    for (i = 0; i < CONTEXT; ++i) a->characters[n * CONTEXT + i] = at[i] - ' ';
    a->targets[n] = at[CONTEXT] - ' ';
  }
}

/* The mean loss on a text. */
static double evaluate(model* m, activations* a, const char* text) {
  double loss = 0;
  unsigned long number;
  for (number = 0; number < 8; ++number) {
    read_batch(a, text, number);
    loss += forward(m, a, 0) / 8;
  }
  return loss;
}

static void train(model* m, activations* a, const char* text, size_t first, float learning_rate, int steps) {
  int step;
  for (step = 0; step < steps; ++step) {
    read_batch(a, text, (unsigned long)step);
    forward(m, a, 1);
    backward(m, a);
    update(m, first, learning_rate);
  }
}

int main(void) {
  static model m;
  static activations a;
  double before, fresh, after;
  size_t experts;
  int part;

  start(&m);
  printf("%-46s %.3f\n", "loss on the first text", evaluate(&m, &a, first_text));
  train(&m, &a, first_text, 0, 5e-3f, 250);
  printf("%-46s %.3f\n", "after training on it", evaluate(&m, &a, first_text));

  before = evaluate(&m, &a, second_text);
  printf("%-46s %.3f\n", "loss on the second text", before);
  add_experts(&m);
  stop_unless_ok(mole_layer_walk(m.layer, print_tensor, NULL));
  fresh = evaluate(&m, &a, second_text);
  printf("%-46s %.3f\n", "with fresh experts, the same", fresh);
  for (experts = 0, part = 0; part < EXPERTS; ++part) experts += m.sizes[part];
  train(&m, &a, second_text, experts, 2e-2f, 250);
  after = evaluate(&m, &a, second_text);
  printf("%-46s %.3f\n", "after training the experts alone", after);

  mole_workspace_destroy(m.work);
  mole_layer_destroy(m.layer); /* before the arrays that its numbers live in */
  free(m.parameters);
  free(m.gradients);
  free(m.moments);
  free(m.squares);
  if (fabs(fresh - before) > 1e-4 || !(after < 0.5 * before)) {
    fprintf(stderr, "c_trainer: expected a loss as before of fresh experts, and less than half after training\n");
    return 1;
  }
  return 0;
}
