"""Readers of the four data sets, on made-up files in their layouts and on the real annotations of VizWiz."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from sklearn.metrics import jaccard_score

from common.data.answer_grounding import ArrayFile, GroundedQuestion, MatrixFile, Polygon, annotated_answers, read_pair
from common.data.answer_grounding.generated import write_generated
from common.data.answer_grounding.textvqa_x import load_textvqa_x
from common.data.answer_grounding.vizwiz import load_vizwiz, read_annotations
from common.data.answer_grounding.vqa_x import load_vqa_x
from common.data.answer_grounding.vqs import load_vqs
from common.data.fetch import fetch
from common.errors import DataError, InputError
from common.metrics.masks import cumulative_iou, mean_iou, overlap

COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (40, 70, 220)}
READERS = {
    ("vizwiz", "train"): load_vizwiz,
    ("vizwiz", "val"): load_vizwiz,
    ("textvqa_x", "train"): load_textvqa_x,
    ("textvqa_x", "val"): load_textvqa_x,
    ("vqs", "train"): load_vqs,
    ("vqs", "val"): load_vqs,
    ("vqa_x", "val"): load_vqa_x,
    ("vqa_x", "test"): load_vqa_x,
}


@pytest.mark.parametrize(("name", "split"), list(READERS))
def test_every_question_points_to_the_box_of_its_colour(tmp_path, name, split):
    write_generated(tmp_path, name, 6, seed=1)
    questions = READERS[name, split](tmp_path, split)
    assert len(questions) == len({one.name for one in questions}) == 6
    for one in questions:
        assert one.question == f"Where is the {one.answer} box?"
        pixels, mask = read_pair(one)
        assert mask.sum() == 12 * 14
        if one.image.suffix == ".png":
            assert (pixels[mask] == COLOURS[one.answer]).all()
        else:  # JPEG blurs
            assert np.abs(np.median(pixels[mask], axis=0) - COLOURS[one.answer]).max() < 25


def test_missing_files_are_all_named(tmp_path):
    for load, words in (
        (load_vizwiz, ["train_grounding.json", "VizWiz"]),
        (load_textvqa_x, ["train_id.txt", "explanations_token.json", "TextVQA_0.5.1_train.json", "train_images"]),
        (load_vqs, ["train_ground", "train2014", "OpenEnded_mscoco_train2014_questions.json"]),
    ):
        with pytest.raises(DataError) as caught:
            load(tmp_path, "train")
        assert all(word in str(caught.value) for word in words)
    with pytest.raises(DataError, match="visual"):
        load_vqa_x(tmp_path, "val")


GOOD = {
    "question": " what? ",
    "most_common_answer": "this",
    "width": 8,
    "height": 6,
    "answer_grounding": [{"x": 1, "y": 1}, {"x": 5, "y": 1}, {"x": 5, "y": 4}],
}


def test_official_and_line_by_line_annotations_are_the_same(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"p.jpg": GOOD}))
    line = {**GOOD, "image": "p.jpg", "polygon": [[1, 1], [5, 1], [5, 4]]}
    del line["answer_grounding"]
    (tmp_path / "a.jsonl").write_text(json.dumps(line) + "\n")
    first, second = (read_annotations(tmp_path / name, tmp_path) for name in ("a.json", "a.jsonl"))
    assert first == second
    assert first[0].question == "what?"
    assert first[0].image == tmp_path / "p.jpg"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": None}, "p.jpg: question is missing"),
        ({"most_common_answer": None}, "most_common_answer is missing"),
        ({"answer_grounding": None}, "answer_grounding is missing"),
        ({"answer_grounding": [{"x": 1, "y": 1}]}, "at least three points"),
        ({"answer_grounding": "polygon"}, "at least three points"),
        ({"answer_grounding": [{"x": 1}] * 3}, "no pair of numbers"),
        ({"answer_grounding": [[1, float("nan")]] * 3}, "not finite"),
        ({"width": 0}, "width is 0"),
        ({"height": "6"}, "height is '6'"),
    ],
)
def test_bad_annotations_name_image_and_field(tmp_path, change, message):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"p.jpg": GOOD | change}))
    with pytest.raises(DataError, match=message):
        read_annotations(path, tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("a.json", "[1]", "found list"), ("a.json", "{", "as JSON"), ("a.jsonl", "{", "line 1"), ("a.jsonl", "3\n", "line 1")],
)
def test_damaged_annotation_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_annotations(tmp_path / name, tmp_path)


def test_ids_without_explanation_or_question_are_named(tmp_path):
    write_generated(tmp_path, "textvqa_x", 3, seed=0)
    ids = tmp_path / "textvqa_x" / "data_splits" / "train_id.txt"
    ids.write_text(ids.read_text() + "77\n")
    with pytest.raises(DataError, match="id 77"):
        load_textvqa_x(tmp_path, "train")
    explanations = tmp_path / "textvqa_x" / "text_explanations" / "explanations_token.json"
    explanations.write_text(json.dumps(json.loads(explanations.read_text()) | {"77": {"image": "x.png"}}))
    with pytest.raises(DataError, match="question 77"):
        load_textvqa_x(tmp_path, "train")


def test_masks_of_no_question_are_named(tmp_path):
    write_generated(tmp_path, "vqs", 3, seed=0)
    masks = tmp_path / "val_ground"
    (masks / "COCO_val2014_000000000004.jpg_1.mat").rename(masks / "COCO_val2014_000000000004.jpg_3.mat")
    with pytest.raises(DataError, match="question 3 of its image, which has 1"):
        load_vqs(tmp_path, "val")
    (masks / "COCO_val2014_000000000004.jpg_3.mat").rename(masks / "mask.mat")
    with pytest.raises(DataError, match="expected a name like"):
        load_vqs(tmp_path, "val")
    for path in masks.glob("*.mat"):
        path.unlink()
    with pytest.raises(DataError, match="no masks"):
        load_vqs(tmp_path, "val")
    write_generated(tmp_path / "x", "vqa_x", 3, seed=0)
    visual = tmp_path / "x" / "Annotations" / "visual" / "test"
    (visual / "4.npy").rename(visual / "400.npy")
    with pytest.raises(DataError, match=r"400\.npy"):
        load_vqa_x(tmp_path / "x", "test")


def test_questions_of_an_image_are_counted_in_the_order_of_their_ids(tmp_path):
    write_generated(tmp_path, "vqs", 1, seed=0)
    questions = [{"question_id": q, "image_id": 1, "question": f"number {q}?"} for q in (12, 10, 11)]
    (tmp_path / "OpenEnded_mscoco_train2014_questions.json").write_text(json.dumps({"questions": questions}))
    answers = [{"question_id": q, "multiple_choice_answer": "yes"} for q in (10, 11, 12)]
    (tmp_path / "mscoco_train2014_annotations.json").write_text(json.dumps({"annotations": answers}))
    masks = tmp_path / "train_ground"
    (masks / "COCO_train2014_000000000001.jpg_1.mat").rename(masks / "COCO_train2014_000000000001.jpg_2.mat")
    (one,) = load_vqs(tmp_path, "train")
    assert one.question == "number 11?"


def test_wrong_vqa_files_are_named(tmp_path):
    questions, annotations = tmp_path / "q.json", tmp_path / "a.json"
    questions.write_text('{"questions": [{"question_id": 1}]}')
    annotations.write_text('{"annotations": [{"question_id": 1}]}')
    with pytest.raises(DataError, match=r"a\.json.*multiple_choice_answer"):
        annotated_answers(questions, annotations)
    annotations.write_text('{"annotations": [{"question_id": 1, "multiple_choice_answer": "yes"}]}')
    with pytest.raises(DataError, match=r"q\.json.*image_id"):
        annotated_answers(questions, annotations)


def test_bad_mask_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"m\.npy"):
        ArrayFile(tmp_path / "m.npy").mask()
    np.save(tmp_path / "m.npy", np.zeros((2, 2, 3)))
    with pytest.raises(DataError, match=r"\(2, 2, 3\)"):
        ArrayFile(tmp_path / "m.npy").mask()
    np.save(tmp_path / "o.npy", np.array([[object()]]), allow_pickle=True)
    with pytest.raises(DataError, match=r"o\.npy"):
        ArrayFile(tmp_path / "o.npy").mask()
    (tmp_path / "m.mat").write_bytes(b"nothing")
    with pytest.raises(DataError, match="MATLAB"):
        MatrixFile(tmp_path / "m.mat", "ground_mask").mask()
    savemat(tmp_path / "m.mat", {"other": np.ones((2, 2))})
    with pytest.raises(DataError, match="no matrix 'ground_mask'"):
        MatrixFile(tmp_path / "m.mat", "ground_mask").mask()


def question(tmp_path: Path, width, height) -> GroundedQuestion:
    polygon = Polygon(((1, 1), (4, 1), (4, 3)), width, height)
    return GroundedQuestion("one", tmp_path / "p.jpg", "?", "!", polygon)


def test_photographs_are_turned_only_if_that_makes_the_sizes_match(tmp_path):
    image = Image.new("RGB", (30, 20), (10, 20, 30))
    exif = Image.Exif()
    exif[274] = 6  # the camera was turned by 90 degrees
    image.save(tmp_path / "p.jpg", exif=exif)
    assert read_pair(question(tmp_path, 30, 20))[0].shape == (20, 30, 3)
    assert read_pair(question(tmp_path, 20, 30))[0].shape == (30, 20, 3)
    with pytest.raises(DataError, match="30 x 20 pixels and its mask 25 x 20"):
        read_pair(question(tmp_path, 25, 20))
    (tmp_path / "p.jpg").write_bytes(b"no photograph")
    with pytest.raises(DataError, match="one: the photograph"):
        read_pair(question(tmp_path, 30, 20))


def test_polygons_are_drawn_at_any_size():
    square = Polygon(((2, 2), (5, 2), (5, 5), (2, 5)), 8, 8)
    wanted = np.zeros((8, 8), bool)
    wanted[2:6, 2:6] = True
    np.testing.assert_array_equal(square.mask(), wanted)
    half = square.mask(64, 64)
    assert jaccard_score(np.kron(wanted, np.ones((8, 8), bool)).ravel(), half.ravel()) > 0.6
    assert half.shape == (64, 64)
    with pytest.raises(InputError, match="0 x 8"):
        square.mask(0, 8)


@pytest.fixture(scope="module")
def real():
    """Polygons of the real validation annotations on 128 x 128 pixels."""
    try:
        path = fetch("vizwiz-vqa-grounding-val")
    except DataError as error:
        pytest.skip(f"the annotations are not on the web in this form, and here is no mirror of them: {error}")
    questions = read_annotations(path, Path())
    polygons = [one.evidence for one in questions if isinstance(one.evidence, Polygon)]
    return questions, torch.from_numpy(np.stack([polygon.mask(128, 128) for polygon in polygons]))


def test_real_annotations_cover_what_they_covered_before(real):
    questions, masks = real
    assert len(questions) == 1131
    areas = masks.float().mean((1, 2)).numpy()
    assert areas.mean() == pytest.approx(0.338, abs=0.003)
    found = np.percentile(areas, [5, 25, 50, 75, 95])
    np.testing.assert_allclose(found, [0.010, 0.049, 0.229, 0.565, 1.000], atol=0.003)


@pytest.mark.parametrize(
    ("kind", "mean", "cumulative"),
    [("all", 0.338, 0.338), ("box 0.8", 0.322, 0.351), ("box 0.7", 0.302, 0.338), ("mean", 0.340, 0.347)],
)
def test_fixed_masks_score_on_real_annotations_what_they_scored_before(real, kind, mean, cumulative):
    _, masks = real
    if kind.startswith("box"):
        edge = round(64 * (1 - float(kind.split()[1])))
        fixed = torch.zeros(128, 128, dtype=torch.bool)
        fixed[edge : 128 - edge, edge : 128 - edge] = True
    else:
        fixed = torch.ones(128, 128, dtype=torch.bool) if kind == "all" else masks.float().mean(0) > 0.2
    counts = overlap(fixed.expand_as(masks), masks)
    assert mean_iou(counts) == pytest.approx(mean, abs=0.003)
    assert cumulative_iou(counts) == pytest.approx(cumulative, abs=0.003)
