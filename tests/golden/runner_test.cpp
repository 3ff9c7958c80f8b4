// SPDX-License-Identifier: MIT
// defects_of_the_runner(): does the runner use every option, accept files that lack a part, and name what it does not
// know?
#include "golden/methods.hpp"

#include <algorithm>
#include <set>

namespace golden {
namespace {

using Files = std::vector<GoldenFile>;

std::map<std::string, Files> files_by_method(const std::filesystem::path& directory) {
  std::map<std::string, Files> files;
  for (const auto& path : golden_files(directory)) {
    const mole::SafetensorsReader reader(path);
    const std::string& method = reader.metadata().at("method");
    if (methods().contains(method)) files[method].emplace_back(reader);
  }
  return files;
}

/// Another value of an option.
std::string changed(const std::string& value) {
  if (value == "True" || value == "False") return value == "True" ? "False" : "True";
  const std::size_t digit = value.find_first_of("0123456789");
  if (digit == std::string::npos) return value + "x";
  if (value.find_first_not_of("0123456789.e-") == std::string::npos) return std::to_string(std::stod(value) + 1);
  std::string list = value;
  list[digit] = list[digit] == '0' ? '1' : char(list[digit] - 1);
  return list;
}

bool is_refused(GoldenFile file, const std::string& option) {
  file.options[option] = changed(file.options[option]);
  return !check(file).failures.empty();
}

/// x W^T + b of the base in a file, or its gradient d_y W.
Matrix<double> of_base(const GoldenFile& file, const Matrix<double>& from, bool gradient) {
  const Matrix<double>& w = file.numbers.at("base.weight");
  Matrix<double> to(from.rows(), gradient ? w.cols() : w.rows());
  for (Index n = 0; n < from.rows(); ++n)
    for (Index o = 0; o < w.rows(); ++o)
      for (Index i = 0; i < w.cols(); ++i) (gradient ? to(n, i) : to(n, o)) += w(o, i) * from(n, gradient ? o : i);
  return to;
}

void subtract(Matrix<double>& from, const Matrix<double>& what) {
  for (Index n = 0; n < from.rows(); ++n)
    for (Index o = 0; o < from.cols(); ++o) from(n, o) -= what(what.rows() == 1 ? 0 : n, o);
}

void remove_if(GoldenFile& file, auto wanted) {
  for (const std::string& name : file.names())
    if (wanted(name)) file.remove(name);
}

bool is_upstream(const std::string& name) {
  return name.starts_with("grad_y") || name.starts_with("grad_gate") || name.ends_with("grad_logits");
}

// Each turns a file into one that lacks a part, or says that there is no such part.

bool without_bias(GoldenFile& file) {
  const auto bias = file.numbers.find("base.bias");
  if (bias == file.numbers.end()) return false;
  for (auto& [name, tensor] : file.numbers)
    if (name == "y" || name.starts_with("y.") || name == "merged.y") subtract(tensor, bias->second);
  file.remove("base.bias");
  return true;
}

bool without_base(GoldenFile& file) {
  if (!file.has("base.weight") || file.has("magnitude") || file.has("oft_R"))
    return false;  // whose expert reads the weight, too
  without_bias(file);
  for (auto& [name, tensor] : file.numbers) {
    const std::string step = name.substr(name.find('.') == std::string::npos ? name.size() : name.find('.'));
    if (name == "y" + step) subtract(tensor, of_base(file, file.numbers.at("x" + step), false));
    if (name == "grad_x" + step) subtract(tensor, of_base(file, file.numbers.at("grad_y" + step), true));
  }
  remove_if(file, [](const std::string& name) { return name == "base.weight" || name.starts_with("merged."); });
  return true;
}

bool forward_only(GoldenFile& file) {
  const auto names = file.names();
  if (std::ranges::none_of(names, is_upstream)) return false;
  remove_if(file, [](const std::string& name) {
    return is_upstream(name) || is_gradient(name) || name.starts_with("loss.");
  });
  return true;
}

/// What lies between the parameters and the answers.
bool answers_only(GoldenFile& file) {
  const auto between = [](const std::string& name) {
    static const std::set<std::string> names = {"router.logits",     "router.probs",   "router.scores", "router.lambda",
                                                "router.threshold",  "router.entropy", "delta_weight",  "merged.y",
                                                "router.activation", "routing.count",  "merged.weight", "normalised",
                                                "gate.dense",        "gate.mask",      "gate.weights",  "gate.indices"};
    return names.contains(name.substr(0, name.find_last_not_of(".0123456789") + 1)) || name.ends_with(".hidden") ||
           (name.starts_with("layer.") && names.contains(name.substr(name.find('.', 6) + 1)));
  };
  const auto names = file.names();
  if (file.has("grad_gate") || std::ranges::none_of(names, between)) return false;  // whose slots gate.indices name
  remove_if(file, between);
  return std::ranges::any_of(names, is_answer);
}

/// A call that does not train leaves the bias alone.
bool evaluation(GoldenFile& file) {
  const std::string method = file.options["method"];
  if ((method != "smora" && method != "flylora") || !file.has("x")) return false;
  file.options["training"] = "False";
  remove_if(file, [](const std::string& name) { return name.starts_with("routing.bias_after"); });
  return true;
}

struct Variant {
  const char* name;
  bool (*apply)(GoldenFile& file);
};
constexpr Variant variants[] = {{"without a bias", without_bias},
                                {"without a base", without_base},
                                {"without gradients", forward_only},
                                {"without what lies between", answers_only},
                                {"in evaluation", evaluation}};

/// Collects what is wrong, and prints it.
class Defects {
 public:
  void expect(bool right, const std::string& method, const std::string& what) {
    ++checks_;
    if (right) return;
    ++defects_;
    std::printf("FAILED runner of %s: %s\n", method.c_str(), what.c_str());
  }
  void expect_named(const GoldenFile& file, const std::string& name) {
    const auto failures = check(file).failures;
    const bool named =
        std::ranges::any_of(failures, [&](const std::string& failure) { return failure.starts_with(name + " "); });
    expect(named, file.options.at("method"), "accepts " + name);
  }
  int checks() const { return checks_; }
  int defects() const { return defects_; }

