# SPDX-License-Identifier: MIT
"""mole.torch against torch's own arithmetic."""
from __future__ import annotations

import copy
import io
import threading

import mole
import numpy as np
import pytest
from conftest import IN, OPTIONS, OUT, TASKS, TOKENS, close, random

torch = pytest.importorskip("torch")
import mole.torch  # noqa: E402

PRESETS = sorted(mole.presets())


def tensor(*shape, seed=0, scale=1.0):
    return torch.from_numpy(random(*shape, seed=seed, scale=scale))


def made(preset, **options):
    """A layer whose parameters are random."""
    layer = mole.torch.Linear(preset, tensor(OUT, IN, seed=1, scale=0.3), tensor(OUT, seed=2), **options)
    with torch.no_grad():
        for number, parameter in enumerate(layer.expert_parameters()):
            parameter.copy_(tensor(*parameter.shape, seed=10 + number, scale=0.5))
    return layer


def named(layer):
    return {name: parameter for name, parameter in layer.named_parameters() if parameter.requires_grad}


# ---- the formulas, in operations of torch

def lora(x, layer, p):
    return x @ layer.weight.T + layer.bias + (x @ p["experts.lora_A"].T) @ p["experts.lora_B"] * 4 / 3


def mola(x, layer, p, k=2, ranks=2, alpha=6):
    scores = torch.softmax(x @ p["router.weight"].T, -1)
    best, chosen = scores.topk(k)
    gates = torch.zeros_like(scores).scatter(-1, chosen, best / best.sum(-1, keepdim=True))
    a = p["experts.lora_A"].view(-1, ranks, IN)
    b = p["experts.lora_B"].view(-1, ranks, OUT)
    outputs = torch.einsum("ner,ero->neo", torch.einsum("ni,eri->ner", x, a), b)
    return x @ layer.weight.T + layer.bias + alpha / ranks * torch.einsum("ne,neo->no", gates, outputs)


def loramoe(x, layer, p):
    return mola(x, layer, p, k=3)


CASES = {
    "lora": (lora, dict(rank=3, alpha=4)),
    "mola": (mola, dict(experts=4, rank=2, k=2, alpha=6, dropout=0.0)),
    "loramoe": (loramoe, dict(experts=3, rank=2, alpha=6, dropout=0.0)),
}


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("preset", sorted(CASES))
def test_outputs_and_all_gradients_are_those_of_autograd(preset, pack):
    formula, options = CASES[preset]
    layer = made(preset, pack=pack, **options)
    x, expected_x = tensor(3, TOKENS, IN, seed=3).requires_grad_(), tensor(3, TOKENS, IN, seed=3).double().requires_grad_()
    d_y = tensor(3, TOKENS, OUT, seed=4)
    exact = copy.deepcopy(layer)
    exact.weight.data, exact.bias.data = exact.weight.double(), exact.bias.double()
    parameters = {name: parameter.detach().double().requires_grad_() for name, parameter in named(layer).items()}

    y = layer(x)
    expected = formula(expected_x.view(-1, IN), exact, parameters).view(3, TOKENS, OUT)
    assert close(y.detach(), expected.detach())
    layer(tensor(40, IN, seed=8))  # others in between
    with torch.no_grad():
        layer.eval()(tensor(TOKENS, IN, seed=9))
    y.backward(d_y)
    expected.backward(d_y.double())
    assert close(x.grad, expected_x.grad)
    for name, parameter in named(layer).items():
        assert close(parameter.grad, parameters[name].grad), name


def test_gradients_are_those_of_finite_differences():
    layer = made("mola", experts=4, rank=2, k=2, dropout=0.0)
    x, d_y = tensor(TOKENS, IN, seed=3).requires_grad_(), tensor(TOKENS, OUT, seed=4)
    layer(x).backward(d_y)
    with torch.no_grad():
        for parameter in (*layer.expert_parameters(), x):
            direction = tensor(*parameter.shape, seed=5)
            before = parameter.clone()
            values = []
            for step in (1e-2, -1e-2):
                parameter.copy_(before + step * direction)
                values.append(float((layer(x).double() * d_y).sum()))
            parameter.copy_(before)
            expected = float((parameter.grad * direction).sum())
            assert abs((values[0] - values[1]) / 2e-2 - expected) < 2e-2 * max(1, abs(expected))


