"""Openly licensed drawings of objects with names, synonyms and categories, in two styles."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from common.data.fetch import fetch
from common.errors import DataError

Style = Literal["twemoji", "noto"]
SIDE = 64


@dataclass(frozen=True)
class Drawn:
    """An object that has drawings.

    Attributes:
        label: its name.
        tags: other words for it, or for what it is about.
        category: "Animals & Nature", "Food & Drink", ...
        subcategory: "animal-mammal", "food-fruit", ...
    """

    label: str
    tags: tuple[str, ...]
    category: str
    subcategory: str


@dataclass(frozen=True)
class Sprites:
    """Objects and their drawings.

    Attributes:
        objects: in the order of the drawings.
        pixels: style -> uint8 [objects, 64, 64, 4], RGBA.
    """

    objects: tuple[Drawn, ...]
    pixels: dict[Style, np.ndarray]


def read_labels(path: Path) -> tuple[Drawn, ...]:
    """Read the objects from JSON lines.

    Raises:
        DataError: a line is no JSON, lacks a field, or a name stands twice.
    """
    objects = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            entry = json.loads(line)
            objects.append(Drawn(entry["label"], tuple(entry["tags"]), entry["category"], entry["subcategory"]))
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise DataError(f"{path}, line {number}: expected label, tags, category and subcategory ({error}).") from error
    if len({one.label for one in objects}) < len(objects):
        raise DataError(f"{path}: a label stands twice; every object needs its own.")
    return tuple(objects)


def load_sprites() -> Sprites:
    """The 723 objects. Raises DataError when the files cannot be had or do not fit each other."""
    objects = read_labels(fetch("emoji-sprites", "labels.jsonl"))
    pixels: dict[Style, np.ndarray] = {}
    styles: tuple[Style, ...] = ("twemoji", "noto")
    for style in styles:
        with np.load(fetch("emoji-sprites", f"sprites_{style}_64.npz"), allow_pickle=False) as content:
            pixels[style] = content["rgba"]
        if pixels[style].shape != (len(objects), SIDE, SIDE, 4):
            raise DataError(f"The drawings of {style} are {pixels[style].shape}; there are {len(objects)} objects.")
    return Sprites(objects, pixels)


_GROUPS = (
    ("Animals & Nature", "animal-mammal", "dog fox cat cow pig horse goat sheep mouse lion"),
    ("Food & Drink", "food-fruit", "apple pear plum lemon grape cherry melon peach bread cheese"),
    ("Travel & Places", "transport-ground", "car bus train tram truck bicycle taxi tractor scooter van"),
    ("Objects", "tool", "hammer axe saw pick wrench chain ladder hook bolt clamp"),
)


def generated_sprites(seed: int) -> Sprites:
    """Forty made-up objects, each a random polygon of its own colour, for tests and where there are no drawings.

    A style differs from the other in colour.
    """
    generator = np.random.default_rng(seed)
    objects, drawings = [], []
    for category, subcategory, names in _GROUPS:
        for name in names.split():
            objects.append(Drawn(name, (f"{name}kin", subcategory), category, subcategory))
            corners = int(generator.integers(3, 9))
            angles = np.sort(generator.uniform(0, 2 * np.pi, corners))
            radii = generator.uniform(18, 31, corners)
            points = np.stack([32 + radii * np.cos(angles), 32 + radii * np.sin(angles)], axis=1)
            image = Image.new("RGBA", (SIDE, SIDE))
            drawing = ImageDraw.Draw(image)
            colour = tuple(int(x) for x in generator.integers(0, 256, 3))
            drawing.polygon([tuple(point) for point in points.tolist()], fill=(*colour, 255))
            drawing.ellipse((22, 22, 42, 42), fill=(*colour, 255))
            drawings.append(np.asarray(image))
    first = np.stack(drawings)
    second = first.copy()
    second[..., :3] = np.where(first[..., 3:] > 0, 255 - first[..., :3], 0)
    return Sprites(tuple(objects), {"twemoji": first, "noto": second})
