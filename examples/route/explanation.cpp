// SPDX-License-Identifier: MIT
#include "route/explanation.hpp"

#include "mole/execution/thread_pool.hpp"
#include "route/observer.hpp"
#include "route/page.hpp"
#include "text/corpus.hpp"
#include "training/adapter.hpp"
#include "training/methods/all_methods.hpp"
#include "training/pretraining.hpp"
#include "training/saved_adapter.hpp"

#include <algorithm>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

namespace route {

void explain(const Options& options) {
  const training::SavedAdapter saved(options.adapter);
  const mole::ThreadPool pool(options.threads);
  training::Model model = training::fresh_model(saved.seed, pool);
  const std::filesystem::path base = options.base.empty() ? saved.base : options.base;
  training::SavedAdapter::load_base(model, base);

  const auto context = std::size_t(model.options().context);
  const auto sites = training::sites_of(model, mole::Index(options.windows * context), saved.domains);
  const std::vector<training::Method> methods = training::all_methods(sites, pool);
  const auto method = std::find_if(methods.begin(), methods.end(),
                                   [&](const training::Method& known) { return known.name == saved.method; });
  if (method == methods.end() || !method->routed)
    throw std::runtime_error(options.adapter.string() +
                             ": expected an adapter of a method with a router, found one of " + saved.method);
  training::Adapter adapter(*method, model, sites, saved.seed);
  saved.load(adapter);

  const text::Corpus corpus = text::load_corpus(options.paths);
  if (corpus.domains.size() > saved.domains)
    throw std::runtime_error("route: expected text of at most " + std::to_string(saved.domains) +
                             " domains, as in training, found " + std::to_string(corpus.domains.size()));
  const training::Adapter::Attachment attached(adapter);
  Observer observer(adapter, corpus.domains.size(), context);
  for (std::size_t d = 0; d < corpus.domains.size(); ++d) {
    const text::Batch batch = text::evaluation_windows(corpus.domains, d, options.windows, context);
    if (batch.sequences() == 0)
      throw std::runtime_error(corpus.domains[d].name + ": expected held-out text of at least " +
                               std::to_string(context + 1) + " bytes, found less");
    adapter.start_evaluation(batch);
    observer.start(batch);
    model.loss(batch.inputs, batch.targets);
  }

  Page page{.title = method->title, .facts = {}, .domains = {}, .layers = observer.layers()};
  std::string names;
  for (const text::Domain& domain : corpus.domains) {
    page.domains.push_back(domain.name);
    names += (names.empty() ? "" : ", ") + domain.name + " (" + domain.origin + ")";
  }
  page.facts = {{"Adapter", options.adapter.string()},
                {"Trained", saved.configuration},
                {"Base", base.string()},
                {"Text", names},
                {"Counted", std::to_string(options.windows) + " pieces of " + std::to_string(context) +
                                " held-out bytes of each domain, or as many as there are"}};
  write_page(options.out, page);
  std::printf("page: %s\n", options.out.string().c_str());
}

}  // namespace route
