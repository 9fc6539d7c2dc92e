"""VQA-X (Park et al., 2018): masks by which people pointed to the evidence for answers of VQA v2, in validation and test.

Layout, as the authors' repository has it: `<root>/Annotations/` with `visual/{val,test}/<question id>.npy` and
`v2_mscoco_val2014_annotations.json`, `<root>/Questions/v2_OpenEnded_mscoco_val2014_questions.json`, `<root>/Images/val2014/`.
"""

from pathlib import Path
from typing import Literal

from common.data.answer_grounding.questions import ArrayFile, GroundedQuestion, annotated_answers, require_files
from common.errors import DataError

VqaXSplit = Literal["val", "test"]


def load_vqa_x(root: Path, split: VqaXSplit) -> list[GroundedQuestion]:
    """Questions of a split that have a mask.

    Raises:
        DataError: files are missing or damaged, or a mask belongs to no question.
    """
    masks, images = root / "Annotations" / "visual" / split, root / "Images" / "val2014"
    questions = root / "Questions" / "v2_OpenEnded_mscoco_val2014_questions.json"
    annotations = root / "Annotations" / "v2_mscoco_val2014_annotations.json"
    require_files([masks, images, questions, annotations], "VQA-X (Seth-Park/MultimodalExplanations), VQA v2 and COCO 2014")
    answered = annotated_answers(questions, annotations)
    found = []
    for path in sorted(masks.glob("*.npy")):
        if not path.stem.isdigit() or int(path.stem) not in answered:
            raise DataError(f"{path}: {questions} has no answered question of this id.")
        image, question, answer = answered[int(path.stem)]
        found.append(GroundedQuestion(path.stem, images / f"COCO_val2014_{image:012d}.jpg", question, answer, ArrayFile(path)))
    if not found:
        raise DataError(f"{masks} has no masks (*.npy). Bring those of the split {split!r}.")
    return found
