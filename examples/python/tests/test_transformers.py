# SPDX-License-Identifier: MIT
"""Inside small random models of transformers, whose Linear layers are replaced; and beside peft's LoRA."""
from __future__ import annotations

import copy

import mole
import pytest
from conftest import close

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
import mole.torch  # noqa: E402

transformers.utils.logging.set_verbosity_error()
WORDS = 40


def llama():
    torch.manual_seed(1)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=WORDS))


def bert():
    torch.manual_seed(1)
    return transformers.BertForMaskedLM(transformers.BertConfig(
        hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, vocab_size=WORDS,
        hidden_dropout_prob=0, attention_probs_dropout_prob=0))


MODELS = {"llama": (llama, ["q_proj", "v_proj", "down_proj"], 6), "bert": (bert, ["query", "value", "output.dense"], 8)}


def batch():
    tokens = torch.randint(0, WORDS, (3, 9), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(tokens)
    mask[1, 6:] = 0
    return tokens, mask


def loss_of(model, tokens, mask):
    return model(tokens, attention_mask=mask, labels=tokens.masked_fill(mask == 0, -100)).loss


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("preset, options", [("mola", dict(experts=4, rank=4, load_balance=0.01)), ("lora", dict(rank=4)),
                                             ("smora", dict(rank=8, k=4)), ("flylora", dict(rank=16, k=4))])
def test_a_model_is_the_same_at_first_then_learns_and_comes_back_from_its_state_dict(name, preset, options, tmp_path):
    make, targets, count = MODELS[name]
    model, host = make().eval(), make().eval()
    tokens, mask = batch()
    layers = mole.torch.replace_linear(model, targets, preset, threads=1, **options)
    assert len(layers) == count and all(isinstance(model.get_submodule(path), mole.torch.Linear) for path in layers)
    with torch.no_grad():
        assert close(model(tokens, attention_mask=mask).logits, host(tokens, attention_mask=mask).logits)
    trained = {path for path, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained and all(any(path.startswith(layer + ".") for layer in layers) for path in trained)
    frozen = {path: parameter.clone() for path, parameter in model.named_parameters() if path not in trained}

    model.train()
    adamw = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=4e-2)
    losses = []
    for _ in range(15):
        adamw.zero_grad()
        with mole.torch.passing(model, token_mask=mask):
            loss = loss_of(model, tokens, mask)
            (loss + mole.torch.balance_loss(model)).backward()
        adamw.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
    assert all(torch.equal(frozen[path], parameter) for path, parameter in model.named_parameters() if path in frozen)

    model.eval()
    with torch.no_grad():
        expected = model(tokens, attention_mask=mask).logits
        torch.save(model.state_dict(), tmp_path / "state.pt")
        again = make().eval()
        mole.torch.replace_linear(again, targets, preset, seed=50, **options)
        again.load_state_dict(torch.load(tmp_path / "state.pt"))
        assert torch.equal(again(tokens, attention_mask=mask).logits, expected)
        assert torch.equal(copy.deepcopy(model)(tokens, attention_mask=mask).logits, expected)
        model.save_pretrained(tmp_path / "saved")
        from safetensors.torch import load_file
        stored = load_file(tmp_path / "saved" / "model.safetensors")
        third = make().eval()
        mole.torch.replace_linear(third, targets, preset, seed=90, **options)
        third.load_state_dict(stored, strict=False)  # tied weights are stored once
        assert torch.equal(third(tokens, attention_mask=mask).logits, expected)


def test_generation_with_a_cache_is_that_without_one():
    model = llama().eval()
    layers = mole.torch.replace_linear(model, ["q_proj", "v_proj"], "mola", experts=8, rank=16, k=2)
    with torch.no_grad():
        for layer in layers.values():
            for parameter in layer.expert_parameters():
                parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(5))
    tokens = batch()[0][:1]
    found = [model.generate(tokens, max_new_tokens=8, do_sample=False, use_cache=cache, pad_token_id=0)
             for cache in (True, False)]
    assert torch.equal(*found)


def test_gradients_beside_those_of_peft():
    peft = pytest.importorskip("peft")
    targets, tokens_mask = ["q_proj", "down_proj"], batch()
    ours = llama()
    layers = mole.torch.replace_linear(ours, targets, "lora", rank=3, alpha=5)
    theirs = peft.get_peft_model(llama(), peft.LoraConfig(r=3, lora_alpha=5, target_modules=targets))
    modules = {name: module for name, module in theirs.named_modules() if hasattr(module, "lora_A")}
    for path, layer in layers.items():
        module = modules["base_model.model." + path]
        with torch.no_grad():
            a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
            b.normal_(0, 0.2, generator=torch.Generator().manual_seed(3))
            layer.experts.lora_A.copy_(a)
            layer.experts.lora_B.copy_(b.T)
    ours_loss, their_loss = loss_of(ours, *tokens_mask), loss_of(theirs, *tokens_mask)
    assert close(ours_loss.detach(), their_loss.detach())
    ours_loss.backward()
    their_loss.backward()
    for path, layer in layers.items():
        module = modules["base_model.model." + path]
        assert close(layer.experts.lora_A.grad, module.lora_A["default"].weight.grad)
        assert close(layer.experts.lora_B.grad, module.lora_B["default"].weight.grad.T)


def test_a_name_that_is_not_there_and_a_bad_option_leave_the_model_as_it_was():
    model = llama()
    with pytest.raises(mole.OptionError, match="such as .*q_proj.*found query"):
        mole.torch.replace_linear(model, "query", "mola")
    with pytest.raises(mole.OptionError, match="'top_k'"):
        mole.torch.replace_linear(model, "q_proj", "mola", top_k=2)
    assert not any(isinstance(module, mole.torch.Linear) for module in model.modules())


def test_layers_do_not_start_with_the_same_numbers_and_others_may_stay_trainable():
    model = llama()
    layers = list(mole.torch.replace_linear(model, "q_proj", "mola", experts=4, rank=2, freeze=False).values())
    assert not torch.equal(layers[0].experts.lora_A, layers[1].experts.lora_A)
    assert model.model.embed_tokens.weight.requires_grad and not layers[0].weight.requires_grad
    mole.torch.replace_linear(model, "v_proj", "lora", rank=2)
    assert layers[0].experts.lora_A.requires_grad and not model.model.embed_tokens.weight.requires_grad
