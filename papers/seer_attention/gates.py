"""The gates that `distillation` left, as families of selectors for a model."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel

from common.errors import InputError
from common.experiment import Context
from common.selector_comparison import Family
from papers.seer_attention.before_rotary import BeforeRotary
from papers.seer_attention.seer_attention import AttentionGate
from papers.seer_attention.selector import SeerAttention, block_tables
from papers.seer_attention.training import GateSettings, TrainingSettings, make_gate

DISTILLATION, GATES = "distillation", "gates"


def tensor_name(gate: str, seed: int, parameter: str) -> str:
    """Name of a gate's parameter in the artifact."""
    return f"{gate}/{seed}/{parameter}"


Gates = dict[tuple[str, int], AttentionGate]
"""(name of the gate, seed) -> gate of all layers."""


def trained_gates(context: Context, model: PreTrainedModel, training: str, block_size: int) -> Gates:
    """The gates of one training, on the device of the model.

    Args:
        context: of a cell whose experiment comes after distillation.
        model: that the gates were distilled from.
        training: name of the training.
        block_size: that the gates must have.

    Returns:
        (name of the gate, seed) -> gate of all layers.

    Raises:
        ConfigError: the experiment does not come after distillation.
        InputError: there is no such training, or its gates were made for another model or block size.
        DataError: the artifact is missing or damaged.
    """
    records = context.results_of(DISTILLATION)
    found = {str(record.axes["training"]): record for record in records.records}
    if training not in found:
        raise InputError(f"training is {training!r}; {DISTILLATION} has: {', '.join(found)}.")
    parameters = found[training].parameters
    if parameters["block_size"] != block_size:
        raise InputError(f"block_size is {block_size}, and the gates were trained for {parameters['block_size']}.")
    tensors = records.artifact(found[training], GATES)
    gates = {}
    for name, kind in TrainingSettings.model_validate(parameters["trainings"][training]).gates.items():
        for seed in range(kind.seeds):
            gate = make_gate(kind, model.config, block_size=block_size, seed=seed)
            state = {parameter: tensors[tensor_name(name, seed, parameter)] for parameter in gate.state_dict()}
            shapes = {parameter: tuple(weight.shape) for parameter, weight in gate.state_dict().items()}
            if shapes != {parameter: tuple(weight.shape) for parameter, weight in state.items()}:
                raise InputError(f"the gates of {training} do not fit {type(model).__name__}: they belong to another model.")
            gate.load_state_dict(state)
            gates[name, seed] = gate.to(model.device).requires_grad_(False)
    return gates


class GatedModel:
    """Makes families of selectors from gates, for one model inside `gated`."""

    def __init__(self, model: PreTrainedModel, before_rotary: BeforeRotary):
        self.layers, self._source = before_rotary.layers, before_rotary
        self._tables = block_tables(model.base_model.rotary_emb)

    def by_density(self, gate: AttentionGate) -> Family:
        """Selectors that take the best blocks of every row; swept is the density."""
        layers = gate.of_each_layer(self.layers)
        return lambda density: SeerAttention(layers, self._tables, self._source, density=density)

    def by_threshold(self, gate: AttentionGate) -> Family:
        """Selectors that take the blocks whose score exceeds a threshold; swept is the threshold."""
        layers = gate.of_each_layer(self.layers)
        return lambda threshold: SeerAttention(layers, self._tables, self._source, threshold=threshold)


@contextmanager
def gated(model: PreTrainedModel) -> Iterator[GatedModel]:
    """Selectors that are made in this context work inside it, in forward passes of the model.

    Raises:
        InputError: the model's layers are not like Llama's (`BeforeRotary`).
    """
    with BeforeRotary(model) as before_rotary:
        yield GatedModel(model, before_rotary)


@contextmanager
def seer_families(context: Context, model: PreTrainedModel, training: str, block_size: int) -> Iterator[dict[str, Family]]:
    """The families that every experiment on the subject compares.

    `seer_attention` (the first gate of the training, seed 0) and `seer_attention_seed_<n>` sweep the density,
    `seer_attention_threshold` the threshold; `untrained_gate` is the first gate as it was initialised.

    Args:
        context: of the cell.
        model: the subject.
        training: name of the training.
        block_size: B.

    Raises:
        ConfigError, InputError, DataError: as `trained_gates`.
    """
    gates = trained_gates(context, model, training, block_size)
    (main, _), first = next(iter(gates.items()))
    with gated(model) as made:
        families = {"seer_attention": made.by_density(first), "seer_attention_threshold": made.by_threshold(first)}
        families |= {
            f"seer_attention_seed_{seed}": made.by_density(gate)
            for (name, seed), gate in gates.items()
            if name == main and seed
        }
        kind = GateSettings(queries=list(first.query_poolings), keys=list(first.key_poolings), block_rotary=first.block_rotary)
        untrained = make_gate(kind, model.config, block_size=block_size, seed=0).to(model.device)
        yield families | {"untrained_gate": made.by_density(untrained)}


@contextmanager
def ablation_families(context: Context, model: PreTrainedModel, training: str, block_size: int) -> Iterator[dict[str, Family]]:
    """The gates of a training of ablations, seed 0, by their own names; swept is the density.

    Args:
        context: of the cell.
        model: the subject.
        training: name of the training.
        block_size: B.

    Raises:
        ConfigError, InputError, DataError: as `trained_gates`.
    """
    gates = trained_gates(context, model, training, block_size)
    with gated(model) as made:
        yield {name: made.by_density(gate) for (name, seed), gate in gates.items() if seed == 0}
