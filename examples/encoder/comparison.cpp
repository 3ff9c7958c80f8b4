// SPDX-License-Identifier: MIT
#include "encoder/comparison.hpp"

#include "encoder/bert_adapter.hpp"
#include "encoder/documents.hpp"
#include "encoder/enforced_routing.hpp"
#include "encoder/peft_folder.hpp"
#include "encoder/retrieval.hpp"
#include "encoder/sentence_encoder.hpp"
#include "encoder/token_pairs.hpp"
#include "mole/loss/negatives_ranking.hpp"
#include "report/line_plot.hpp"
#include "report/page.hpp"
#include "report/table.hpp"
#include "training/command_line.hpp"
#include "training/methods/all_methods.hpp"
#include "training/train.hpp"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

namespace encoder {
namespace {

/// What a row of the table is of.
struct Entry {
  std::string title;
  mole::Index trainable = 0;
  double tokens_per_second = 0;
  std::vector<Retrieval> retrieval;  // of each domain
  std::vector<double> curve = {};
};

std::string percent(double share) {
  return report::number(100 * share, 1);
}

class Comparison {
 public:
  explicit Comparison(const Options& options)
      : options_(options),
        pool_(options.threads),
        encoder_(SentenceEncoder::read(options.model, pool_)),
        domains_(find_domains(std::size_t(options.documents))) {
    if (domains_.size() < 2)
      throw training::Exit{2, "encoder: expected at least 2 kinds of documents on this machine, found " +
                                  std::to_string(domains_.size()) + "\n"};
    for (const Domain& domain : domains_)
      tokens_.push_back(tokens_of(domain, encoder_.tokenizer, std::size_t(options.tokens)));
    std::filesystem::create_directories(options.out);
  }

  void run() {
    for (std::size_t d = 0; d < domains_.size(); ++d)
      std::printf("%-10s %5zu pairs to train on, %4zu held out: %s, %s%s\n", domains_[d].name.c_str(),
                  domains_[d].training.size(), domains_[d].held_out.size(), domains_[d].query_is.c_str(),
                  domains_[d].answer_is.c_str(), d < trained() ? "" : " (never trained on)");
    entries_.push_back({.title = "as it is", .retrieval = evaluate(nullptr)});
    std::vector<training::Method> methods = training::all_methods(sites(), pool_);
    methods.push_back(enforced_routing(pool_));
    for (const training::Method* method : training::choose("encoder", methods, options_.methods))
      entries_.push_back(adapt_with(*method));
    const report::Table table = results();
    std::printf("\n");
    report::print(table);
    write(table);
  }

 private:
  /// All but the last kind of documents.
  std::size_t trained() const { return domains_.size() - 1; }
  mole::Index max_rows() const { return mole::Index(2 * options_.pairs * options_.tokens); }

  std::vector<training::Site> sites() {
    std::vector<training::Site> result;
    for (mole::Index block = 0; block < encoder_.bert.config().layers; ++block)
      for (Site site : encoder::sites) result.push_back({.weight = encoder_.bert.linear(block, site).weight});
    return result;
  }

  Entry adapt_with(const training::Method& method) {
    BertAdapter adapter(method, encoder_.bert, max_rows(), mole::Index(trained()), options_.seed);
    const BertAdapter::Attachment attached(adapter);
    // Published weights take a tenth of what suits the small model of `adapt`.
    const double rate = options_.learning_rate > 0 ? options_.learning_rate : 0.1 * method.learning_rate;
    const training::Training training{.title = method.title,
                                      .configuration = method.title + ", " + std::to_string(options_.steps) +
                                                       " steps of " + std::to_string(options_.pairs) + " pairs, rate " +
                                                       std::to_string(rate) + ", temperature " +
                                                       std::to_string(options_.temperature),
                                      .seed = options_.seed,
                                      .steps = options_.steps,
                                      .peak_rate = rate,
                                      .file = options_.out / (method.name + ".safetensors"),
                                      .resume = options_.resume};
    const training::Trainee trainee{.layers = &adapter,
                                    .for_each_tensor = [&](const auto& f) { adapter.for_each_tensor(f); },
                                    .compute = [&](mole::Index step) { return compute(adapter, step); }};
    training::TrainingResult result = training::train(trainee, training);
    if (is_plain_lora(adapter)) write_peft_folder(adapter, options_.out / method.name);
    return {.title = method.title,
            .trainable = adapter.trainable_parameters(),
            .tokens_per_second = result.tokens_per_second,
            .retrieval = evaluate(&adapter),
            .curve = std::move(result.curve)};
  }

