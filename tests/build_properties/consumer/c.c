/* SPDX-License-Identifier: MIT */
/* A layer in a program of C. */
#include <mole/c/mole.h>

#include <stdio.h>

int main(void) {
  const float w[4] = {1, 2, 3, 4}, x[2] = {1, 1};
  float y[2] = {0, 0};
  mole_weight weight = {0};
  mole_layer* layer = NULL;
  mole_workspace* work = NULL;
  weight.data = w;
  weight.out = weight.in = 2;
  if (mole_layer_create("mola", "experts=2 rank=1", &weight, &layer) != MOLE_OK ||
      mole_workspace_create(layer, 1, &work) != MOLE_OK || mole_forward(layer, x, y, 1, NULL, work) != MOLE_OK)
    puts(mole_last_error());
  mole_workspace_destroy(work);
  mole_layer_destroy(layer);
  return y[0] == 3 && y[1] == 7 ? 0 : 1;
}
