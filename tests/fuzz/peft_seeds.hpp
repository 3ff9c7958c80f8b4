// SPDX-License-Identifier: MIT
// peft_seeds(): a folder of every kind that peft and its forks save.
#pragma once

#include <string>
#include <utility>
#include <vector>

/// Their modules have 3 inputs and 4 outputs.
inline std::vector<std::string> peft_seeds() {
  const std::pair<const char*, const char*> folders[] = {
      {R"("LORA", "r": 2, "lora_alpha": 4, "rank_pattern": {"k": 1}, "alpha_pattern": {"k": 8}, "bias": "all")",
       "F32 2 3 @q.lora_A.weight\nF16 4 2 @q.lora_B.weight\nBF16 1 3 @k.lora_A.weight\nF64 4 1 @k.lora_B.weight\n"
       "F32 4 @q.base_layer.bias\n"},
      {R"x("LORA", "r": 2, "rank_pattern": {"^model\\.layers\\.[0-9]+?\\.(k|v_?){1,2}$": 1, "[^a-c\\d]\\w*x|y+": 3},
"alpha_pattern": {"(?:q|.*\\s)": 2}, "target_modules": "q|k", "exclude_modules": ["v"])x",
       "F32 2 3 @q.lora_A.weight\nF32 4 2 @q.lora_B.weight\nF32 1 3 @k.lora_A.weight\nF32 4 1 @k.lora_B.weight\n"},
      {R"("LORA", "r": 2, "lora_bias": true, "use_rslora": true, "modules_to_save": ["head"])",
       "F32 2 3 @q.lora_A.weight\nF32 4 2 @q.lora_B.weight\nF32 4 @q.lora_B.bias\nF32 4 3 @head.weight\n"},
      {R"("LORA", "r": 1, "use_dora": true)",
       "F32 1 3 @q.lora_A.weight\nF32 4 1 @q.lora_B.weight\nF32 4 @q.lora_magnitude_vector\n"},
      {R"("LORA", "r": 1, "target_modules": "all-linear")",
       "F32 1 3 @w.lora_embedding_A\nF32 4 1 @w.lora_embedding_B\n"},
      {R"("LORA", "r": 1, "target_parameters": ["e.w"])", "F32 2 3 @e.lora_A.weight\nF32 4 2 @e.lora_B.weight\n"},
      {R"("ADALORA", "init_r": 3, "rank_pattern": {"q.lora_E": [true, false, true]})",
       "F32 2 3 @q.lora_A\nF32 4 2 @q.lora_B\nF32 2 1 @q.lora_E\n"},
      {R"("VERA", "r": 2)",
       "F32 4 @q.vera_lambda_b\nF32 2 @q.vera_lambda_d\nF32 2 3 base_model.vera_A\nF32 4 2 base_model.vera_B\n"},
      {R"("RANDLORA", "r": 2, "randlora_alpha": 4)",
       "F32 2 2 @q.randlora_lambda\nF32 2 3 @q.randlora_gamma\nF32 2 1 3 base_model.randlora_A\n"
       "F32 4 2 2 base_model.randlora_B\n"},
      {R"("LOHA", "r": 2, "alpha": 4)",
       "F32 4 2 @q.hada_w1_a\nF32 2 3 @q.hada_w1_b\nF32 4 2 @q.hada_w2_a\nF32 2 3 @q.hada_w2_b\n"},
      {R"("LOKR", "r": 1, "alpha": 4, "decompose_factor": 2)",
       "F32 2 1 @q.lokr_w1\nF32 2 1 @q.lokr_w2_a\nF32 1 3 @q.lokr_w2_b\n"},
      {R"("LORA", "r": 1, "lora_nums": 2)",
       "F32 1 3 @q.lora_A.weight\nF32 4 1 @q.lora_B0.weight\nF32 4 1 @q.lora_B1.weight\nF32 2 3 "
       "@q.lora_route.weight\n"},
      {R"("LORA", "r": 2, "bias_u": 0.01, "top_k": 1)",
       "F32 2 3 @q.lora_A.weight\nF32 4 2 @q.lora_B.weight\nF32 2 @q.lora_topk_bias\n"},
      {R"("SRMOLE", "r": 2, "activate_r": 1, "rank_partition": 2)",
       "F32 2 3 @q.lora_A.weight\nF32 4 2 @q.lora_B.weight\nF32 1 3 @q.lora_router.weight\nF32 2 @q.lora_biases\n"},
  };
  std::vector<std::string> seeds;
  for (const auto& [config, tensors] : folders) {
    std::string names = tensors;
    for (std::size_t at = 0; (at = names.find('@', at)) != names.npos;)
      names.replace(at, 1, "base_model.model.model.layers.0.");
    seeds.push_back("= adapter_config.json\n{\"peft_type\": " + std::string(config) +
                    "}\n= adapter_model.safetensors\n: format pt\n" + names);
  }
  return seeds;
}
