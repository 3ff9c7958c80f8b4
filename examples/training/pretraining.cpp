// SPDX-License-Identifier: MIT
#include "training/pretraining.hpp"

#include "text/batch_sampler.hpp"
#include "text/fingerprint.hpp"
#include "training/train.hpp"

#include <cstdio>
#include <functional>
#include <span>

template class host::Transformer<float>;

namespace training {

Model fresh_model(std::uint64_t seed, const mole::ThreadPool& pool) {
  return Model({}, seed, [pool](std::ptrdiff_t tasks, const std::function<void(std::ptrdiff_t)>& f) {
    pool.parallel_for(tasks, f);
  });
}

Pretrained pretrain(Model& model, const text::Corpus& corpus, const Pretraining& options) {
  constexpr std::size_t sequences = 8;
  constexpr double peak_rate = 2e-3;
  const std::string seed = std::to_string(options.seed), steps = std::to_string(options.steps);
  const std::string read = text::fingerprint(std::span(corpus.domains).first(1));
  const std::string base = "base, seed " + seed + ", " + steps + " steps, text " + read;
  std::filesystem::create_directories(options.cache);
  const Training training{.title = "base",
                          .configuration = base,
                          .seed = options.seed,
                          .steps = options.steps,
                          .peak_rate = peak_rate,
                          .file = options.cache / ("base-" + seed + "-" + steps + "-" + read + ".safetensors"),
                          .resume = true};
  const text::BatchSampler sampler(
      corpus.domains,
      {.domains = {0}, .sequences = sequences, .context = std::size_t(model.options().context), .seed = options.seed});
  const TrainingResult result = train(model, nullptr, sampler, training);
  if (result.from_file) std::printf("base: from %s\n", training.file.string().c_str());
  model.freeze();
  return {base, std::filesystem::absolute(training.file)};
}

}  // namespace training
