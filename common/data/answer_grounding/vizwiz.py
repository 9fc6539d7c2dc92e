"""VizWiz-VQA-Grounding (Chen, Anjum and Gurari, 2022): photographs by blind people, a polygon for each answer.

Layout: `<root>/{train,val}_grounding.json` as distributed, photographs in `<root>/{train,val}/`.
"""

import json
from pathlib import Path
from typing import Literal

from common.data.answer_grounding.questions import GroundedQuestion, polygon_of, read_json, require_files
from common.errors import DataError

VizWizSplit = Literal["train", "val"]


def read_annotations(path: Path, images: Path) -> list[GroundedQuestion]:
    """Read annotations: the official JSON, an object with an entry an image, or one object a line with `image` and `polygon`.

    Args:
        path: of the file.
        images: folder of the photographs, which are not read here.

    Raises:
        DataError: the file is damaged, or an entry lacks a field or has a wrong one; the message names both.
    """
    if path.suffix == ".jsonl":
        entries = []
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                entry = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}, line {number}: no JSON ({error}).") from error
            if not isinstance(entry, dict) or "image" not in entry:
                raise DataError(f"{path}, line {number}: no object with `image`.")
            entries.append((entry["image"], entry))
    else:
        content = read_json(path)
        if not isinstance(content, dict):
            raise DataError(f"{path}: expected an object with an entry for each image, found {type(content).__name__}.")
        entries = list(content.items())
    found = []
    for image, entry in entries:
        place = f"{path}: {image}"
        points = entry.get("polygon", entry.get("answer_grounding"))
        for name, value in (
            ("question", entry.get("question")),
            ("most_common_answer", entry.get("most_common_answer")),
            ("answer_grounding", points),
        ):
            if value is None:
                raise DataError(f"{place}: {name} is missing.")
        evidence = polygon_of(points, entry.get("width"), entry.get("height"), place)
        question, answer = str(entry["question"]).strip(), str(entry["most_common_answer"]).strip()
        found.append(GroundedQuestion(str(image), images / str(image), question, answer, evidence))
    return found


def load_vizwiz(root: Path, split: VizWizSplit) -> list[GroundedQuestion]:
    """Questions of a split. Raises DataError when files are missing or damaged."""
    annotations, images = root / f"{split}_grounding.json", root / split
    require_files([annotations, images], "VizWiz-VQA-Grounding (vizwiz.org)")
    return read_annotations(annotations, images)
