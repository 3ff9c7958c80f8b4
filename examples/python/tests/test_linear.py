# SPDX-License-Identifier: MIT
"""Linear, with NumPy alone."""
from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import threading

import mole
import numpy as np
import pytest
from conftest import IN, OPTIONS, OUT, TASKS, TOKENS, close, random

PRESETS = sorted(mole.presets())
STARTS_ELSEWHERE = {"mofme", "mofme_uar", "prompt_bank", "vblora"}


def mola(weight, bias=None, **options):
    layer = mole.Linear("mola", weight, bias, **{**dict(experts=4, rank=2, k=2, dropout=0.0), **options})
    for number, array in enumerate(layer.parameters.values()):
        array[...] = random(*array.shape, seed=10 + number, scale=0.5)
    return layer


def test_there_are_as_many_presets_as_in_c():
    assert len(PRESETS) == 40
    assert mole.presets()["mola"] == dict(experts=8, rank=8, k=2, alpha=16, scaling="alpha_over_rank", dropout=0.05, seed=0)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_starts_as_the_frozen_layer_and_learns(preset, weight, bias, x):
    layer = mole.Linear(preset, weight, bias, **OPTIONS.get(preset, {}))
    forced = np.arange(TOKENS) % 2 if preset in TASKS else None
    given = dict(forced=forced, labels=np.arange(TOKENS) % 2)
    if preset not in STARTS_ELSEWHERE:
        assert close(layer.forward(x, **given), x @ weight.T + bias)
    target = random(TOKENS, OUT, seed=5)
    adamw = mole.AdamW(layer, learning_rate=0.02, weight_decay=0)
    losses = []
    for step in range(25):
        adamw.zero_gradients()
        y = layer.forward(x, training=True, seed=1, step=step, **given)
        losses.append(0.5 * float(np.square(y - target).sum()))
        assert layer.backward(y - target).shape == x.shape
        adamw.step()
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    assert set(layer.gradients) <= set(layer.parameters)


