# SPDX-License-Identifier: MIT
"""Adapters that peft saves, read and written by this library, against peft itself.

    python round_trip.py PROGRAM

PROGRAM is round_trip.cpp, built. For each kind of adapter: peft saves one with random numbers, for a small random model of
transformers; PROGRAM computes its layers for inputs that were taken from peft's model, and writes the adapter again; peft
loads what was written. Outputs of both must be those of peft, and the written tensors the original ones. The host with the
adapter merged into its files must be peft's merge_and_unload(). X-LoRA is compared by its scalings and the outputs of its
layers. LoRAs that PROGRAM converts for llama.cpp must be in the file what they are in peft, by the package gguf, and the same
again when they are converted back. Mixtures of forks of peft (released_mixtures.py) are read alone.
"""
import json
import os
import subprocess
import sys
import tempfile
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
warnings.filterwarnings("ignore")

import gguf
import torch
import transformers
from peft import (AdaLoraConfig, LoHaConfig, LoKrConfig, LoraConfig, PeftModel, RandLoraConfig, VeraConfig,
                  XLoraConfig, get_peft_model)
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file

import released_mixtures

WORDS = 40
transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()


def llama():
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=WORDS))


def bert():
    return transformers.BertForSequenceClassification(transformers.BertConfig(
        hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, vocab_size=WORDS,
        hidden_dropout_prob=0, attention_probs_dropout_prob=0))


def gpt2():
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(
        n_embd=32, n_layer=2, n_head=4, vocab_size=WORDS, n_positions=64, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0))


def mixtral():
    return transformers.MixtralForCausalLM(transformers.MixtralConfig(
        hidden_size=32, intermediate_size=24, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=WORDS, num_local_experts=3))


LLAMA, BERT, GPT2 = ["q_proj", "v_proj", "down_proj"], ["query", "value", "output.dense"], ["c_attn", "c_proj"]
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]

