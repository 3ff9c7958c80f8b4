// SPDX-License-Identifier: MIT
#include "mole/io/peft/peft_config.hpp"

#include "peft_folder.hpp"
#include "support/catch.hpp"

#include <cmath>
#include <string>

using namespace mole;

namespace {

std::string config_complaint(const std::string& json) {
  try {
    PeftConfig::parse(json, "config");
    return {};
  } catch (const Error& error) {
    return error.code() == ErrorCode::file ? error.what() : "another code";
  }
}
PeftConfig lora_config(const std::string& fields) {
  return PeftConfig::parse(R"({"peft_type":"LORA",)" + fields + "}", "config");
}

}  // namespace

TEST_CASE("Defaults are those of peft, for each kind", "[io]") {
  const auto scale = [](const char* kind) {
    return PeftConfig::parse(std::string(R"({"peft_type":")") + kind + "\"}", "config").scale_of("q");
  };
  CHECK(scale("LORA") == 1);
  CHECK(scale("LOHA") == 1);
  CHECK(scale("LOKR") == 1);
  CHECK(scale("VERA") == 1);
  CHECK(scale("RANDLORA") == 20);
  CHECK(scale("ADALORA") == 8 / (12 + 1e-5));
}

TEST_CASE("Ranks, alphas and scales follow the first pattern that matches", "[io]") {
  const PeftConfig config =
      lora_config(R"("r":8,"lora_alpha":16,"rank_pattern":{"layers\\.1\\.q":2,"q":4},"alpha_pattern":{"v|q":3.5})");
  CHECK(config.rank_of("m.layers.1.q") == 2);
  CHECK(config.rank_of("m.layers.2.q") == 4);
  CHECK(config.rank_of("m.layers.2.xq") == 8);
  CHECK(config.scale_of("m.layers.1.q") == 3.5 / 2);
  CHECK(config.scale_of("m.k") == 2);
  CHECK(lora_config(R"("r":9,"lora_alpha":6,"use_rslora":true)").scale_of("q") == 2);
}

TEST_CASE("AdaLoRA's scale is of its initial rank, whatever is left, and of the rank if alpha is 0", "[io]") {
  const auto config = PeftConfig::parse(
      R"({"peft_type":"ADALORA","init_r":4,"lora_alpha":6,"rank_pattern":{"m.q.lora_E":[true,false,true,false]}})",
      "c");
  CHECK(config.rank_of("m.q") == 2);
  CHECK(config.rank_of("m.v") == 4);
  CHECK(config.scale_of("m.q") == 6 / (4 + 1e-5));
  CHECK(PeftConfig::parse(R"({"peft_type":"ADALORA","init_r":4,"lora_alpha":0})", "c").scale_of("q") == 4 / (4 + 1e-5));
}

TEST_CASE("Every switch that changes the arithmetic and is not served is refused by name", "[io]") {
  for (const char* field :
       {R"("use_qalora":true)", R"("use_bdlora":{"nblocks":2})", R"("kasa_config":{"beta":1})",
        R"("monteclora_config":{"num_samples":2})", R"("alora_invocation_tokens":[1])",
        R"("layer_replication":[[0,1]])", R"("arrow_config":{"top_k":3})", R"("trainable_token_indices":[5])"}) {
    const std::string name = std::string(field).substr(1, std::string(field).find('"', 1) - 1);
    INFO(name);
    CHECK(test::holds(config_complaint(std::string(R"({"peft_type":"LORA",)") + field + "}"),
                      "expected an adapter without '" + name + "', which is not served"));
    CHECK(config_complaint(R"({"peft_type":"LORA",")" + name + "\":null}").empty());
    CHECK(config_complaint(R"({"peft_type":"LORA",")" + name + "\":false}").empty());
  }
}

TEST_CASE("Patterns may be as many as modules, but not longer than they are written", "[io]") {
  const auto complaint = [](const std::string& before, const std::string& after) {
    std::string patterns;
    for (int i = 0; i < 2000; ++i) patterns += (i > 0 ? ",\"" : "\"") + before + std::to_string(i) + after + "\":1";
    return config_complaint(R"({"peft_type":"LORA","rank_pattern":{)" + patterns + "}}");
  };
  CHECK(complaint("model.layers.", ".self_attn.q_proj") == "");
  CHECK(complaint("^model\\\\.layers\\\\.", "\\\\.self_attn\\\\.q_proj") == "");
  CHECK(complaint("a{4000}", "") ==
        "config: expected at most 16384 steps of expressions in 'rank_pattern', found more, with 'a{4000}4'");
  CHECK(test::holds(complaint("(a?){100}", ""), "at most 16384 steps"));
  CHECK(test::holds(complaint("(a|b)", ".*"), "at most 16384 steps"));
}

