"""The trainings of `language_model` on several GPUs of one machine, for sizes that one GPU would take too long for.

    torchrun --nproc-per-node 4 -m papers.lightning_attention.train_on_gpus --model transnormer_llm --scale paper --out folder

Every process takes its share of the same batches; the loss is that of one GPU up to rounding. Killed, it goes on from its last
checkpoint. Writes `<model>.safetensors` and `<model>.json`, the learning curve. What claims are judged on is `language_model`.
"""

import argparse
import json
from pathlib import Path
from typing import get_args

from common.checkpoints import Checkpoints
from common.configuration import cells_of, check_parameters, read_paper_config
from common.errors import ReattendError
from common.experiment import stop_with_message
from common.files import whole_or_absent, write_text
from common.progress import Progress
from common.provenance import source_digest
from common.training import data_parallel, train
from papers.lightning_attention.language_model import Settings
from papers.lightning_attention.language_modelling import Model, make_model, replica_of, training_windows, validation_of


def train_together(settings: Settings, key: str, device: str, out: Path) -> None:
    """Train on all processes that torchrun started, and write the weights and the curve.

    Args:
        settings: of the model.
        key: what a checkpoint must agree with.
        device: `cpu` or `cuda`.
        out: folder that every process sees.

    Raises:
        InputError: torchrun did not start this process, or the processes do not divide the batch.
    """
    from safetensors.torch import save_file

    s = settings
    with data_parallel(device) as processes:
        network = make_model(s.model, s, seed=s.seed)
        windows = training_windows(s, processes.device)
        replica = replica_of(s.model, network, s, windows, steps=s.steps, order_seed=s.seed, parallel=processes)
        progress = Progress(s.model, s.steps) if processes.rank == 0 else None
        checkpoints = Checkpoints(out / "checkpoints", f"{key} on {processes.size} {device}")
        validate = validation_of(s, processes.device)
        curve = train([replica], evaluate=validate, checkpoints=checkpoints, name=s.model, progress=progress)[s.model]
        if processes.rank == 0:
            with whole_or_absent(out / f"{s.model}.safetensors") as temporary:
                save_file({name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}, temporary)
            write_text(out / f"{s.model}.json", json.dumps(curve, indent=1) + "\n")


def main() -> None:
    """Command line: see the module's text. Exits with 2 and one clear message when the user has something to mend."""
    parser = argparse.ArgumentParser(prog="torchrun -m papers.lightning_attention.train_on_gpus", description=__doc__)
    parser.add_argument("--model", choices=get_args(Model), required=True)
    parser.add_argument("--scale", choices=["smoke", "standard", "paper"], required=True)
    parser.add_argument("--config", type=Path, default=Path(__file__).with_name("config.yaml"), help="default: %(default)s")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights, curve and checkpoints")
    arguments = parser.parse_args()
    try:
        config = read_paper_config(arguments.config)
        check_parameters(config, arguments.config)
        cells = cells_of(config, "language_model", arguments.scale)
        cell = next(cell for cell in cells if cell.axes["model"] == arguments.model)
        settings = Settings.model_validate({**cell.axes, **cell.parameters})
        key = f"{cell.parameters_sha256} {source_digest('papers.lightning_attention.train_on_gpus')}"
        device = config.experiments["language_model"].device.at(arguments.scale)
        train_together(settings, key, device, arguments.out)
    except ReattendError as error:
        stop_with_message(error)


if __name__ == "__main__":
    main()
