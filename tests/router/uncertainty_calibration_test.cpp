// SPDX-License-Identifier: MIT
#include "mole/router/uncertainty_calibration.hpp"

#include "core/error_code.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

#include <vector>

using namespace mole;

namespace {

/// Calls of one calibration for one token, whose samples are the rows of r.
template <class T>
struct Calibrated {
  UncertaintyCalibration calibration;
  MemoryBlock memory;
  UncertaintyCalibration::Scratch scratch;

  Calibrated(const UncertaintyCalibration& calibration_, Index samples, Index count)
      : calibration(calibration_),
        memory(bytes_of([&](Arena& arena) { return UncertaintyCalibration::scratch(samples, count, arena); }),
               std::pmr::get_default_resource()) {
    Arena arena(memory.bytes());
    scratch = UncertaintyCalibration::scratch(samples, count, arena);
  }

  std::vector<T> forward(const Matrix<T>& r) {
    std::vector<T> result(std::size_t(r.cols()), T(99));
    calibration.forward(
        r.rows(), [&](Index m) { return r.view().row(m); }, std::span<T>(result), scratch);
    return result;
  }
  Matrix<T> backward(const Matrix<T>& r, const std::vector<T>& d) {
    Matrix<T> d_r(r.rows(), r.cols());
    calibration.backward(
        r.rows(), [&](Index m) { return r.view().row(m); }, std::span<const T>(d),
        [&](Index m) { return d_r.view().row(m); }, scratch);
    return d_r;
  }
};

using Square = std::vector<std::vector<double>>;

/// Of a positive matrix, by elimination.
Square inverse_of(Square m) {
  const std::size_t size = m.size();
  Square inverse(size, std::vector<double>(size));
  for (std::size_t i = 0; i < size; ++i) inverse[i][i] = 1;
  for (std::size_t i = 0; i < size; ++i) {
    const double pivot = m[i][i];
    for (std::size_t j = 0; j < size; ++j) m[i][j] /= pivot, inverse[i][j] /= pivot;
    for (std::size_t k = 0; k < size; ++k) {
      const double factor = k == i ? 0 : m[k][i];
      for (std::size_t j = 0; j < size; ++j) m[k][j] -= factor * m[i][j], inverse[k][j] -= factor * inverse[i][j];
    }
  }
  return inverse;
}

struct Statistics {
  std::vector<double> mean;
  Square covariance;
};
Statistics statistics_of(const Matrix<double>& r) {
  const auto count = std::size_t(r.cols());
  Statistics s{std::vector<double>(count), Square(count, std::vector<double>(count))};
  for (Index m = 0; m < r.rows(); ++m)
    for (std::size_t e = 0; e < count; ++e) s.mean[e] += r(m, Index(e)) / double(r.rows());
  for (Index m = 0; m < r.rows(); ++m)
    for (std::size_t e = 0; e < count; ++e)
      for (std::size_t f = 0; f < count; ++f)
        s.covariance[e][f] += (r(m, Index(e)) - s.mean[e]) * (r(m, Index(f)) - s.mean[f]) / double(r.rows() - 1);
  return s;
}

/// v_m = (Sigma + epsilon 1)^-1 (r_m - mu), one a row.
Square whitened_samples(const Matrix<double>& r, double epsilon) {
  Statistics s = statistics_of(r);
  for (std::size_t e = 0; e < s.mean.size(); ++e) s.covariance[e][e] += epsilon;
  const Square inverse = inverse_of(s.covariance);
  Square v(std::size_t(r.rows()), std::vector<double>(s.mean.size()));
  for (std::size_t m = 0; m < v.size(); ++m)
    for (std::size_t e = 0; e < s.mean.size(); ++e)
      for (std::size_t f = 0; f < s.mean.size(); ++f) v[m][e] += inverse[e][f] * (r(Index(m), Index(f)) - s.mean[f]);
  return v;
}

double norm(const std::vector<double>& v) {
  double sum = 0;
  for (double element : v) sum += element * element;
  return std::sqrt(sum);
}

}  // namespace

TEST_CASE("Both calibrations are their formulas", "[router]") {
  for (Index samples : {2, 5})
    for (Index count : {1, 3, 6}) {
      const auto r = support::random_matrix<double>(samples, count, 3);
      const auto s = statistics_of(r);
      const auto whitened = Calibrated<double>({Calibration::whitened, 0.7}, samples, count).forward(r);
      Calibrated<double> calibrated({Calibration::literal, 0.03}, samples, count);
      const auto literal = calibrated.forward(r);
      const auto v = whitened_samples(r, 0.03);
      for (std::size_t e = 0; e < std::size_t(count); ++e) {
        CHECK(std::abs(calibrated.scratch.mean[e] - s.mean[e]) < 1e-14);
        CHECK(std::abs(whitened[e] - s.mean[e] / std::sqrt(s.covariance[e][e] + 0.7)) < 1e-13);
        double expected = 0;
        for (const auto& of_sample : v) expected += of_sample[e] / (norm(of_sample) + 0.03) / double(samples);
        CHECK(std::abs(literal[e] - expected) < 1e-12);
      }
    }
}