TEST_CASE("What does not change the arithmetic is ignored, known or unknown", "[io]") {
  CHECK(config_complaint(R"({"peft_type":"LORA","inference_mode":true,"megatron_core":"x","loftq_config":{},
        "velora_config":{"num_groups":2},"eva_config":{"rho":2},"runtime_config":{"a":[1]},"qalora_group_size":16,
        "init_lora_weights":true,"a field of the future":{"x":[1,{"y":2}]}})")
            .empty());
}

TEST_CASE("Adapters on changed weights are told from others", "[io]") {
  for (const char* init : {"pissa", "pissa_niter_4", "olora", "OLoRA", "corda", "loftq", "lora_ga"})
    CHECK(lora_config(R"("init_lora_weights":")" + std::string(init) + "\"").changes_base());
  for (const char* init : {"true", "false", "\"gaussian\"", "\"orthogonal\"", "\"eva\"", "\"mica\"", "null"})
    CHECK_FALSE(lora_config(R"("init_lora_weights":)" + std::string(init)).changes_base());
}

TEST_CASE("Foreign files and fields of wrong types are refused with their names", "[io]") {
  CHECK(config_complaint("{}") == "config: expected a 'peft_type', as in peft's adapter_config.json, found none");
  CHECK(test::holds(config_complaint(R"({"peft_type":"PREFIX_TUNING"})"),
                    "ADALORA, VERA, RANDLORA, LOHA, LOKR, SRMOLE, found 'PREFIX"));
  const auto found = [](const char* fields) {
    return config_complaint(std::string(R"({"peft_type":"LORA",)") + fields + "}");
  };
  CHECK(found(R"("r":0)") == "config: expected a whole number of at least 1 for 'r', found 0");
  CHECK(test::holds(found(R"("r":2.5)"), "for 'r', found 2.5"));
  CHECK(test::holds(found(R"("r":"8")"), "for 'r', found \"8\""));
  CHECK(test::holds(found(R"("r":99999999999)"), "for 'r'"));
  CHECK(test::holds(found(R"("lora_alpha":"x")"), "a number for 'lora_alpha'"));
  CHECK(test::holds(found(R"("use_dora":1)"), "true or false for 'use_dora', found 1"));
  CHECK(test::holds(found(R"("target_modules":[1])"), "a text for 'target_modules'"));
  CHECK(test::holds(found(R"("target_modules":{})"), "a list of texts for 'target_modules'"));
  CHECK(test::holds(found(R"("modules_to_save":["a\u0000b"])"), "without a character 0"));
  CHECK(test::holds(found(R"("rank_pattern":[])"), "an object for 'rank_pattern'"));
  CHECK(test::holds(found(R"("rank_pattern":{"q":-1})"), "for 'rank_pattern', found -1"));
  CHECK(test::holds(found(R"x("alpha_pattern":{"(q":1})x"), "alpha_pattern: PathPattern: expected a )"));
  CHECK(test::holds(found(R"("lora_dropout":1)"), "a dropout of at least 0 and below 1"));
  CHECK(test::holds(found(R"("lora_dropout":1e999)"), "JSON object"));
  CHECK(test::holds(found(R"("use_dora":true,"lora_bias":true)"), "use_dora or lora_bias, not both"));
  CHECK(test::holds(config_complaint(R"({"peft_type":"LOKR","decompose_factor":0})"), "decompose_factor of -1"));
  CHECK(test::holds(config_complaint(R"({"peft_type":"ADALORA","init_r":1,"rank_pattern":{"a.lora_E":[1]}})"),
                    "truth values"));
  CHECK(test::holds(config_complaint(R"({"peft_type":"ADALORA","init_r":3,"rank_pattern":{"a.lora_E":[true]}})"),
                    "lists of 3 truth values, one for each rank, for 'rank_pattern', found [true]"));
}
