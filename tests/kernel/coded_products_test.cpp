// SPDX-License-Identifier: MIT
#include "mole/kernel/coded_products.hpp"

#include "grid.hpp"
#include "mole/core/matrix.hpp"
#include "mole/core/reduced_floats.hpp"
#include "support/catch.hpp"

#include <array>
#include <cstring>

using namespace mole;
using namespace mole::test;

namespace {

using Products = kernel::CodedProducts<Arch>;

/// Codes in buffers of exactly their size: NF4 is interleaved, and needs whole blocks, as Q8_0 does; 8-bit integers do
/// not.
struct Int8Weight {
  Int8Weight(Index rows, Index cols, Rng& rng) : blocks((cols + 31) / 32) {
    for (Index k = 0; k < rows * cols; ++k) codes.push_back(std::int8_t(rng() % 255 - 127));
    for (Index k = 0; k < rows * blocks; ++k) scales.push_back(float(unit_interval(rng()) / 127));
    weight = {codes.data(), scales.data(), cols, blocks, 5};
  }
  float operator()(Index o, Index i) const {
    return float(codes[std::size_t(o * weight.cols + i)]) * scales[std::size_t(o * blocks + i / 32)];
  }

  Index blocks;
  std::vector<std::int8_t> codes;
  std::vector<float> scales;
  kernel::Int8Rows weight{};
};

struct FourBitWeight {
  FourBitWeight(Index rows, Index cols, Rng& rng) {
    for (Index k = 0; k < rows * cols / 2; ++k) codes.push_back(std::uint8_t(rng()));
    for (float& level : levels) level = float(unit_interval(rng())) - 0.5f;
    for (Index k = 0; k < rows * cols / 32; ++k) maxima.push_back(float(unit_interval(rng())));
    weight = {codes.data(), levels.data(), {maxima.data()}, cols, 5};
  }
  float operator()(Index o, Index i) const {
    const Index at = o * weight.cols + i;
    const unsigned byte = codes[std::size_t(at / 2)];
    return levels[at % 2 == 0 ? byte >> 4 : byte & 15u] * maxima[std::size_t(at / 32)];
  }

  std::vector<std::uint8_t> codes;
  std::array<float, 16> levels{};
  std::vector<float> maxima;
  kernel::FourBitRows<kernel::PlainMaxima> weight{};
};

/// Blocks of a scale and 32 codes, from an odd address on.
struct Q8Weight {
  static constexpr Index block = kernel::Q8Rows::block, block_bytes = kernel::Q8Rows::block_bytes;

  Q8Weight(Index rows, Index cols, Rng& rng) : bytes(1) {
    for (Index b = 0; b < rows * cols / block; ++b) {
      const std::uint16_t scale = to_float16(float(unit_interval(rng()) / 127));
      const auto* const of_scale = reinterpret_cast<const std::int8_t*>(&scale);
      bytes.insert(bytes.end(), of_scale, of_scale + sizeof scale);
      for (Index k = 0; k < block; ++k) bytes.push_back(std::int8_t(rng() % 255 - 127));
    }
    weight = {bytes.data() + 1, cols};
  }
  float operator()(Index o, Index i) const {
    const std::int8_t* const of_block = bytes.data() + 1 + (o * weight.cols + i) / block * block_bytes;
    std::uint16_t scale;
    std::memcpy(&scale, of_block, sizeof scale);
    return from_float16(scale) * float(of_block[2 + i % block]);
  }

