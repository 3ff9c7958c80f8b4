// SPDX-License-Identifier: MIT
// Macros of a host, of <windows.h> and of C code, that are names in mole: they neither break it nor are they lost.
#define near
#define far
#define A 1.5
#define B (1 << 2)
#define C 3
#define D 4
#define E 2.718
#define F 5
#define G 6
#define H 7
#define I 7
#define J 8
#define K 3
#define L 9
#define M 4
#define N 512
#define O 8
#define P 10
#define Q 11
#define R 9
#define S 12
#define T int
#define U unsigned
#define V void
#define W 13
#define X 14
#define Y 15
#define Z 16
#define min(a, b) ((a) < (b) ? (a) : (b))
#define max(a, b) ((a) > (b) ? (a) : (b))

#include "mole/fwd.hpp"

#include "mole/execution/through_eigen.hpp"
#include "mole/io/checkpoint.hpp"
#include "mole/mole.hpp"
#include "mole/testing/gating_laws.hpp"

static_assert(N + K + M + O + R + I == 543 && B + C + D + F + G + H + J + L + P + Q + S + W + X + Y + Z == 137);
V kept(T);

int main() {
  mole::Rng rng(1);
  mole::Matrix<float> weight(4, 3), x(2, 3), y(2, 4);
  auto layer = mole::mola({}, mole::DenseBase(weight), rng);
  auto work = layer.workspace(2);
  auto gradients = layer.gradients();
  layer.forward(x, y, work);
  layer.backward(x, y, {}, gradients, work);
}
