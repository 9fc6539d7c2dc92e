"""Claims on coverage: what sorting the keys does to the attention mass of blocks, on a pretrained model's queries and keys.

Measured for every layer and head, one forward pass a window of text:

- oracle selection (blocks in order of true mass) by key order: density at 97.5% coverage (Tables 4 and 6), coverage at given
  densities (Figure 3);
- the paper's selection with and without sorting: selected blocks at tau = 0.9 (Table 5), and density and coverage over a sweep
  of tau.
"""

import numpy as np
import torch
from torch import Tensor

from common.experiment import Context, Measurement, main
from common.sparse_attention import MeanPooling, Selection, coverage, density, density_at_coverage, oracle_curve
from common.sparse_attention.block_mass import block_attention_masses
from common.sparse_attention.blocks import number_of_blocks
from common.sparse_attention.transformers_attention import recording
from papers.pbs_attn.pbs_attn import PBSAttention, select_blocks
from papers.pbs_attn.subjects import SubjectSettings, load_subject, token_windows

POINT = 0.01  # one percentage point of density


class Settings(SubjectSettings):
    """Axes and parameters of `config.yaml`, beyond those of every experiment on the subject.

    Attributes:
        text: name of the text.
        length: tokens a window.
        windows: windows of the text; each is an item of the statistics.
        orders: key orders of Table 4; `none` is the natural order and must be among them.
        target_coverage: of the oracle, for Tables 4 and 6.
        densities: at which oracle coverage is reported.
        taus: thresholds of the sweep; the paper's tau must be among them.
        layers: only the first layers, or all (0).
        seed: of the orders that draw at random.
    """

    text: str
    length: int
    windows: int
    orders: list[str]
    target_coverage: float
    densities: list[float]
    taus: list[float]
    layers: int
    seed: int


class WindowResults:
    """Per-head results of one window, gathered layer by layer."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.values: dict[tuple[str, str, float], list[Tensor]] = {}
        self.largest_gain = -1.0
        self.maps: dict[str, np.ndarray] = {}
        self.map_place = (0, 0)

    def keep(self, metric: str, method: str, heads: Tensor, at: float = 0.0) -> None:
        """Keep a layer's values: one for each head of [1, H]."""
        self.values.setdefault((metric, method, at), []).append(heads[0].double().cpu())

    def per_head(self, metric: str, method: str, at: float = 0.0) -> Tensor:
        """float64 [layers, heads]."""
        return torch.stack(self.values[metric, method, at])

    def on_attention(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> None:
        """Measure one layer from its queries [1, H, N, d] and keys [1, H_kv, N, d]."""
        s = self.settings
        if s.layers and layer >= s.layers:
            return
        methods = {
            order: PBSAttention(block_size=s.block_size, segment_size=s.segment_size, tau=s.tau, order=order, seed=s.seed)
            for order in s.orders
        }
        methods["last_block_shared"] = PBSAttention(
            block_size=s.block_size, segment_size=s.segment_size, tau=s.tau, gqa="shared"
        )
        orders = {name: method.key_order(q, k) for name, method in methods.items()}
        masses = block_attention_masses(q, k, s.block_size, key_orders=orders)

        for name, mass in masses.items():
            self.keep("density_at_coverage", name, density_at_coverage(mass, s.target_coverage))
            curve = oracle_curve(mass, torch.tensor(s.densities)).coverage
            for number, wanted in enumerate(s.densities):
                self.keep("oracle_coverage", name, curve[..., number], wanted)

        for name in ("none", "last_block", "last_block_shared"):
            for tau in s.taus:
                blocks = select_blocks(q, k, orders[name], block_size=s.block_size, segment_size=s.segment_size, tau=tau)
                self._keep_selection(name, Selection(blocks, s.block_size, s.segment_size, orders[name]), masses[name], tau)
        for tau in s.taus:
            self._keep_selection("mean_pooling", MeanPooling(s.block_size, tau).select(q, k), masses["none"], tau)

        gain = self.values["density_at_coverage", "none", 0.0][-1] - self.values["density_at_coverage", "last_block", 0.0][-1]
        if float(gain.max()) > self.largest_gain:
            head = int(gain.argmax())
            self.largest_gain, self.map_place = float(gain.max()), (layer, head)
            self.maps = {f"map_{name}": masses[name][0, head].cpu().numpy() for name in ("none", "last_block")}

    def _keep_selection(self, method: str, selection: Selection, mass: Tensor, tau: float) -> None:
        causal = density(selection.mask, selection.segment_size, selection.block_size, counted="causal")
        executed = density(selection.mask, selection.segment_size, selection.block_size, counted="executed")
        self.keep("selected_density", method, causal, tau)
        self.keep("executed_density", method, executed, tau)
        self.keep("selected_coverage", method, coverage(selection.mask, mass), tau)


@torch.inference_mode()
def run(settings: Settings, context: Context) -> Measurement:
    """Measure every window; rows are means over layers and heads, arrays keep the heads of the first window."""
    measurement = Measurement()
    subject = load_subject(settings, settings.length, context.device)
    windows = token_windows(subject, settings.text, settings.length, settings.windows)
    blocks = number_of_blocks(settings.length, settings.block_size)
    causal_blocks = blocks * (blocks + 1) // 2
    progress = context.progress(len(windows))
    for number, window in enumerate(windows):
        results = WindowResults(settings)
        with recording(subject.model, results.on_attention):
            subject.model.base_model(window[None].to(context.device), use_cache=False)
        for (metric, method, at), layers in results.values.items():
            mean = torch.stack(layers).mean()
            setting = {"oracle_coverage": {"density": at}, "density_at_coverage": {}}.get(metric, {"tau": at})
            measurement.add(metric, mean, method=method, window=number, **setting)
            if metric == "selected_density" and at == settings.tau:
                measurement.add("selected_blocks", mean * causal_blocks, "blocks", method=method, window=number)
        unsorted = results.per_head("density_at_coverage", "none")
        for order in [name for name in settings.orders if name != "none"] + ["last_block_shared"]:
            gain = unsorted - results.per_head("density_at_coverage", order)
            measurement.add("density_gain", gain.mean() / POINT, "percentage points", method=order, window=number)
            for metric, share in (
                ("heads_helped", gain > POINT),
                ("heads_unchanged", gain.abs() <= POINT),
                ("heads_harmed", gain < -POINT),
            ):
                measurement.add(metric, 100 * share.double().mean(), "%", method=order, window=number)
        with_, without = (results.per_head("selected_density", name, settings.tau).mean() for name in ("last_block", "none"))
        pooled = results.per_head("selected_density", "mean_pooling", settings.tau).mean()
        measurement.add("fewer_blocks", 100 * (1 - with_ / without), "%", method="last_block", window=number, than="none")
        measurement.add(
            "fewer_blocks", 100 * (1 - with_ / pooled), "%", method="last_block", window=number, than="mean_pooling"
        )
        if number == 0:
            for order in settings.orders:
                measurement.arrays[f"density_at_coverage_{order}"] = results.per_head("density_at_coverage", order).numpy()
            measurement.arrays |= results.maps
            measurement.arrays["map_layer_and_head"] = np.array(results.map_place)
        progress.step(f"window {number}")
    return measurement


if __name__ == "__main__":
    main(run, Settings)
