"""VQS (Gan et al., 2017): segments of COCO linked to the questions of VQA v1.

Layout: `<root>/{train,val}_ground/COCO_<split>2014_<image>.jpg_<k>.mat` with the matrix `ground_mask`, photographs in
`<root>/{train,val}2014/`, and VQA v1's `OpenEnded_mscoco_<split>2014_questions.json` and `mscoco_<split>2014_annotations.json`.
k counts the questions of an image from 1, in the order of their ids.
"""

import re
from collections import defaultdict
from pathlib import Path
from typing import Literal

from common.data.answer_grounding.questions import GroundedQuestion, MatrixFile, annotated_answers, require_files
from common.errors import DataError

VqsSplit = Literal["train", "val"]
KEY = "ground_mask"


def load_vqs(root: Path, split: VqsSplit) -> list[GroundedQuestion]:
    """Questions of a split that have a mask.

    Raises:
        DataError: files are missing or damaged, a mask has another name, or its image has fewer questions.
    """
    masks, images = root / f"{split}_ground", root / f"{split}2014"
    questions = root / f"OpenEnded_mscoco_{split}2014_questions.json"
    annotations = root / f"mscoco_{split}2014_annotations.json"
    require_files([masks, images, questions, annotations], "VQS (Cold-Winter/vqs), VQA v1 and COCO 2014")
    of_image: dict[int, list[int]] = defaultdict(list)
    answered = annotated_answers(questions, annotations)
    for number in sorted(answered):
        of_image[answered[number][0]].append(number)
    found = []
    for path in sorted(masks.glob("*.mat")):
        parts = re.fullmatch(rf"(COCO_{split}2014_(\d{{12}})\.jpg)_(\d+)\.mat", path.name)
        if parts is None:
            raise DataError(f"{path}: expected a name like COCO_{split}2014_000000000074.jpg_1.mat.")
        k, asked = int(parts[3]), of_image[int(parts[2])]
        if not 1 <= k <= len(asked):
            raise DataError(f"{path} is of question {k} of its image, which has {len(asked)} in {questions}.")
        _, question, answer = answered[asked[k - 1]]
        found.append(GroundedQuestion(path.stem, images / parts[1], question, answer, MatrixFile(path, KEY)))
    if not found:
        raise DataError(f"{masks} has no masks (*.mat). Bring those of the split {split!r}.")
    return found
