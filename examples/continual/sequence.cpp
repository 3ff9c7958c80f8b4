// SPDX-License-Identifier: MIT
#include "continual/sequence.hpp"

#include "continual/forgetting.hpp"
#include "report/change_map.hpp"
#include "report/page.hpp"
#include "report/table.hpp"
#include "text/corpus.hpp"
#include "training/adapter.hpp"
#include "training/evaluation.hpp"
#include "training/interrupt.hpp"
#include "training/methods/all_methods.hpp"
#include "training/pretraining.hpp"
#include "training/train.hpp"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace continual {
namespace {

using training::Adapter;
using training::Method;

/// One method and what became of each domain.
struct Entry {
  const Method* method;
  BitsMatrix bits;
  mole::Index trainable = 0;  // parameters of each task
};

std::string signed_number(double value) {
  return (value < 0 ? "" : "+") + report::number(value, 3);
}

class Sequence {
 public:
  explicit Sequence(const Options& options)
      : options_(options),
        corpus_(text_of(options)),
        pool_(options.threads),
        model_(training::fresh_model(options.seed, pool_)),
        context_(std::size_t(model_.options().context)),
        evaluation_(corpus_.domains, context_, options.windows),
        methods_(training::task_methods(options.rank, pool_)),
        chosen_(training::choose("continual", methods_, options.methods)) {
    std::filesystem::create_directories(options.out);
  }

  void run() {
    text::print_contents(corpus_);
    training::pretrain(model_, corpus_, {.seed = options_.seed, .steps = options_.base_steps, .cache = options_.cache});
    base_bits_ = evaluation_.bits(model_);
    for (const Method* method : chosen_) entries_.push_back(learn_in_turn(*method));
    for (const Entry& entry : entries_) {
      std::printf("\n%s: bits per byte after each task\n", entry.method->title.c_str());
      report::print(matrix_of(entry));
    }
    std::printf("\n");
    const report::Table summary = summary_of_all();
    report::print(summary);
    write_page(summary);
    write_numbers();
  }

 private:
  static text::Corpus text_of(const Options& options) {
    text::Corpus corpus = text::load_corpus(options.paths, {.fewest_others = 4});
    if (corpus.domains.size() < 3)
      throw std::runtime_error("expected text of the base and of two tasks or more, found " +
                               std::to_string(corpus.domains.size() - 1) + " beside the base's");
    return corpus;
  }

  std::size_t tasks() const { return corpus_.domains.size() - 1; }
  const std::string& domain(std::size_t d) const { return corpus_.domains[d].name; }

  /// Every task from a fresh optimizer, and with batches of its own domain alone.
  Entry learn_in_turn(const Method& method) {
    const std::size_t most = std::max(options_.batch, training::Evaluation::windows_per_batch);
    Adapter adapter(method, model_, training::sites_of(model_, mole::Index(most * context_), corpus_.domains.size()),
                    options_.seed, training::Weights::copied);
    const Adapter::Attachment attached(adapter);
    Entry entry{.method = &method, .bits = {.rows = {base_bits_}}};
    for (std::size_t task = 1; task <= tasks(); ++task) {
      if (task > 1) adapter.next_task();
      entry.trainable = adapter.trainable_parameters();
      const text::BatchSampler sampler(
          corpus_.domains,
          {.domains = {task}, .sequences = options_.batch, .context = context_, .seed = options_.seed + task});
      training::train(model_, &adapter, sampler,
                      {.title = method.name + ", " + domain(task),
                       .seed = options_.seed + task,
                       .steps = options_.steps,
                       .peak_rate = options_.learning_rate > 0 ? options_.learning_rate : method.learning_rate});
      entry.bits.rows.push_back(evaluation_.bits(model_, &adapter));
      if (training::interrupted()) throw training::Interrupted{};
    }
    return entry;
  }

  std::string row_name(std::size_t row) const { return row == 0 ? "base" : "after " + domain(row); }
  std::vector<std::string> column_names() const {
    std::vector<std::string> names;
    for (std::size_t d = 1; d <= tasks(); ++d) names.push_back(domain(d));
    names.push_back("base's own");
    return names;
  }
  /// The domain of a column: the base's own text comes last.
  std::size_t domain_of(std::size_t column) const { return column < tasks() ? column + 1 : 0; }

