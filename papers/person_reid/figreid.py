"""FigReID: sets of drawn figures for re-identification, made from a seed. No image shows a person.

Identities come in groups of look-alikes that share the colours of their clothes. `street` has several cameras whose colours,
grounds and sharpness differ; `robot` has two low, close, dim ones in rooms and shows sequences. Identities, cameras and images
each have random numbers of their own, so that an image does not depend on how many others there are.
"""

import math
import os
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import PIL
import torch
from joblib import Parallel, delayed
from pydantic import Field

from common.configuration import Parameters
from common.data.feature_cache import cached_features
from common.data.market1501 import DISTRACTOR, JUNK, ImageSet
from common.training import derived_seed
from papers.person_reid.figures_of_people import (
    CLOTHES,
    HAIRS,
    PATTERNS,
    SKINS,
    VIEWS,
    Camera,
    Identity,
    Shot,
    draw_image,
)

VERSION = 1  # of the drawings: raise it when an image changes
PARTS = ("train", "validation_query", "validation_gallery", "query", "gallery")
Place = Literal["street", "robot"]
TEXTURES = ("gradient", "bars", "blocks")
STREET_CAMERAS, ROBOT_CAMERAS, ROOMS = 6, 2, 4
IMAGES_AT_ONCE = 400  # from this number on, several processes draw
Order = tuple[int, int, int]  # identity, camera, number of the image there


class Difficulty(Parameters):
    """How much cameras and nuisances hide.

    Attributes:
        gain: range of a camera's factor on each colour.
        gamma: range of its exponent.
        second_figure: probability of another figure at the edge.
        occluder: probability of something in front of the figure.
        look_alikes: identities that share the colours of their clothes.
    """

    gain: tuple[float, float]
    gamma: tuple[float, float]
    second_figure: float = Field(ge=0, le=1)
    occluder: float = Field(ge=0, le=1)
    look_alikes: int = Field(ge=1)


class Counts(Parameters):
    """How many identities and images.

    Attributes:
        train: identities to train on.
        validation: identities that choose layouts.
        test: identities that are tested.
        distractors: single images of others in the gallery, with identity 0.
        junk: images in the gallery with identity -1.
        cameras: least and greatest number of cameras that see an identity.
        train_images: of an identity at a camera.
        test_images: of an identity at a camera, one of which is the query.
    """

    train: int = Field(ge=2)
    validation: int = Field(ge=2)
    test: int = Field(ge=2)
    distractors: int = Field(ge=0)
    junk: int = Field(ge=0)
    cameras: tuple[int, int]
    train_images: int = Field(ge=1)
    test_images: int = Field(ge=2)


def _generator(seed: int, *purpose: str | int) -> np.random.Generator:
    return np.random.default_rng(derived_seed(seed, *purpose))


def _pick(rng: np.random.Generator, choices: Sequence[Any]) -> Any:
    return choices[int(rng.integers(len(choices)))]


