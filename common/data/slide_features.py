"""Features of whole-slide images in the layout of the ACMIL authors' files, and their splits.

The HDF5 file has one group a slide: `feat` [instances, d], `coords` [instances, 2] (pixels) and the attribute `label`. A split
is a JSON object with the lists `train`, `val` and `test` of slide names (`split_{seed}.json`).
"""

import json
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import torch

from common.data.bags import Bags
from common.data.feature_cache import cached_features
from common.errors import DataError
from common.files import sha256_of

PARTS = ("train", "val", "test")
Splits = dict[str, tuple[str, ...]]


def read_slide_features(path: Path) -> Bags:
    """All slides of a file, in the order of their names; features are kept as float16. `positions` are the coordinates.

    Read once: what follows comes from the cache, under the digest of the file.

    Raises:
        DataError: the file is missing or is not of this layout; the message names slide and field.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist. Bring the file of slide features there, or correct the path.")
    found = cached_features({"kind": "slide features", "layout": 1, "file": sha256_of(path)}, lambda: _pack(path))
    names = bytes(found["names"].numpy()).decode("utf-8").split("\n")
    return Bags(
        found["instances"].numpy(), found["offsets"].numpy(), found["labels"].numpy(),
        positions=found["positions"].numpy(), names=tuple(names),
    )  # fmt: skip


def _pack(path: Path) -> dict[str, torch.Tensor]:
    features, positions, labels, names = [], [], [], []
    try:
        with h5py.File(path, "r") as content:
            for name in sorted(content):
                slide = content[name]
                place = f"{path}, slide {name!r}"
                if not isinstance(slide, h5py.Group):
                    raise DataError(f"{place} is no group. Each slide is a group with feat, coords and the attribute label.")
                feat, coords = (_dataset(slide, key, place) for key in ("feat", "coords"))
                if feat.ndim != 2 or coords.shape != (len(feat), 2) or len(feat) == 0:
                    raise DataError(
                        f"{place}: feat has the shape {feat.shape} and coords {coords.shape}; expected [instances, d] with at "
                        "least one instance, and [instances, 2]."
                    )
                if features and feat.shape[1] != features[0].shape[1]:
                    raise DataError(
                        f"{place} has {feat.shape[1]} features an instance, the slides before {features[0].shape[1]}."
                    )
                if "label" not in slide.attrs:
                    raise DataError(f"{place} lacks the attribute label.")
                features.append(feat.astype(np.float16))
                positions.append(coords.astype(np.int64))
                labels.append(int(np.asarray(slide.attrs["label"]).item()))
                names.append(name)
    except OSError as error:
        raise DataError(f"{path} is not a readable HDF5 file ({error}). Bring it again.") from None
    if not names:
        raise DataError(f"{path} holds no slide.")
    return {
        "instances": torch.from_numpy(np.concatenate(features)),
        "positions": torch.from_numpy(np.concatenate(positions)),
        "offsets": torch.from_numpy(np.concatenate([[0], np.cumsum([len(feat) for feat in features])]).astype(np.int64)),
        "labels": torch.tensor(labels),
        "names": torch.frombuffer(bytearray("\n".join(names), "utf-8"), dtype=torch.uint8),
    }


def _dataset(slide: h5py.Group, key: str, place: str) -> np.ndarray:
    found = slide.get(key)
    if not isinstance(found, h5py.Dataset):
        raise DataError(f"{place} lacks the data set {key!r}.")
    return found[()]


def write_slide_features(path: Path, bags: Bags) -> None:
    """Write bags with names and positions in the same layout.

    Raises:
        DataError: the bags have no names or no positions.
    """
    if not bags.names or bags.positions is None:
        raise DataError("Only bags with names and positions can be written as slides.")
    with h5py.File(path, "w") as content:
        for number, name in enumerate(bags.names):
            slide = content.create_group(name)
            slide.create_dataset("feat", data=bags.instances[bags.bag(number)])
            slide.create_dataset("coords", data=bags.positions[bags.bag(number)])
            slide.attrs["label"] = int(bags.labels[number])


def read_split(path: Path, known: Sequence[str]) -> Splits:
    """Names of the slides of `train`, `val` and `test`; endings such as `.h5` or `.tif` of a name are left out.

    Args:
        path: of the JSON file.
        known: names of the slides that there are features of.

    Raises:
        DataError: the file is not of this layout, a slide is in two parts, or there are no features of it.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}). Bring the split file again.") from None
    if not isinstance(content, dict) or any(not isinstance(content.get(part), list) for part in PARTS):
        raise DataError(f"{path} must hold an object with the lists {', '.join(PARTS)}.")
    splits = {part: tuple(_stem(str(name)) for name in content[part]) for part in PARTS}
    every = [name for part in PARTS for name in splits[part]]
    if twice := sorted({name for name in every if every.count(name) > 1}):
        raise DataError(f"{path} lists {twice[0]!r} twice; a slide belongs to one part.")
    if missing := sorted(set(every) - set(known)):
        raise DataError(f"{path} names {len(missing)} slides without features, the first is {missing[0]!r}.")
    if empty := [part for part in PARTS if not splits[part]]:
        raise DataError(f"{path}: the part {empty[0]!r} is empty.")
    return splits


def _stem(name: str) -> str:
    for ending in (".h5", ".tif", ".svs", ".pt"):
        name = name.removesuffix(ending)
    return name
