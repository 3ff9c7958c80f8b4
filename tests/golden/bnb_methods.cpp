// SPDX-License-Identifier: MIT
// Weights as bitsandbytes stores them: bnb-4bit, bnb-int8.
#include "golden/methods.hpp"
#include "golden/parameters.hpp"
#include "io/temporary_folder.hpp"
#include "mole/io/bitsandbytes.hpp"

#include <optional>

namespace golden {
namespace {

constexpr const char* weight_name = "base_layer.weight";

template <class To>
Matrix<To> converted(const auto& from) {
  Matrix<To> to(from.rows(), from.cols());
  std::ranges::transform(from.elements(), to.elements().begin(), [](auto value) { return To(value); });
  return to;
}

/// The tensors of a state dict under `weight_name`, written as bitsandbytes stores them and read again.
class StateDict {
 public:
  template <class T>
  explicit StateDict(const Comparison<T>& file) {
    for (const std::string& name : file.names())
      if (name.starts_with("base_layer.")) add(file, name);
    writer_.write(folder_ / "state.safetensors");
    reader_.emplace(folder_ / "state.safetensors");
  }

  /// Lives as long as this.
  mole::BitsandbytesWeight weight() const { return mole::read_bitsandbytes(*reader_, weight_name); }

  /// Are the tensors of `weight`, written by this library, the same bytes?
  bool same_as(const auto& weight) const {
    mole::SafetensorsWriter writer;
    mole::add_bitsandbytes(writer, weight_name, weight);
    writer.write(folder_ / "own.safetensors");
    return std::ranges::equal(mole::MappedFile(folder_ / "own.safetensors").bytes(),
                              mole::MappedFile(folder_ / "state.safetensors").bytes());
  }

 private:
  template <class T>
  void add(const Comparison<T>& file, const std::string& name) {
    if (!file.has_integers(name)) {
      const Matrix<float> numbers = converted<float>(file.matrix(name));
      return writer_.add_vector(name, std::span<const float>(numbers.elements()));
    }
    const std::vector<std::int64_t> integers = file.integers(name);
    std::vector<std::uint8_t> bytes(integers.begin(), integers.end());
    std::vector<Index> shape{Index(bytes.size())};
    const bool int8 = file.has("base_layer.SCB");
    if (name == weight_name && !int8) shape = {Index(bytes.size()), 1};
    if (name == weight_name && int8) shape = {file.integer("d_out"), file.integer("d_in")};
    if (name == "base_layer.weight_format") shape = {};
    writer_.add_bytes(name, name == weight_name && int8 ? mole::Dtype::i8 : mole::Dtype::u8, shape,
                      std::as_bytes(std::span(bytes)));
  }

  mole::test::TemporaryFolder folder_;
  mole::SafetensorsWriter writer_;
  std::optional<mole::SafetensorsReader> reader_;
};

/// The codes of the file, those of the quantized original, and the product.
template <class T, class Weight>
void check_four_bits(Comparison<T>& file, const StateDict& state, const Weight& weight, auto execution) {
  file.expect_that("the bytes of base_layer.weight's parts, written again", state.same_as(weight));
  file.expect_option("d_out", double(weight.rows()));
  file.expect_option("d_in", double(weight.cols()));
  file.expect_option("blocksize", double(weight.options().block));
  Matrix<float> absmax(1, file.matrix("expected.absmax").size());
  for (Index b = 0; b < absmax.cols(); ++b) absmax(0, b) = weight.absmax(b);
  file.expect("expected.absmax", converted<T>(absmax));

  const Weight own(converted<float>(file.matrix("original.weight")), weight.options());
  file.expect_that("codes of original.weight", own.parts().weight == weight.parts().weight);
  file.expect_that("maxima of original.weight", own.parts().absmax == weight.parts().absmax &&
                                                    own.parts().nested_codes == weight.parts().nested_codes);

  const mole::CodedBase<Weight> base(weight);
  Matrix<float> decoded(weight.rows(), weight.cols());
  base.weight(decoded.view());
  file.expect("expected.weight", converted<T>(decoded));
  const Matrix<float> x = converted<float>(file.matrix("x"));
  Matrix<float> y(x.rows(), base.out());
  const mole::Pass pass;
  mole::NoScratch none;
  base.forward(x, y, mole::Call{execution, pass, none});
  file.expect("y", converted<T>(y));
}

Method four_bits() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const StateDict state(file);
    const mole::BitsandbytesWeight found = state.weight();
    const std::string type = file.text("quant_type");
    const bool nested = file.flag("double_quant");
    std::visit(
        [&](const auto& weight) {
          using Weight = std::remove_cvref_t<decltype(weight)>;
          if constexpr (std::is_same_v<Weight, mole::Int8RowWeight>) {
            file.refuse("quant_type", "a type of four bits");
          } else {
            if (weight.nested() != nested) file.refuse("double_quant", "that of the parts");
            if ((type == "nf4") != std::is_same_v<Weight, mole::Nf4Weight>) file.refuse("quant_type", "nf4 or fp4");
            check_four_bits(file, state, weight, execution);
          }
        },
        found.weight);
  });
}

/// LLM.int8's product of quantized activations, which this library does not compute: it tells that the codes are what
/// the release takes them for.
template <class T>
void check_int8(Comparison<T>& file) {
  const StateDict state(file);
  const auto weight = std::get<mole::Int8RowWeight>(state.weight().weight);
  file.expect_that("the bytes of base_layer.weight's parts, written again", state.same_as(weight));
  file.expect_option("d_out", double(weight.rows()));
  file.expect_option("d_in", double(weight.cols()));
  Matrix<float> decoded(weight.rows(), weight.cols());
  mole::CodedBase<mole::Int8RowWeight>(weight).weight(decoded.view());
  file.expect("expected.weight", converted<T>(decoded));
  const mole::Int8RowWeight own(converted<float>(file.matrix("original.weight")));
  file.expect_that("codes of original.weight", std::ranges::equal(own.codes(), weight.codes()));
  file.expect_that("maxima of original.weight", std::ranges::equal(own.scb(), weight.scb()));

  const Matrix<T> x = file.matrix("x"), row_scale = file.input("x.row_scale");
  const std::vector<std::int64_t> codes = file.integers("x.int8");
  std::vector<std::int64_t> outliers;
  if (file.has("x.outlier_columns")) outliers = file.integers("x.outlier_columns");
  file.ignore_option("threshold");  // that of an outlier, of which the file lists the columns
  std::vector<std::int64_t> product;
  Matrix<T> y(x.rows(), weight.rows());
  for (Index n = 0; n < x.rows(); ++n)
    for (Index o = 0; o < weight.rows(); ++o) {
      std::int64_t sum = 0;
      for (Index i = 0; i < x.cols(); ++i)
        sum += codes[std::size_t(n * x.cols() + i)] * weight.codes()[std::size_t(o * x.cols() + i)];
      product.push_back(sum);
      double value = double(sum) * double(row_scale(0, n) * T(weight.scb()[std::size_t(o)])) * 6.200124e-05;
      for (const std::int64_t i : outliers) value += double(x(n, Index(i))) * double(decoded(o, Index(i)));
      y(n, o) = T(value);
    }
  file.expect_optional("product.int32", product);
  file.expect("y", y);
}

}  // namespace

std::map<std::string, Method> bnb_methods() {
  return {{"bnb-4bit", four_bits()}, {"bnb-int8", offline([](auto& file) { check_int8(file); })}};
}

}  // namespace golden
