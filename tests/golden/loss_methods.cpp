// SPDX-License-Identifier: MIT
// Losses of something else than a layer's routing: mnr.
#include "golden/methods.hpp"
#include "mole/loss/negatives_ranking.hpp"

namespace golden {
namespace {

/// MNR and MNR+. The targets of the latter show in its value and gradients; the file also lists them.
Method negatives() {
  return offline([]<class T>(Comparison<T>& file) {
    const Matrix<T> a = file.matrix("a"), b = file.matrix("b");
    file.expect_option("pairs", double(a.rows()));
    file.expect_option("d", double(a.cols()));
    const auto check = [&](const std::string& name, mole::NegativesRankingOptions options) {
      options.normalized = file.flag("normalize");
      Matrix<T> d_a(a.rows(), a.cols()), d_b(b.rows(), b.cols());
      file.expect_number("loss." + name, mole::negatives_ranking<T>(a, b, d_a, d_b, options));
      file.expect("grad_loss." + name + ".a", d_a);
      file.expect("grad_loss." + name + ".b", d_b);
    };
    check("mnr", {});
    check("mnr_plus", {.target = mole::RankingTarget::most_similar, .both_ways = true});
    mole::detail::EmbeddingBatch of_a(View<const T>(a), file.flag("normalize"), std::pmr::get_default_resource()),
        of_b(View<const T>(b), file.flag("normalize"), std::pmr::get_default_resource());
    Matrix<double> p(a.rows(), a.rows());
    std::vector<Index> rows(std::size_t(a.rows())), columns(rows);
    mole::detail::most_similar_targets(of_a, of_b, p, rows, columns);
    file.expect_optional("targets.rows", std::vector<std::int64_t>(rows.begin(), rows.end()));
    file.expect_optional("targets.columns", std::vector<std::int64_t>(columns.begin(), columns.end()));
  });
}

}  // namespace

std::map<std::string, Method> loss_methods() {
  return {{"mnr", negatives()}};
}

}  // namespace golden
