"""Documents with topic boundaries, by name of the data set.

    load_documents("wiki50", "test")

reads what `DATA_SETS` lists: sentences, the lengths of the segments, and labels where the data set has some.
"""

import difflib
from collections.abc import Callable

from common.data.segmentation import choi, csabstruct, qmsum, wiki50, wiki300, wiki727k, wikipedia_sections, wikisection
from common.data.segmentation.document import Document, Split, first_sentences, merge_equal_labels, split_sentences
from common.errors import DataError

Load = Callable[[Split], list[Document]]

DATA_SETS: dict[str, Load] = {
    "wikipedia-sections": wikipedia_sections.load,
    "choi": choi.load,
    "choi-700": choi.load_700,
    "wiki300": wiki300.load,
    "wiki50": wiki50.load_top_headings,
    "wiki50-every-heading": wiki50.load_every_heading,
    "en-city": wikisection.load_en_city,
    "en-city-label-changes": wikisection.load_en_city_label_changes,
    "en-city-reduced": wikisection.load_en_city_reduced,
    "qmsum": qmsum.load,
    "csabstruct": csabstruct.load,
    **wikisection.WHOLE,
    "wiki727k": wiki727k.load,
}
"""Name of a reading of a data set -> its loader."""

__all__ = ["DATA_SETS", "Document", "Split", "first_sentences", "load_documents", "merge_equal_labels", "split_sentences"]


def load_documents(name: str, split: Split) -> list[Document]:
    """The documents of a split, in the order of the data set; documents without any sentence are left out.

    Args:
        name: in `DATA_SETS`.
        split: `train`, `validation` or `test`.

    Raises:
        DataError: unknown name, the data set has no such split, or its files cannot be had or are damaged.
    """
    if name not in DATA_SETS:
        near = difflib.get_close_matches(name, DATA_SETS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(DATA_SETS)}."
        raise DataError(f"There is no segmented data set {name!r}; {hint}")
    documents = DATA_SETS[name](split)
    if not documents:
        raise DataError(f"The data set {name!r} has no split {split!r}.")
    return documents
