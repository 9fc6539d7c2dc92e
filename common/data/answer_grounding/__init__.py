"""Questions about photographs, with the pixels that show the answer: four data sets that the user brings.

Each reader takes the folders as their authors distribute them and returns `GroundedQuestion`s; photographs and masks
are read later.
"""

from common.data.answer_grounding.questions import (
    ArrayFile,
    GroundedQuestion,
    MatrixFile,
    Polygon,
    annotated_answers,
    read_json,
    read_pair,
    require_files,
)

__all__ = [
    "ArrayFile",
    "GroundedQuestion",
    "MatrixFile",
    "Polygon",
    "annotated_answers",
    "read_json",
    "read_pair",
    "require_files",
]
