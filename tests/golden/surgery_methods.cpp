// SPDX-License-Identifier: MIT
// Offline changes of adapters and experts: merge-cat, merge-linear, merge-magnitude-prune, merge-svd, merge-ties,
// merge-ties-svd, lora-lego, sub-moe, rocket-diversity.
#include "golden/methods.hpp"
#include "golden/parameters.hpp"
#include "mole/expert/low_rank.hpp"
#include "mole/factors/dense_factors.hpp"
#include "mole/surgery/concatenate_adapters.hpp"
#include "mole/surgery/diverse_groups.hpp"
#include "mole/surgery/lego_merge.hpp"
#include "mole/surgery/merge_factors.hpp"
#include "mole/surgery/merge_updates.hpp"
#include "mole/surgery/subspace_merge.hpp"

namespace golden {
namespace {

using mole::Adapter;
using mole::WeightedAdapter;

/// What the adapter adds, as the experts of a layer.   [O x I]
template <class T>
Matrix<T> update_of(const Adapter<T>& adapter) {
  const mole::DenseFactors<T> factors(mole::RankBlocks::uniform(1, adapter.rank()), {adapter.a, adapter.b});
  Matrix<T> update(adapter.out(), adapter.in());
  mole::LowRank(factors, {T(adapter.scale)}).add_delta(0, 1, update.view());
  return update;
}

template <class T>
std::vector<Adapter<T>> adapters_in(const Comparison<T>& file) {
  const std::vector<double> ranks = file.list("ranks"), alphas = file.list("alphas");
  std::vector<Adapter<T>> adapters;
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    const std::string name = "experts." + std::to_string(i) + ".";
    adapters.push_back(
        {file.matrix(name + "lora_A"), transposed(file.matrix(name + "lora_B")), file.exact(name + "scaling")});
    if (double(adapters[i].rank()) != ranks[i]) file.refuse("ranks", "those of the tensors");
    if (std::abs(alphas.at(i) / ranks[i] - adapters[i].scale) > 1e-12) file.refuse("alphas", "scaling times rank");
  }
  for (const char* unused : {"base.weight", "base.bias"})
    if (file.has(unused)) file.matrix(unused);
  return adapters;
}

mole::SignElection election_in(const auto& file) {
  if (file.text("majority_sign_method") == "total") return mole::SignElection::total;
  if (file.text("majority_sign_method") == "frequency") return mole::SignElection::frequency;
  file.refuse("majority_sign_method", "total or frequency");
}

/// The rule of a file's combination_type.
template <class T>
mole::Combination combination_in(Comparison<T>& file, const std::string& type) {
  mole::Combination how;
  if (type.starts_with("ties") || type == "magnitude_prune") {
    how.pruning = mole::Pruning::magnitude;
    how.density = file.number("density");
  } else if (file.has_option("density")) {
    file.refuse("density", "None for a rule without pruning");
  }
  if (type.starts_with("ties"))
    how.signs = election_in(file);
  else
    file.ignore_option("majority_sign_method");
  return how;
}

/// The factors, of which a decomposition leaves the sign of each rank open.
template <class T>
void expect_factors(Comparison<T>& file, Adapter<T> found, bool up_to_signs) {
  if (up_to_signs && file.has("merged.lora_A")) {
    const Matrix<T> expected = file.matrix("merged.lora_A");
    for (Index j = 0; j < std::min(found.rank(), expected.rows()); ++j) {
      T along = 0;
      for (Index i = 0; i < found.in(); ++i) along += found.a(j, i) * expected(j, i);
      if (along >= 0) continue;
      for (T& value : found.a.view().row(j)) value = -value;
      for (T& value : found.b.view().row(j)) value = -value;
    }
  }
  file.expect_optional("merged.lora_A", found.a);
  file.expect_optional("merged.lora_B", transposed(found.b));
}

/// Peft's add_weighted_adapter.
Method merge(const std::string& type) {
  return offline([type]<class T>(Comparison<T>& file) {
    if (file.text("combination_type") != type) file.refuse("combination_type", type);
    const std::vector<Adapter<T>> adapters = adapters_in(file);
    file.expect_option("d_in", double(adapters[0].in()));
    file.expect_option("d_out", double(adapters[0].out()));
    const Matrix<T> weights = file.matrix("weights");
    std::vector<WeightedAdapter<T>> weighted;
    for (std::size_t i = 0; i < adapters.size(); ++i) weighted.emplace_back(adapters[i], double(weights(0, Index(i))));

    const mole::Combination how = combination_in(file, type);
    const bool of_updates = type.ends_with("svd");
    if (!of_updates && file.has_option("svd_rank")) file.refuse("svd_rank", "None for a rule without decomposition");
    const auto merged = [&]() -> mole::MergedAdapter<T> {
      if (type == "cat") return concatenate_adapters(weighted);
      if (!of_updates) return merge_factors(weighted, {.combination = how});
      return merge_updates(weighted, {.rank = file.integer("svd_rank"), .combination = how, .scale_twice = true});
    };
    const Adapter<T> adapter = merged().adapter;
    expect_factors(file, adapter, of_updates);
    const T scale = T(adapter.scale);
    file.expect_optional("merged.scaling", View<const T>(&scale, 1, 1));
    file.expect_optional("merged.delta_weight", update_of(adapter));
    file.expect("exact_sum.delta_weight", update_of(concatenate_adapters(weighted).adapter));
  });
}

Method lora_lego() {
  return offline([]<class T>(Comparison<T>& file) {
    std::vector<Adapter<T>> adapters;
    for (Index i = 0; i < file.integer("adapters"); ++i) {
      const std::string name = "adapters." + std::to_string(i) + ".";
      adapters.push_back({file.matrix(name + "lora_A"), transposed(file.matrix(name + "lora_B"))});
      file.expect_option("rank", double(adapters.back().rank()));
      file.expect_option("d_in", double(adapters.back().in()));
      file.expect_option("d_out", double(adapters.back().out()));
    }
    const std::vector<WeightedAdapter<T>> weighted(adapters.begin(), adapters.end());
    mole::LegoOptions options{.clusters = file.integer("clusters"),
                              .reweight_parameters = file.flag("parameter_reweighting"),
                              .reweight_output = file.flag("output_reweighting"),
                              .iterations = file.integer("iterations")};
    file.ignore_option("iterations");  // clusters have settled long before
    if (file.has("initial"))
      for (const std::int64_t rank : file.integers("initial")) options.initial.push_back(Index(rank));
    const mole::LegoMerge<T> merged = lego_merge(weighted, options);
    file.expect_optional("labels", std::vector<std::int64_t>(merged.label.begin(), merged.label.end()));
    file.expect_optional("merged.delta_weight", update_of(merged.adapter));
  });
}

Method sub_moe() {
  return offline([]<class T>(Comparison<T>& file) {
    std::vector<Matrix<T>> weights;
    std::vector<double> counts;
    for (Index i = 0; i < file.integer("experts"); ++i) {
      weights.push_back(file.matrix("weights." + std::to_string(i)));
      counts.push_back(double(file.integers("counts")[std::size_t(i)]));
      file.expect_option("d_in", double(weights.back().cols()));
      file.expect_option("d_out", double(weights.back().rows()));
    }
    const std::vector<View<const T>> views(weights.begin(), weights.end());
    const std::vector<double> shares = mole::shares_of(counts);
    const std::vector<T> frequencies(shares.begin(), shares.end());
    file.expect("frequencies", View<const T>(frequencies.data(), 1, Index(frequencies.size())));
    const auto whole = subspace_merge(views, counts);
    const std::vector<T> s(whole.s.begin(), whole.s.end());
    file.expect("union.singular_values", View<const T>(s.data(), 1, Index(s.size())));
    file.expect_optional("merged.weight", update_of(whole.adapter));
    const auto truncated = subspace_merge(views, counts, {.rank = file.integer("truncated_rank")});
    file.expect("truncated.weight", update_of(truncated.adapter));
  });
}

/// Adapters that are least alike, for a mixture to start with.
Method rocket_diversity() {
  return offline([]<class T>(Comparison<T>& file) {
    std::vector<std::string> names;  // "['q.lora_A', ...]"
    std::istringstream words(file.text("tensors"));
    for (std::string word; std::getline(words, word, '\'');)
      if (word.find("lora") != std::string::npos) names.push_back(word);
    std::string listed;
    for (const std::string& name : names) listed += (listed.empty() ? "['" : ", '") + name + "'";
    if (listed + "]" != file.text("tensors")) file.refuse("tensors", "names in quotation marks");
    const Index count = file.integer("adapters");
    std::vector<Matrix<T>> tensors;
    for (Index i = 0; i < count; ++i)
      for (const std::string& name : names)
        tensors.push_back(file.matrix("adapters." + std::to_string(i) + "." + name));
    std::vector<std::vector<View<const T>>> adapters;
    for (Index i = 0; i < count; ++i) {
      const auto first = tensors.begin() + i * Index(names.size());
      adapters.emplace_back(first, first + Index(names.size()));
    }
    const Matrix<double> similarity = mole::tensor_similarity<T>(adapters);
    Matrix<T> pairs(count, count);
    std::ranges::transform(similarity.elements(), pairs.elements().begin(), [](double v) { return T(v); });
    file.expect_optional("pair_score", pairs);
    const auto best = mole::diverse_groups(similarity, file.integer("group"), Index(file.matrix("best.scores").size()));
    Matrix<T> scores(1, Index(best.size()));
    std::vector<std::int64_t> members;
    for (std::size_t g = 0; g < best.size(); ++g) {
      scores(0, Index(g)) = T(best[g].score);
      members.insert(members.end(), best[g].members.begin(), best[g].members.end());
    }
    file.expect("best.scores", scores);
    file.expect_optional("best.groups", members);
  });
}

}  // namespace

std::map<std::string, Method> surgery_methods() {
  return {{"lora-lego", lora_lego()},
          {"rocket-diversity", rocket_diversity()},
          {"sub-moe", sub_moe()},
          {"merge-cat", merge("cat")},
          {"merge-linear", merge("linear")},
          {"merge-magnitude-prune", merge("magnitude_prune")},
          {"merge-svd", merge("svd")},
          {"merge-ties", merge("ties")},
          {"merge-ties-svd", merge("ties_svd")}};
}

}  // namespace golden
