// SPDX-License-Identifier: MIT
#include "adapt/comparison.hpp"

#include "adapt/report.hpp"
#include "adapt/routing_counts.hpp"
#include "report/table.hpp"
#include "text/corpus.hpp"
#include "text/fingerprint.hpp"
#include "training/adapter.hpp"
#include "training/evaluation.hpp"
#include "training/interrupt.hpp"
#include "training/methods/all_methods.hpp"
#include "training/pretraining.hpp"
#include "training/train.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <limits>
#include <memory>
#include <span>

namespace adapt {
namespace {

using training::Adapter;
using training::DomainBits;
using training::Method;

constexpr std::array default_methods{"lora", "mola", "lora-wide"};

/// One adapter and everything measured of it.
struct Entry {
  std::unique_ptr<Adapter> adapter;
  training::TrainingResult training;
  DomainBits bits;
  MethodRouting routing;
  double active = 0;  // parameters used per token
  std::vector<double> forward_seconds;
};

class Comparison {
 public:
  explicit Comparison(const Options& options)
      : options_(options),
        corpus_(text::load_corpus(options.paths)),
        pool_(options.threads),
        model_(training::fresh_model(options.seed, pool_)),
        context_(std::size_t(model_.options().context)),
        evaluation_(corpus_.domains, context_, options_.windows),
        methods_(training::all_methods(sites(), pool_)),
        chosen_(choose_methods()) {
    std::filesystem::create_directories(options.out);
  }

  void run() {
    text::print_contents(corpus_);
    base_ = training::pretrain(model_, corpus_,
                               {.seed = options_.seed, .steps = options_.base_steps, .cache = options_.cache});
    base_bits_ = evaluation_.bits(model_);
    for (const Method* method : chosen_) entries_.push_back(adapt_with(*method));
    measure_speed();
    std::stable_sort(entries_.begin(), entries_.end(),
                     [](const Entry& a, const Entry& b) { return order(a) < order(b); });
    const report::Table table = results();
    std::printf("\n");
    report::print(table);
    write(table);
  }

 private:
  std::vector<const Method*> choose_methods() const {
    std::vector<std::string> names = options_.methods;
    if (!options_.only) names.insert(names.end(), default_methods.begin(), default_methods.end());
    return training::choose("adapt", methods_, names);
  }

  std::vector<training::Site> sites() {
    const std::size_t most = std::max(options_.batch, training::Evaluation::windows_per_batch) * context_;
    return training::sites_of(model_, mole::Index(most), corpus_.domains.size());
  }

  Entry adapt_with(const Method& method) {
    Entry entry;
    entry.adapter = std::make_unique<Adapter>(method, model_, sites(), options_.seed);
    const double rate = options_.learning_rate > 0 ? options_.learning_rate : method.learning_rate;
    const Adapter::Attachment attached(*entry.adapter);
    const std::string read = text::fingerprint(std::span(corpus_.domains).subspan(1));
    const training::Training training{.title = method.title,
                                      .configuration = base_.configuration + "; " + method.title + ", " +
                                                       std::to_string(options_.steps) + " steps of " +
                                                       std::to_string(options_.batch) + ", rate " +
                                                       std::to_string(rate) + ", text " + read,
                                      .seed = options_.seed,
                                      .steps = options_.steps,
                                      .peak_rate = rate,
                                      .notes = {{"method", method.name},
                                                {"base", base_.file.string()},
                                                {"domains", std::to_string(corpus_.domains.size())}},
                                      .file = options_.out / (method.name + ".safetensors"),
                                      .resume = options_.resume};
    entry.training = training::train(model_, entry.adapter.get(), sampler(), training);
    RoutingCounts counts(*entry.adapter, corpus_.domains.size());
    entry.bits = evaluation_.bits(model_, entry.adapter.get(), [&](const text::Batch& batch) { counts.add(batch); });
    entry.active = counts.active_parameters();
    if (method.routed) entry.routing = counts.routing();
    return entry;
  }

  /// Batches of all domains but the base's.
  text::BatchSampler sampler() const {
    std::vector<std::size_t> domains;
    for (std::size_t d = 1; d < corpus_.domains.size(); ++d) domains.push_back(d);
    return text::BatchSampler(
        corpus_.domains,
        {.domains = std::move(domains), .sequences = options_.batch, .context = context_, .seed = options_.seed + 1});
  }

  /// Base and adapters in turn, so that a noisy moment hits all of them.
  void measure_speed() {
    for (long round = 0; round < options_.rounds; ++round) {
      if (training::interrupted()) throw training::Interrupted{};
      base_seconds_.push_back(evaluation_.forward_seconds(model_));
      for (Entry& entry : entries_) {
        const Adapter::Attachment attached(*entry.adapter);
        entry.forward_seconds.push_back(evaluation_.forward_seconds(model_, entry.adapter.get()));
      }
    }
  }

  static std::string number(const char* format, double value) {
    char text[40];
    std::snprintf(text, sizeof text, format, value);
    return text;
  }

  /// Mean over the domains that the adapters were trained on.
  static double adapted_mean(const DomainBits& bits) {
    double sum = 0;
    for (std::size_t d = 1; d < bits.size(); ++d) sum += bits[d];
    return sum / double(bits.size() - 1);
  }

  /// The best first; what diverged, last.
  static double order(const Entry& entry) {
    const double bits = adapted_mean(entry.bits);
    return std::isnan(bits) ? std::numeric_limits<double>::infinity() : bits;
  }