TEST_CASE("Each calibrated sample has length 1 up to epsilon, so their mean is no longer", "[router]") {
  const auto r = support::random_matrix<double>(5, 4, 3);
  for (const auto& v : whitened_samples(r, 1e-5)) CHECK(std::abs(norm(v) / (norm(v) + 1e-5) - 1) < 1e-4);
  CHECK(norm(Calibrated<double>({Calibration::literal, 1e-5}, 5, 4).forward(r)) <= 1);
  Matrix<double> two(2, 4);  // opposite about their mean, so the directions cancel
  copy(r.view().top(2), two.view());
  CHECK(norm(Calibrated<double>({Calibration::literal, 1e-5}, 2, 4).forward(two)) < 1e-10);
}

TEMPLATE_TEST_CASE("Equal samples calibrate to exactly 0, or to their mean, however many they are", "[router]", float,
                   double) {
  const TestType numbers[] = {TestType(0.1), TestType(0.7), TestType(-1) / 3};
  for (Index samples : {1, 2, 3, 5, 7}) {
    Matrix<TestType> r(samples, 3);
    for (Index m = 0; m < samples; ++m) std::ranges::copy(numbers, r.view().row(m).begin());
    Calibrated<TestType> literal({Calibration::literal, 1e-5, true}, samples, 3);
    CHECK(literal.forward(r) == std::vector<TestType>{0, 0, 0});
    CHECK(support::same_bits(literal.backward(r, {1, 2, 3}), Matrix<TestType>(samples, 3)));
    CHECK(Calibrated<TestType>({Calibration::whitened, 1}, samples, 3).forward(r) ==
          std::vector<TestType>(std::begin(numbers), std::end(numbers)));
  }
}

TEST_CASE("The full gradients of a calibration are its derivatives", "[router]") {
  for (Index samples : {1, 2, 5})
    for (Calibration form : {Calibration::literal, Calibration::whitened}) {
      Calibrated<double> calibrated({form, 0.05, true}, samples, 4);
      auto r = support::random_matrix<double>(samples, 4, 3);
      if (form == Calibration::literal && samples < 3) continue;  // always 0, with a kink
      const std::vector<double> d{0.3, -1, 0.8, 0.1};
      const auto d_r = calibrated.backward(r, d);
      const auto value = [&] {
        const auto result = calibrated.forward(r);
        double sum = 0;
        for (std::size_t e = 0; e < 4; ++e) sum += d[e] * result[e];
        return sum;
      };
      for (Index m = 0; m < samples; ++m)
        for (Index e = 0; e < 4; ++e) {
          const double before = r(m, e);
          r(m, e) = before + 1e-6;
          const double above = value();
          r(m, e) = before - 1e-6;
          const double below = value();
          r(m, e) = before;
          CHECK(std::abs((above - below) / 2e-6 - d_r(m, e)) < 1e-7);
        }
    }
}

TEST_CASE("By default statistics are constants in backward", "[router]") {
  const auto r = support::random_matrix<double>(5, 3, 3);
  const std::vector<double> d{0.3, -1, 0.8};
  const auto s = statistics_of(r);
  const auto whitened = Calibrated<double>({Calibration::whitened, 0.7}, 5, 3).backward(r, d);
  const auto literal = Calibrated<double>({Calibration::literal, 0.03}, 5, 3).backward(r, d);
  const auto v = whitened_samples(r, 0.03);
  Square covariance = s.covariance;
  for (std::size_t e = 0; e < 3; ++e) covariance[e][e] += 0.03;
  const Square inverse = inverse_of(covariance);
  for (std::size_t m = 0; m < 5; ++m) {
    const double n = norm(v[m]);
    double along = 0, d_v[3];
    for (std::size_t e = 0; e < 3; ++e) along += v[m][e] * d[e];
    for (std::size_t e = 0; e < 3; ++e)
      d_v[e] = (d[e] / (n + 0.03) - v[m][e] * along / (n * (n + 0.03) * (n + 0.03))) / 5;
    for (std::size_t e = 0; e < 3; ++e) {
      double expected = 0;
      for (std::size_t f = 0; f < 3; ++f) expected += inverse[f][e] * d_v[f];
      CHECK(std::abs(literal(Index(m), Index(e)) - expected) < 1e-12);
      CHECK(std::abs(whitened(Index(m), Index(e)) - d[e] / std::sqrt(s.covariance[e][e] + 0.7) / 5) < 1e-14);
    }
  }
}

TEST_CASE("A calibration refuses an epsilon that is none", "[router]") {
  for (double epsilon : {0.0, -1.0, std::nan(""), 1e31})
    CHECK(test::code_of([&] { UncertaintyCalibration{Calibration::literal, epsilon}.check(); }) == ErrorCode::option);
}