def test_the_loss_of_balance_is_that_of_autograd_whatever_it_is_multiplied_by():
    layer = made("mola", experts=4, rank=2, k=2, alpha=6, dropout=0.0, load_balance=0.5)
    x = tensor(TOKENS, IN, seed=3).requires_grad_()

    def expected(scale):
        parameters = {name: p.detach().double().requires_grad_() for name, p in named(layer).items()}
        x_ = x.detach().double().requires_grad_()
        y = mola(x_, copy.deepcopy(layer).double(), parameters)
        scores = torch.softmax(x_ @ parameters["router.weight"].T, -1)
        share = torch.zeros_like(scores).scatter(-1, scores.topk(2).indices, 1.0).sum(0) / (2 * TOKENS)
        loss = 0.5 * 4 * (share * scores.mean(0)).sum()
        (y.square().sum() + scale * loss).backward()
        return float(loss.detach()), parameters, x_

    for scale in (0.0, 1.0, -3.0, 0.25):
        value, parameters, x_ = expected(scale)
        layer.zero_grad()
        x.grad = None
        y = layer(x)
        assert layer.loss.item() == pytest.approx(value, rel=1e-5)
        total = y.square().sum()
        (total if scale == 0 else total + scale * mole.torch.balance_loss(layer)).backward()
        assert close(x.grad, x_.grad)
        for name, parameter in named(layer).items():
            assert close(parameter.grad, parameters[name].grad), (scale, name)
    assert made("lora").loss is None and float(mole.torch.balance_loss(made("lora"))) == 0


def test_a_graph_may_be_gone_through_twice_and_is_not_differentiated_twice():
    layer = made("mola", experts=4, rank=2, k=2, load_balance=0.1).train()
    x = tensor(TOKENS, IN, seed=3).requires_grad_()
    y = layer(x)
    total = y.square().sum() + layer.loss
    total.backward(retain_graph=True)
    first = {name: parameter.grad.clone() for name, parameter in named(layer).items()}
    first_x = x.grad.clone()
    layer(tensor(3, IN, seed=5))
    total.backward()
    assert close(x.grad, 2 * first_x)
    assert all(close(parameter.grad, 2 * first[name]) for name, parameter in named(layer).items())
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        total.backward()

    gradient, = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(mole.NotTrainableError, match="none of their own"):
        gradient.sum().backward()