# name: model, configuration, type of all numbers, size of a shard of the host, name of the adapter
CASES = {
    "LoRA": (llama, LoraConfig(r=4, lora_alpha=6, target_modules=LLAMA, lora_dropout=0.1)),
    "LoRA, BERT": (bert, LoraConfig(r=4, target_modules=BERT, task_type="SEQ_CLS")),
    "LoRA, one expression as target": (llama, LoraConfig(r=4, target_modules=r".*layers\.1\..*(q|v)_proj")),
    "LoRA, bfloat16": (llama, LoraConfig(r=4, target_modules=LLAMA), torch.bfloat16),
    "LoRA, float16": (llama, LoraConfig(r=4, target_modules=LLAMA), torch.float16),
    "LoRA, host in shards": (llama, LoraConfig(r=4, target_modules=LLAMA), torch.float32, "20KB"),
    "LoRA, in a sub-folder": (llama, LoraConfig(r=4, target_modules=LLAMA), torch.float32, "1GB", "other"),
    "rsLoRA": (llama, LoraConfig(r=4, use_rslora=True, target_modules=LLAMA)),
    "patterns": (llama, LoraConfig(
        r=4, target_modules=LLAMA, rank_pattern={r"layers\.0\..*q_proj": 2, "q_proj": 6, r"^model\.layers.1.mlp.*": 5},
        alpha_pattern={"v_proj": 3, "down_proj|q_proj": 12})),
    "patterns, rsLoRA": (bert, LoraConfig(
        r=4, use_rslora=True, target_modules=BERT, rank_pattern={"query": 3}, alpha_pattern={r"layer\.\d\.output.*": 5})),
    "lora_bias": (bert, LoraConfig(r=4, lora_bias=True, target_modules=BERT)),
    "biases of the base": (bert, LoraConfig(r=4, bias="lora_only", target_modules=BERT)),
    "all biases": (bert, LoraConfig(r=4, bias="all", target_modules=BERT)),
    "modules_to_save": (llama, LoraConfig(r=4, target_modules=LLAMA, modules_to_save=["lm_head"])),
    "Conv1D": (gpt2, LoraConfig(r=4, fan_in_fan_out=True, target_modules=GPT2)),
    "embeddings": (llama, LoraConfig(r=4, target_modules=["embed_tokens", "q_proj"])),
    "modules_to_save, the end of a name": (llama, LoraConfig(r=4, target_modules=LLAMA, modules_to_save=["head"])),
    "target_parameters": (mixtral, LoraConfig(r=2, target_modules=["q_proj"], target_parameters=EXPERTS)),
    "target_parameters, patterns": (mixtral, LoraConfig(
        r=2, target_modules=[], target_parameters=EXPERTS, rank_pattern={"experts.down_proj": 4},
        alpha_pattern={"gate_up_proj": 3})),
    "PiSSA": (llama, LoraConfig(r=4, lora_alpha=6, init_lora_weights="pissa", target_modules=LLAMA)),
    "OLoRA": (bert, LoraConfig(r=4, lora_alpha=6, init_lora_weights="olora", target_modules=BERT)),
    "rsLoRA from PiSSA": (llama, LoraConfig(r=4, use_rslora=True, init_lora_weights="pissa", target_modules=LLAMA)),
    "DoRA": (llama, LoraConfig(r=4, use_dora=True, target_modules=LLAMA)),
    "DoRA, BERT": (bert, LoraConfig(r=4, use_dora=True, target_modules=BERT)),
    "DoRA, Conv1D": (gpt2, LoraConfig(r=4, use_dora=True, fan_in_fan_out=True, target_modules=GPT2)),
    "DoRA, bfloat16": (llama, LoraConfig(r=4, use_dora=True, target_modules=LLAMA), torch.bfloat16),
    "VeRA": (llama, VeraConfig(r=8, target_modules=LLAMA)),
    "VeRA, BERT": (bert, VeraConfig(r=8, target_modules=BERT)),
    "RandLoRA": (llama, RandLoraConfig(r=5, randlora_alpha=10, target_modules=LLAMA + ["up_proj"])),
    "RandLoRA, BERT": (bert, RandLoraConfig(r=4, randlora_alpha=10, target_modules=BERT)),
    "LoHa": (llama, LoHaConfig(r=3, alpha=5, target_modules=LLAMA, rank_pattern={"q_proj": 2})),
    "LoHa, BERT": (bert, LoHaConfig(r=3, target_modules=BERT)),
    "LoKr": (llama, LoKrConfig(r=3, alpha=5, target_modules=LLAMA)),
    "LoKr, both decomposed": (llama, LoKrConfig(r=1, target_modules=LLAMA, decompose_both=True)),
    "LoKr, whole": (bert, LoKrConfig(r=32, target_modules=BERT)),
    "LoKr, a factor": (bert, LoKrConfig(r=2, decompose_factor=2, target_modules=BERT)),
    "LoKr, a factor above the root": (llama, LoKrConfig(r=2, decompose_factor=8, target_modules=LLAMA)),
    "AdaLoRA": (llama, AdaLoraConfig(init_r=6, lora_alpha=9, target_modules=LLAMA, total_step=10)),
    "AdaLoRA, thinned out": (llama, AdaLoraConfig(init_r=6, target_r=2, lora_alpha=9, target_modules=LLAMA,
                                                  total_step=10, tinit=1, tfinal=2)),
    "AdaLoRA, BERT": (bert, AdaLoraConfig(init_r=4, target_modules=BERT, total_step=10)),
}

# Options of X-LoRA over three adapters of ranks 2, 3 and 4.
XLORA_CASES = {
    "X-LoRA": {},
    "X-LoRA, layerwise, deep, top 2": dict(layerwise_scalings=True, xlora_depth=3, xlora_size=12, top_k_lora=2),
    "X-LoRA, layerwise, without dropout": dict(layerwise_scalings=True, xlora_depth=2, xlora_size=12, xlora_dropout_p=0.0,
                                               softmax_temperature=0.5, global_scaling_weight=1.5),
    "X-LoRA, softmax of the top 2": dict(enable_softmax=False, enable_softmax_topk=True, top_k_lora=2),
    "X-LoRA, logits": dict(enable_softmax=False, xlora_depth=2, xlora_size=12),
}

