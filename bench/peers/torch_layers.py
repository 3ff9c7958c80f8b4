#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Times the layer cases of bench/layers/layer_case.hpp in PyTorch and prints one JSON object a line.

  torch_layers.py [--d 768] [--T 1,16,512] [--threads 1] [--slice 0.05] [--check]

Forms: "published" follows the structure of the methods' own releases (a loop over experts with masks and index_add, a
loop over adapters, gathered rows for each token); "vectorized" is the best that we could do in PyTorch, of several.
The frozen weight has no gradient; x, the factors and the router have. Forward runs in inference mode. All forms of one
shape take turns; seconds are medians of slices: CPU time of the calling thread for one thread, else wall time.
"""
import argparse
import json
import os
import statistics
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--d", default="768")
parser.add_argument("--T", default="1,16,512")
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--slice", type=float, default=0.05, help="seconds a form is timed for, each direction")
parser.add_argument("--check", action="store_true", help="compare the results of the forms instead")
options = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(options.threads)  # read when torch is loaded

import torch  # noqa: E402
from torch.nn.functional import linear, softmax  # noqa: E402

torch.set_num_threads(options.threads)
EXPERTS, RANK, CHOSEN, SCALE, TOP_P = 8, 16, 2, 2.0, 0.75
RANKS, RANKS_CHOSEN = 64, 8
FLY_RANKS, FLY_CHOSEN = 32, 8
clock = time.thread_time if options.threads == 1 else time.perf_counter


class Layer:
    """One d's weights, tokens and upstream gradient."""

    def __init__(self, tokens, d):
        generator = torch.Generator().manual_seed(1)

        def normal(*shape, spread=1.0):
            return torch.randn(*shape, generator=generator) * spread

        self.weight = normal(d, d, spread=d**-0.5)
        self.router = normal(EXPERTS, d, spread=d**-0.5)
        self.rank_router = normal(RANKS, d, spread=d**-0.5)
        self.down = normal(EXPERTS * RANK, d, spread=d**-0.5)  # experts one below the other
        self.up = normal(EXPERTS * RANK, d, spread=RANK**-0.5)
        self.fly_up = normal(FLY_RANKS, d)
        self.each_down = [a.clone() for a in self.down.split(RANK)]  # what a module list of experts holds
        self.each_up = [b.t().contiguous() for b in self.up.split(RANK)]
        self.fly_down = normal(FLY_RANKS, d) * (torch.rand(FLY_RANKS, d, generator=generator) < 0.25)
        self.x = normal(tokens, d)
        self.given = softmax(normal(tokens, EXPERTS), -1)
        self.d_y = normal(tokens, d)
        self.trained = [self.router, self.rank_router, self.down, self.up, self.fly_up, *self.each_down, *self.each_up,
                        self.x, self.given]
        for tensor in self.trained:
            tensor.requires_grad_(True)

    def base(self):
        return linear(self.x, self.weight)


def best_of(logits, k):
    """Weights of the k best, renormalized, and who they are."""
    weights, chosen = torch.topk(softmax(logits, -1), k)
    return weights / weights.sum(-1, keepdim=True), chosen


def smallest_above(logits, p):
    """Probabilities in descending order, 0 from where their sum has passed p, and whose they are."""
    weights, order = softmax(logits, -1).sort(-1, descending=True)
    return weights.masked_fill(weights.cumsum(-1) - weights > p, 0.0), order


def spread(weights, chosen, width):
    """[T x k] as [T x width] with zeros."""
    return torch.zeros(weights.shape[0], width).scatter(1, chosen, weights)


def looped(layer, weights, chosen):
    """For each expert: find its tokens, gather them, add its output where they came from."""
    sums = torch.zeros_like(layer.x)
    for e in range(EXPERTS):
        tokens, slots = torch.where((chosen == e) & (weights > 0))
        outputs = linear(linear(layer.x[tokens], layer.each_down[e]), layer.each_up[e]) * SCALE
        sums.index_add_(0, tokens, outputs * weights[tokens, slots, None])
    return layer.base() + sums


def concatenated(layer, weights):
    """All experts as one LoRA, whose ranks are weighed.   weights [T x experts]"""
    ranks = linear(layer.x, layer.down) * weights.repeat_interleave(RANK, 1)
    return torch.addmm(layer.base(), ranks, layer.up, alpha=SCALE)


def plain(layer):
    return layer.base()


def plain_vector(layer):
    return torch.mv(layer.weight, layer.x[0])[None]


def lora(layer):
    return layer.base() + linear(linear(layer.x, layer.each_down[0]), layer.each_up[0]) * SCALE


def lora_joined(layer):
    return torch.addmm(layer.base(), linear(layer.x, layer.each_down[0]), layer.each_up[0].t(), alpha=SCALE)


def top2_loop(layer):
    return looped(layer, *best_of(linear(layer.x, layer.router), CHOSEN))


def top2_concatenated(layer):
    return concatenated(layer, spread(*best_of(linear(layer.x, layer.router), CHOSEN), EXPERTS))


def top2_sorted(layer):
    """Pairs in the order of experts, one product an expert, one index_add."""
    weights, chosen = best_of(linear(layer.x, layer.router), CHOSEN)
    order = chosen.flatten().argsort()
    tokens, counts = order // CHOSEN, torch.bincount(chosen.flatten(), minlength=EXPERTS).tolist()
    rows, scaled = layer.x[tokens].split(counts), (weights.flatten()[order, None] * SCALE).split(counts)
    outputs = [(linear(row, a) * w) @ b.t()
               for row, w, a, b in zip(rows, scaled, layer.each_down, layer.each_up) if len(row)]
    return layer.base().index_add(0, tokens, torch.cat(outputs))