def test_parameters_changed_between_forward_and_backward_are_found():
    layer = made("lora", rank=3)
    y = layer(tensor(TOKENS, IN, seed=3))
    with torch.no_grad():
        layer.experts.lora_A.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_two_calls_of_one_layer_in_one_graph_add_up():
    layer = made("mola", experts=4, rank=2, k=2, dropout=0.0)
    first, second = tensor(TOKENS, IN, seed=3), tensor(5, IN, seed=4)
    (layer(first).sum() + layer(second).sum()).backward()
    both = {name: parameter.grad.clone() for name, parameter in named(layer).items()}
    layer.zero_grad()
    layer(torch.cat([first, second])).sum().backward()
    assert all(close(both[name], parameter.grad) for name, parameter in named(layer).items())


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_trains_by_an_optimizer_of_torch_and_comes_back_from_its_state_dict(preset):
    torch.manual_seed(0)
    options = OPTIONS.get(preset, {})
    weight, bias = tensor(OUT, IN, seed=1, scale=0.3), tensor(OUT, seed=2)
    layer = mole.torch.Linear(preset, weight, bias, **options)
    tasks = [number % 2 for number in range(TOKENS)]
    given = dict(forced=tasks if preset in TASKS else None, labels=tasks)
    x, target = tensor(TOKENS, IN, seed=3), tensor(TOKENS, OUT, seed=5)
    adam = torch.optim.Adam(layer.expert_parameters(), lr=0.02)
    losses = []
    for _ in range(25):
        adam.zero_grad()
        loss = (layer(x, **given) - target).square().sum()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert layer.weight.grad is None and layer.bias.grad is None

    layer.eval()
    with torch.no_grad():
        expected = layer(x, **given)
        again = mole.torch.Linear(preset, weight, bias, **{**options, "seed": 9}).eval()
        again.load_state_dict(layer.state_dict())
        assert torch.equal(again(x, **given), expected)
        assigned = mole.torch.Linear(preset, weight, bias, **{**options, "seed": 9}).eval()
        assigned.load_state_dict(copy.deepcopy(layer.state_dict()), assign=True)
        assert torch.equal(assigned(x, **given), expected)
        assert torch.equal(copy.deepcopy(layer)(x, **given), expected)
        file = io.BytesIO()
        torch.save(layer, file)
        file.seek(0)
        assert torch.equal(torch.load(file, weights_only=False)(x, **given), expected)


def test_parameters_are_the_memory_that_is_computed_with_and_come_home():
    layer = made("mola", experts=4, rank=2, k=2, dropout=0.0)
    x = tensor(TOKENS, IN, seed=3)
    base = torch.nn.functional.linear(x, layer.weight, layer.bias)
    with torch.no_grad():
        before = layer(x)
        layer.experts.lora_B.mul_(2)
        assert close(layer(x) - base, 2 * (before - base), 1e-4)
        layer.experts.lora_B.data = layer.experts.lora_B.data / 2  # other memory
        assert close(layer(x), before)
        layer.experts.lora_B.mul_(2)
        assert close(layer(x) - base, 2 * (before - base), 1e-4)
        layer.experts.lora_B = torch.nn.Parameter(layer.experts.lora_B / 2)  # another parameter
        assert close(layer(x), before)
    adam = torch.optim.SGD(layer.parameters(), lr=0.1)
    layer(x).sum().backward()
    adam.step()
    assert not close(layer(x).detach(), before)


@pytest.mark.parametrize("preset", ["lora", "dora"])
@pytest.mark.parametrize("pack", [False, True])
def test_a_weight_that_moves_or_changes_is_noticed(preset, pack):
    weight = tensor(OUT, IN, seed=1)
    layer = mole.torch.Linear(preset, weight.clone(), pack=pack, rank=2)
    x = tensor(TOKENS, IN, seed=3)
    with torch.no_grad():
        assert close(layer(x), x @ weight.T, 1e-4)
        for change in (lambda: setattr(layer.weight, "data", tensor(OUT, IN, seed=6)), lambda: layer.weight.mul_(3)):
            change()
            expected = layer.weight
            if preset == "dora":  # rows keep the lengths that they had at first
                expected = expected * weight.norm(dim=1, keepdim=True) / expected.norm(dim=1, keepdim=True)
            assert close(layer(x), x @ expected.T, 1e-4)