 private:
  int checks_ = 0, defects_ = 0;
};

/// Every option must make a difference in some file of its method.
void expect_options_used(const std::string& method, const Files& files, Defects& defects) {
  std::map<std::string, bool> used;
  for (const GoldenFile& file : files)
    for (const std::string& option : check(file).options)
      if (file.options.contains(option) && !GoldenFile::describes(option))
        used[option] = used[option] || is_refused(file, option);
  for (const auto& [option, refused] : used) defects.expect(refused, method, "ignores the option " + option);
}

}  // namespace

int defects_of_the_runner(const std::filesystem::path& directory) {
  Defects defects;
  std::map<std::string, int> applied;
  for (const auto& [method, files] : files_by_method(directory)) {
    expect_options_used(method, files, defects);
    GoldenFile stranger = files.front();
    stranger.options["of_no_method"] = "True";
    stranger.numbers["lora_C"] = Matrix<double>(1, 1);
    defects.expect_named(stranger, "option of_no_method");
    defects.expect_named(stranger, "lora_C");
    const auto exact =
        std::ranges::find_if(files, [](const GoldenFile& file) { return file.options.at("dtype") == "float64"; });
    if (exact == files.end()) continue;
    for (const Variant& variant : variants) {
      GoldenFile changed_file = *exact;
      if (!variant.apply(changed_file)) continue;
      ++applied[variant.name];
      const auto failures = check(changed_file).failures;
      defects.expect(failures.empty(), method,
                     std::string("refuses a file ") + variant.name + (failures.empty() ? "" : ": " + failures.front()));
    }
  }
  for (const Variant& variant : variants) defects.expect(applied[variant.name] > 0, "all", variant.name);
  std::printf("runner: %d checks, %d defects\n", defects.checks(), defects.defects());
  return defects.defects();
}

}  // namespace golden
