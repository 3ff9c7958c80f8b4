// SPDX-License-Identifier: MIT

// The demo's corpus: which text is taken, how it is split, and the batches drawn from it.

#include "text/corpus.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "text/batch_sampler.hpp"

namespace {

namespace fs = std::filesystem;

/// A folder of its own, removed at the end.
class Folder {
 public:
  Folder() {
    path_ = fs::temp_directory_path() / ("mole_corpus_test_" + std::to_string(std::random_device{}()));
    fs::create_directories(path_);
  }
  ~Folder() { fs::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  const fs::path& path() const { return path_; }

  fs::path write(const fs::path& name, const std::string& text) const {
    fs::create_directories((path_ / name).parent_path());
    std::ofstream(path_ / name, std::ios::binary) << text;
    return path_ / name;
  }

 private:
  fs::path path_;
};

/// Lines of words, different for every seed.
std::string prose(std::uint64_t seed, std::size_t bytes) {
  host::Random random(seed);
  std::string text;
  while (text.size() < bytes) {
    for (int word = 0; word < 8; ++word) {
      for (std::uint64_t letters = 2 + random() % 7; letters > 0; --letters)
        text += static_cast<char>('a' + random() % 26);
      text += ' ';
    }
    text.back() = '\n';
  }
  return text;
}

/// `files` files of about 4 KB in a sub-folder.
void fill(const Folder& folder, const std::string& name, std::uint64_t seed, int files = 30,
          const std::string& end = ".txt") {
  for (int i = 0; i < files; ++i) {
    folder.write(fs::path(name) / ("f" + std::to_string(i) + end),
                 prose(seed * 1000 + static_cast<std::uint64_t>(i), 4000));
  }
}

std::size_t total(const text::Domain& domain) {
  return domain.train.size() + domain.held_out.size();
}

std::string error_of(const std::vector<fs::path>& paths, const text::CorpusOptions& options = {}) {
  try {
    text::load_corpus(paths, options);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("each sub-folder with text is a domain", "[corpus]") {
  const Folder folder;
  fill(folder, "b", 2);
  fill(folder, "a", 1);
  folder.write("tiny/x.txt", "too little");
  folder.write(".hidden/x.txt", prose(9, 100'000));
  const text::Corpus corpus = text::load_corpus({folder.path()});
  REQUIRE(corpus.domains.size() == 2);
  CHECK(corpus.domains[0].name == "a");
  CHECK(corpus.domains[1].name == "b");
  CHECK(corpus.domains[0].files == 30);
  REQUIRE(corpus.notes.size() == 1);
  CHECK(contains(corpus.notes[0], "tiny"));
}

TEST_CASE("files and folders given one by one are domains in that order", "[corpus]") {
  const Folder folder;
  fill(folder, "b", 2);
  const fs::path book = folder.write("book.txt", prose(3, 700'000));
  const text::Corpus corpus = text::load_corpus({book, folder.path() / "b" / ""});
  REQUIRE(corpus.domains.size() == 2);
  CHECK(corpus.domains[0].name == "book.txt");
  CHECK(corpus.domains[1].name == "b");
  CHECK(total(corpus.domains[0]) >= 700'000);  // a file given alone is not cut
  CHECK(corpus.domains[0].held_out_files == 0);
  CHECK(corpus.domains[0].held_out.size() > 66'000);
  CHECK(corpus.domains[0].held_out.size() < 74'000);
}

TEST_CASE("the held-out files stay when a file is added, and no byte of them is trained on", "[corpus]") {
  const Folder folder;
  fill(folder, "a", 1, 60);
  fill(folder, "b", 2);
  const text::Domain before = text::load_corpus({folder.path()}).domains[0];
  CHECK(before.held_out_files > 0);
  CHECK(before.held_out_files < 20);
  folder.write("a/zzz.txt", prose(77, 4000));
  const text::Domain after = text::load_corpus({folder.path()}).domains[0];
  const std::string held_out(after.held_out.begin(), after.held_out.end());
  const std::string old(before.held_out.begin(), before.held_out.end());
  CHECK(held_out.starts_with(old));
  const std::string train(after.train.begin(), after.train.end());
  CHECK_FALSE(contains(train, old.substr(0, 200)));
  CHECK(total(after) > total(before));
}

TEST_CASE("loading twice gives the same bytes", "[corpus]") {
  const Folder folder;
  fill(folder, "a", 1);
  fill(folder, "b", 2);
  const text::Corpus one = text::load_corpus({folder.path()});
  const text::Corpus two = text::load_corpus({folder.path()});
  CHECK(one.domains[0].train == two.domains[0].train);
  CHECK(one.domains[1].held_out == two.domains[1].held_out);
}

TEST_CASE("binary files, near-copies and links are dropped and counted", "[corpus]") {
  const Folder folder;
  fill(folder, "a", 1);
  fill(folder, "b", 2);
  const std::size_t clean = text::load_corpus({folder.path()}).domains[0].text_bytes;
  folder.write("a/nul.txt", prose(50, 2000) + std::string(1, '\0') + prose(51, 2000));
  folder.write("a/control.txt", prose(52, 2000) + std::string(500, '\x02'));
  folder.write("a/f0_again.txt", prose(1000, 4000) + "one line more\n");
  fs::create_directory_symlink(folder.path(), folder.path() / "a" / "circle");
  const text::Domain domain = text::load_corpus({folder.path()}).domains[0];
  CHECK(domain.not_text == 2);
  CHECK(domain.duplicates == 1);
  CHECK(domain.files == 30);
  CHECK(domain.text_bytes == clean);
}

TEST_CASE("UTF-8 is text, noise is not", "[corpus]") {
  const auto text = [](const std::string& s) {
    return text::is_text(std::span(reinterpret_cast<const std::uint8_t*>(s.data()), s.size()));
  };
  CHECK(text("plain\n\ttext\r\n"));
  CHECK(text("\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e \xc3\xa9\xc3\xa8 \xf0\x9f\x98\x80"));
  CHECK_FALSE(text("\xe6\xe6\xe6\xe6\xff\xfe"));
  CHECK_FALSE(text(std::string("a\0b", 3)));
}

TEST_CASE("similar texts are found, different ones are not", "[corpus]") {
  text::NearDuplicates duplicates;
  const auto seen = [&](const std::string& s) {
    return duplicates.seen(std::span(reinterpret_cast<const std::uint8_t*>(s.data()), s.size()));
  };
  const std::string license = prose(5, 1000);
  CHECK_FALSE(seen(license + prose(1, 6000)));
  CHECK_FALSE(seen(license + prose(2, 6000)));
  CHECK(seen(license + prose(1, 6000)));
  CHECK(seen(prose(1, 6000)));
  CHECK_FALSE(seen("short"));
  CHECK_FALSE(seen("other"));
  CHECK(seen("short"));
}

TEST_CASE("a domain with more text than is wanted is sampled", "[corpus]") {
  const Folder folder;
  fill(folder, "a", 1, 60);
  fill(folder, "b", 2);
  text::CorpusOptions options;
  options.domain.most_bytes = 100'000;
  const text::Corpus corpus = text::load_corpus({folder.path()}, options);
  CHECK(total(corpus.domains[0]) <= 100'100);
  CHECK(total(corpus.domains[0]) > 90'000);
}

TEST_CASE("without paths the languages of the machine are found", "[corpus]") {
  const Folder folder;
  fill(folder, "include/c++/13/bits", 1, 30, ".h");
  fill(folder, "include", 2, 40, ".h");
  fill(folder, "share/python", 3, 50, ".py");
  fill(folder, "share/perl", 4, 35, ".pm");
  fill(folder, "share/lua", 5, 3, ".lua");
  text::CorpusOptions options;
  options.roots = {folder.path() / "include", folder.path() / "share", folder.path() / "absent"};
  options.least_found_bytes = 100'000;
  const text::Corpus corpus = text::load_corpus({}, options);
  std::vector<std::string> names;
  for (const text::Domain& domain : corpus.domains) names.push_back(domain.name);
  CHECK(names == std::vector<std::string>{"C++ headers", "Python", "C headers", "Perl"});

  options.others = 2;
  options.fewest_others = 1;
  CHECK(text::load_corpus({}, options).domains.size() == 3);
}

TEST_CASE("bad input is answered with one line that names it", "[corpus]") {
  const Folder folder;
  fill(folder, "a", 1);
  const fs::path tiny = folder.write("tiny.txt", "hello\n");
  fs::create_directory(folder.path() / "empty");
  const std::string missing = error_of({folder.path() / "absent"});
  CHECK(contains(missing, "absent"));
  CHECK(contains(missing, "expected"));
  CHECK(contains(error_of({folder.path() / "a", tiny}), "6 bytes of text"));
  CHECK(contains(error_of({folder.path() / "a", folder.path() / "empty"}), "empty"));
  CHECK(contains(error_of({folder.path() / "a"}), "at least one more"));

  text::CorpusOptions options;
  options.roots = {folder.path()};
  CHECK(contains(error_of({}, options), "found none"));
  CHECK_FALSE(contains(error_of({}, options), "\n"));
}

TEST_CASE("a batch depends on seed and step alone, and all domains take turns", "[corpus]") {
  const Folder folder;
  fill(folder, "a", 1);
  fill(folder, "b", 2);
  fill(folder, "c", 3);
  const std::vector<text::Domain> domains = text::load_corpus({folder.path()}).domains;
  const text::BatchOptions options{.domains = {1, 2}, .sequences = 6, .context = 32, .seed = 7};
  const text::BatchSampler sampler(domains, options);
  text::Batch early;
  text::Batch late;
  sampler.draw(3, early);
  sampler.draw(9, late);
  CHECK(early.inputs != late.inputs);
  sampler.draw(3, late);
  CHECK(early.inputs == late.inputs);
  CHECK(early.domains == std::vector<std::size_t>{1, 2, 1, 2, 1, 2});
  CHECK(early.inputs.size() == 6 * 32);

  for (std::size_t s = 0; s < early.sequences(); ++s) {
    const auto begin = static_cast<std::ptrdiff_t>(s * 32);
    std::vector<std::uint8_t> window(early.inputs.begin() + begin, early.inputs.begin() + begin + 32);
    window.push_back(early.targets[s * 32 + 31]);
    CHECK(std::equal(window.begin() + 1, window.end(), early.targets.begin() + begin));
    const auto& text = domains[early.domains[s]].train;
    CHECK(std::search(text.begin(), text.end(), window.begin(), window.end()) != text.end());
  }
}

TEST_CASE("every window of the training text can be drawn", "[corpus]") {
  std::vector<text::Domain> domains(1);
  for (int b = 0; b < 12; ++b) domains[0].train.push_back(static_cast<std::uint8_t>(b));
  const text::BatchSampler sampler(domains, {.domains = {0}, .sequences = 64, .context = 4});
  text::Batch batch;
  sampler.draw(0, batch);
  std::set<int> starts;
  for (std::size_t s = 0; s < batch.sequences(); ++s) starts.insert(batch.inputs[s * 4]);
  CHECK(starts == std::set<int>{0, 1, 2, 3, 4, 5, 6, 7});

  domains[0].train.resize(4);
  CHECK_THROWS_AS(text::BatchSampler(domains, {.domains = {0}, .context = 4}), std::invalid_argument);
}

TEST_CASE("evaluation windows are the same every time, apart and within the held-out text", "[corpus]") {
  std::vector<text::Domain> domains(1);
  for (int b = 0; b < 200; ++b) domains[0].held_out.push_back(static_cast<std::uint8_t>(b));
  const text::Batch few = text::evaluation_windows(domains, 0, 5, 16);
  CHECK(few.sequences() == 5);
  for (std::size_t s = 1; s < few.sequences(); ++s) CHECK(few.inputs[s * 16] >= few.inputs[(s - 1) * 16] + 16);
  CHECK(text::evaluation_windows(domains, 0, 100, 16).sequences() == 12);
  CHECK(few.targets[0] == few.inputs[0] + 1);
  CHECK(text::evaluation_windows(domains, 0, 3, 500).sequences() == 0);
}
