"""Small made-up files in the layouts of the four data sets, to prove the way of the real ones."""

import json
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from scipy.io import savemat

DataSetName = Literal["vizwiz", "textvqa_x", "vqs", "vqa_x"]
_COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (40, 70, 220)}


def _photograph(generator: np.random.Generator) -> tuple[np.ndarray, dict[str, tuple[int, int, int, int]]]:
    """Three coloured boxes side by side: pixels uint8 [H, W, 3] and colour -> (left, top, right, bottom)."""
    height, width = int(generator.integers(40, 80)), int(generator.integers(60, 90))
    pixels = generator.integers(150, 256, (height, width, 3)).astype(np.uint8)
    boxes = {}
    for place, colour in enumerate(generator.permutation(list(_COLOURS))):
        left, top = width * place // 3 + int(generator.integers(2, 6)), int(generator.integers(2, height // 2))
        box = (left, top, left + 12, top + 14)
        pixels[box[1] : box[3], box[0] : box[2]] = _COLOURS[str(colour)]
        boxes[str(colour)] = box
    return pixels, boxes


def write_generated(root: Path, name: DataSetName, count: int, seed: int) -> None:
    """Write both splits of a data set, each with `count` questions about the boxes of made-up photographs.

    Args:
        root: an empty folder.
        name: which layout.
        count: of questions a split.
        seed: of everything.
    """
    splits = ("val", "test") if name == "vqa_x" else ("train", "val")
    entries: dict[str, list[dict]] = {split: [] for split in splits}
    generator = np.random.default_rng(seed)
    for s, split in enumerate(splits):
        for number in range(count):
            pixels, boxes = _photograph(generator)
            colour = str(generator.choice(list(_COLOURS)))
            left, top, right, bottom = boxes[colour]
            mask = np.zeros(pixels.shape[:2], dtype=bool)
            mask[top:bottom, left:right] = True
            entry = {"id": 1 + number + count * s, "pixels": pixels, "mask": mask, "box": boxes[colour], "colour": colour}
            entries[split].append(entry)
    {"vizwiz": _vizwiz, "textvqa_x": _textvqa_x, "vqs": _vqs, "vqa_x": _vqa_x}[name](root, entries)


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def _array(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def _question(entry: dict) -> str:
    return f"Where is the {entry['colour']} box?"


def _vizwiz(root: Path, entries: dict[str, list[dict]]) -> None:
    for split, some in entries.items():
        content = {}
        for entry in some:
            image = f"VizWiz_{split}_{entry['id']:08d}.jpg"
            _save(root / split / image, entry["pixels"])
            left, top, right, bottom = entry["box"]
            corners = [(left, top), (right - 1, top), (right - 1, bottom - 1), (left, bottom - 1)]
            content[image] = {
                "question": _question(entry),
                "answers": [entry["colour"]] * 10,
                "most_common_answer": entry["colour"],
                "width": entry["pixels"].shape[1],
                "height": entry["pixels"].shape[0],
                "answer_grounding": [{"x": x, "y": y} for x, y in corners],
            }
        _write(root / f"{split}_grounding.json", content)


def _textvqa_x(root: Path, entries: dict[str, list[dict]]) -> None:
    explained = {}
    for split, some in entries.items():
        for entry in some:
            name = str(entry["id"])
            explained[name] = {"image": f"{name}.png", "explanation": ["made", "up"]}
            _save(root / "textvqa" / "train_images" / f"{name}.png", entry["pixels"])
            _array(root / "textvqa_x" / "visual_explanations" / "seg" / f"{name}.npy", entry["mask"])
        ids = root / "textvqa_x" / "data_splits" / f"{split}_id.txt"
        ids.parent.mkdir(parents=True, exist_ok=True)
        ids.write_text("".join(f"{entry['id']}\n" for entry in some), encoding="utf-8")
        data = [{"question_id": e["id"], "question": _question(e), "answers": [e["colour"]] * 10} for e in some]
        _write(root / "textvqa" / f"TextVQA_0.5.1_{split}.json", {"data": data})
    _write(root / "textvqa_x" / "text_explanations" / "explanations_token.json", explained)


def _vqa(some: list[dict], questions: Path, annotations: Path) -> None:
    _write(questions, {"questions": [{"question_id": e["id"], "image_id": e["id"], "question": _question(e)} for e in some]})
    answers = [{"question_id": e["id"], "image_id": e["id"], "multiple_choice_answer": e["colour"]} for e in some]
    _write(annotations, {"annotations": answers})


def _vqs(root: Path, entries: dict[str, list[dict]]) -> None:
    for split, some in entries.items():
        questions = root / f"OpenEnded_mscoco_{split}2014_questions.json"
        _vqa(some, questions, root / f"mscoco_{split}2014_annotations.json")
        (root / f"{split}_ground").mkdir(parents=True, exist_ok=True)
        for entry in some:
            image = f"COCO_{split}2014_{entry['id']:012d}.jpg"
            _save(root / f"{split}2014" / image, entry["pixels"])
            savemat(root / f"{split}_ground" / f"{image}_1.mat", {"ground_mask": entry["mask"].astype(np.uint8)})


def _vqa_x(root: Path, entries: dict[str, list[dict]]) -> None:
    for split, some in entries.items():
        for entry in some:
            _save(root / "Images" / "val2014" / f"COCO_val2014_{entry['id']:012d}.jpg", entry["pixels"])
            _array(root / "Annotations" / "visual" / split / f"{entry['id']}.npy", entry["mask"].astype(np.float32))
    every = [entry for some in entries.values() for entry in some]
    questions = root / "Questions" / "v2_OpenEnded_mscoco_val2014_questions.json"
    _vqa(every, questions, root / "Annotations" / "v2_mscoco_val2014_annotations.json")
