"""Sets for re-identification, and Market-1501's folders (Zheng et al., ICCV 2015) of image files that hold one.

A file is called `0002_c1s1_000451_03.jpg`: identity, camera, sequence, frame, box. Identity -1 is a bad detection, ignored in
evaluation; identity 0 is a distractor, wrong for every query.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image, UnidentifiedImageError

from common.errors import DataError, InputError

JUNK, DISTRACTOR = -1, 0
FOLDERS: Mapping[str, str] = MappingProxyType({"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"})
_NAME = re.compile(r"(-1|\d{4})_c(\d)s(\d+)_(\d{6})_(\d{2})\.jpg", flags=re.ASCII)


@dataclass(frozen=True)
class ImageSet:
    """Images of people with identity and camera.

    Attributes:
        pixels: uint8 [images, 3, height, width].
        identities: int64 [images]; `DISTRACTOR` and `JUNK` are none.
        cameras: int64 [images].

    Raises:
        InputError: shapes do not fit each other.
    """

    pixels: np.ndarray
    identities: np.ndarray
    cameras: np.ndarray

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 4 or self.pixels.shape[1] != 3:
            raise InputError(f"pixels is {self.pixels.dtype} {self.pixels.shape}; expected uint8 [images, 3, height, width].")
        if self.identities.shape != (len(self.pixels),) or self.cameras.shape != (len(self.pixels),):
            raise InputError(
                f"{len(self.pixels)} images have identities {self.identities.shape} and cameras {self.cameras.shape}; "
                "give one of each for every image."
            )

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, rows: np.ndarray) -> "ImageSet":
        """The images with these numbers, or where a mask is true."""
        return ImageSet(self.pixels[rows], self.identities[rows], self.cameras[rows])


@dataclass(frozen=True)
class Name:
    """What a file name of Market-1501 says."""

    identity: int
    camera: int
    sequence: int
    frame: int
    box: int

    def __str__(self) -> str:
        identity = "-1" if self.identity == JUNK else f"{self.identity:04d}"
        return f"{identity}_c{self.camera}s{self.sequence}_{self.frame:06d}_{self.box:02d}.jpg"


def parse_name(name: str) -> Name:
    """Take a file name apart.

    Raises:
        DataError: it does not follow the scheme.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise DataError(
            f"{name!r} is no name of Market-1501: expected <identity>_c<camera>s<sequence>_<frame>_<box>.jpg with an identity "
            "of four digits or -1, such as 0002_c1s1_000451_03.jpg. Rename the file or take it out of the folder."
        )
    identity, camera, sequence, frame, box = map(int, match.groups())
    if camera == 0:
        raise DataError(f"{name!r} names camera 0; cameras are counted from 1. Rename the file.")
    return Name(identity, camera, sequence, frame, box)


def read_market1501(root: Path, size: tuple[int, int]) -> dict[str, ImageSet]:
    """Training, query and gallery images of a folder in Market-1501's layout, resized to one size (bicubic).

    Files other than `.jpg`, such as Windows' `Thumbs.db`, are left out.

    Args:
        root: holds `bounding_box_train`, `query` and `bounding_box_test`.
        size: height and width in pixels.

    Returns:
        `train` (identities above 0 only), `query` and `gallery`, in the order of their names.

    Raises:
        DataError: a folder is missing or empty, a name does not follow the scheme, a file is no image, training and query
            share an identity, or the query holds no identity.
    """
    root = Path(root)
    found = {part: _read_folder(root / folder, size) for part, folder in FOLDERS.items()}
    train = found["train"]
    found["train"] = train.take(train.identities > DISTRACTOR)
    for part in ("train", "query"):
        if not len(found[part]) or (found[part].identities <= DISTRACTOR).any():
            raise DataError(
                f"{root / FOLDERS[part]} holds no identity above 0, or images of none (0 and -1 belong to "
                f"{FOLDERS['gallery']}). Unpack the data set again."
            )
    shared = np.intersect1d(found["train"].identities, found["query"].identities)
    if shared.size:
        raise DataError(
            f"{root}: identity {shared[0]} is in {FOLDERS['train']} and in {FOLDERS['query']}. An identity belongs to one of "
            "them; unpack the data set again."
        )
    return found


def _read_folder(folder: Path, size: tuple[int, int]) -> ImageSet:
    if not folder.is_dir():
        raise DataError(f"{folder} does not exist. Give the folder that holds {', '.join(FOLDERS.values())}.")
    paths = sorted(path for path in folder.iterdir() if path.suffix == ".jpg")
    if not paths:
        raise DataError(f"{folder} holds no .jpg file. Unpack the data set again.")
    names = [parse_name(path.name) for path in paths]
    pixels = np.empty((len(paths), 3, *size), dtype=np.uint8)
    for number, path in enumerate(paths):
        try:
            with Image.open(path) as image:
                resized = image.convert("RGB").resize((size[1], size[0]), Image.Resampling.BICUBIC)
        except (OSError, UnidentifiedImageError) as error:
            raise DataError(f"{path} cannot be read as an image ({error}). Unpack the data set again.") from None
        pixels[number] = np.asarray(resized).transpose(2, 0, 1)
    return ImageSet(
        pixels, np.array([name.identity for name in names]), np.array([name.camera for name in names])
    )  # fmt: skip


def export_market1501(root: Path, parts: Mapping[str, ImageSet]) -> None:
    """Write `train`, `query` and `gallery` in the layout that `read_market1501` reads; the frame is the number of the image.

    Raises:
        InputError: a part is missing, or an identity or camera has too many digits for a name.
    """
    if missing := set(FOLDERS) - set(parts):
        raise InputError(f"parts lacks {', '.join(sorted(missing))}; give {', '.join(FOLDERS)}.")
    for part, folder in FOLDERS.items():
        (Path(root) / folder).mkdir(parents=True, exist_ok=True)
        images = parts[part]
        for number, (identity, camera) in enumerate(zip(images.identities, images.cameras, strict=True)):
            if not (JUNK <= identity <= 9999 and 1 <= camera <= 9):
                raise InputError(
                    f"{part}: identity {identity} at camera {camera} does not fit a name; identities lie in -1..9999 and "
                    "cameras in 1..9."
                )
            name = Name(int(identity), int(camera), 1, number, 0)
            picture = Image.fromarray(images.pixels[number].transpose(1, 2, 0).copy())
            picture.save(Path(root) / folder / str(name), "JPEG", quality=95)
