// SPDX-License-Identifier: MIT
// The dense products of a layer, with and without a packed weight: panels and outer products, dot products.
#include "bench/kernels/kernel_case.hpp"
#include "mole/core/weight_panels.hpp"
#include "mole/execution/reference.hpp"
#include "mole/execution/simd.hpp"
#include "mole/execution/through_eigen.hpp"
#include "tests/support/random_matrix.hpp"

namespace bench {

namespace {

using T = float;
using mole::Matrix;

/// x [T x d], w [O x d], y [T x O]
struct Products {
  Products(Index tokens, Index out, Index d)
      : x(support::random_matrix<T>(tokens, d, 1)),
        w(support::random_matrix<T>(out, d, 2)),
        y(support::random_matrix<T>(tokens, out, 3)) {}

  /// The work if each matrix is read once, and a result that is added to, of so many elements, once more.
  Work work_adding_to(Index elements) const {
    return {0, 2.0 * double(x.rows()) * double(w.size()),
            double(sizeof(T)) * double(x.size() + w.size() + y.size() + elements),
            double(sizeof(T)) * double(elements)};
  }

  Matrix<T> x, w, y;
};

/// y = x w^T, few columns: router logits and down-projections.
struct DotProducts : Products {
  DotProducts(Index tokens, Index out, Index d) : Products(tokens, out, d) {
    for (Index n = 0; n < tokens; ++n) {
      in.push_back(x.view().row_data(n));
      to.push_back(y.view().row_data(n));
    }
  }

  void kernel() {
    mole::kernel::DotProducts<xsimd::default_arch, T>{}(in.data(), x.rows(), w.data(), w.cols(), w.rows(), w.cols(),
                                                        to.data());
  }
  void plain() { mole::Reference{}.product_nt<T>(x, w, y.view()); }
  void eigen() { mole::ThroughEigen{}.product_nt<T>(x, w, y.view()); }
  Work work() const { return work_adding_to(0); }

  std::vector<const T*> in;
  std::vector<T*> to;
};

/// The same with panels of w, packed before.
struct PanelProducts : Products {
  PanelProducts(Index tokens, Index d) : Products(tokens, d, d), panels(mole::WeightPanels<T>::of(w.view())) {}

  void kernel() { mole::Simd<>{}.linear<T>(x, {.panels = panels.view()}, y.view()); }
  void plain() { mole::Reference{}.product_nt<T>(x, w, y.view()); }
  void eigen() { mole::ThroughEigen{}.product_nt<T>(x, w, y.view()); }
  Work work() const { return work_adding_to(0); }

  mole::WeightPanels<T> panels;
};

/// y = x w^T
struct ProductNt : Products {
  ProductNt(Index tokens, Index d) : Products(tokens, d, d) {}

  void kernel() { mole::Simd<>{}.product_nt<T>(x, w, y.view()); }
  void plain() { mole::Reference{}.product_nt<T>(x, w, y.view()); }
  void eigen() { mole::ThroughEigen{}.product_nt<T>(x, w, y.view()); }
  Work work() const { return work_adding_to(0); }
};

/// x += y w
struct ProductNn : Products {
  ProductNn(Index tokens, Index d) : Products(tokens, d, d) {}

  void kernel() { mole::Simd<>{}.product_nn<T>(y, w, x.view()); }
  void plain() { mole::Reference{}.product_nn<T>(y, w, x.view()); }
  void eigen() { mole::ThroughEigen{}.product_nn<T>(y, w, x.view()); }
  Work work() const { return work_adding_to(x.size()); }
};

/// w += y^T x
struct ProductTn : Products {
  ProductTn(Index tokens, Index d) : Products(tokens, d, d) {}

  void kernel() { mole::Simd<>{}.product_tn<T>(y, x, w.view()); }
  void plain() { mole::Reference{}.product_tn<T>(y, x, w.view()); }
  void eigen() { mole::ThroughEigen{}.product_tn<T>(y, x, w.view()); }
  Work work() const { return work_adding_to(w.size()); }
};

}  // namespace

std::vector<KernelCase> product_cases() {
  std::vector<KernelCase> cases;
  add_cases<DotProducts, 3>(cases, "dot_products", {"T", "E", "d"},
                            {{1, 8, 768},
                             {16, 8, 768},
                             {1, 64, 768},
                             {16, 64, 768},
                             {1, 1024, 768},
                             {16, 1024, 768},
                             {1, 8, 2048},
                             {16, 8, 2048},
                             {16, 64, 2048},
                             {16, 1024, 2048}});
  add_cases<PanelProducts, 2>(cases, "outer_products/panels", {"T", "d"},
                              {{1, 768}, {8, 768}, {16, 768}, {64, 768}, {512, 768}, {1, 2048}, {8, 2048}, {16, 2048}});
  // Plain loops of more tokens take seconds.
  const std::vector<std::array<Index, 2>> sizes{{1, 128},  {16, 128}, {512, 128}, {1, 768},
                                                {16, 768}, {64, 768}, {512, 768}, {16, 2048}};
  add_cases<ProductNt, 2>(cases, "product_nt", {"T", "d"}, sizes);
  add_cases<ProductNn, 2>(cases, "product_nn", {"T", "d"}, sizes);
  add_cases<ProductTn, 2>(cases, "product_tn", {"T", "d"}, sizes);
  return cases;
}

}  // namespace bench
