# SPDX-License-Identifier: MIT
"""The layers of mole as modules of torch, on the CPU."""
from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Optional, Union

import numpy.typing as npt

try:
    import torch
except ImportError as error:
    raise ImportError("mole.torch: expected torch, found none: pip install torch") from error

from ._arrays import described_weight
from ._core import Call, Core, Settings
from ._library import library
from .errors import DtypeError, NotTrainableError, OptionError, OrderError, ShapeError
from .options import Option, options_of
from .routing import Routing

__all__ = ["Linear", "balance_loss", "freeze_all_but_experts", "passing", "replace_linear"]


class Linear(torch.nn.Module):
    """y = W x + b + what the experts of a preset add, for x [..., in] of float32 on the CPU.

        layer = mole.torch.Linear("mola", linear.weight, linear.bias, experts=8, rank=16, k=2, alpha=32)

    W and b are frozen, and stay where they are, unless pack=True copies them once into the form that is computed with,
    which is faster. Parameters have the names of the library ("router.weight", "experts.lora_A") and are views of one
    flat tensor that the library computes with: optimizers, load_state_dict() and clipping work on them in place. One that
    is given other memory (assign=True, `.data =`) is copied back at the next forward. What a layer has besides, such as
    a balancing bias or a frozen projection, is in its extra state.

    In training mode dropout and noise are drawn by a seed from torch's generator. load_balance is the coefficient of a
    loss that spreads tokens over experts, or its options (coefficient, norm, count, score, scope, k); `loss` has it after
    a forward, as a part of the graph: add it to yours. x that has gaps is copied.
    """

    weight: torch.nn.Parameter
    bias: Optional[torch.nn.Parameter]
    loss: Optional[torch.Tensor]
    """Of the last forward; None without load_balance."""

    def __init__(self, preset: str, weight: torch.Tensor, bias: Optional[torch.Tensor] = None, *, pack: bool = False,
                 threads: Optional[int] = None, load_balance: Union[None, float, Mapping[str, Option]] = None,
                 **options: Option) -> None:
        super().__init__()
        self.register_parameter("weight", _frozen(weight))
        self.register_parameter("bias", None if bias is None else _frozen(bias))
        self.preset, self.pack = preset, pack
        self.threads = torch.get_num_threads() if threads is None else threads
        self.load_balance = _balance_options(load_balance)
        self.loss = None
        self._passed: dict[str, Any] = {}
        self._options: dict[str, Option] = dict(options)
        self._core = self._new_core()
        self._options = options_of(self._core.options_text)
        self._flat = torch.empty(self._core.size)
        self._bind(numbers_of_array=False)
        self._places: list[tuple[torch.nn.Module, str, int, tuple[int, int]]] = []
        for tensor in self._core.tensors():
            part, _, leaf = tensor.name.rpartition(".")
            module = self._part(part)
            view = self._flat[tensor.first:tensor.first + tensor.size].view(tensor.shape)
            module.register_parameter(leaf, torch.nn.Parameter(view, requires_grad=tensor.trained))
            self._places.append((module, leaf, tensor.first, tensor.shape))
        self._last: Optional[Call] = None

    @classmethod
    def from_linear(cls, linear: torch.nn.Linear, preset: str, **options: Any) -> Linear:
        """Around the weight of a torch.nn.Linear, which is frozen, and not copied."""
        return cls(preset, linear.weight, linear.bias, **options)

    # ---- what it is

    @property
    def in_features(self) -> int:
        return self._core.in_

    @property
    def out_features(self) -> int:
        return self._core.out

    @property
    def options(self) -> dict[str, Option]:
        """All of them, those that were not named, too."""
        return dict(self._options)

    @property
    def routing(self) -> Routing:
        """Of the last forward."""
        if self._last is None:
            raise OrderError("mole.torch.Linear: routing: expected a forward before, found none")
        return self._core.routing(self._last)

    def extra_repr(self) -> str:
        return f"{self.preset!r}, in={self.in_features}, out={self.out_features}, {self._core.options_text}"

    def expert_parameters(self) -> list[torch.nn.Parameter]:
        """What it trains: all parameters but weight and bias."""
        return [parameter for parameter in self._parameters_in_place() if parameter.requires_grad]

    # ---- calls

    def forward(self, x: torch.Tensor, *, token_mask: Any = None, routed: Any = None, forced: Any = None,
                labels: Any = None, allowed: Any = None, sequence_begin: Any = None) -> torch.Tensor:
        """y [..., out]. Arrays have an entry for each token, a row of x: mole.Linear.forward() tells what they do, and
        passing() gives them to all layers of a model."""
        if not isinstance(x, torch.Tensor) or x.dtype != torch.float32 or x.device.type != "cpu":
            raise DtypeError("mole.torch.Linear: expected x of float32 on the CPU, found " + _kind_of(x))
        if x.ndim < 1 or x.shape[-1] != self.in_features:
            raise ShapeError(f"mole.torch.Linear: expected rows of {self.in_features} numbers, found x of the shape "
                             f"{tuple(x.shape)}")
        parameters = self._parameters_in_place()
        self._return_home(parameters)
        settings = Settings(token_mask=token_mask, routed=routed, forced=forced, labels=labels, allowed=allowed,
                            sequence_begin=sequence_begin)
        for name, array in self._passed.items():
            if getattr(settings, name) is None:
                setattr(settings, name, array)
        if self.training:
            settings.training = True
            settings.seed = int(torch.randint(0, 2**62, ()))  # of the generator that checkpointing restores
        rows = x.reshape(-1, self.in_features).contiguous()
        if torch.is_grad_enabled():
            y, loss = _Mixture.apply(rows, self, settings, *parameters)  # type: ignore[no-untyped-call]
        else:
            y, loss = self._run(rows, settings)
        self.loss = loss
        result: torch.Tensor = y.view(*x.shape[:-1], self.out_features)
        return result

    def _run(self, x: torch.Tensor, settings: Settings) -> tuple[torch.Tensor, Optional[torch.Tensor]]:
        """y, and the loss of load_balance."""
        self._last = None  # its workspace serves this call
        y = torch.empty(x.shape[0], self._core.out)
        call = self._core.forward(x.data_ptr(), y.data_ptr(), x.shape[0], settings)
        balance = self.load_balance
        loss = None if balance is None else torch.tensor(self._core.load_balance(call, balance))
        self._last = call
        return y, loss

    def balance(self, rate: float, counts: Optional[npt.ArrayLike] = None) -> None:
        """Moves the balancing bias of deepseek_v3, smora and flylora by `rate`, after a step, towards experts with fewer
        tokens than the mean: by sums of routing.counts, or else by those of the last forward."""
        self._core.balance(self.routing.counts if counts is None else counts, rate)

    def renew_router(self) -> None:
        """Of arrow: as mole.Linear.renew_router()."""
        self._return_home(self._parameters_in_place())
        library.layer_renew_router(self._core.address)

    def merged_weight(self) -> torch.Tensor:
        """A copy of W with what the experts add. NotMergeableError for a layer whose experts depend on the token."""
        self._return_home(self._parameters_in_place())
        merged = self.weight.detach().clone(memory_format=torch.contiguous_format)
        library.layer_merge(self._core.address, merged.data_ptr())
        return merged

    # ---- memory

    def _new_core(self) -> Core:
        weight, bias = self.weight, self.bias
        for tensor, what in ((weight, "weight"), (bias, "bias")):
            if tensor is not None and (tensor.dtype != torch.float32 or tensor.device.type != "cpu"):
                raise DtypeError(f"{self.preset}: expected a {what} of float32 on the CPU, found " + _kind_of(tensor))
        described, keep = described_weight(weight.detach(), None if bias is None else bias.detach(), self.pack, self.preset)
        core = Core(self.preset, self._options, described, keep)
        if self.threads != 1:
            core.set_threads(self.threads)
        self._weight_key = self._key_of_weight()
        return core

    def _bind(self, *, numbers_of_array: bool) -> None:
        """The library computes with the flat tensor."""
        if self._copies:
            if numbers_of_array:
                library.layer_set_parameters(self._core.address, self._flat.data_ptr(), self._core.size)
            else:
                library.layer_get_parameters(self._core.address, self._flat.data_ptr(), self._core.size)
        elif self._core.size:
            self._core.bind(self._flat.data_ptr(), 0, numbers_of_array=numbers_of_array)
        self._core.keep.append(self._flat)

    @property
    def _copies(self) -> bool:
        """moram's numbers are parts of larger ones, and cannot be bound: they are copied before each forward."""
        return self.preset == "moram"

    def _part(self, path: str) -> torch.nn.Module:
        module: torch.nn.Module = self
        for name in filter(None, path.split(".")):
            if name not in module._modules:
                module.add_module(name, torch.nn.Module())
            part = module._modules[name]
            assert part is not None
            module = part
        return module

    def _parameters_in_place(self) -> list[torch.nn.Parameter]:
        """In the order of the library."""
        found = []
        for module, leaf, _, _ in self._places:
            parameter = module._parameters[leaf]
            assert parameter is not None
            found.append(parameter)
        return found

    def _key_of_weight(self) -> tuple[int, ...]:
        """Changes with what the library cannot see."""
        tensors = [self.weight] if self.bias is None else [self.weight, self.bias]
        return tuple(n for tensor in tensors for n in (tensor.data_ptr(), tensor._version if self.pack else 0))

    def _return_home(self, parameters: list[torch.nn.Parameter]) -> None:
        """Parameters that were given other memory, and a weight that has moved, or changed after it was packed."""
        home = self._flat.data_ptr()
        for (_, leaf, first, shape), parameter in zip(self._places, parameters):
            if parameter.data_ptr() == home + 4 * first or parameter.numel() == 0:
                continue
            if parameter.dtype != torch.float32 or parameter.device.type != "cpu" or tuple(parameter.shape) != shape:
                raise DtypeError(f"mole.torch.Linear: expected {leaf} of float32 on the CPU of the shape {shape}, found "
                                 f"{_kind_of(parameter)} of the shape {tuple(parameter.shape)}")
            place = self._flat[first:first + parameter.numel()].view(shape)
            place.copy_(parameter.detach())
            parameter.data = place
        if self._copies:
            library.layer_set_parameters(self._core.address, self._flat.data_ptr(), self._core.size)
        if self._key_of_weight() != self._weight_key:
            self._renew_core()

    def _renew_core(self) -> None:
        state = self._core.state_bytes()
        self._core = self._new_core()
        self._core.load_state_bytes(state)
        self._bind(numbers_of_array=True)
        self._last = None

    def get_extra_state(self) -> torch.Tensor:
        return torch.frombuffer(bytearray(self._core.state_bytes()), dtype=torch.uint8)

    def set_extra_state(self, state: torch.Tensor) -> None:
        self._core.load_state_bytes(state.to(torch.uint8).numpy().tobytes())

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        for name in ("_core", "_flat", "_last", "_weight_key"):
            state.pop(name)
        state["loss"] = None
        state["_state_bytes"] = self._core.state_bytes()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        data = state.pop("_state_bytes")
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._last = None
        self._core = self._new_core()
        self._core.load_state_bytes(data)
        self._flat = torch.empty(self._core.size)
        with torch.no_grad():
            for (_, _, first, shape), parameter in zip(self._places, self._parameters_in_place()):
                place = self._flat[first:first + parameter.numel()].view(shape)
                place.copy_(parameter)
                parameter.data = place
        self._bind(numbers_of_array=True)


