"""The sentences of all scenes as all-MiniLM-L6-v2 encodes them, once for every experiment, on the CPU of any machine."""

import torch
from torch import Tensor

from common.configuration import Parameters
from common.experiment import Context, Measurement, main
from common.language_models.sentence_encoder import load_encoder, load_tokenizer, mean_of_tokens
from papers.sentence_attention.emoji_ground import TextMode
from papers.sentence_attention.subjects import PROBES, Data, digest_of

AT_ONCE = 128


class Settings(Parameters):
    """Axes and parameters of `config.yaml`.

    Attributes:
        data: whose sentences.
        modes: question, answer, both; tokens are kept for questions alone.
        longest: tokens of a sentence, the two special ones included.
    """

    data: Data
    modes: list[TextMode]
    longest: int


@torch.inference_mode()
def encode(sentences: list[str], longest: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Vectors and token states of sentences.

    Args:
        sentences: M of them.
        longest: tokens of a sentence; the rest is cut off.
        device: where the encoder runs.

    Returns:
        float32 [M, 384] of length 1, the mean of the token states; float16 [tokens, 384], the states one after the other; and
        int64 [M + 1], where each sentence's tokens begin. All on the CPU.

    Raises:
        DataError: the encoder cannot be had.
    """
    tokenizer, network = load_tokenizer(), load_encoder(device)
    pieces = tokenizer.pieces(sentences, longest - 2)
    order = sorted(range(len(pieces)), key=lambda number: len(pieces[number]))
    vectors = torch.zeros(len(pieces), network.config.hidden_size)
    states: list[Tensor] = [torch.empty(0)] * len(pieces)
    for start in range(0, len(order), AT_ONCE):
        numbers = order[start : start + AT_ONCE]
        ids = tokenizer.batch([pieces[number] for number in numbers]).to(device)
        mask = ids != tokenizer.padding
        hidden = network(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        vectors[numbers] = mean_of_tokens(hidden, mask).cpu()
        for number, row, kept in zip(numbers, hidden.half().cpu(), mask.cpu(), strict=True):
            states[number] = row[kept]
    offsets = torch.tensor([0, *(len(state) for state in states)]).cumsum(0)
    return torch.nn.functional.normalize(vectors, dim=1), torch.cat(states), offsets


def run(settings: Settings, context: Context) -> Measurement:
    """Artifacts `q`, `a` and `qa`: `vectors` (float16), `digest` of the sentences, and of questions `tokens` and `offsets`.

    Rows: `sentences` by mode, and `cosine` of the probes with the first of them.
    """
    measurement = Measurement()
    progress = context.progress(len(settings.modes))
    for mode in settings.modes:
        sentences = settings.data.sentences(mode)
        vectors, tokens, offsets = encode(sentences, settings.longest, context.device)
        measurement.artifacts[mode] = {"vectors": vectors.half(), "digest": digest_of(sentences)}
        measurement.add("sentences", len(sentences), "sentences", text=mode)
        if mode == "q":
            measurement.artifacts[mode] |= {"tokens": tokens, "offsets": offsets}
            first, *others = (vectors[sentences.index(probe)] for probe in PROBES)
            for probe, other in zip(PROBES[1:], others, strict=True):
                measurement.add("cosine", first @ other, sentence=probe, against=PROBES[0])
        progress.step(mode)
    return measurement


if __name__ == "__main__":
    main(run, Settings)