# Adapters of a Llama that llama.cpp can hold.
GGUF_CASES = {
    "llama.cpp": LoraConfig(r=4, lora_alpha=6, target_modules=LLAMA + ["k_proj", "o_proj", "gate_proj", "up_proj"]),
    "llama.cpp, ranks and scales that differ": LoraConfig(r=4, use_rslora=True, target_modules=LLAMA,
                                                          rank_pattern={"q_proj": 2}, alpha_pattern={"v_proj": 3}),
    "llama.cpp, embeddings": LoraConfig(r=4, target_modules=["embed_tokens", "lm_head", "k_proj"]),
}

RELEASED_CASES = {"HydraLoRA": released_mixtures.Hydra, "FlyLoRA": released_mixtures.Fly, "SMoRA": released_mixtures.Smora}


def fresh(make, dtype):
    torch.manual_seed(1)
    return make().to(dtype).eval()


def randomize(model):
    """Numbers in all that an adapter trains: a fresh one adds nothing."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and parameter.is_floating_point() and "ranknum" not in name:
                noise = torch.randn(parameter.shape, generator=generator) * (0.3 / parameter.shape[-1] ** 0.5)
                parameter.add_(noise.to(parameter.dtype))


def thin_out(model):
    """AdaLoRA at the end of its budget: some ranks are gone."""
    config = model.peft_config["default"]
    last = config.total_step - config.tfinal
    for step in (last - 1, last):
        model(input_ids=torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
        model.base_model.update_and_allocate(step)


def layers_of(model):
    """What peft wraps, by its path in the host."""
    prefix = "base_model.model."
    return {name.removeprefix(prefix): module for name, module in model.named_modules()
            if isinstance(module, BaseTunerLayer)}


def run(model, words):
    """x and y of each wrapped linear layer in a pass over `words`; of others the updates of their weights."""
    inputs, outputs, hooks = {}, {}, []
    for path, module in layers_of(model).items():
        if hasattr(module, "parameter_name"):
            delta = module.get_delta_weight("default").detach()
            delta = delta if module._did_swap_in_out_features else delta.transpose(1, 2)
            outputs.update({f"{path}.{e}": delta[e].float().contiguous() for e in range(len(delta))})
        elif isinstance(module.get_base_layer(), torch.nn.Embedding):
            outputs[path] = module.get_delta_weight("default").detach().float().T.contiguous()
        else:
            def hook(module, args, kwargs, result, path=path):
                inputs[path] = args[0].detach().float().flatten(0, -2).clone()
                outputs[path] = result.detach().float().flatten(0, -2).contiguous()
            hooks.append(module.register_forward_hook(hook, with_kwargs=True))
    with torch.no_grad():
        result = model(input_ids=words).logits.float()
    for hook in hooks:
        hook.remove()
    return inputs, outputs, result


def worst(expected, found):
    """The largest difference, relative to the largest number of the same tensor."""
    if set(expected) != set(found):
        raise AssertionError(f"expected {sorted(expected)}, found {sorted(found)}")
    return max(((expected[k] - found[k]).abs().max() / expected[k].abs().max()).item() for k in expected)


def compare_tensors(saved, written):
    """Bit for bit."""
    old, new = (load_file(os.path.join(path, "adapter_model.safetensors")) for path in (saved, written))
    for name in new:
        if name not in old and "randlora" not in name:
            raise AssertionError(f"{name}: written, but not saved by peft")
    for name, tensor in old.items():
        if name not in new:
            if "randlora_A" in name or "randlora_B" in name:  # peft saves them once for each layer as well
                continue
            raise AssertionError(f"{name}: not written")
        if not (tensor.shape == new[name].shape and tensor.dtype == new[name].dtype and torch.equal(tensor, new[name])):
            raise AssertionError(f"{name}: written as another tensor")


def check(program, folder, make, config, dtype=torch.float32, shard="1GB", adapter="default"):
    tolerance = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]
    word = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}[dtype]
    host, saved, written = (os.path.join(folder, name) for name in ("host", "saved", "written"))
    base = fresh(make, dtype)
    base.save_pretrained(host, max_shard_size=shard)
    model = get_peft_model(base, config, adapter_name=adapter, autocast_adapter_dtype=False).eval()
    saved_in, saved = saved, os.path.join(saved, "" if adapter == "default" else adapter)  # where peft puts it
    arguments = [program, saved, host, os.path.join(folder, "inputs.safetensors"),
                 os.path.join(folder, "outputs.safetensors"), written, word]
    on_changed_base = isinstance(getattr(config, "init_lora_weights", True), str)
    if on_changed_base:
        arguments.append(os.path.join(folder, "start"))
        model.save_pretrained(arguments[-1])
    randomize(model)
    if getattr(config, "tfinal", 0):
        thin_out(model)
    model.save_pretrained(saved_in)
    words = torch.randint(0, WORDS, (2, 7), generator=torch.Generator().manual_seed(3))
    inputs, outputs, logits = run(model, words)
    if not inputs:
        inputs = {"none": torch.zeros(1)}
    save_file(inputs, os.path.join(folder, "inputs.safetensors"))
    run_of = subprocess.run(arguments, capture_output=True, text=True)
    if run_of.returncode != 0:
        raise AssertionError(run_of.stderr.strip())
    report = run_of.stdout.replace("; 1 missing: score", "")  # which peft lists for every classifier
    if "unused" in report or "missing" in report or "refused" in report:
        raise AssertionError(run_of.stdout.strip())
    difference = worst(outputs, load_file(os.path.join(folder, "outputs.safetensors")))

    if not on_changed_base:
        compare_tensors(saved, written)
    reloaded = PeftModel.from_pretrained(fresh(make, dtype), written, autocast_adapter_dtype=False).eval()
    _, again, logits_again = run(reloaded, words)
    difference_again = worst({**outputs, "logits": logits}, {**again, "logits": logits_again})
    for kind, found in (("read", difference), ("written", difference_again)):
        if not found <= tolerance:
            raise AssertionError(f"{kind}: expected within {tolerance:g}, found {found:g}")
    merged = check_merged(program, folder, saved, PeftModel.from_pretrained(fresh(make, dtype), saved,
                                                                     autocast_adapter_dtype=False), config, dtype)
    return difference, difference_again, merged


def check_merged(program, folder, saved, model, config, dtype):
    """The files of the host with the adapter in them, against peft's merge; what is refused, by its reason."""
    merged = os.path.join(folder, "merged")
    run_of = subprocess.run([program, "--merge", saved, os.path.join(folder, "host"), merged],
                            capture_output=True, text=True)
    refused = ("starts from" if str(getattr(config, "init_lora_weights", "")) in ("pissa", "olora") else
               "of target_parameters" if getattr(config, "target_parameters", None) else None)
    if refused:
        if run_of.returncode == 0 or refused not in run_of.stderr:
            raise AssertionError(f"merged: expected to be refused, as it {refused}, found {run_of.stderr.strip()}")
        return None
    if run_of.returncode != 0:
        raise AssertionError(run_of.stderr.strip())
    expected = {name: tensor.float() for name, tensor in model.merge_and_unload().state_dict().items()}
    files = sorted(name for name in os.listdir(merged) if name.endswith(".safetensors"))
    if sorted(os.listdir(merged)) != sorted(name for name in os.listdir(os.path.join(folder, "host"))
                                            if name.startswith("model")):
        raise AssertionError(f"merged: found {os.listdir(merged)}")
    found = {}
    for name in files:
        found.update({key: tensor.float() for key, tensor in load_file(os.path.join(merged, name)).items()})
    expected = {name: expected[name] for name in found}
    difference = max(((expected[k] - found[k]).abs().max() / max(expected[k].abs().max(), 1e-9)).item() for k in found)
    tolerance = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]
    if not difference <= tolerance:
        raise AssertionError(f"merged: expected within {tolerance:g}, found {difference:g}")
    return difference


