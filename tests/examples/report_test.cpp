// SPDX-License-Identifier: MIT

// The demo's report: one well-formed page that needs nothing else, and the numbers it works out itself.

#include "adapt/report.hpp"

#include <array>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include "report/change_map.hpp"
#include "support/catch.hpp"
#include "training/progress.hpp"

namespace {

adapt::CountMatrix one_to_one() {
  adapt::CountMatrix m(4, 4);
  for (std::size_t e = 0; e < 4; ++e) m(e, (e + 1) % 4) = 10 + static_cast<double>(e);
  return m;
}

/// With text everywhere that would break a page if it were not escaped.
adapt::Report sample() {
  const std::string hostile = "<b>\"a\" & 'b'</b><script>";
  adapt::Report report;
  report.title = hostile;
  report.facts = {{hostile, hostile}, {"control", std::string("a\x01z")}};
  report.results = {{"method", hostile}, {{hostile, "1.0"}, {"b", "2.0"}}, {hostile}};
  report.by_active = {{hostile, 90, 3.2}, {"b", 290, 3.1}, {"c", std::numeric_limits<double>::quiet_NaN(), 3}};
  report.curves = {{hostile, {{0, 3}, {10, 2.5}, {20, std::numeric_limits<double>::quiet_NaN()}, {30, 2.25}}},
                   {"empty", {}}};
  report.domains = {hostile, "b", "c", "d"};
  adapt::LayerRouting layer{hostile, {0.5, 0.25, 0.25, 0.0}, 0.5, one_to_one(), adapt::CountMatrix(4, 8)};
  report.routing = {{hostile, {layer, layer}}, {"nothing", {}}};
  return report;
}

std::string written(const adapt::Report& report) {
  const auto path = std::filesystem::temp_directory_path() / "mole_report_test.html";
  adapt::write_report(path, report);
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  std::filesystem::remove(path);
  return text.str();
}

/// Empty if every tag is closed in the right order; otherwise the first tag that is not.
std::string first_unbalanced(const std::string& html) {
  std::vector<std::string> open;
  for (std::size_t begin = html.find('<'); begin != std::string::npos; begin = html.find('<', begin + 1)) {
    const std::size_t end = html.find('>', begin);
    if (end == std::string::npos) return "unfinished tag";
    const std::string tag = html.substr(begin + 1, end - begin - 1);
    if (tag.find('<') != std::string::npos) return tag;
    if (tag.starts_with('!') || tag.ends_with('/')) continue;
    if (!tag.starts_with('/')) {
      open.push_back(tag.substr(0, tag.find(' ')));
    } else if (open.empty() || open.back() != tag.substr(1)) {
      return tag;
    } else {
      open.pop_back();
    }
  }
  return open.empty() ? "" : open.back();
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

}  // namespace

TEST_CASE("the report is well formed and needs nothing from outside", "[report]") {
  const std::string html = written(sample());
  CHECK(first_unbalanced(html) == "");
  CHECK(html.find("<script") == std::string::npos);
  CHECK(html.find("http") == std::string::npos);
  CHECK(html.find("prefers-color-scheme") != std::string::npos);
  CHECK(html.find("nan") == std::string::npos);
  CHECK(count(html, "<polyline") == 2);
}

TEST_CASE("the check of well-formed pages fails on an open tag", "[report]") {
  CHECK(first_unbalanced("<p><b>x</p></b>") == "/p");
  CHECK(first_unbalanced("<p>") == "p");
  CHECK(first_unbalanced("<p><br/></p>") == "");
}

TEST_CASE("every method has a dot and its name, unless it diverged", "[report]") {
  CHECK(count(written(sample()), "<circle") == 2);
  std::vector<report::Dot> crowd;
  for (int i = 0; i < 20; ++i) crowd.push_back({"method_" + std::to_string(i), 100.0 + i % 3, 3 + 0.001 * (i % 2)});
  crowd.push_back({"far", 300, 4});
  const std::string drawing = report::dot_plot(crowd, "x", "y");
  CHECK(first_unbalanced(drawing) == "");
  for (const report::Dot& dot : crowd) CHECK(count(drawing, ">" + dot.name + "</text>") == 1);
  CHECK(first_unbalanced(report::dot_plot({}, "x", "y")) == "");
}

TEST_CASE("a map of changes has all its numbers, a frame for what is marked, and a legend", "[report]") {
  const report::ChangeMap map{.columns = {"a", "b<i>"},
                              .rows = {"before", "after"},
                              .cells = {{{3, 0, false}, {2, 0, true}}, {{3.5, 0.5, false}, {1.5, 0, false}}},
                              .strongest = 0.5,
                              .legend = "worse"};
  const std::string drawing = report::change_map(map, "changes");
  CHECK(first_unbalanced(drawing) == "");
  CHECK(count(drawing, "class=\"frame\"") == 1);
  CHECK(count(drawing, ">+0.500</text>") == 1);
  CHECK(count(drawing, ">3.500</text>") == 1);
  CHECK(count(drawing, "class=\"heat\"") == 4 + 5);
  CHECK(first_unbalanced(report::change_map({}, "nothing")) == "");
}

TEST_CASE("text is escaped wherever it appears", "[report]") {
  const std::string html = written(sample());
  CHECK(html.find("<b>") == std::string::npos);
  CHECK(html.find('\x01') == std::string::npos);
  CHECK(count(html, "&lt;script&gt;") >= 10);
}

TEST_CASE("an empty report is a page too", "[report]") {
  const std::string html = written({});
  CHECK(first_unbalanced(html) == "");
  CHECK(html.find("<h2>") == std::string::npos);
}

TEST_CASE("a report that cannot be written says where", "[report]") {
  CHECK_THROWS_WITH(adapt::write_report("/nonexistent/folder/report.html", {}),
                    "report: cannot write /nonexistent/folder/report.html");
}

TEST_CASE("the explained share is 0 for independent and 1 for one-to-one", "[report]") {
  adapt::CountMatrix independent(3, 4);
  for (std::size_t e = 0; e < 3; ++e) {
    for (std::size_t g = 0; g < 4; ++g) independent(e, g) = static_cast<double>((e + 1) * (g + 2));
  }
  CHECK(adapt::explained_share(independent) < 1e-12);
  CHECK(std::abs(adapt::explained_share(one_to_one()) - 1) < 1e-12);
}

TEST_CASE("the explained share of a noisy channel is its capacity", "[report]") {
  adapt::CountMatrix m(2, 2);  // a binary symmetric channel with crossover 1/4: 1 - H(1/4) bits of 1
  m(0, 0) = m(1, 1) = 3;
  m(0, 1) = m(1, 0) = 1;
  CHECK(std::abs(adapt::explained_share(m) - 0.18872187554) < 1e-10);
}

TEST_CASE("the explained share of no choice is 0", "[report]") {
  CHECK(adapt::explained_share({}) == 0.0);
  CHECK(adapt::explained_share(adapt::CountMatrix(4, 3)) == 0.0);
  adapt::CountMatrix one(2, 2);
  one(1, 0) = one(1, 1) = 5;
  CHECK(adapt::explained_share(one) == 0.0);
}

TEST_CASE("every byte has one class", "[report]") {
  std::array<int, adapt::byte_class_names.size()> counts{};
  for (int b = 0; b < 256; ++b) ++counts.at(static_cast<std::size_t>(adapt::byte_class(static_cast<std::uint8_t>(b))));
  CHECK(counts == std::array<int, 8>{26, 26, 10, 2, 2, 8, 24, 158});
  CHECK(adapt::byte_class('_') == adapt::ByteClass::punctuation);
  CHECK(adapt::byte_class(0xc3) == adapt::ByteClass::other);
}

TEST_CASE("progress that is not on a terminal writes about ten plain lines", "[report]") {
  std::FILE* file = std::tmpfile();
  REQUIRE(file != nullptr);
  training::Progress progress("adapting", 200, file);
  for (std::size_t step = 1; step <= 200; ++step) progress.show(step, 2048, 2.5);
  std::string text(static_cast<std::size_t>(std::ftell(file)), '\0');
  std::rewind(file);
  CHECK(std::fread(text.data(), 1, text.size(), file) == text.size());
  std::fclose(file);
  CHECK(count(text, "\n") == 10);
  CHECK(text.find('\r') == std::string::npos);
  CHECK(text.find('\x1b') == std::string::npos);
  CHECK(text.find("200/200") != std::string::npos);
}
