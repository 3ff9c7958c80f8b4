// SPDX-License-Identifier: MIT
// The kernels of plain products for the default architecture. compiled_kernels.cpp has them once for all unit tests,
// which would else spend a tenth of their compile time on kernels.
#pragma once

#include "mole/execution/through_eigen.hpp"
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

// ... and what brings most of Eigen along
#define MOLE_TEST_EIGEN(extern_, T)                                                                                  \
  extern_ template void mole::ThroughEigen::product_nt<T>(mole::View<const T>, mole::View<const T>, mole::View<T>)   \
      const;                                                                                                         \
  extern_ template void mole::ThroughEigen::product_nn<T>(mole::View<const T>, mole::View<const T>, mole::View<T>)   \
      const;                                                                                                         \
  extern_ template void mole::ThroughEigen::product_tn<T>(mole::View<const T>, mole::View<const T>, mole::View<T>)   \
      const;                                                                                                         \
  extern_ template void mole::ThroughEigen::routed_down<T>(mole::View<const T>, mole::View<const T>,                 \
                                                           mole::FactorSide, const mole::RankLayout<T>&,             \
                                                           std::span<T>) const;                                      \
  extern_ template void mole::ThroughEigen::routed_up<T>(const mole::RankTerms<T>&, mole::View<T>) const;            \
  extern_ template void mole::ThroughEigen::routed_outer<T>(std::span<const T>, mole::View<const T>,                 \
                                                            mole::FactorSide, const mole::RankLayout<T>&,            \
                                                            mole::View<T>) const;                                    \
  extern_ template void mole::ThroughEigen::linear<T>(mole::View<const T>, const mole::LinearWeights<T>&,            \
                                                      mole::View<T>) const;                                          \
  extern_ template void mole::ThroughEigen::linear_backward<T>(mole::View<const T>, const mole::LinearWeights<T>&,   \
                                                               mole::View<T>) const;

MOLE_TEST_KERNELS(extern, float)
MOLE_TEST_KERNELS(extern, double)
MOLE_TEST_EIGEN(extern, float)
MOLE_TEST_EIGEN(extern, double)