@pytest.mark.parametrize("preset", PRESETS)
def test_saved_copied_and_loaded_a_layer_is_the_same(preset, weight, bias, x, tmp_path):
    options = OPTIONS.get(preset, {})
    layer = mole.Linear(preset, weight, bias, **options)
    for number, array in enumerate(layer.parameters.values()):
        array[...] = random(*array.shape, seed=20 + number, scale=0.3)
    given = dict(forced=np.zeros(TOKENS, int) if preset in TASKS else None, labels=np.zeros(TOKENS, int))
    expected = layer.forward(x, **given)
    layer.save(tmp_path / "layer.safetensors")
    loaded = mole.Linear(preset, weight, bias, **{**options, "seed": 9})
    loaded.load(tmp_path / "layer.safetensors")
    through_bytes = mole.Linear(preset, weight, bias, **{**options, "seed": 9})
    through_bytes.from_bytes(layer.to_bytes())
    for other in (loaded, through_bytes, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert np.array_equal(other.forward(x, **given), expected)
        assert other.parameters.keys() == layer.parameters.keys()


def test_parameters_and_gradients_are_the_memory_that_is_computed_with(weight, bias, x, d_y):
    layer = mola(weight, bias)
    before = layer.forward(x)
    held = layer.parameters["experts.lora_B"]
    held *= 2
    assert close(layer.forward(x) - x @ weight.T - bias, 2 * (before - x @ weight.T - bias), 1e-4)
    gradients = layer.gradients
    layer.backward(d_y)
    assert all(np.abs(gradient).max() > 0 for gradient in gradients.values())
    once = {name: gradient.copy() for name, gradient in gradients.items()}
    layer.forward(x)
    layer.backward(d_y)
    assert all(close(gradients[name], 2 * once[name]) for name in gradients)
    layer.zero_gradients()
    assert all((gradient == 0).all() for gradient in gradients.values())
    del layer
    held += 1  # arrays outlive their layer
    assert np.isfinite(held).all()


def test_moram_whose_numbers_are_not_bound_has_them_as_arrays_too(weight, x, d_y):
    layer = mole.Linear("moram", weight, ranks=[10, 8], k=6)
    held = layer.parameters
    for array in held.values():
        array[...] = 0.5
    changed = layer.forward(x)
    assert not close(changed, x @ weight.T)
    layer.backward(d_y)
    assert any(np.abs(gradient).max() > 0 for gradient in layer.gradients.values())
    del layer
    assert all((array == 0.5).all() for array in held.values())


def test_a_borrowed_weight_is_read_where_it_is_and_a_packed_one_is_a_copy(weight, x):
    layer, packed = mole.Linear("lora", weight), mole.Linear("lora", weight, pack=True)
    first = layer.forward(x)
    assert close(packed.forward(x), first)
    weight *= 2
    assert close(layer.forward(x), 2 * first) and close(packed.forward(x), first)
    packed.set_weight(weight)
    assert close(packed.forward(x), 2 * first)


def test_a_weight_may_have_gaps_between_rows_and_be_transposed_if_it_is_packed(weight, x):
    wide = np.zeros((OUT, IN + 5), np.float32)
    wide[:, :IN] = weight
    assert close(mole.Linear("lora", wide[:, :IN]).forward(x), x @ weight.T)
    transposed = np.ascontiguousarray(weight.T)
    assert close(mole.Linear("lora", transposed.T, pack=True).forward(x), x @ weight.T)
    with pytest.raises(mole.OptionError, match="pack = 1"):
        mole.Linear("lora", transposed.T)
    with pytest.raises(mole.ShapeError, match="strides"):
        mole.Linear("lora", np.zeros((OUT, 2 * IN), np.float32)[:, ::2])


def test_y_and_d_x_go_where_the_caller_says(weight, x, d_y):
    layer = mola(weight)
    y, d_x = np.empty((TOKENS, OUT), np.float32), np.ones((TOKENS, IN), np.float32)
    assert layer.forward(x, y) is y
    added = layer.backward(d_y)
    assert np.array_equal(layer.forward(x), y)
    assert layer.backward(d_y, d_x) is d_x and close(d_x, 1 + added)
    layer.forward(x)
    assert layer.backward(d_y, input_gradient=False) is None
    assert np.array_equal(layer(x.reshape(1, TOKENS, IN)), y.reshape(1, TOKENS, OUT))
    assert layer.forward(x[:0]).shape == (0, OUT) and layer.backward(d_y[:0]).shape == (0, IN)


def test_the_routing_is_what_was_computed_with(weight, x):
    layer = mola(weight)
    y = layer.forward(x)
    routing = layer.routing
    assert routing.tokens == TOKENS and len(routing.experts) == 2 * TOKENS and routing.nan_tokens == 0
    assert np.array_equal(np.bincount(routing.experts, minlength=4), routing.counts)
    logits = x @ layer.parameters["router.weight"].T
    assert close(routing.logits, logits)
    assert close(routing.scores, np.exp(logits) / np.exp(logits).sum(1, keepdims=True))
    dense = routing.dense()
    assert close(dense.sum(1), np.ones(TOKENS))
    experts, gates = routing.of_token(3)
    assert set(experts) == set(np.argsort(logits[3])[-2:]) and close(dense[3, experts], gates)
    a, b = (layer.parameters["experts.lora_" + which].reshape(4, 2, -1) for which in "AB")
    ranks = np.einsum("ni,eri->ner", x, a) * dense[:, :, None] * 16 / 2
    assert close(y, x @ weight.T + np.einsum("ner,ero->no", ranks, b), 1e-4)


def test_arrays_of_a_pass_reach_the_layer(weight, x):
    layer = mola(weight)
    layer.forward(x, forced=[2] * TOKENS)
    assert layer.routing.counts.tolist() == [0, 0, TOKENS, 0]
    layer.forward(x, allowed=np.array([[True, True, False, True]] * TOKENS))
    assert layer.routing.counts[2] == 0
    assert close(layer.forward(x, routed=np.zeros(TOKENS, bool)), x @ weight.T)
    layer.forward(x, token_mask=np.zeros(TOKENS, np.uint8))
    assert layer.load_balance() == 0
    layer.forward(x, sequence_begin=[0, 3])
    assert layer.load_balance(scope="sequence") != layer.load_balance(scope="global")
    with pytest.raises(mole.ShapeError, match="forced: expected 7 entries, found 3"):
        layer.forward(x, forced=[0, 1, 2])
    with pytest.raises(mole.DtypeError, match="integers"):
        layer.forward(x, forced=np.zeros(TOKENS))


def test_dropout_is_a_function_of_its_key(weight, x):
    layer = mola(weight, dropout=0.5)
    one = layer.forward(x, training=True, seed=3, step=1)
    assert np.array_equal(one, layer.forward(x, training=True, seed=3, step=1))
    assert not np.array_equal(one, layer.forward(x, training=True, seed=3, step=2))
    assert np.array_equal(layer.forward(x), layer.forward(x, seed=8, step=5))


def test_losses_send_their_gradients_to_the_router(weight, x, d_y):
    layer = mola(weight)
    layer.forward(x)
    assert layer.load_balance(0.5) == pytest.approx(0.5 * layer.load_balance(1e-6) * 1e6, rel=1e-6)
    assert layer.router_z(0.1) > 0
    layer.backward(np.zeros_like(d_y))
    assert np.abs(layer.gradients["router.weight"]).max() > 0
    assert (layer.gradients["experts.lora_A"] == 0).all()


def test_the_router_of_arrow_is_the_first_direction_of_each_expert(weight, x):
    layer = mole.Linear("arrow", weight, experts=3, rank=2, k=2)
    layer.parameters["experts.lora_A"][...] = random(6, IN, seed=1)
    layer.parameters["experts.lora_B"][...] = random(6, OUT, seed=2)
    assert not layer.parameters["router.weight"].any()
    layer.renew_router()
    for e in range(3):
        ranks = slice(2 * e, 2 * e + 2)
        update = layer.parameters["experts.lora_B"][ranks].T @ layer.parameters["experts.lora_A"][ranks]
        direction = np.linalg.svd(update)[2][0]
        assert abs(abs(direction @ layer.parameters["router.weight"][e]) - 1) < 1e-5
    with pytest.raises(mole.OptionError, match="expected a layer of arrow, found one of mola"):
        mola(weight).renew_router()


def test_the_gates_of_diffora_are_of_all_layers_that_share_them(weight, x):
    kept = mole.Linear("diffora", weight, modules=2, rank=2)
    dropped = mole.Linear("diffora", weight, share=kept, modules=2, module=1, rank=2, seed=1)
    for layer in (kept, dropped):
        layer.parameters["experts.lora_B"][...] = random(2, OUT, seed=2)
    kept.parameters["pool.alpha"][...] = [[1, 0]]
    relaxed = kept.forward(x)
    dropped.discretize(0.5)
    close(dropped.forward(x), x @ weight.T)
    assert np.abs(kept.forward(x) - relaxed).max() > 1e-3
    dropped.discretize(-1)
    assert np.array_equal(kept.forward(x), relaxed)
    with pytest.raises(mole.OptionError, match="expected a ratio from 0 to 1, found 2"):
        kept.discretize(2)


@pytest.mark.parametrize("preset, options", [("deepseek_v3", dict(experts=5, shared=1, groups=2, kept_groups=1, k=2)),
                                             ("smora", dict(rank=4, k=2)),
                                             ("flylora", dict(rank=4, k=2, select="signed_value"))])
def test_a_balancing_bias_moves_away_from_what_is_used(preset, options, weight, x):
    layer = mole.Linear(preset, weight, **options)
    layer.forward(x)
    layer.balance(1e-3)
    counts = np.array([9, 0, 0, 1] + [TOKENS] * options.get("shared", 0))
    for _ in range(20):
        layer.balance(1.0, counts)
    layer.forward(x)
    assert layer.routing.counts[0] == 0
    with pytest.raises(mole.OptionError, match="balancing bias"):
        mola(weight).balance(1.0, counts[:4])


def test_parts_that_do_not_learn_have_no_gradient(weight, x, d_y):
    layer = mola(weight)
    layer.set_trainable(router=False)
    assert "router.weight" not in layer.gradients and "experts.lora_A" in layer.gradients
    layer.forward(x)
    layer.backward(d_y)
    assert np.abs(layer.gradients["experts.lora_A"]).max() > 0


def test_layers_of_mos_share_a_pool(weight, x, d_y):
    first = mole.Linear("mos", weight, rank=6, layers=2)
    second = mole.Linear("mos", weight, rank=6, layers=2, layer=1, seed=3, share=first)
    pool = [name for name in first.parameters if name.startswith("pool")]
    assert pool and not any(name.startswith("pool") for name in second.parameters)
    for name in pool:
        first.parameters[name][...] = random(*first.parameters[name].shape, seed=6)
    second.forward(x)
    second.backward(d_y)
    assert any(np.abs(first.gradients[name]).max() > 0 for name in pool)
    with pytest.raises(mole.OrderError):
        copy.deepcopy(second)


def test_a_lora_merges_and_a_mixture_does_not(weight, x):
    layer = mole.Linear("lora", weight, rank=2)
    layer.parameters["experts.lora_B"][...] = 0.3
    before = weight.copy()
    assert close(x @ layer.merged_weight().T, layer.forward(x))
    assert np.array_equal(weight, before)
    with pytest.raises(mole.NotMergeableError):
        mola(weight).merged_weight()


def test_threads_of_a_layer_change_no_bit():
    weight, x = random(512, 512, seed=1), random(96, 512, seed=2)
    layer = mole.Linear("mola", weight, rank=4)
    layer.parameters["experts.lora_B"][...] = 0.1
    alone = layer.forward(x)
    layer.threads = 2
    assert layer.threads == 2 and np.array_equal(layer.forward(x), alone)
    layer.threads = 1
    assert np.array_equal(layer.forward(x), alone)
    with pytest.raises(mole.OptionError, match="at least 1 thread"):
        layer.threads = 0


def test_threads_of_python_share_a_layer(weight, bias):
    layer = mola(weight, bias)
    inputs = [random(TOKENS + number, IN, seed=30 + number) for number in range(4)]
    expected = [layer.forward(x) for x in inputs]
    layer.forward(inputs[0])
    layer.backward(np.ones_like(expected[0]))
    gradients = {name: gradient.copy() for name, gradient in layer.gradients.items()}
    layer.zero_gradients()
    failures = []

    def work(number):
        for _ in range(50):
            y = layer.forward(inputs[number])
            if not np.array_equal(y, expected[number]) or layer.routing.tokens != len(inputs[number]):
                failures.append(number)
            if number == 0:
                layer.backward(np.ones_like(y))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert all(close(layer.gradients[name], 50 * gradients[name], 1e-4) for name in gradients)
    alone = []
    thread = threading.Thread(target=lambda: alone.append(pytest.raises(mole.OrderError, layer.backward, inputs[0])))
    thread.start()
    thread.join()
    assert alone  # a thread has no forward of another one


def test_the_gil_is_released():
    weight, x = random(64, 64, seed=1), random(64, 64, seed=2)
    layer = mole.Linear("mola", weight)
    counted, begin = [0], threading.Event()

    def count():
        begin.wait()
        while counted[0] < 100000:
            counted[0] += 1

    counter = threading.Thread(target=count)
    interval = sys.getswitchinterval()
    counter.start()
    sys.setswitchinterval(10)  # nobody takes the GIL from a thread that does not release it
    try:
        begin.set()
        before = counted[0]
        for _ in range(10):
            layer.forward(x)
        during = counted[0] - before
    finally:
        sys.setswitchinterval(interval)
        counter.join()
    assert during > 1000


REFUSED = [
    (mole.OptionError, "'top_k'", lambda w, x: mole.Linear("mola", w, top_k=2)),
    (mole.OptionError, "mola.*'xlora'", lambda w, x: mole.Linear("xlora", w)),
    (mole.OptionError, "k from 1 to 8", lambda w, x: mole.Linear("mola", w, k=9)),
    (mole.OptionError, "an integer", lambda w, x: mole.Linear("mola", w, experts=2.5)),
    (mole.OptionError, "a finite number", lambda w, x: mole.Linear("mola", w, alpha=float("nan"))),
    (mole.OptionError, "a word for 'scaling'", lambda w, x: mole.Linear("mola", w, scaling="fixed k=1")),
    (mole.OptionError, "found dict", lambda w, x: mole.Linear("mola", w, k={})),
    (mole.DtypeError, "expected float32, found float64", lambda w, x: mole.Linear("mola", w.astype(np.float64))),
    (mole.DtypeError, "expected float32, found float16", lambda w, x: mola(w).forward(x.astype(np.float16))),
    (mole.DtypeError, "found list", lambda w, x: mola(w).forward(x.tolist())),
    (mole.DtypeError, "expected float32, found >f4", lambda w, x: mola(w).forward(x.astype(">f4"))),
    (mole.ShapeError, "rows of 16 numbers", lambda w, x: mola(w).forward(x[:, :8].copy())),
    (mole.ShapeError, "without gaps", lambda w, x: mola(w).forward(np.asfortranarray(x))),
    (mole.ShapeError, "a matrix", lambda w, x: mole.Linear("mola", w.reshape(-1))),
    (mole.ShapeError, "bias: expected rows of 12", lambda w, x: mole.Linear("mola", w, np.zeros(3, np.float32))),
    (mole.ShapeError, "expected the shape", lambda w, x: mola(w).forward(x, np.zeros((3, OUT), np.float32))),
    (mole.ShapeError, "other memory", lambda w, x: overlapping(w)),
    (mole.OrderError, "expected a forward", lambda w, x: mola(w).backward(x)),
    (mole.OrderError, "expected a forward", lambda w, x: mola(w).routing),
    (mole.FileError, "no_such_folder", lambda w, x: mola(w).save("no_such_folder/file")),
    (mole.FileError, "no_such_file", lambda w, x: mola(w).load("no_such_file")),
    (mole.FileError, "mola", lambda w, x: mola(w).from_bytes(mole.Linear("lora", w).to_bytes())),
    (mole.FileError, "load_from", lambda w, x: mola(w).from_bytes(b"nonsense")),
]


def overlapping(w):
    square = w[:, :12].copy()
    numbers = np.zeros((3, 12), np.float32)
    mole.Linear("lora", square).forward(numbers, numbers)


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_what_is_refused_says_what_was_expected(number, weight, x):
    kind, text, call = REFUSED[number]
    with pytest.raises(kind, match=text):
        call(weight, x)


def test_errors_are_those_of_python_too(weight):
    for call, kind in ((lambda: mole.Linear("mola", weight, k=99), ValueError),
                       (lambda: mola(weight).load("no_such_file"), OSError),
                       (lambda: mola(weight).forward([1.0]), TypeError)):
        with pytest.raises(kind) as found:
            call()
        assert isinstance(found.value, mole.Error)


def test_a_second_backward_and_wrong_gradients_are_refused(weight, x, d_y):
    layer = mola(weight)
    y = layer.forward(x)
    with pytest.raises(mole.ShapeError, match="expected the shape"):
        layer.backward(d_y[:3])
    with pytest.raises(mole.ShapeError, match="read-only"):
        frozen = np.zeros_like(x)
        frozen.flags.writeable = False
        layer.backward(d_y, frozen)
    layer.backward(d_y)
    with pytest.raises(mole.OrderError, match="before each backward"):
        layer.backward(d_y)
    assert np.array_equal(layer.forward(x), y)


def test_training_continues_from_files_with_the_same_bits(weight, x, tmp_path):
    def step(layer, adamw):
        adamw.zero_gradients()
        y = layer.forward(x)
        layer.backward(y)
        assert adamw.clip_norm(1.0) > 0
        adamw.step()

    layer, resumed = mola(weight), mola(weight, seed=4)
    adamw, resumed_adamw = mole.AdamW(layer, learning_rate=0.1), mole.AdamW([resumed], learning_rate=1)
    step(layer, adamw)
    layer.save(tmp_path / "layer")
    adamw.save(tmp_path / "adamw")
    step(layer, adamw)
    resumed.load(tmp_path / "layer")
    resumed_adamw.load(tmp_path / "adamw")
    resumed_adamw.set_learning_rate(0.1)
    step(resumed, resumed_adamw)
    assert all(np.array_equal(layer.parameters[name], resumed.parameters[name]) for name in layer.parameters)
    with pytest.raises(mole.OptionError):
        mole.AdamW(layer, beta1=1)


def test_without_numpy_the_import_says_so():
    program = "import sys; sys.modules['numpy'] = None; import mole"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert found.returncode != 0 and "ImportError: mole: expected NumPy, found none" in found.stderr


def test_without_torch_mole_works_and_its_torch_says_so():
    program = "import sys; sys.modules['torch'] = None; import mole; print(len(mole.presets())); import mole.torch"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert found.stdout.split() == ["40"] and "ImportError: mole.torch: expected torch, found none" in found.stderr
