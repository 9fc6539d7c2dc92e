"""A question with its photograph and mask, and reading both from files."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps, UnidentifiedImageError
from scipy.io import loadmat

from common.errors import DataError, InputError


@dataclass(frozen=True)
class Polygon:
    """A mask as the inside of a polygon.

    Attributes:
        points: (x, y) in pixels of an image of this size.
        width: of that image.
        height: of that image.
    """

    points: tuple[tuple[float, float], ...]
    width: int
    height: int

    def mask(self, width: int | None = None, height: int | None = None) -> np.ndarray:
        """The mask, bool [height, width], scaled to another size where one is given.

        Raises:
            InputError: the new size is not positive.
        """
        width, height = self.width if width is None else width, self.height if height is None else height
        if width < 1 or height < 1:
            raise InputError(f"A mask of {width} x {height} pixels cannot be drawn; both must be positive.")
        canvas = Image.new("1", (width, height))
        scaled = [(x * width / self.width, y * height / self.height) for x, y in self.points]
        ImageDraw.Draw(canvas).polygon(scaled, fill=1, outline=1)
        return np.asarray(canvas, dtype=bool)


@dataclass(frozen=True)
class ArrayFile:
    """A mask in a `.npy` file: [H, W], set where it is greater than 0."""

    path: Path

    def mask(self) -> np.ndarray:
        """The mask, bool [H, W]. Raises DataError where the file is missing or no such array."""
        try:
            array = np.load(self.path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path} cannot be read as an array ({error}). Bring it again.") from error
        return _as_mask(array, self.path)


@dataclass(frozen=True)
class MatrixFile:
    """A mask in a MATLAB file under `key`: [H, W], set where it is greater than 0."""

    path: Path
    key: str

    def mask(self) -> np.ndarray:
        """The mask, bool [H, W]. Raises DataError where the file is missing or lacks the matrix."""
        try:
            content = loadmat(self.path, variable_names=[self.key])
        except Exception as error:  # scipy raises many kinds for a damaged file
            raise DataError(f"{self.path} cannot be read as a MATLAB file ({error}). Bring it again.") from error
        if self.key not in content:
            raise DataError(f"{self.path} has no matrix {self.key!r}. Bring the file as its authors distribute it.")
        return _as_mask(content[self.key], self.path)


def _as_mask(array: np.ndarray, path: Path) -> np.ndarray:
    if array.ndim != 2 or array.size == 0 or array.dtype.kind not in "buif":
        raise DataError(f"{path} holds {array.dtype} {array.shape}; a mask is numbers [H, W].")
    return array > 0


@dataclass(frozen=True)
class GroundedQuestion:
    """One question.

    Attributes:
        name: of it, unique in its data set.
        image: file of the photograph.
        question: in words.
        answer: in words; the commonest where several people answered.
        evidence: where its mask is.
    """

    name: str
    image: Path
    question: str
    answer: str
    evidence: Polygon | ArrayFile | MatrixFile


def read_pair(one: GroundedQuestion) -> tuple[np.ndarray, np.ndarray]:
    """The photograph and its mask.

    A photograph is turned as its EXIF entry says only if it has the mask's size then and not before.

    Returns:
        uint8 [H, W, 3] and bool [H, W].

    Raises:
        DataError: one of the files is missing or damaged, or their sizes differ.
    """
    mask = one.evidence.mask()
    try:
        with Image.open(one.image) as opened:
            turned = ImageOps.exif_transpose(opened)
            chosen = turned if opened.size != mask.shape[::-1] and turned.size == mask.shape[::-1] else opened
            pixels = np.asarray(chosen.convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"{one.name}: the photograph {one.image} cannot be read ({error}). Bring it again.") from error
    if pixels.shape[:2] != mask.shape:
        raise DataError(
            f"{one.name}: the photograph {one.image} is {pixels.shape[1]} x {pixels.shape[0]} pixels and its mask "
            f"{mask.shape[1]} x {mask.shape[0]}. They belong to different versions; bring both from one."
        )
    return pixels, mask


def require_files(paths: Iterable[Path], what: str) -> None:
    """Raise a DataError that names every path that is absent."""
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        raise DataError(f"{what} must be brought; these are missing: {', '.join(missing)}.")


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises DataError where it is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}). Bring it again.") from error


def annotated_answers(questions: Path, annotations: Path) -> dict[int, tuple[int, str, str]]:
    """The questions of a VQA release (v1 or v2) with their commonest answers.

    Args:
        questions: JSON with `questions`, each with question_id, image_id, question.
        annotations: JSON with `annotations`, each with question_id, multiple_choice_answer.

    Returns:
        question id -> (image id, question, answer).

    Raises:
        DataError: a file is damaged, or lacks one of these fields.
    """
    try:
        answers = {int(x["question_id"]): str(x["multiple_choice_answer"]) for x in read_json(annotations)["annotations"]}
    except (KeyError, TypeError) as error:
        raise DataError(f"{annotations}: annotations need question_id and multiple_choice_answer ({error}).") from error
    try:
        return {
            int(x["question_id"]): (int(x["image_id"]), str(x["question"]), answers[int(x["question_id"])])
            for x in read_json(questions)["questions"]
            if int(x["question_id"]) in answers
        }
    except (KeyError, TypeError) as error:
        raise DataError(f"{questions}: expected questions with question_id, image_id and question ({error}).") from error


def polygon_of(points: object, width: object, height: object, place: str) -> Polygon:
    """A polygon from parsed JSON: points as {x, y} or as pairs.

    Args:
        points: to be checked.
        width: of the image, to be checked.
        height: likewise.
        place: what the message blames.

    Raises:
        DataError: a size is no positive whole number, there are fewer than three points, or one is no pair of numbers.
    """
    for name, size in (("width", width), ("height", height)):
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise DataError(f"{place}: {name} is {size!r}; it must be a positive whole number of pixels.")
    assert isinstance(width, int)
    assert isinstance(height, int)
    if not isinstance(points, Sequence) or isinstance(points, str) or len(points) < 3:
        raise DataError(f"{place}: the polygon is {str(points)[:60]!r}; it needs at least three points.")
    pairs = []
    for point in points:
        pair: Any = (point.get("x"), point.get("y")) if isinstance(point, dict) else point
        if not isinstance(pair, Sequence) or len(pair) != 2 or not all(isinstance(x, int | float) for x in pair):
            raise DataError(f"{place}: the point {point!r} is no pair of numbers.")
        if not np.isfinite(np.asarray(pair, dtype=float)).all():
            raise DataError(f"{place}: the point {point!r} is not finite.")
        pairs.append((float(pair[0]), float(pair[1])))
    return Polygon(tuple(pairs), width, height)
