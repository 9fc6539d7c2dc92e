"""TextVQA-X (Nagaraj Rao et al., 2021): masks that explain answers about text in TextVQA's photographs.

Layout: `<root>/textvqa_x/` with `text_explanations/explanations_token.json`, `visual_explanations/seg/<id>.npy` and
`data_splits/{train,val}_id.txt`, and `<root>/textvqa/{train_images/, TextVQA_0.5.1_train.json, TextVQA_0.5.1_val.json}`.
"""

from collections import Counter
from pathlib import Path
from typing import Literal

from common.data.answer_grounding.questions import ArrayFile, GroundedQuestion, read_json, require_files
from common.errors import DataError

TextVqaSplit = Literal["train", "val"]


def load_textvqa_x(root: Path, split: TextVqaSplit) -> list[GroundedQuestion]:
    """Questions of a split, in the order of its list of ids.

    Raises:
        DataError: files are missing or damaged, or an id has no explanation or no question.
    """
    own, base = root / "textvqa_x", root / "textvqa"
    ids, explanations = own / "data_splits" / f"{split}_id.txt", own / "text_explanations" / "explanations_token.json"
    sources = [base / f"TextVQA_0.5.1_{part}.json" for part in ("train", "val")]
    needed = [ids, explanations, *sources, base / "train_images"]
    require_files(needed, "TextVQA-X (amzn/explainable-text-vqa) and TextVQA 0.5.1")
    asked = {}
    for source in sources:
        try:
            for entry in read_json(source)["data"]:
                answers = Counter(str(answer) for answer in entry.get("answers", []))
                common = answers.most_common(1)[0][0] if answers else ""
                asked[str(entry["question_id"])] = (str(entry["question"]), common)
        except (KeyError, TypeError) as error:
            raise DataError(f"{source}: expected data with question_id and question ({error}).") from error
    explained = read_json(explanations)
    found = []
    for name in ids.read_text(encoding="utf-8").split():
        if name not in explained or "image" not in explained[name]:
            raise DataError(f"{explanations} has no image for the id {name}, which {ids} lists.")
        if name not in asked:
            raise DataError(f"The TextVQA files have no question {name}, which {ids} lists. Bring version 0.5.1.")
        question, answer = asked[name]
        image = base / "train_images" / str(explained[name]["image"])
        evidence = ArrayFile(own / "visual_explanations" / "seg" / f"{name}.npy")
        found.append(GroundedQuestion(name, image, question, answer, evidence))
    return found