def check_gguf(program, folder, config):
    """An adapter as a file of llama.cpp, read by gguf; then again as an adapter, read by peft."""
    saved, out = os.path.join(folder, "saved"), os.path.join(folder, "lora.gguf")
    model = get_peft_model(fresh(llama, torch.float32), config).eval()
    randomize(model)
    model.save_pretrained(saved)
    heads = 4, 2
    run_of = subprocess.run([program, "--gguf", saved, out, *map(str, heads)], capture_output=True, text=True)
    if run_of.returncode != 0:
        raise AssertionError(run_of.stderr.strip())
    reader = gguf.GGUFReader(out)
    alpha = reader.get_field("adapter.lora.alpha").contents()
    tensors = {tensor.name: torch.tensor(gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy())
               for tensor in reader.tensors}
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    expected, found = {}, {}
    for path, module in layers_of(model).items():
        name = names.get_name(path) + ".weight"
        a, b = tensors.pop(name + ".lora_a"), tensors.pop(name + ".lora_b")
        delta = module.get_delta_weight("default").detach()
        if isinstance(module.get_base_layer(), torch.nn.Embedding):
            found[name] = (alpha / b.shape[1]) * (a @ b.T)
        else:
            count = {"attn_q": heads[0], "attn_k": heads[1]}.get(name.split(".")[-2])
            if count:  # as the converter of llama.cpp orders the rows of a head
                delta = delta.reshape(count, 2, -1, delta.shape[1]).swapaxes(1, 2).reshape(delta.shape)
            found[name] = (alpha / b.shape[1]) * (b @ a)
        expected[name] = delta
    if tensors:
        raise AssertionError(f"gguf: {sorted(tensors)} belong to nothing")
    difference = worst(expected, found)
    words = torch.randint(0, WORDS, (2, 7), generator=torch.Generator().manual_seed(3))
    again = PeftModel.from_pretrained(fresh(llama, torch.float32), out + ".peft").eval()
    back = worst({"logits": run(model, words)[2]}, {"logits": run(again, words)[2]})
    if not max(difference, back) <= 1e-5:
        raise AssertionError(f"gguf: expected within 1e-5, found {difference:g}, and {back:g} when converted back")
    return difference, back


