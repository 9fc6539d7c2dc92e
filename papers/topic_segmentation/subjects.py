"""What the experiments share: documents, the tokenizer and the pretrained encoder, read once for all cells of a process."""

from copy import deepcopy
from functools import lru_cache
from typing import TYPE_CHECKING

from common.data.segmentation import Document, Split, first_sentences, load_documents
from common.language_models.sentence_encoder import SentenceTokenizer, load_encoder, load_tokenizer

if TYPE_CHECKING:
    from transformers import BertModel


@lru_cache(maxsize=8)
def documents_of(data_set: str, split: Split, documents: int, sentences: int) -> list[Document]:
    """The documents of a split, cut down.

    Args:
        data_set: a name of `common.data.segmentation`.
        split: which.
        documents: at most so many; 0 is all.
        sentences: at most so many of each; 0 is all.

    Raises:
        DataError: as `load_documents`.
    """
    found = load_documents(data_set, split)
    found = found[:documents] if documents else found
    return [first_sentences(document, sentences) for document in found] if sentences else found


@lru_cache(maxsize=1)
def tokenizer() -> SentenceTokenizer:
    """MiniLM's."""
    return load_tokenizer()


@lru_cache(maxsize=1)
def _pretrained(device: str) -> "BertModel":
    return load_encoder(device)


def fresh_encoder(device: str) -> "BertModel":
    """MiniLM as it was pretrained, to be fine-tuned."""
    return deepcopy(_pretrained(device))
