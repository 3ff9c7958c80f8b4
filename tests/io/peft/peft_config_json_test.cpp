// SPDX-License-Identifier: MIT
#include "mole/io/peft/peft_config_json.hpp"

#include "support/catch.hpp"

using namespace mole;

TEST_CASE("A configuration that is written is read back as the same", "[io]") {
  for (const char* json :
       {R"({"peft_type":"LORA","r":3,"lora_alpha":0.5,"lora_dropout":0.25,"use_rslora":true,"use_dora":true,
            "rank_pattern":{"z":1,"a":2},"alpha_pattern":{"b\\.c":7},"target_modules":".*q","modules_to_save":["h"],
            "target_parameters":["e.w"],"bias":"all","base_model_name_or_path":"org/m","task_type":"CAUSAL_LM",
            "fan_in_fan_out":true,"init_lora_weights":"pissa"})",
        R"({"peft_type":"LORA","lora_bias":true,"target_modules":["a","b"],"exclude_modules":["c"]})",
        R"({"peft_type":"ADALORA","init_r":3,"rank_pattern":{"a.lora_E":[true,false,true]}})",
        R"({"peft_type":"VERA","r":4,"vera_dropout":0.5,"exclude_modules":"x.*"})",
        R"({"peft_type":"RANDLORA","r":4,"randlora_alpha":3})",
        R"({"peft_type":"LOHA","r":4,"alpha":3,"alpha_pattern":{"b":7}})",
        R"({"peft_type":"LOKR","r":4,"decompose_both":true,"decompose_factor":6})"}) {
    const PeftConfig first = PeftConfig::parse(json, "first");
    const PeftConfig second = PeftConfig::parse(json_of(first), "second");
    CHECK(json_of(first) == json_of(second));
    CHECK(second.kind == first.kind);
    CHECK(second.rank == first.rank);
    CHECK(second.alpha == first.alpha);
    CHECK(second.dropout == first.dropout);
    CHECK(second.rank_pattern.size() == first.rank_pattern.size());
    CHECK(second.kept_ranks == first.kept_ranks);
    CHECK(second.target_modules == first.target_modules);
    CHECK(second.target_is_expression == first.target_is_expression);
    CHECK(second.exclude_modules == first.exclude_modules);
    CHECK(second.exclude_is_expression == first.exclude_is_expression);
    CHECK(second.decompose_factor == first.decompose_factor);
  }
}
