// SPDX-License-Identifier: MIT
#include "mole/io/peft/path_pattern.hpp"

#include "support/catch.hpp"

#include <string>
#include <tuple>
#include <vector>

using mole::PathPattern;

TEST_CASE("A pattern is the whole path or follows one of its dots, as in peft", "[io]") {
  // The last column is what Python's re.match(rf"(.*\.)?({key})$", path) says.
  const std::vector<std::tuple<const char*, const char*, bool>> known{
      {"q_proj", "q_proj", true},
      {"q_proj", "model.q_proj", true},
      {"q_proj", "model.xq_proj", false},
      {"q_proj", "model.q_proj.lora", false},
      {"layers.1", "model.layers.11", false},
      {"layers.1", "model.layersx1", true},
      {R"(layers\.1)", "model.layersx1", false},
      {R"(layers\.\d+\.mlp)", "a.layers.12.mlp", true},
      {R"(layers\.\d{1,2}\.mlp)", "a.layers.123.mlp", false},
      {R"(layers\.\d{3}\.mlp)", "a.layers.123.mlp", true},
      {R"(layers\.\d{2,}\.mlp)", "a.layers.1.mlp", false},
      {R"(layers\.[0-46-9]\..*)", "a.layers.5.mlp", false},
      {R"(layers\.[0-46-9]\..*)", "a.layers.6.mlp", true},
      {R"([^.]+_proj)", "a.b_proj", true},
      {R"([^.]+_proj)", "b_proj_", false},
      {"up_proj|down_proj", "mlp.down_proj", true},
      {"up_proj|down_proj", "mlp.own_proj", false},
      {"(?:a|b|)c", "x.c", true},
      {"(a|b)+?c", "x.ababc", true},
      {"(?P<name>a)b", "ab", true},
      {"^q", "m.q", false},
      {"^q", "q", true},
      {R"(^m\.q$)", "m.q", true},
      {"q$r", "q", false},
      {"", "m.", true},
      {"", "m", false},
      {".*", "anything.at.all", true},
      {R"(\w+\.\D)", "a_1.x", true},
      {R"(\w+\.\D)", "a_1.2", false},
      {"a{x", "a{x", true},
      {"a{,2}b", "aab", true},
      {"a{,2}b", "aaab", false},
      {"a{,}b", "aaab", true},
      {"a{,}b", "a{,}b", false},
      {"a{}b", "a{}b", true},
      {"[]a]+", "]a", true},
      {"[a-]", "-", true},
      {R"([\d\-x])", "-", true},
      {"(a*)*b", "aaab", true},
      {"((a|b)c){2}", "acbc", true},
      {"((a|b)c){2}", "acb", false},
  };
  for (const auto& [expression, path, expected] : known) {
    INFO(expression << " on " << path);
    CHECK(PathPattern(expression).ends(path) == expected);
  }
}

TEST_CASE("What is no regular expression, or not a regular one, is refused with its place", "[io]") {
  for (const char* expression : {"(",
                                 ")",
                                 "a)",
                                 "[a",
                                 "[b-a]",
                                 "*a",
                                 "{1,2}a",
                                 "|{2}",
                                 "a**",
                                 "a*+",
                                 "^*a",
                                 "a$+",
                                 R"(\A{1,2})",
                                 "a{3,1}",
                                 "(?=a)",
                                 "(?!a)",
                                 "(?i)a",
                                 R"(\1)",
                                 R"(\b)",
                                 "\\",
                                 "(?P<n",
                                 "a{4096}{4096}",
                                 "((((a{90}){90}){90}){90})"}) {
    INFO(expression);
    try {
      const PathPattern pattern(expression);
      FAIL("expected an Error");
    } catch (const mole::Error& error) {
      CHECK(error.code() == mole::ErrorCode::option);
      CHECK(std::string(error.what()).find(expression) != std::string::npos);
      CHECK(std::string(error.what()).find("at character") != std::string::npos);
    }
  }
  CHECK_THROWS_AS(PathPattern(std::string(100, '(') + std::string(100, ')')), mole::Error);
}

TEST_CASE("An expression of characters alone takes what a text of its length takes, others are counted", "[io]") {
  for (const char* plain : {"", "q_proj", "model.layers.0.q_proj", R"(^model\.layers\.0\.q_proj)", "[ab]c", "a{1}"})
    CHECK(PathPattern(plain).excess() == 0);
  CHECK(PathPattern("a{4000}").excess() == 4001 - 8);
  for (const char* other : {"a|b", "a?", "a*", "a$b"}) CHECK(PathPattern(other).excess() >= 3);
}

TEST_CASE("An expression that backtracking would take ages for takes a moment", "[io]") {
  const std::string path(2000, 'a');
  CHECK_FALSE(PathPattern("(a|a)*(a|aa)+(a*)*b").ends(path));
  CHECK(PathPattern("((a?){30}){30}.*").ends(path));
}