  report::Table matrix_of(const Entry& entry) const {
    report::Table table;
    table.columns = column_names();
    table.columns.insert(table.columns.begin(), "");
    for (std::size_t row = 0; row <= tasks(); ++row) {
      std::vector<std::string> cells{row_name(row)};
      for (std::size_t c = 0; c <= tasks(); ++c) cells.push_back(report::number(entry.bits(row, domain_of(c)), 3));
      table.rows.push_back(std::move(cells));
    }
    return table;
  }

  report::Table summary_of_all() const {
    report::Table table;
    table.columns = {"bits per byte", "learned", "last", "forgotten", "transfer", "base's own", "trainable"};
    for (const Entry& entry : entries_) {
      const Summary s = summary_of(entry.bits);
      table.rows.push_back({entry.method->title, report::number(s.learned, 3), report::number(s.last, 3),
                            signed_number(s.forgotten), signed_number(s.transfer), signed_number(s.base_text),
                            std::to_string(entry.trainable)});
    }
    table.notes = {
        "Held-out text, lower is better, means over the tasks. learned: right after a task's own training. last: after "
        "the last task. forgotten: in the end, less the best that a task ever had, without the last task.",
        "transfer: right before a task's training, less the base: below 0, earlier tasks have helped. base's own: the "
        "text that the base was pre-trained on, in the end, less the base. trainable: parameters of each task.",
        "One learning rate for each method, not tuned for this comparison: a lower one learns less and may forget "
        "less. 'last' has both in it; --lr sets another."};
    return table;
  }

  report::ChangeMap map_of(const Entry& entry, double strongest) const {
    report::ChangeMap map{.columns = column_names(), .strongest = strongest, .legend = "worse than its best"};
    for (std::size_t row = 0; row <= tasks(); ++row) {
      map.rows.push_back(row_name(row));
      map.cells.emplace_back();
      for (std::size_t c = 0; c <= tasks(); ++c) {
        const std::size_t d = domain_of(c);
        map.cells.back().push_back({entry.bits(row, d), entry.bits.change(row, d), d == row});
      }
    }
    return map;
  }

  void write_page(const report::Table& summary) const {
    double strongest = 0;
    for (const Entry& entry : entries_)
      for (std::size_t row = 0; row <= tasks(); ++row)
        for (std::size_t d = 0; d <= tasks(); ++d) strongest = std::max(strongest, entry.bits.change(row, d));
    const std::string title = "One domain after the other: what is forgotten";
    std::string body =
        report::element("h1", title) +
        report::facts({{"Base", std::to_string(options_.base_steps) + " steps of 1,024 bytes"},
                       {"Tasks", std::to_string(options_.steps) + " steps of " +
                                     std::to_string(options_.batch * context_) + " bytes each"},
                       {"Seed", std::to_string(options_.seed)}}) +
        report::table(summary) +
        report::element("p",
                        "In each cell: bits per byte on held-out text, and how much that is above the best "
                        "that this domain ever had with this method. Framed: the domain just trained on.");
    for (const Entry& entry : entries_)
      body += report::element("h2", report::escaped(entry.method->title)) + "<div class=\"wide\">" +
              report::change_map(map_of(entry, strongest), entry.method->name + ": domains after each task") +
              "</div>\n";
    report::write_page(options_.out / "report.html", title, body);
    std::printf("\nreport: %s\n", (options_.out / "report.html").string().c_str());
  }

  /// Every number to its last bit, for other programs.
  void write_numbers() const {
    const auto path = options_.out / "matrix.csv";
    std::ofstream out(path, std::ios::trunc);
    out.precision(17);
    out << "method,tasks_done,domain,bits_per_byte\n";
    for (const Entry& entry : entries_)
      for (std::size_t row = 0; row <= tasks(); ++row)
        for (std::size_t d = 0; d <= tasks(); ++d)
          out << entry.method->name << ',' << row << ',' << d << ',' << entry.bits(row, d) << '\n';
    out.close();
    if (!out) throw std::runtime_error("cannot write " + path.string());
    std::printf("numbers: %s (domain 0 is the base's own)\n", path.string().c_str());
  }

  const Options& options_;
  text::Corpus corpus_;
  mole::ThreadPool pool_;
  training::Model model_;
  std::size_t context_;
  training::Evaluation evaluation_;
  std::vector<Method> methods_;
  std::vector<const Method*> chosen_;
  training::DomainBits base_bits_;
  std::vector<Entry> entries_;
};

}  // namespace

void run_sequence(const Options& options) {
  Sequence(options).run();
}

}  // namespace continual