  report::Table results() {
    report::Table table;
    table.columns = {"bits per byte"};
    for (std::size_t d = 1; d < corpus_.domains.size(); ++d) table.columns.push_back(corpus_.domains[d].name);
    for (const char* column : {"mean", "base's own", "trainable", "active", "train tok/s", "infer tok/s", "overhead"})
      table.columns.push_back(column);
    const double base_time = training::median_of(base_seconds_), tokens = double(evaluation_.timed_tokens());
    const auto row = [&](const std::string& name, const DomainBits& bits, std::string trainable, std::string active,
                         std::string train_speed, double seconds) {
      std::vector<std::string> cells{name};
      for (std::size_t d = 1; d < bits.size(); ++d) cells.push_back(number("%.3f", bits[d]));
      cells.push_back(number("%.3f", adapted_mean(bits)));
      cells.push_back(number("%.3f", bits[0]));
      cells.insert(cells.end(),
                   {std::move(trainable), std::move(active), std::move(train_speed), number("%.0f", tokens / seconds),
                    number("%+.1f %%", 100 * (seconds / base_time - 1))});
      table.rows.push_back(std::move(cells));
    };
    row("base, frozen", base_bits_, "-", "-", "-", base_time);
    for (Entry& entry : entries_)
      row(entry.adapter->method().title, entry.bits, std::to_string(entry.adapter->trainable_parameters()),
          number("%.0f", entry.active),
          entry.training.from_file ? "-" : number("%.0f", entry.training.tokens_per_second),
          training::median_of(entry.forward_seconds));
    table.notes = {
        "Held-out text, lower is better. mean: over the adapted domains; base's own: the text that the base was "
        "pre-trained on and the adapters never saw, so a rise is forgetting.",
        "active: parameters of the adapter that one token touches, on average over the held-out text. overhead: time "
        "of a forward pass over the "
        "frozen base's, medians of alternated passes."};
    for (const std::string& line : comparisons_of_speed()) table.notes.push_back(line);
    return table;
  }

  /// Where choosing few experts should save time: the sparse mixture against what has as many parameters.
  std::vector<std::string> comparisons_of_speed() const {
    std::vector<std::string> lines;
    const auto sparse = std::find_if(entries_.begin(), entries_.end(),
                                     [](const Entry& e) { return e.adapter->method().name == "mola"; });
    if (sparse == entries_.end()) return lines;
    for (const Entry& other : entries_) {
      if (other.adapter->method().name != "lora-wide" && other.adapter->method().name != "dense") continue;
      const double infers = training::median_of(other.forward_seconds) / training::median_of(sparse->forward_seconds);
      std::string line = sparse->adapter->method().title + " against " + other.adapter->method().title + ": infers " +
                         number("%.2f x as fast", infers);
      if (!sparse->training.from_file && !other.training.from_file)
        line +=
            number(", trains %.2f x as fast", sparse->training.tokens_per_second / other.training.tokens_per_second);
      lines.push_back(line + ".");
    }
    return lines;
  }

  /// Every `stride` steps one point, the mean of its steps: batches differ too much to draw each.
  static report::Curve smoothed(const std::string& name, const std::vector<double>& curve) {
    report::Curve drawn;
    drawn.name = name;
    const std::size_t stride = std::max<std::size_t>(1, curve.size() / 60);
    for (std::size_t begin = 0; begin + stride <= curve.size(); begin += stride) {
      double sum = 0;
      for (std::size_t i = begin; i < begin + stride; ++i) sum += curve[i];
      drawn.points.emplace_back(double(begin + stride), sum / double(stride));
    }
    return drawn;
  }

  void write(const report::Table& table) {
    Report report;
    report.title = "Mixtures of LoRA experts on a byte-level transformer";
    std::string names;
    for (const text::Domain& domain : corpus_.domains) {
      report.domains.push_back(domain.name);
      names += (names.empty() ? "" : ", ") + domain.name + " (" + domain.origin + ")";
    }
    report.facts = {{"Text", names},
                    {"Base", std::to_string(options_.base_steps) + " steps of 1,024 bytes"},
                    {"Adapters", std::to_string(options_.steps) + " steps of " +
                                     std::to_string(options_.batch * context_) + " bytes each"},
                    {"Seed", std::to_string(options_.seed)},
                    {"Threads", std::to_string(options_.threads)}};
    report.results = table;
    for (const Entry& entry : entries_) {
      const std::string& name = entry.adapter->method().name;
      const double bits = adapted_mean(entry.bits);
      report.by_active.push_back({name, entry.active / 1000, bits});
      if (!entry.training.from_file) report.by_speed.push_back({name, entry.training.tokens_per_second / 1000, bits});
      report.curves.push_back(smoothed(entry.adapter->method().title, entry.training.curve));
      if (entry.adapter->method().routed) report.routing.push_back(entry.routing);
    }
    const auto path = options_.out / "report.html";
    write_report(path, report);
    std::printf("\nreport: %s\nadapters: %s\n", path.string().c_str(),
                (options_.out / "*.safetensors").string().c_str());
  }

  const Options& options_;
  text::Corpus corpus_;
  mole::ThreadPool pool_;
  training::Model model_;
  std::size_t context_;
  training::Evaluation evaluation_;
  std::vector<Method> methods_;
  std::vector<const Method*> chosen_;
  training::Pretrained base_;
  std::vector<double> base_seconds_;
  DomainBits base_bits_;
  std::vector<Entry> entries_;
};

}  // namespace

void compare(const Options& options) {
  Comparison(options).run();
}

}  // namespace adapt