def check_xlora(program, folder, options):
    host, saved = os.path.join(folder, "host"), os.path.join(folder, "saved")
    fresh(llama, torch.float32).save_pretrained(host)
    adapters = {}
    for number, rank in enumerate((2, 3, 4)):
        adapter = get_peft_model(fresh(llama, torch.float32), LoraConfig(
            r=rank, lora_alpha=5, lora_dropout=0.1, target_modules=LLAMA)).eval()
        randomize(adapter)
        adapters[str(number)] = os.path.join(folder, f"adapter{number}")
        adapter.save_pretrained(adapters[str(number)])
    base = fresh(llama, torch.float32)
    base.config.use_cache = False
    model = get_peft_model(base, XLoraConfig(
        task_type="CAUSAL_LM", hidden_size=32, adapters=dict(adapters), **options)).eval()
    randomize(model)
    model.save_pretrained(saved)
    # peft 0.21.2 takes layers.0 for a part of the adapter "0", and leaves it out.
    classifier = model.internal_xlora_classifier
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items() if "xlora_classifier" in name},
              os.path.join(saved, "adapter_model.safetensors"))

    inputs, outputs, hooks, layers = {}, {}, [], []
    hooks.append(classifier.layers[0].register_forward_hook(
        lambda module, args, result: inputs.update(hidden=args[0].detach().flatten(0, -2).clone())))
    names = [(name, module) for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)
             and hasattr(module, "lora_A")]
    for number, (name, module) in enumerate(names):
        key = f"{number}:" + name[name.index("model.layers."):]
        layers.append(module)

        def hook(module, args, result, key=key):
            inputs[key] = args[0].detach().flatten(0, -2).clone()
            outputs[key] = result.detach().flatten(0, -2).contiguous()
        hooks.append(module.register_forward_hook(hook))
    words = torch.randint(0, WORDS, (2, 7), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        model(input_ids=words)
        scalings = model.internal_xlora_scalings
        kept = [layer.forward.__self__.get_maybe_topk_scalings(scalings).flatten(0, 1) for layer in layers]
    outputs["scalings"] = torch.cat(kept if classifier.config.layerwise_scalings else kept[:1], dim=1).contiguous()
    save_file(inputs, os.path.join(folder, "inputs.safetensors"))
    run_of = subprocess.run([program, "--xlora", saved, host, os.path.join(folder, "inputs.safetensors"),
                             os.path.join(folder, "outputs.safetensors"), *adapters.values()],
                            capture_output=True, text=True)
    if run_of.returncode != 0:
        raise AssertionError(run_of.stderr.strip())
    if "unused" in run_of.stdout:
        raise AssertionError(run_of.stdout.strip())
    difference = worst(outputs, load_file(os.path.join(folder, "outputs.safetensors")))
    base = fresh(llama, torch.float32)
    base.config.use_cache = False
    again = PeftModel.from_pretrained(base, os.path.join(folder, "outputs.safetensors.xlora")).eval()
    with torch.no_grad():
        difference_again = worst({"logits": model(input_ids=words).logits}, {"logits": again(input_ids=words).logits})
    for kind, found in (("read", difference), ("written", difference_again)):
        if not found <= 1e-5:
            raise AssertionError(f"{kind}: expected within 1e-5, found {found:g}")
    return difference, difference_again


def check_released(program, folder, make):
    host, saved = os.path.join(folder, "host"), os.path.join(folder, "saved")
    model = fresh(llama, torch.float32)
    model.save_pretrained(host)
    os.mkdir(saved)
    layers, tensors, inputs, outputs = {}, {}, {}, {}
    for number, layer in enumerate(model.model.layers):
        for parent, name in ((layer.self_attn, "q_proj"), (layer.mlp, "down_proj")):
            path = f"model.layers.{number}.{'mlp' if name == 'down_proj' else 'self_attn'}.{name}"
            layers[path] = make(getattr(parent, name))
            tensors.update(released_mixtures.state(path, layers[path]))
            inputs[path] = torch.randn(9, layers[path].base.in_features)
            with torch.no_grad():
                outputs[path] = layers[path](inputs[path])
    save_file(tensors, os.path.join(saved, "adapter_model.safetensors"))
    with open(os.path.join(saved, "adapter_config.json"), "w") as file:
        json.dump({**make.config, "target_modules": ["q_proj", "down_proj"], "bias": "none"}, file)
    save_file(inputs, os.path.join(folder, "inputs.safetensors"))
    run_of = subprocess.run([program, saved, host, *(os.path.join(folder, name) for name in (
        "inputs.safetensors", "outputs.safetensors", "written"))], capture_output=True, text=True)
    if run_of.returncode != 0 or run_of.stdout.strip() != f"{len(tensors)} used":
        raise AssertionError(run_of.stdout.strip() + run_of.stderr.strip())
    difference = worst(outputs, load_file(os.path.join(folder, "outputs.safetensors")))
    if not difference <= 1e-5:
        raise AssertionError(f"read: expected within 1e-5, found {difference:g}")
    return difference


def main():
    program, only = sys.argv[1], sys.argv[2:]
    failures = 0
    for name, case in CASES.items():
        if only and name not in only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                read, written, merged = check(program, folder, *case)
                print(f"ran    {name}: {read:.1e} as read, {written:.1e} as written, " +
                      ("refused to merge" if merged is None else f"{merged:.1e} merged"), flush=True)
            except Exception as error:  # one case must not hide the others
                failures += 1
                print(f"FAILED {name}: {type(error).__name__}: {error}", flush=True)
    for name, options in XLORA_CASES.items():
        if only and name not in only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                read, written = check_xlora(program, folder, options)
                print(f"ran    {name}: {read:.1e} as read, {written:.1e} as written", flush=True)
            except Exception as error:
                failures += 1
                print(f"FAILED {name}: {type(error).__name__}: {error}", flush=True)
    for name, make in RELEASED_CASES.items():
        if only and name not in only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                print(f"ran    {name}: {check_released(program, folder, make):.1e} as read", flush=True)
            except Exception as error:
                failures += 1
                print(f"FAILED {name}: {type(error).__name__}: {error}", flush=True)
    for name, config in GGUF_CASES.items():
        if only and name not in only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                file, back = check_gguf(program, folder, config)
                print(f"ran    {name}: {file:.1e} in the file, {back:.1e} converted back", flush=True)
            except Exception as error:
                failures += 1
                print(f"FAILED {name}: {type(error).__name__}: {error}", flush=True)
    print(f"round_trip: {len(only or {**CASES, **XLORA_CASES, **RELEASED_CASES, **GGUF_CASES})} kinds of adapters, {failures} failed")
    return failures != 0


if __name__ == "__main__":
    sys.exit(main())