def top2_vectors(layer):
    """One token: matrix-vector products with the chosen experts alone."""
    weights, chosen = best_of(linear(layer.x, layer.router), CHOSEN)
    x = layer.x[0]
    y = torch.mv(layer.weight, x)
    for slot, e in enumerate(chosen[0].tolist()):
        y = torch.addmv(y, layer.each_up[e], torch.mv(layer.each_down[e], x) * (weights[0, slot] * SCALE))
    return y[None]


def dense8_loop(layer):
    y = layer.base()
    for e in range(EXPERTS):
        y = y + linear(linear(layer.x * layer.given[:, e, None], layer.each_down[e]), layer.each_up[e]) * SCALE
    return y


def dense8_concatenated(layer):
    return concatenated(layer, layer.given)


def rankwise_gathered(layer):
    weights, chosen = best_of(linear(layer.x, layer.rank_router), RANKS_CHOSEN)
    ranks = torch.einsum("td,tkd->tk", layer.x, layer.down[:RANKS][chosen]) * weights
    return layer.base() + torch.einsum("tk,tkd->td", ranks, layer.up[:RANKS][chosen]) * SCALE


def rankwise_masked(layer):
    weights = spread(*best_of(linear(layer.x, layer.rank_router), RANKS_CHOSEN), RANKS)
    return torch.addmm(layer.base(), linear(layer.x, layer.down[:RANKS]) * weights, layer.up[:RANKS], alpha=SCALE)


def fly_ranks(layer):
    """The largest ranks by magnitude; the others 0."""
    ranks = linear(layer.x, layer.fly_down)
    chosen = ranks.detach().abs().topk(FLY_CHOSEN)[1]
    return ranks * torch.zeros_like(ranks).scatter_(1, chosen, 1.0)


def flylora(layer):
    return layer.base() + linear(fly_ranks(layer), layer.fly_up.t()) * SCALE


def flylora_joined(layer):
    return torch.addmm(layer.base(), fly_ranks(layer), layer.fly_up, alpha=SCALE)


def topp_loop(layer):
    return looped(layer, *smallest_above(linear(layer.x, layer.router), TOP_P))


def topp_concatenated(layer):
    return concatenated(layer, spread(*smallest_above(linear(layer.x, layer.router), TOP_P), EXPERTS))


FORMS = {  # case: {form: variants}
    "plain": {"published": [plain], "vectorized": [plain, plain_vector]},
    "lora": {"published": [lora], "vectorized": [lora_joined]},
    "top2": {"published": [top2_loop], "vectorized": [top2_concatenated, top2_sorted, top2_vectors]},
    "dense8": {"published": [dense8_loop], "vectorized": [dense8_concatenated]},
    "rankwise": {"published": [rankwise_gathered], "vectorized": [rankwise_masked]},
    "flylora": {"published": [flylora], "vectorized": [flylora_joined]},
    "topp": {"published": [topp_loop], "vectorized": [topp_concatenated]},
}
ONE_TOKEN = {plain_vector, top2_vectors}
MOST_GATHERED = 1 << 28  # bytes of gathered rows: beyond, the published form of rank-wise experts is not run


def runs(variant, tokens, d):
    if variant is rankwise_gathered and 8 * tokens * RANKS_CHOSEN * d > MOST_GATHERED:
        return False
    return tokens == 1 or variant not in ONE_TOKEN


def forward(layer, variant):
    with torch.inference_mode():
        return variant(layer)


def forward_backward(layer, variant):
    variant(layer).backward(layer.d_y)
    for tensor in layer.trained:
        tensor.grad = None


def medians(layer, direction, variants):
    """Seconds of each variant: they take turns until each had its slice."""
    samples = {variant: [] for variant in variants}
    for variant in variants:
        direction(layer, variant)  # warms up
    least = 3
    while least > 0 or any(sum(times) < options.slice for times in samples.values()):
        least -= 1
        for variant, times in samples.items():
            if least >= 0 or sum(times) < options.slice:
                begin = clock()
                direction(layer, variant)
                times.append(clock() - begin)
    return {variant: statistics.median(times) for variant, times in samples.items()}


def report(tokens, d):
    layer = Layer(tokens, d)
    variants = {v for forms in FORMS.values() for all_of in forms.values() for v in all_of if runs(v, tokens, d)}
    for direction in (forward, forward_backward):
        seconds = medians(layer, direction, variants)
        for case, forms in FORMS.items():
            for form, all_of in forms.items():
                for variant in all_of:
                    if variant in seconds:
                        print(json.dumps({"library": "PyTorch", "version": torch.__version__, "case": case,
                                          "form": form, "variant": variant.__name__, "direction": direction.__name__,
                                          "T": tokens, "d": d, "threads": options.threads,
                                          "seconds": seconds[variant]}), flush=True)


def check(tokens, d):
    layer = Layer(tokens, d)
    for case, forms in FORMS.items():
        results = [forward(layer, v) for all_of in forms.values() for v in all_of if runs(v, tokens, d)]
        for other in results[1:]:
            error = ((other - results[0]).abs().max() / results[0].abs().max()).item()
            if error > 1e-4:
                raise SystemExit(f"{case}: forms differ by {error} at T = {tokens}, d = {d}")


for width in map(int, options.d.split(",")):
    for count in map(int, options.T.split(",")):
        (check if options.check else report)(count, width)
