// SPDX-License-Identifier: MIT
#include "adapt/comparison.hpp"

#include "adapt/adapter.hpp"
#include "adapt/corpus.hpp"
#include "adapt/evaluation.hpp"
#include "adapt/interrupt.hpp"
#include "adapt/training.hpp"

#include <algorithm>
#include <cstdio>
#include <optional>
#include <thread>

namespace adapt {
namespace {

constexpr std::size_t base_sequences = 8, adapter_sequences = 16;
constexpr double base_rate = 2e-3;

/// One adapter and everything measured of it.
struct Entry {
  std::unique_ptr<Adapter> adapter;
  TrainingResult training;
  DomainBits bits;
  MethodRouting routing;
  std::vector<double> forward_seconds;
};

class Comparison {
 public:
  explicit Comparison(const Options& options)
      : options_(options),
        corpus_(load_corpus(options.paths)),
        pool_(options.threads),
        model_({}, options.seed,
               [pool = pool_](std::ptrdiff_t tasks, const std::function<void(std::ptrdiff_t)>& f) {
                 pool.parallel_for(tasks, f);
               }),
        context_(std::size_t(model_.options().context)),
        evaluation_(corpus_.domains, context_),
        methods_(all_methods(linear_sizes(model_), pool_)),
        chosen_(choose_methods()) {
    std::filesystem::create_directories(options.out);
    std::filesystem::create_directories(options.cache);
  }

  void run() {
    print_corpus();
    prepare_base();
    base_bits_ = evaluation_.bits(model_);
    for (const Method* method : chosen_) entries_.push_back(adapt_with(*method));
    measure_speed();
    const Table table = results();
    print(table);
    report(table);
  }

 private:
  /// Each once, in the order of methods_.
  std::vector<const Method*> choose_methods() const {
    std::vector<std::string> names = options_.methods;
    if (!options_.only)
      for (const std::string& name : default_methods()) names.push_back(name);
    const auto named = [&](const std::string& name) {
      return std::find(names.begin(), names.end(), name) != names.end();
    };
    std::vector<const Method*> chosen;
    std::string known = "all";
    for (const Method& method : methods_) {
      known += ", " + method.name;
      if (named("all") || named(method.name)) chosen.push_back(&method);
      std::erase(names, method.name);
    }
    std::erase(names, "all");
    if (!names.empty()) throw Exit{2, "adapt: --method: expected one of " + known + ", found " + names.front() + "\n"};
    return chosen;
  }

  void print_corpus() const {
    for (const std::string& note : corpus_.notes) std::printf("passed over: %s\n", note.c_str());
    for (std::size_t d = 0; d < corpus_.domains.size(); ++d) {
      const Domain& domain = corpus_.domains[d];
      std::printf("%-8s %-16s %6zu KiB to train on, %4zu KiB held out, %5zu files, %5zu near-copies dropped\n",
                  d == 0 ? "base" : "adapt", domain.name.c_str(), domain.train.size() / 1024,
                  domain.held_out.size() / 1024, domain.files, domain.duplicates);
    }
    std::fflush(stdout);
  }

  /// A text that tells corpora apart: names and contents of all training text.
  std::string fingerprint(std::size_t first_domain, std::size_t domains) const {
    std::uint64_t hash = 0;
    for (std::size_t d = first_domain; d < domains; ++d)
      for (const std::uint8_t byte : corpus_.domains[d].train) hash = (hash ^ byte) * 0x100000001b3u;
    char text[20];
    std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
    return text;
  }

  BatchSampler sampler(std::vector<std::size_t> domains, std::size_t sequences, std::uint64_t seed) const {
    return BatchSampler(corpus_.domains,
                        {.domains = std::move(domains), .sequences = sequences, .context = context_, .seed = seed});
  }

  void prepare_base() {
    base_ = "base, seed " + std::to_string(options_.seed) + ", " + std::to_string(options_.base_steps) +
            " steps, text " + fingerprint(0, 1);
    const std::string id = "base-" + std::to_string(options_.seed) + "-" + std::to_string(options_.base_steps) + "-" +
                           fingerprint(0, 1) + ".safetensors";
    const Training training{
        .title = "base",
        .configuration = base_,
        .seed = options_.seed,
        .steps = options_.base_steps,
        .peak_rate = base_rate,
        .walk =
            [this](const mole::AnyLinear<float>::Visitor& f) {
              model_.walk([&](std::string_view name, float* value, float* gradient, host::Index size) {
                f(name, mole::View<float>(value, 1, size), mole::View<float>(gradient, 1, size));
              });
            },
        .zero_gradients = [this] { model_.zero_gradients(); },
        .context = nullptr,
        .file = options_.cache / id,
        .resume = true};  // a base that is there is never trained again
    const TrainingResult result = train(model_, sampler({0}, base_sequences, options_.seed), training);
    if (result.from_file) std::printf("base: from %s\n", training.file.string().c_str());
    base_curve_ = result.curve;
    model_.freeze();
  }

  Entry adapt_with(const Method& method) {
    Entry entry;
    const mole::Index tokens = mole::Index(adapter_sequences * context_);
    entry.adapter = std::make_unique<Adapter>(method, model_, tokens, options_.seed);
    const double rate = options_.learning_rate > 0 ? options_.learning_rate : method.learning_rate;
    const Adapter::Attachment attached(*entry.adapter);
    std::vector<std::size_t> domains;
    for (std::size_t d = 1; d < corpus_.domains.size(); ++d) domains.push_back(d);
    const Training training{.title = method.title,
                            .configuration = base_ + "; " + method.title + ", " + std::to_string(options_.steps) +
                                             " steps, rate " + std::to_string(rate) + ", text " +
                                             fingerprint(1, corpus_.domains.size()),
                            .seed = options_.seed,
                            .steps = options_.steps,
                            .peak_rate = rate,
                            .walk = [&](const mole::AnyLinear<float>::Visitor& f) { entry.adapter->walk(f); },
                            .zero_gradients = [&] { entry.adapter->zero_gradients(); },
                            .context = &entry.adapter->context(),
                            .file = options_.out / (method.name + ".safetensors"),
                            .resume = options_.resume};
    entry.training = train(model_, sampler(domains, adapter_sequences, options_.seed + 1), training);
    entry.routing.name = method.title;
    if (method.routed)
      entry.bits = evaluation_.bits(model_, *entry.adapter, entry.routing);
    else
      entry.bits = evaluation_.bits(model_);
    return entry;
  }