  training::Step compute(BertAdapter& adapter, mole::Index step) {
    const PairBatch batch = draw(tokens_, trained(), std::size_t(options_.pairs), options_.seed, std::uint64_t(step));
    adapter.start_training(batch.tokens.begin, batch.labels(), options_.seed, std::uint64_t(step));
    const mole::Index pairs = options_.pairs;
    mole::Matrix<float> embeddings(2 * pairs, encoder_.bert.config().width), d_embeddings = embeddings;
    encoder_.bert.forward_for_backward(batch.tokens, embeddings.view());
    const double loss = mole::negatives_ranking<float>(
        embeddings.view().top(pairs), embeddings.view().middle_rows(pairs, pairs), d_embeddings.view().top(pairs),
        d_embeddings.view().middle_rows(pairs, pairs), {.both_ways = true, .temperature = options_.temperature});
    encoder_.bert.backward(batch.tokens, d_embeddings.view());
    return {loss, batch.tokens.tokens.size()};
  }

  /// Methods that look at the domain of a text take what no text was trained on for the last one.
  std::vector<Retrieval> evaluate(BertAdapter* adapter) {
    std::vector<Retrieval> result;
    for (std::size_t d = 0; d < tokens_.size(); ++d) {
      std::vector<const std::vector<int>*> queries, answers;
      for (const TokenPair& pair : tokens_[d].held_out) queries.push_back(&pair.query), answers.push_back(&pair.answer);
      const auto label = [&](const TokenBatch& batch) {
        if (adapter != nullptr)
          adapter->start_evaluation(batch.begin,
                                    std::vector<int>(batch.tokens.size(), int(std::min(d, trained() - 1))));
      };
      const mole::Matrix<float> q = encoder_.embed(queries, max_rows(), label);
      const mole::Matrix<float> a = encoder_.embed(answers, max_rows(), label);
      result.push_back(retrieval_of(ranks_of(q.view(), a.view())));
    }
    return result;
  }

  report::Table results() const {
    report::Table table{.columns = {"", "trainable", "trains, tokens/s"}, .rows = {}, .notes = {}};
    for (std::size_t d = 0; d < domains_.size(); ++d)
      table.columns.push_back(domains_[d].name + (d < trained() ? "" : " (new)"));
    for (const Entry& entry : entries_) {
      std::vector<std::string> row{entry.title, entry.trainable > 0 ? std::to_string(entry.trainable) : "",
                                   entry.tokens_per_second > 0 ? report::number(entry.tokens_per_second, 0) : ""};
      for (const Retrieval& retrieval : entry.retrieval)
        row.push_back(percent(retrieval.recall_1) + " / " + percent(retrieval.recall_10) + " / " +
                      report::number(retrieval.mrr, 3));
      table.rows.push_back(std::move(row));
    }
    table.notes.push_back("Of each kind of documents: recall at 1 and at 10 in %, and the mean of 1 / rank.");
    return table;
  }

  void write(const report::Table& table) const {
    std::vector<report::Curve> curves;
    for (const Entry& entry : entries_) {
      if (entry.curve.empty()) continue;
      report::Curve curve{.name = entry.title, .points = {}};
      for (std::size_t i = 0; i < entry.curve.size(); ++i) curve.points.emplace_back(double(i + 1), entry.curve[i]);
      curves.push_back(std::move(curve));
    }
    std::string body = report::element("h1", "A sentence encoder, adapted") + report::table(table);
    body += report::element("h2", "Training") + report::line_plot(curves, "step", "contrastive loss");
    report::write_page(options_.out / "report.html", "A sentence encoder, adapted", body);
    std::printf("\nreport: %s\n", (options_.out / "report.html").c_str());
  }

  const Options& options_;
  mole::ThreadPool pool_;
  SentenceEncoder encoder_;
  std::vector<Domain> domains_;
  std::vector<TokenDomain> tokens_;
  std::vector<Entry> entries_;
};

}  // namespace

void compare(const Options& options) {
  Comparison(options).run();
}

}  // namespace encoder
