// SPDX-License-Identifier: MIT
#include "mole/core/matrix.hpp"

#include "support/catch.hpp"

#include <algorithm>
#include <array>
#include <numeric>

using namespace mole;

namespace {

/// Counts what is taken from it.
class CountingResource : public std::pmr::memory_resource {
 public:
  int allocations = 0;

 private:
  void* do_allocate(std::size_t bytes, std::size_t alignment) override {
    ++allocations;
    return std::pmr::new_delete_resource()->allocate(bytes, alignment);
  }
  void do_deallocate(void* memory, std::size_t bytes, std::size_t alignment) override {
    std::pmr::new_delete_resource()->deallocate(memory, bytes, alignment);
  }
  bool do_is_equal(const memory_resource& other) const noexcept override { return this == &other; }
};

}  // namespace

TEST_CASE("A matrix starts at zero, row after row", "[core]") {
  Matrix<float> matrix(2, 3);
  CHECK(std::all_of(matrix.elements().begin(), matrix.elements().end(), [](float x) { return x == 0; }));
  matrix(1, 2) = 5;
  CHECK(matrix.data()[5] == 5);
  CHECK(matrix.elements().size() == 6);
  CHECK(matrix.size() == 6);
  matrix.set_zero();
  CHECK(matrix(1, 2) == 0);
}

TEST_CASE("An empty matrix gives an empty view, whatever its shape", "[core]") {
  Matrix<float> none, no_rows(0, 3), no_cols(3, 0);
  for (Matrix<float>* matrix : {&none, &no_rows, &no_cols}) {
    CHECK(matrix->empty());
    CHECK_FALSE(matrix->view());
    CHECK_FALSE(std::as_const(*matrix).view());
  }
  CHECK(no_cols.view().rows() == 3);
  const Matrix<float> one(1, 1);
  CHECK(one.view());
}

TEST_CASE("A matrix takes a caller's memory, and a copy does not", "[core]") {
  CountingResource memory;
  Matrix<double> borrowed(4, 4, &memory);
  CHECK(memory.allocations == 1);
  borrowed(3, 3) = 7;
  const Matrix<double> copy = borrowed;
  CHECK(memory.allocations == 1);
  CHECK(copy(3, 3) == 7);
  CHECK(copy.data() != borrowed.data());
  const double* const data = borrowed.data();
  const Matrix<double> moved = std::move(borrowed);
  CHECK(moved.data() == data);
}

TEST_CASE("Stacked matrices have the rows of both", "[core]") {
  Matrix<int> above(1, 2), below(2, 2);
  std::iota(above.elements().begin(), above.elements().end(), 1);
  std::iota(below.elements().begin(), below.elements().end(), 3);
  const Matrix<int> both = stacked(above, below);
  CHECK(both.rows() == 3);
  CHECK(both.cols() == 2);
  CHECK(std::ranges::equal(both.elements(), std::array{1, 2, 3, 4, 5, 6}));
  CHECK(stacked(Matrix<int>(0, 2), above).rows() == 1);
}

TEST_CASE("Of a matrix that was moved from nothing is left", "[core]") {
  Matrix<float> matrix(3, 4);
  const Matrix<float> taken = std::move(matrix);
  CHECK((taken.rows() == 3 && taken.cols() == 4));
  CHECK((matrix.rows() == 0 && matrix.cols() == 0));
  CHECK_FALSE(matrix.view());
  matrix = Matrix<float>(2, 5);
  CHECK((matrix.rows() == 2 && matrix.view().cols() == 5));
}

TEST_CASE("A matrix lives in memory of the caller, and stays there when it is moved or assigned its shape", "[core]") {
  std::array<float, 6> host{1, 2, 3, 4, 5, 6};
  Matrix<float> matrix = Matrix<float>::borrow(View<float>(host.data(), 2, 3));
  CHECK(matrix.borrows());
  CHECK(matrix(1, 2) == 6);
  matrix(0, 1) = 9;
  CHECK(host[1] == 9);

  Matrix<float> moved = std::move(matrix);
  CHECK((matrix.empty() && !matrix.borrows() && moved.data() == host.data()));
  const Matrix<float> ones = [] {
    Matrix<float> made(2, 3);
    std::ranges::fill(made.elements(), 1);
    return made;
  }();
  moved = ones;
  CHECK((moved.data() == host.data() && host[5] == 1));
  moved = Matrix<float>(2, 3);
  CHECK((moved.data() == host.data() && host[5] == 0));
  Matrix<float> given(2, 3);
  given(1, 1) = 4;
  moved = std::move(given);
  CHECK((moved.data() == host.data() && host[4] == 4 && given.empty()));
  Matrix<float>& same = moved;
  moved = same;
  moved = std::move(same);
  CHECK((moved.data() == host.data() && host[4] == 4));
  moved.set_zero();
  CHECK(host[4] == 0);
}

TEST_CASE("A copy of a matrix with the caller, and one that takes another shape, have memory of their own", "[core]") {
  std::array<float, 6> host{1, 2, 3, 4, 5, 6};
  Matrix<float> matrix = Matrix<float>::borrow(View<float>(host.data(), 2, 3));
  const Matrix<float> copy = matrix;
  CHECK((!copy.borrows() && copy.data() != host.data() && copy(1, 2) == 6));
  Matrix<float> assigned;
  assigned = matrix;
  CHECK((!assigned.borrows() && assigned(1, 2) == 6));
  Matrix<float> taken(1, 1);
  taken = std::move(matrix);
  CHECK((taken.borrows() && taken.data() == host.data()));
  taken = Matrix<float>(3, 2);
  CHECK((!taken.borrows() && taken.rows() == 3 && host[5] == 6));
  CountingResource memory;
  Matrix<float> elsewhere(1, 2, &memory);
  elsewhere = copy;  // of another resource
  CHECK((elsewhere.rows() == 2 && elsewhere(1, 2) == 6));
  elsewhere = Matrix<float>(4, 4);
  CHECK((elsewhere.rows() == 4 && elsewhere(3, 3) == 0 && memory.allocations > 1));
}

TEST_CASE("Numbers move to the caller's memory and back; what does not fit is refused", "[core]") {
  std::array<double, 8> host{};
  Matrix<double> matrix(2, 3);
  matrix(1, 2) = 7;
  matrix.live_in(View<double>(host.data() + 1, 2, 3));
  CHECK((matrix.borrows() && host[6] == 7));
  matrix.live_in(View<double>(host.data() + 1, 2, 3));  // where it lives already
  CHECK(host[6] == 7);
  CHECK_THROWS_WITH(matrix.live_in(View<double>(host.data(), 3, 2)),
                    "Matrix: expected memory of [2 x 3], found [3 x 2]");
  CHECK_THROWS_WITH(matrix.live_in(View<double>(host.data(), 2, 3, 4)),
                    "Matrix: expected rows without gaps, found a stride of 4 for 3 columns");
  CHECK(matrix.data() == host.data() + 1);
  matrix.live_here();
  host.fill(0);
  CHECK((!matrix.borrows() && matrix(1, 2) == 7));
}