def draw_identity(seed: int, number: int, look_alikes: int) -> Identity:
    """The identity with this number; its group is `number // look_alikes`."""
    group = _generator(seed, "group", number // look_alikes)
    top, bottom = _pick(group, CLOTHES), _pick(group, CLOTHES)
    rng = _generator(seed, "identity", number)
    return Identity(
        top=top,
        second=_pick(rng, [colour for colour in CLOTHES if colour != top]),
        pattern=_pick(rng, PATTERNS),
        frequency=int(rng.integers(2, 5)),
        sleeve=_pick(rng, ("short", "long", "long")),
        bottom=_pick(rng, ("trousers", "shorts", "skirt")),
        bottom_colour=bottom,
        shoe=_pick(rng, CLOTHES),
        skin=_pick(rng, SKINS),
        hair=_pick(rng, HAIRS),
        hair_length=_pick(rng, ("none", "short", "long")),
        cap=_pick(rng, CLOTHES) if rng.random() < 0.25 else None,
        bag=_pick(rng, ("none", "backpack", "shoulder", "hand")),
        bag_colour=_pick(rng, CLOTHES),
        height=float(rng.uniform(0.86, 1.0)),
        width=float(rng.uniform(0.85, 1.2)),
    )


def draw_camera(seed: int, place: Place, number: int, difficulty: Difficulty, room: int = 0) -> Camera:
    """The camera with this number, from 1. A robot's camera stands in a room, which gives the background."""
    rng = _generator(seed, place, "camera", number)
    ground = _generator(seed, place, "ground", room if place == "robot" else number)
    low, high = difficulty.gain
    gain = rng.uniform(low, high, 3) * (rng.uniform(0.5, 0.8) if place == "robot" else 1.0)
    return Camera(
        gain=tuple(float(value) for value in gain),  # pyright: ignore[reportArgumentType]
        gamma=float(rng.uniform(*difficulty.gamma)),
        background=tuple(int(value) for value in ground.integers(60, 201, 3)),  # pyright: ignore[reportArgumentType]
        texture=TEXTURES[int(ground.integers(len(TEXTURES)))],
        blur=float(rng.uniform(0, 1.2)),
        noise=float(rng.uniform(2, 9)),
        quality=int(rng.integers(40, 93)),
        foreshortening=float(rng.uniform(0.75, 0.9) if place == "robot" else rng.uniform(0.9, 1.0)),
    )


def draw_shot(
    seed: int, place: Place, of: Order, strangers: int, difficulty: Difficulty
) -> Shot:  # fmt: skip
    """Pose and nuisances of an image.

    Args:
        seed: of the set.
        place: which.
        of: identity, camera, number of the image.
        strangers: numbers from here on are identities that no part has: second figures.
        difficulty: how much is hidden.
    """
    rng = _generator(seed, place, "image", *of)
    view = _pick(rng, VIEWS)
    phase = float(rng.uniform(0, 2 * math.pi))
    if place == "robot":  # frames of one sequence: the gait goes on, the view changes once
        sequence = _generator(seed, place, "sequence", *of[:2])
        views = sequence.permutation(len(VIEWS))
        view = VIEWS[int(views[(of[2] // 4) % len(VIEWS)])]
        phase = float(sequence.uniform(0, 2 * math.pi) + of[2] * math.pi / 4)
    rectangles = tuple(
        (float(x), float(y), float(wide), float(tall), _pick(rng, CLOTHES))
        for x, y, wide, tall in rng.uniform((-0.1, 0, 0.1, 0.1), (0.9, 0.8, 0.4, 0.5), (int(rng.integers(0, 4)), 4))
    )
    other = None
    if rng.random() < difficulty.second_figure:
        stranger = draw_identity(seed, strangers + int(rng.integers(10_000)), 1)
        other = stranger, int(_pick(rng, (-1, 1)))
    occluder = None
    if rng.random() < difficulty.occluder:
        colour = tuple(int(value) for value in rng.integers(30, 226, 3))
        if rng.random() < 0.5:
            share = float(rng.uniform(0.15, 0.4))
            occluder = 0.0, 1 - share, 1.0, share, colour
        else:
            occluder = float(_pick(rng, (0.0, 0.68))), 0.0, 0.32, 1.0, colour
    shot = Shot(
        view=view,
        phase=phase,
        shift=float(rng.normal(0, 0.05)),
        rise=float(rng.normal(0, 0.015)),
        scale=float(rng.uniform(0.86, 1.04)),
        brightness=float(rng.uniform(0.85, 1.15)),
        rectangles=rectangles,
        other=other,
        occluder=occluder,  # pyright: ignore[reportArgumentType]
    )
    if place == "street":
        return shot
    close = rng.random() < 0.4
    return Shot(
        **{
            **vars(shot),
            "cut": float(rng.uniform(0.55, 0.75)) if close else 1.0,
            "motion": float(rng.uniform(3, 9)) / 2,  # 3 to 9 pixels of an image of 256 rows
            "stretch": float(rng.uniform(0.85, 1.15)),
        }
    )


def image_of(seed: int, place: Place, of: Order, size: tuple[int, int], strangers: int, difficulty: Difficulty) -> np.ndarray:
    """One image, uint8 [3, height, width]: see `draw_shot`."""
    identity, camera, _ = of
    room = int(_generator(seed, place, "room", identity, camera).integers(ROOMS))
    pixels = draw_image(
        draw_identity(seed, identity, difficulty.look_alikes),
        draw_camera(seed, place, camera, difficulty, room),
        draw_shot(seed, place, of, strangers, difficulty),
        size,
        _generator(seed, place, "noise", *of),
    )
    return pixels.transpose(2, 0, 1)


def seen_by(seed: int, place: Place, identity: int, cameras: tuple[int, int]) -> list[int]:
    """The cameras that see an identity, from 1, in order; in a robot's set all of them."""
    if place == "robot":
        return list(range(1, ROBOT_CAMERAS + 1))
    rng = _generator(seed, place, "cameras", identity)
    count = int(rng.integers(cameras[0], cameras[1] + 1))
    return sorted(int(camera) + 1 for camera in rng.permutation(STREET_CAMERAS)[:count])


def plan(place: Place, seed: int, counts: Counts, look_alikes: int) -> dict[str, list[tuple[int, Order]]]:
    """Which images each part has: (identity as the part names it, what is drawn).

    Numbers of identities start at 1; every part begins a new group of look-alikes.
    """
    parts: dict[str, list[tuple[int, Order]]] = {part: [] for part in PARTS}
    first = look_alikes
    starts = {}
    for part, count in (("train", counts.train), ("validation", counts.validation), ("test", counts.test)):
        starts[part] = first
        first += math.ceil(count / look_alikes) * look_alikes
    for identity in range(starts["train"], starts["train"] + counts.train):
        for camera in seen_by(seed, place, identity, counts.cameras):
            parts["train"] += [(identity, (identity, camera, number)) for number in range(counts.train_images)]
    for part, prefix, count in (("validation", "validation_", counts.validation), ("test", "", counts.test)):
        for identity in range(starts[part], starts[part] + count):
            for camera in seen_by(seed, place, identity, counts.cameras):
                asked = int(_generator(seed, place, "query", identity, camera).integers(counts.test_images))
                for number in range(counts.test_images):
                    role = "query" if number == asked else "gallery"
                    parts[f"{prefix}{role}"].append((identity, (identity, camera, number)))
    for named, count in ((DISTRACTOR, counts.distractors), (JUNK, counts.junk)):
        for identity in range(first, first + count):
            camera = seen_by(seed, place, identity, counts.cameras)[0]
            parts["gallery"].append((named, (identity, camera, 0)))
        first += count
    return parts


def figreid(place: Place, seed: int, counts: Counts, difficulty: Difficulty, size: tuple[int, int]) -> dict[str, ImageSet]:
    """The parts of a set, drawn once and then read from the cache.

    Args:
        place: `street` or `robot`.
        seed: of everything that is drawn.
        counts: of identities and images.
        difficulty: of cameras and nuisances.
        size: height and width of images in pixels.

    Returns:
        `train`, `validation_query`, `validation_gallery`, `query` and `gallery`.

    Raises:
        DataError: the cache cannot be written.
    """
    wanted = plan(place, seed, counts, difficulty.look_alikes)
    content = {
        "kind": "FigReID", "version": VERSION, "pillow": PIL.__version__, "place": place, "seed": seed, "size": list(size),
        "counts": counts.model_dump(mode="json"), "difficulty": difficulty.model_dump(mode="json"),
    }  # fmt: skip
    stored = cached_features(content, lambda: _draw(wanted, place, seed, difficulty, size))
    return {
        part: ImageSet(
            stored[part].numpy(),
            np.array([named for named, _ in images], dtype=np.int64),
            np.array([order[1] for _, order in images], dtype=np.int64),
        )
        for part, images in wanted.items()
    }


def _draw(
    wanted: dict[str, list[tuple[int, Order]]], place: Place, seed: int, difficulty: Difficulty, size: tuple[int, int]
) -> dict[str, torch.Tensor]:
    """uint8 [images, 3, height, width] for each part."""
    strangers = 1_000_000  # above every number of a plan
    orders = [order for images in wanted.values() for _, order in images]
    processes = min(os.cpu_count() or 1, 16) if len(orders) >= IMAGES_AT_ONCE else 1
    calls = (delayed(image_of)(seed, place, order, size, strangers, difficulty) for order in orders)
    drawn = Parallel(n_jobs=processes, batch_size=64)(calls)  # pyright: ignore[reportArgumentType]
    pixels = torch.from_numpy(np.stack(list(drawn)))  # pyright: ignore[reportCallIssue, reportArgumentType]
    return dict(zip(wanted, pixels.split([len(images) for images in wanted.values()]), strict=True))