  std::vector<std::int8_t> bytes;
  kernel::Q8Rows weight{};
};

template <class Weight>
constexpr bool of_whole_blocks = !std::is_same_v<Weight, Int8Weight>;

template <class Weight>
std::vector<Index> lengths() {
  if (of_whole_blocks<Weight>) return {32, 64, 96, 320};
  return grid<float>();
}

kernel::StridedRows<const float> rows_of(const GuardedMatrix<float>& m) {
  return {m.row(0), m.view().stride()};
}
kernel::StridedRows<float> rows_of(GuardedMatrix<float>& m, Index column = 0) {
  return {m.row(0) + column, m.view().stride()};
}

/// y and d_x of a weight [rows x length], whose d_x adds to random numbers.
template <class Weight>
void check_products(Index length, Index rows, Index tokens, Rng& rng) {
  const Weight w(rows, length, rng);
  const auto x = random_input<float>(tokens, length, rng, {.padding = 5, .before = 1});
  const auto d_y = random_input<float>(tokens, rows, rng, {.padding = 1, .before = 1});
  auto y = random_output<float>(tokens, rows, rng, {.padding = 2, .before = 1, .after = 1});
  auto d_x = random_output<float>(tokens, length, rng, {.padding = 2, .before = 1, .after = 1});
  Matrix<double> plain_y(tokens, rows), plain_d_x(tokens, length);
  for (Index n = 0; n < tokens; ++n) {
    for (Index i = 0; i < length; ++i) plain_d_x(n, i) = double(d_x(n, i));
    for (Index o = 0; o < rows; ++o)
      for (Index i = 0; i < length; ++i) {
        plain_y(n, o) += double(x(n, i)) * double(w(o, i));
        plain_d_x(n, i) += double(d_y(n, o)) * double(w(o, i));
      }
  }
  Products{}.nt(rows_of(x), tokens, w.weight, 0, rows, rows_of(y));
  Products{}.nn(rows_of(d_y), tokens, w.weight, rows, 0, length, rows_of(d_x));
  CAPTURE(length, rows, tokens);
  CHECK(difference(y.view(), plain_y.view()) <= Tolerance<float>::sum(length));
  CHECK(difference(d_x.view(), plain_d_x.view()) <= Tolerance<float>::sum(rows + 1));
  CHECK(y.intact());
  CHECK(d_x.intact());
}

}  // namespace

TEMPLATE_TEST_CASE("Coded products equal plain loops at every edge of their tiles", "[kernel]", Int8Weight,
                   FourBitWeight, Q8Weight) {
  TestRng rng;
  for (Index length : lengths<TestType>())
    for (Index rows : {1, 3, 4, 8, 9, 13, 33, 70})
      for (Index tokens : {1, 2, 3, 4, 7, 15, 23, 24, 25, 47, 48, 55})
        check_products<TestType>(length, rows, tokens, rng);
}

TEMPLATE_TEST_CASE("Coded products equal plain loops over weights of more rows or columns than a panel has", "[kernel]",
                   Int8Weight, FourBitWeight, Q8Weight) {
  TestRng rng;
  const Index deep = 32768 / Index(sizeof(float)) / Products::width;
  const Index block = of_whole_blocks<TestType> ? 32 : 1;
  for (Index tokens : {23, 24, 47, 48})
    for (Index edge : {deep, 2 * deep}) {
      for (Index rows : {edge - 1, edge, edge + 1}) check_products<TestType>(32, rows, tokens, rng);
      for (Index length : {edge - block, edge, edge + block}) check_products<TestType>(length, 9, tokens, rng);
    }
}

TEMPLATE_TEST_CASE("A coded product has the same bits however its outputs are split among calls", "[kernel]",
                   Int8Weight, FourBitWeight, Q8Weight) {
  TestRng rng;
  const Index length = 320, rows = 29;
  const TestType w(rows, length, rng);
  for (Index tokens : {1, 5, 100}) {
    const auto x = random_input<float>(tokens, length, rng), d_y = random_input<float>(tokens, rows, rng);
    GuardedMatrix<float> y(tokens, rows, 0), d_x(tokens, length, 0);
    Products{}.nt(rows_of(x), tokens, w.weight, 0, rows, rows_of(y));
    Products{}.nn(rows_of(d_y), tokens, w.weight, rows, 0, length, rows_of(d_x));
    for (Index cut = 0; cut <= rows; ++cut) {
      GuardedMatrix<float> pieces(tokens, rows, 0);
      Products{}.nt(rows_of(x), tokens, w.weight, 0, cut, rows_of(pieces));
      Products{}.nt(rows_of(x), tokens, w.weight, cut, rows - cut, rows_of(pieces, cut));
      CHECK(difference(y.view(), pieces.view()) == 0);
    }
    for (Index cut = 0; cut <= length; cut += Products::width) {
      GuardedMatrix<float> pieces(tokens, length, 0);
      Products{}.nn(rows_of(d_y), tokens, w.weight, rows, 0, cut, rows_of(pieces));
      Products{}.nn(rows_of(d_y), tokens, w.weight, rows, cut, length - cut, rows_of(pieces));
      CHECK(difference(d_x.view(), pieces.view()) == 0);
    }
  }
}