  /// Base and adapters in turn, so that a noisy moment hits all of them.
  void measure_speed() {
    for (int round = 0; round < options_.rounds; ++round) {
      if (interrupted()) throw Interrupted{};
      base_seconds_.push_back(evaluation_.forward_seconds(model_));
      for (Entry& entry : entries_) {
        const Adapter::Attachment attached(*entry.adapter);
        entry.forward_seconds.push_back(evaluation_.forward_seconds(model_));
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

  Table results() {
    Table table;
    table.columns = {"bits per byte"};
    for (std::size_t d = 1; d < corpus_.domains.size(); ++d) table.columns.push_back(corpus_.domains[d].name);
    for (const char* column : {"mean", "base's own", "trainable", "active", "train tok/s", "infer tok/s", "overhead"})
      table.columns.push_back(column);
    const double base_time = median_of(base_seconds_), tokens = double(evaluation_.timed_tokens());
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
          std::to_string(entry.adapter->active_parameters()),
          entry.training.from_file ? "-" : number("%.0f", entry.training.tokens_per_second),
          median_of(entry.forward_seconds));
    table.notes = {
        "Held-out text, lower is better. mean: over the adapted domains; base's own: the text that the base was "
        "pre-trained on and the adapters never saw, so a rise is forgetting.",
        "active: parameters of the adapter that one token touches. overhead: time of a forward pass over the "
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
      if (other.adapter->active_parameters() <= 2 * sparse->adapter->active_parameters()) continue;
      const double infers = median_of(other.forward_seconds) / median_of(sparse->forward_seconds);
      std::string line = sparse->adapter->method().title + " against " + other.adapter->method().title + ": infers " +
                         number("%.2f x as fast", infers);
      if (!sparse->training.from_file && !other.training.from_file)
        line +=
            number(", trains %.2f x as fast", sparse->training.tokens_per_second / other.training.tokens_per_second);
      lines.push_back(line + ".");
    }
    return lines;
  }

  static void print(const Table& table) {
    std::vector<std::size_t> widths(table.columns.size());
    const auto measure = [&](const std::vector<std::string>& cells) {
      for (std::size_t c = 0; c < cells.size(); ++c) widths[c] = std::max(widths[c], cells[c].size());
    };
    measure(table.columns);
    for (const auto& row : table.rows) measure(row);
    const auto line = [&](const std::vector<std::string>& cells) {
      for (std::size_t c = 0; c < cells.size(); ++c)
        std::printf(c == 0 ? "%-*s" : "  %*s", int(widths[c]), cells[c].c_str());
      std::printf("\n");
    };
    std::printf("\n");
    line(table.columns);
    for (const auto& row : table.rows) line(row);
    for (const std::string& note : table.notes) std::printf("%s\n", note.c_str());
  }

  /// Every `stride` steps one point, the mean of its steps: batches differ too much to draw each.
  static Curve smoothed(const std::string& name, const std::vector<double>& curve) {
    Curve drawn;
    drawn.name = name;
    const std::size_t stride = std::max<std::size_t>(1, curve.size() / 60);
    for (std::size_t begin = 0; begin + stride <= curve.size(); begin += stride) {
      double sum = 0;
      for (std::size_t i = begin; i < begin + stride; ++i) sum += curve[i];
      drawn.points.emplace_back(double(begin + stride), sum / double(stride));
    }
    return drawn;
  }

  void report(const Table& table) {
    Report report;
    report.title = "Mixtures of LoRA experts on a byte-level transformer";
    std::string names;
    for (const Domain& domain : corpus_.domains) {
      report.domains.push_back(domain.name);
      names += (names.empty() ? "" : ", ") + domain.name + " (" + domain.origin + ")";
    }
    report.facts = {{"Text", names},
                    {"Base", std::to_string(options_.base_steps) + " steps of 1,024 bytes"},
                    {"Adapters", std::to_string(options_.steps) + " steps of 2,048 bytes each"},
                    {"Seed", std::to_string(options_.seed)},
                    {"Threads", std::to_string(options_.threads)}};
    report.results = table;
    for (const Entry& entry : entries_) {
      report.curves.push_back(smoothed(entry.adapter->method().title, entry.training.curve));
      if (entry.adapter->method().routed) report.routing.push_back(entry.routing);
    }
    const auto path = options_.out / "report.html";
    write_report(path, report);
    std::printf("\nreport: %s\nadapters: %s\n", path.string().c_str(),
                (options_.out / "*.safetensors").string().c_str());
  }

  const Options& options_;
  Corpus corpus_;
  mole::ThreadPool pool_;
  host::Transformer<float> model_;
  std::size_t context_;
  Evaluation evaluation_;
  std::vector<Method> methods_;
  std::vector<const Method*> chosen_;
  std::string base_;  // all that the base depends on
  std::vector<double> base_curve_, base_seconds_;
  DomainBits base_bits_;
  std::vector<Entry> entries_;
};

}  // namespace

void compare(const Options& options) {
  Comparison(options).run();
}

}  // namespace adapt