class _Mixture(torch.autograd.Function):
    """What _run() does, with a backward."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, module: Linear, settings: Settings,
                *parameters: torch.Tensor) -> tuple[torch.Tensor, Optional[torch.Tensor]]:
        y, loss = module._run(x, settings)
        ctx.core, ctx.call, ctx.balance, ctx.counted = module._core, module._last, module.load_balance, loss is not None
        ctx.save_for_backward(x, *parameters)
        return y, loss

    @staticmethod
    def backward(ctx: Any, *d_outputs: Optional[torch.Tensor]) -> tuple[Optional[torch.Tensor], ...]:
        with_graph = torch.is_grad_enabled()
        with torch.no_grad():
            results = _Mixture._gradients(ctx, *d_outputs)  # type: ignore[arg-type]
        if with_graph:
            refuse: Any = _NoSecondBackward.apply
            refused = [None if each is None else refuse(each, *d_outputs, *ctx.saved_tensors) for each in results]
            return refused[0], None, None, *refused[1:]
        return results[0], None, None, *results[1:]

    @staticmethod
    def _gradients(ctx: Any, d_y: torch.Tensor, d_loss: Optional[torch.Tensor]) -> list[Optional[torch.Tensor]]:
        x, *parameters = ctx.saved_tensors
        core: Core = ctx.core
        call: Call = ctx.call
        counted = ctx.counted
        if call.finished or call.x != x.data_ptr():  # a second backward of one graph, or an x that was computed anew
            call, counted = core.recompute(call, x.data_ptr()), False
        if ctx.balance is not None and d_loss is not None:
            # Its gradient is in the workspace already, times the coefficient; d_loss is what autograd wants it times.
            share = float(d_loss) - (1.0 if counted else 0.0)
            coefficient = float(ctx.balance["coefficient"])
            if share != 0 and coefficient != 0:
                core.load_balance(call, {**ctx.balance, "coefficient": coefficient * share})
        needs_x, _, _, *needed = ctx.needs_input_grad
        d_x = torch.zeros_like(x) if needs_x else None
        flat = torch.empty(core.size)
        d_y = d_y.contiguous()
        core.backward_into(call, d_y.data_ptr(), 0 if d_x is None else d_x.data_ptr(), flat.data_ptr())
        ctx.call = call.without_workspace()
        gradients: list[Optional[torch.Tensor]] = [d_x]
        first = 0
        for parameter, wanted in zip(parameters, needed):
            end = first + parameter.numel()
            gradients.append(flat[first:end].view(parameter.shape) if wanted else None)
            first = end
        return gradients


class _NoSecondBackward(torch.autograd.Function):
    """A gradient that has none."""

    @staticmethod
    def forward(ctx: Any, gradient: torch.Tensor, *_depends_on: torch.Tensor) -> torch.Tensor:
        return gradient.clone()

    @staticmethod
    def backward(ctx: Any, *_: torch.Tensor) -> Any:
        raise NotTrainableError("mole.torch.Linear: expected one backward, found a backward through its gradients: they "
                                "have none of their own")


def replace_linear(model: torch.nn.Module, names: Union[str, Iterable[str]], preset: str, *, freeze: bool = True,
                   **options: Any) -> dict[str, Linear]:
    """Puts a Linear around each torch.nn.Linear of `model` whose name is one of `names`, or ends with "." and one of them;
    what was put where. The model's other parameters are frozen unless freeze=False. The n-th layer has the option
    seed + n, so that no two start with the same numbers."""
    wanted = {names} if isinstance(names, str) else set(names)
    found = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)
             and any(name == each or name.endswith("." + each) for each in wanted)]
    if not found:
        linears = sorted({name.rpartition(".")[2] for name, module in model.named_modules()
                          if isinstance(module, torch.nn.Linear)})
        raise OptionError("replace_linear: expected names of torch.nn.Linear modules, such as "
                          f"{', '.join(linears) or 'none'}, found {', '.join(sorted(wanted))}")
    seed = int(options.pop("seed", 0))
    made: dict[str, Linear] = {}
    for number, name in enumerate(found):
        linear = model.get_submodule(name)
        assert isinstance(linear, torch.nn.Linear)
        made[name] = Linear.from_linear(linear, preset, seed=seed + number, **options).train(linear.training)
    for name, layer in made.items():  # after all were made: a bad option leaves the model as it was
        path, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(path), leaf, layer)
    if freeze:
        freeze_all_but_experts(model)
    return made


@contextlib.contextmanager
def passing(model: torch.nn.Module, **arrays: Any) -> Iterator[None]:
    """Arrays that all Linears of a model have in their forwards, which the model calls with x alone:

        with mole.torch.passing(model, token_mask=attention_mask):
            loss = model(tokens, attention_mask).loss + mole.torch.balance_loss(model)
    """
    known = {"token_mask", "routed", "forced", "labels", "allowed", "sequence_begin"}
    if not known.issuperset(arrays):
        raise OptionError(f"passing: expected arrays among {', '.join(sorted(known))}, "
                          f"found '{', '.join(sorted(set(arrays) - known))}'")
    layers = [module for module in model.modules() if isinstance(module, Linear)]
    before = [layer._passed for layer in layers]
    for layer in layers:
        layer._passed = {**layer._passed, **arrays}
    try:
        yield
    finally:
        for layer, passed in zip(layers, before):
            layer._passed = passed


def freeze_all_but_experts(model: torch.nn.Module) -> None:
    """Only what the Linears of mole train has gradients."""
    trained = {id(parameter) for module in model.modules() if isinstance(module, Linear)
               for parameter in module.expert_parameters()}
    for parameter in model.parameters():
        if id(parameter) not in trained:
            parameter.requires_grad_(False)


def balance_loss(model: torch.nn.Module) -> torch.Tensor:
    """The sum of `loss` over the Linears of a model, of their last forwards: a part of the graph, to add to yours."""
    losses = [module.loss for module in model.modules() if isinstance(module, Linear) and module.loss is not None]
    return torch.stack(losses).sum() if losses else torch.zeros(())


def _frozen(tensor: torch.Tensor) -> torch.nn.Parameter:
    if isinstance(tensor, torch.nn.Parameter):
        tensor.requires_grad_(False)
        return tensor
    return torch.nn.Parameter(tensor.detach(), requires_grad=False)


def _balance_options(given: Union[None, float, Mapping[str, Option]]) -> Optional[dict[str, Option]]:
    if given is None:
        return None
    if isinstance(given, Mapping):
        return {"coefficient": 1.0, **given}
    return {"coefficient": float(given)}


def _kind_of(found: object) -> str:
    return f"{found.dtype} on {found.device}" if isinstance(found, torch.Tensor) else type(found).__name__
