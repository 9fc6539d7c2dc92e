"""How well does tiling of frozen sentence embeddings segment, in every convention? No training, no labels."""

from common.configuration import Parameters
from common.experiment import Context, Measurement, main
from common.language_models.sentence_encoder import embed
from papers.topic_segmentation.c99 import c99_of, cosines
from papers.topic_segmentation.scoring import add_scores
from papers.topic_segmentation.subjects import documents_of
from papers.topic_segmentation.tiling import block_similarities, tile


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        data_set: whose test documents are segmented; a name of `common.data.segmentation`.
        documents: at most so many of them; 0 is all.
        block: sentences on each side.
        longest: tokens of a sentence.
        parts: see `scoring.pk_by_part`.
    """

    data_set: str
    documents: int
    block: int
    longest: int
    parts: int


def run(settings: Settings, context: Context) -> Measurement:
    """Tile MiniLM embeddings as TextTiling tiles words, and cluster their cosines as C99 does those of words.

    Rows are those of `scoring.add_scores`: `pk`, `window_diff`, `boundary_similarity`, `boundary_f1`, `pk_of_part` and others.
    """
    measurement = Measurement()
    documents = documents_of(settings.data_set, "test", settings.documents, 0)
    references = [document.segments for document in documents]
    sentences = [sentence for document in documents for sentence in document.sentences]
    vectors = embed(sentences, context.device, longest=settings.longest)
    progress = context.progress(2)
    for count in ("found", "known"):
        tiled, clustered, start = [], [], 0
        for reference in references:
            here = vectors[start : start + sum(reference)].astype("float64")
            start += sum(reference)
            known = len(reference) if count == "known" else None
            tiled.append(tile(block_similarities(here, settings.block), known))
            clustered.append(c99_of(cosines(here), known))
        for method, hypotheses in (("minilm_tiling", tiled), ("minilm_c99", clustered)):
            add_scores(measurement, references, hypotheses, method=method, parts=settings.parts, count=count, seed=0)
        progress.step(f"number of segments {count}")
    return measurement


if __name__ == "__main__":
    main(run, Settings)
