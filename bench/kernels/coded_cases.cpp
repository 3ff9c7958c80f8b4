// SPDX-License-Identifier: MIT
// Weights in reduced storage: conversions, and products that decode as they go.
#include "bench/kernels/kernel_case.hpp"
#include "mole/base/bf16_base.hpp"
#include "mole/base/half_base.hpp"
#include "mole/base/int8_block_base.hpp"
#include "mole/base/nf4_base.hpp"
#include "mole/base/q8_base.hpp"
#include "tests/support/random_matrix.hpp"

namespace bench {

namespace {

using Arch = xsimd::default_arch;
using mole::Matrix;
using Products = mole::kernel::CodedProducts<Arch>;

/// The codes of a weight [d x d], read as numbers into `to`.
template <class Code>
struct Decoding {
  explicit Decoding(Index d) : code(support::random_matrix<float>(d, d, 1)), to(d, d) {}

  void kernel() {
    constexpr Index width = mole::kernel::Pair<Arch>::size;
    code.with_rows([&](const auto& rows) {
      for (Index o = 0; o < to.rows(); ++o) {
        const auto row = rows.row(o);
        for (Index i = 0; i < to.cols(); i += width) {
          const mole::kernel::Pair<Arch> pair = row.template load<Arch>(i);
          if constexpr (std::remove_cvref_t<decltype(rows)>::interleaved)
            interleave(pair).store(to.view().row_data(o) + i);
          else
            pair.store(to.view().row_data(o) + i);
        }
      }
    });
  }
  void plain() {
    for (Index o = 0; o < to.rows(); ++o)
      for (Index i = 0; i < to.cols(); ++i) to(o, i) = code(o, i);
  }
  Work work() const { return {0, 0, double(code.bytes()) + double(sizeof(float)) * double(to.size())}; }

  Code code;
  Matrix<float> to;
};

/// x, y [T x d]
template <class Code>
struct Coded {
  Coded(Index tokens, Index d)
      : code(support::random_matrix<float>(d, d, 1)),
        x(support::random_matrix<float>(tokens, d, 2)),
        y(support::random_matrix<float>(tokens, d, 3)) {}

  /// The work if everything is read once, and a result that is added to, of so many elements, once more.
  Work work_adding_to(Index elements) const {
    const double d = double(x.cols());
    return {0, 2 * double(x.rows()) * d * d,
            double(code.bytes()) + double(sizeof(float)) * double(x.size() + y.size() + elements),
            double(sizeof(float)) * double(elements)};
  }

  Code code;
  Matrix<float> x, y;
};

/// y = x w^T
template <class Code>
struct CodedNt : Coded<Code> {
  using Coded<Code>::Coded, Coded<Code>::code, Coded<Code>::x, Coded<Code>::y;

  void kernel() {
    code.with_rows([&](const auto& rows) {
      Products{}.nt({x.data(), x.cols()}, x.rows(), rows, 0, y.cols(), {y.data(), y.cols()});
    });
  }
  void plain() {
    for (Index n = 0; n < x.rows(); ++n)
      for (Index o = 0; o < y.cols(); ++o) {
        float sum = 0;
        for (Index i = 0; i < x.cols(); ++i) sum += x(n, i) * code(o, i);
        y(n, o) = sum;
      }
  }
  Work work() const { return this->work_adding_to(0); }
};

/// x += y w
template <class Code>
struct CodedNn : Coded<Code> {
  using Coded<Code>::Coded, Coded<Code>::code, Coded<Code>::x, Coded<Code>::y;

  void kernel() {
    code.with_rows([&](const auto& rows) {
      Products{}.nn({y.data(), y.cols()}, y.rows(), rows, y.cols(), 0, x.cols(), {x.data(), x.cols()});
    });
  }
  void plain() {
    for (Index n = 0; n < x.rows(); ++n)
      for (Index o = 0; o < y.cols(); ++o)
        for (Index i = 0; i < x.cols(); ++i) x(n, i) += y(n, o) * code(o, i);
  }
  Work work() const { return this->work_adding_to(x.size()); }
};

template <class Code>
void add_code(std::vector<KernelCase>& cases, const std::string& name) {
  add_cases<Decoding<Code>, 1>(cases, "vector_conversions/" + name, {"d"}, {{768}, {2048}});
  const std::vector<std::array<Index, 2>> sizes{{1, 768}, {16, 768}, {64, 768}, {1, 2048}, {16, 2048}};
  add_cases<CodedNt<Code>, 2>(cases, "coded_products/nt/" + name, {"T", "d"}, sizes);
  add_cases<CodedNn<Code>, 2>(cases, "coded_products/nn/" + name, {"T", "d"}, sizes);
}

}  // namespace

std::vector<KernelCase> coded_cases() {
  std::vector<KernelCase> cases;
  add_code<mole::ReducedFloatWeight<mole::Bfloat16>>(cases, "bf16");
  add_code<mole::ReducedFloatWeight<mole::Half>>(cases, "half");
  add_code<mole::Int8BlockWeight>(cases, "int8");
  add_code<mole::Q8Weight>(cases, "q8_0");
  add_code<mole::Nf4Weight>(cases, "nf4");
  return cases;
}

}  // namespace bench
