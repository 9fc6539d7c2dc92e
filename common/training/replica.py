"""A replica: one network in training, with its own recipe, order of data, stream and graphs."""

import contextlib
import warnings
from collections import deque
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from common.errors import InputError
from common.kernels.checks import check_positive_int
from common.training.batches import Batches, Buckets
from common.training.data_parallel import DataParallel
from common.training.recipe import Recipe
from common.training.side_by_side import SideBySide

# Mean loss of a batch, float32, from the network and the tensors of its bucket (first size: batch size). Called under the
# recipe's autocast. Must not draw random numbers or wait for the device.
Loss = Callable[[nn.Module, tuple[Tensor, ...]], Tensor]

WARM_UP = 3  # steps before a capture: libraries choose algorithms and allocate in them
STRIDE = 16  # steps between two marks on a stream; at most two strides are queued on the device


class Replica:
    """One network in training.

    On a CUDA device the replica has a stream of its own, and a step is one CUDA graph for each bucket: gather the batch,
    forward, loss, backward, clip, optimise. Nothing waits for the device. On the CPU the same step runs as it is written. A
    replica's numbers depend on nothing outside it: replicas may run side by side, in any number.

    Args:
        name: unique among those trained together.
        network: in its initial state, on the device of the buckets; float32, without dropout.
        recipe: how to optimise.
        loss: of a batch.
        buckets: the data; several replicas may share the tensors.
        steps: length of the training.
        order_seed: of the order of data; two replicas with one seed see the same batches.
        curve_steps: numbers of finished steps at which the learning curve gets a row; the last step always does.
        parallel: the processes that share this training; every one makes the same replica. None: this process alone.

    Attributes:
        step: steps finished.
        curve: rows so far.

    Raises:
        InputError: buckets and network do not fit, or a number is out of range.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        recipe: Recipe,
        *,
        loss: Loss,
        buckets: Buckets,
        steps: int,
        order_seed: int,
        curve_steps: Collection[int] = (),
        parallel: DataParallel | None = None,
    ):
        check_positive_int("steps", steps)
        self.name, self.network, self.recipe, self.steps = name, network, recipe, steps
        self.batches = Batches(buckets, recipe.batch_size, order_seed)
        self.device = self.batches.device
        places = {parameter.device for parameter in network.parameters()}
        if places != {self.device}:
            raise InputError(
                f"The network of {name} is on {', '.join(sorted(map(str, places)))} and its buckets on {self.device}; "
                "move both to one device."
            )
        if any(not 1 <= step <= steps for step in curve_steps):
            raise InputError(f"curve_steps of {name} is {sorted(curve_steps)}; steps lie in 1..{steps}.")
        self.curve_steps = frozenset(curve_steps) | {steps}
        self.step = 0
        self.curve: list[dict[str, Any]] = []
        self._loss, self._buckets = loss, buckets
        self._rate = torch.zeros((), device=self.device)
        self._current_rate = 0.0
        self.parallel = parallel
        self._share = parallel.share(recipe.batch_size) if parallel is not None else slice(None)
        self._rows = torch.zeros(recipe.batch_size, dtype=torch.int64, device=self.device)[self._share]
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self._loss_steps = 0
        self._optimiser = recipe.make_optimiser(network, self._rate)
        network.train()
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._marks: deque[torch.cuda.Event] = deque()
        self._stream = None
        if self.device.type == "cuda":
            self._stream = torch.cuda.Stream(self.device)
            self._stream.wait_stream(torch.cuda.current_stream(self.device))

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.steps

    @property
    def at_curve_step(self) -> bool:
        """Whether the learning curve gets a row now."""
        return self.step in self.curve_steps

    @contextlib.contextmanager
    def on_stream(self) -> Iterator[None]:
        """Work in this context comes after the replica's steps so far and before later ones."""
        with torch.cuda.stream(self._stream) if self._stream is not None else contextlib.nullcontext():
            yield

    def synchronise(self) -> None:
        """Wait until the device has done all steps so far."""
        if self._stream is not None:
            self._stream.synchronize()

    def ready(self) -> bool:
        """Whether a step can be queued without running far ahead of the device: fast replicas do not wait for slow ones."""
        while self._marks and self._marks[0].query():
            self._marks.popleft()
        return len(self._marks) < 2

    def prepare(self) -> None:
        """On a CUDA device, capture a graph for each bucket; parameters, optimiser and random states stay as they are."""
        if self._stream is None:
            return
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        if self._graphs or self.finished:
            return
        pool = torch.cuda.graph_pool_handle()  # one for all: a replica's graphs never run at the same time
        before = self._copy_of_tensors()
        with torch.random.fork_rng([self.device]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*capturable=True.*")  # the warm-up is not captured
            for key in self._buckets:
                with self.on_stream():
                    for _ in range(WARM_UP):
                        self._compute(key)
                graph = torch.cuda.CUDAGraph()
                # NCCL's watchdog asks for events in a thread of its own, which is none of the capture's business.
                errors = "global" if self.parallel is None else "thread_local"
                with torch.cuda.graph(graph, pool=pool, stream=self._stream, capture_error_mode=errors):
                    self._compute(key)
                self._graphs[key] = graph
        with self.on_stream(), torch.no_grad():
            for name, tensor in self._tensors().items():
                # Optimiser state that the warm-up made starts from zero, for SGD and Adam alike.
                tensor.copy_(before[name]) if name in before else tensor.zero_()

    def advance(self) -> None:
        """Do one step, or queue it on the device."""
        with self.on_stream():
            key, rows = self.batches.draw()
            self._rows.copy_(rows[self._share])
            rate = self.recipe.rate(self.step, self.steps)
            if rate != self._current_rate:
                self._rate.fill_(rate)
                self._current_rate = rate
            if self._stream is None:
                self._compute(key)
            else:
                self._graphs[key].replay()
            self.step += 1
            self._loss_steps += 1
            if self._stream is not None and self.step % STRIDE == 0:
                self._marks.append(torch.cuda.Event())
                self._marks[-1].record(self._stream)

    def take_mean_loss(self) -> float:
        """Mean loss of the steps since the last call; waits for the device."""
        with self.on_stream():
            mean = float(self._loss_sum) / max(self._loss_steps, 1)
            self._loss_sum.zero_()
        self._loss_steps = 0
        return mean

    def finish(self) -> None:
        """Wait for the device, give back the memory of graphs and gradients, and set the network to evaluation mode."""
        self.synchronise()
        self._optimiser.zero_grad(set_to_none=True)
        self._graphs = {}
        self.network.eval()

    def state(self) -> dict[str, Any]:
        """Everything that later steps depend on, and the curve; waits for the device."""
        self.synchronise()
        return {
            "step": self.step,
            "network": dict(self.network.state_dict()),
            "optimiser": self._optimiser.state_dict()["state"],
            "batches": self.batches.state(),
            "loss_sum": self._loss_sum,
            "loss_steps": self._loss_steps,
            "curve": self.curve,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on where `state` was. Before `prepare`.

        Raises:
            InputError: it belongs to another order of data.
        """
        assert not self._graphs, "graphs hold the tensors that this replaces"
        self.batches.load_state(state["batches"])
        with self.on_stream(), torch.no_grad():
            self.network.load_state_dict(state["network"])
            optimiser = self._optimiser.state_dict()
            self._optimiser.load_state_dict({**optimiser, "state": state["optimiser"]})
            for group in self._optimiser.param_groups:
                group["lr"] = self._rate  # load_state_dict copies it
            self._loss_sum.copy_(state["loss_sum"])
        self.step, self._loss_steps, self.curve = state["step"], state["loss_steps"], list(state["curve"])

    def _compute(self, key: int) -> None:
        """One step on the rows in `_rows`: what a graph captures."""
        self._optimiser.zero_grad(set_to_none=True)
        batch = tuple(tensor.index_select(0, self._rows) for tensor in self._buckets[key])
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
            loss = self._loss(self.network, batch)
        loss.backward()
        loss = loss.detach()
        if self.parallel is not None:
            gradients = [x.grad for x in self.network.parameters() if x.grad is not None]
            self.parallel.average([*gradients, loss])
        if self.recipe.clip_norm is not None:
            if isinstance(self.network, SideBySide):
                self.network.clip_gradients(self.recipe.clip_norm)
            else:
                clip_grad_norm_(self.network.parameters(), self.recipe.clip_norm)
        self._optimiser.step()
        self._loss_sum.add_(loss)

    def _tensors(self) -> dict[str, Tensor]:
        """Every tensor that a step changes and a later one reads."""
        tensors = {f"network {name}": tensor for name, tensor in self.network.state_dict().items()}
        for number, entries in self._optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser {number} {name}": x for name, x in entries.items() if isinstance(x, Tensor)}
        return tensors | {"loss sum": self._loss_sum}

    def _copy_of_tensors(self) -> dict[str, Tensor]:
        with self.on_stream():
            return {name: tensor.clone() for name, tensor in self._tensors().items()}
