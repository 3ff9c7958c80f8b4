// SPDX-License-Identifier: MIT
// The kernels of plain products for the default architecture. compiled_kernels.cpp has them once for all unit tests,
// which would else spend a tenth of their compile time on kernels.
#pragma once

#include "mole/kernel/dot_products.hpp"
#include "mole/kernel/outer_products.hpp"
#include "mole/kernel/row_sums.hpp"

// `extern_` is extern or nothing.
#define MOLE_TEST_OUTER_PRODUCTS(extern_, T, A, B, C)                                                           \
  extern_ template void mole::kernel::OuterProducts<mole::kernel::DefaultArchitecture, T>::operator()<A, B, C>( \
      A, B, bool, mole::Index, mole::Index, mole::Index, C, bool) const;

#define MOLE_TEST_KERNELS(extern_, T)                                                                      \
  extern_ template struct mole::kernel::DotProducts<mole::kernel::DefaultArchitecture, T>;                 \
  extern_ template struct mole::kernel::RowSums<mole::kernel::DefaultArchitecture, T>;                     \
  MOLE_TEST_OUTER_PRODUCTS(extern_, T, mole::kernel::Factors<T>, mole::kernel::StridedRows<const T>,       \
                           mole::kernel::StridedRows<T>)                                                   \
  MOLE_TEST_OUTER_PRODUCTS(extern_, T, mole::kernel::Factors<T>, mole::kernel::PanelRows<const T>,         \
                           mole::kernel::StridedRows<T>)                                                   \
  MOLE_TEST_OUTER_PRODUCTS(extern_, T, mole::kernel::GatheredFactors<T>, mole::kernel::StridedRows<const T>, \
                           mole::kernel::GatheredRows<T>)                                                  \
  MOLE_TEST_OUTER_PRODUCTS(extern_, T, mole::kernel::FactorColumns<T>, mole::kernel::GatheredRows<const T>, \
                           mole::kernel::StridedRows<T>)

MOLE_TEST_KERNELS(extern, float)
MOLE_TEST_KERNELS(extern, double)