def test_training_mode_draws_its_dropout_from_torch():
    layer = made("mola", experts=4, rank=2, k=2, dropout=0.5)
    x = tensor(TOKENS, IN, seed=3)
    torch.manual_seed(5)
    first, second = layer(x), layer(x)
    torch.manual_seed(5)
    assert torch.equal(layer(x), first) and not torch.equal(first, second)
    layer.eval()
    state = torch.get_rng_state()
    assert torch.equal(layer(x), layer(x)) and torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_gives_the_same_gradients(reentrant):
    first = made("mola", experts=4, rank=2, k=2, dropout=0.3, load_balance=0.1)
    second = mole.torch.Linear("lora", tensor(IN, OUT, seed=6), rank=2, dropout=0.2)
    layers = torch.nn.Sequential(torch.nn.Tanh(), first, torch.nn.Tanh(), second, torch.nn.Tanh(), first)

    def gradients(call):
        torch.manual_seed(7)
        layers.zero_grad()
        x = tensor(TOKENS, IN, seed=3).requires_grad_()
        call(x).square().sum().backward()
        return [x.grad, *(parameter.grad.clone() for parameter in layers.parameters() if parameter.requires_grad)]

    def checkpointed(x):
        y = torch.utils.checkpoint.checkpoint(layers, x, use_reentrant=reentrant)
        filler = [torch.full((TOKENS, OUT), float("nan")) for _ in range(20)]  # where what was freed has been
        assert filler
        return y

    expected = gradients(layers)
    found = gradients(checkpointed)
    assert all(torch.equal(a, b) for a, b in zip(found, expected))


def test_only_what_is_asked_for_has_a_gradient():
    layer = made("mola", experts=4, rank=2, k=2)
    layer.router.weight.requires_grad_(False)
    x = tensor(TOKENS, IN, seed=3)
    layer(x).sum().backward()
    assert layer.router.weight.grad is None and layer.experts.lora_A.grad is not None
    layer.requires_grad_(False)
    assert not layer(x).requires_grad
    x.requires_grad_()
    layer(x).sum().backward()
    assert x.grad is not None


def test_rows_may_have_gaps_and_be_none():
    layer = made("mola", experts=4, rank=2, k=2)
    layer.eval()
    x = tensor(IN, TOKENS, seed=3).T
    assert torch.equal(layer(x), layer(x.contiguous()))
    empty = torch.zeros(2, 0, IN, requires_grad=True)
    y = layer(empty)
    y.sum().backward()
    assert y.shape == (2, 0, OUT) and empty.grad.shape == empty.shape
    assert layer(x[0]).shape == (OUT,)


def test_the_routing_of_the_last_forward_stays_over_a_backward():
    layer = made("mola", experts=4, rank=2, k=2)
    with pytest.raises(mole.OrderError):
        layer.routing
    x = tensor(TOKENS, IN, seed=3)
    y = layer(x)
    before = layer.routing
    y.sum().backward()
    assert np.array_equal(before.experts, layer.routing.experts) and before.counts.sum() == 2 * TOKENS
    assert close(before.logits, x @ layer.router.weight.detach().T)
    with mole.torch.passing(layer, forced=torch.full((TOKENS,), 3)):
        layer(x)
        assert layer.routing.counts.tolist() == [0, 0, 0, TOKENS]
    layer(x)
    assert layer.routing.counts.sum() == 2 * TOKENS
    with pytest.raises(mole.OptionError, match="'force'"), mole.torch.passing(layer, force=1):
        pass


def test_a_balancing_bias_is_in_the_state_dict():
    layer = mole.torch.Linear("smora", tensor(OUT, IN, seed=1), rank=4, k=2)
    layer(tensor(TOKENS, IN, seed=3))
    layer.balance(0.5)
    layer.balance(100.0, [9, 0, 0, 1])
    other = mole.torch.Linear("smora", tensor(OUT, IN, seed=1), rank=4, k=2)
    other.load_state_dict(layer.state_dict())
    other(tensor(TOKENS, IN, seed=3))
    assert other.routing.counts[0] == 0
    with pytest.raises(mole.FileError, match="smora"):
        mole.torch.Linear("flylora", tensor(OUT, IN, seed=1), rank=4, k=2).set_extra_state(layer.get_extra_state())


def test_threads_train_one_layer_at_once():
    layer = made("mola", experts=4, rank=2, k=2, dropout=0.0, threads=2)
    inputs = [tensor(TOKENS, IN, seed=30 + number) for number in range(4)]
    expected = [torch.autograd.grad(layer(x).square().sum(), layer.expert_parameters()) for x in inputs]
    failures = []

    def work(number):
        for _ in range(30):
            found = torch.autograd.grad(layer(inputs[number]).square().sum(), layer.expert_parameters())
            if not all(torch.equal(a, b) for a, b in zip(found, expected[number])):
                failures.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_workspaces_are_used_again_and_graphs_that_are_dropped_give_theirs_back():
    layer = made("mola", experts=4, rank=2, k=2)
    x = tensor(TOKENS, IN, seed=3)
    for _ in range(5):
        layer(x).sum().backward()
    for _ in range(5):
        layer(x)
    assert len(layer._core._free) <= 1
    outputs = [layer(x) for _ in range(4)]
    del outputs
    assert len(layer._core._free) == 3


def test_mole_for_numpy_takes_tensors_of_torch_without_a_copy():
    weight, x = tensor(OUT, IN, seed=1), tensor(TOKENS, IN, seed=3)
    layer = mole.Linear("mola", weight, experts=4, rank=2, k=2)
    assert close(layer.forward(x), x @ weight.T)
    weight.mul_(2)
    assert close(layer.forward(x), x @ weight.T)
    y = torch.empty(TOKENS, OUT)
    layer.forward(x, y)
    assert close(y, x @ weight.T)
    held = torch.from_dlpack(layer.parameters["experts.lora_B"])
    held.fill_(1)
    assert not close(layer.forward(x), x @ weight.T)
    with pytest.raises(mole.DtypeError, match="requires grad"):
        layer.forward(x.clone().requires_grad_())
    with pytest.raises(mole.DtypeError, match="found Tensor of torch.bfloat16"):
        layer.forward(x.bfloat16())
    with pytest.raises(mole.ShapeError, match="without gaps"):
        layer.forward(tensor(IN, TOKENS).T)


@pytest.mark.parametrize("kind, text, call", [
    (mole.DtypeError, "found torch.float64", lambda: made("lora")(torch.zeros(2, IN, dtype=torch.float64))),
    (mole.DtypeError, "found torch.bfloat16", lambda: made("lora")(torch.zeros(2, IN, dtype=torch.bfloat16))),
    (mole.DtypeError, "on meta", lambda: made("lora")(torch.zeros(2, IN, device="meta"))),
    (mole.DtypeError, "found list", lambda: made("lora")([1.0])),
    (mole.ShapeError, "rows of 16", lambda: made("lora")(torch.zeros(2, IN + 1))),
    (mole.OptionError, "'top_k'", lambda: made("mola", top_k=2)),
    (mole.OptionError, "norm", lambda: made("mola", load_balance=dict(norm="none"))(torch.zeros(2, IN))),
    (mole.DtypeError, "a weight of float32", lambda: mole.torch.Linear("lora", torch.zeros(OUT, IN).half())),
    (mole.DtypeError, "found torch.float16", lambda: made("lora").half()(torch.zeros(2, IN))),
    (mole.NotMergeableError, "", lambda: made("mola").merged_weight()),
])
def test_what_is_refused_says_what_was_expected(kind, text, call):
    with pytest.raises(kind) as found:
        call()
    assert text in str(found.value)


def test_a_lora_merges():
    layer = made("lora", rank=3)
    x = tensor(TOKENS, IN, seed=3)
    assert close(torch.nn.functional.linear(x, layer.merged_weight(), layer.bias).detach(), layer(x).detach())


def test_the_router_of_arrow_is_renewed_in_place():
    layer = made("arrow", experts=3, rank=1, k=2)
    parameters = dict(layer.named_parameters())
    with torch.no_grad():
        parameters["experts.lora_A"].normal_()
        parameters["experts.lora_B"].normal_()
    assert not parameters["router.weight"].requires_grad
    layer.renew_router()
    directions = torch.nn.functional.normalize(parameters["experts.lora_A"], dim=1)
    assert torch.allclose((directions * parameters["router.weight"]).sum(1).abs(), torch.ones(3), atol=1e-5)
