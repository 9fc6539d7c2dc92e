"""Scanpaths out of a trained network, step by step: the most probable one, or samples."""

import torch
from torch import Tensor

from common.metrics.scanpaths import Paths
from papers.oat.oat import OAT, Scenes


@torch.no_grad()
def generate(
    network: OAT, scenes: Scenes, *, longest: int, samples: int = 0, generator: torch.Generator | None = None
) -> Paths:
    """Search every scene.

    The first step cannot stop; padding is never chosen; there is no other restriction, and objects may be seen again. A
    scanpath ends where the network points at the target's copy, or after `longest` fixations.

    Args:
        network: in evaluation mode.
        scenes: B of them.
        longest: fixations at most.
        samples: drawn at temperature 1 for each scene; 0: one scanpath of most probable steps.
        generator: of the samples, on the network's device.

    Returns:
        B times max(samples, 1) scanpaths, those of a scene one after the other.
    """
    B, many, stop = len(scenes.target), max(samples, 1), network.stop
    H_e = network.encode(scenes)
    memory = network.memory(H_e)
    x = network.begin(scenes).expand(B, many, -1)
    kept: list[tuple[Tensor, Tensor]] = []
    cells = torch.zeros(B, many, longest, dtype=torch.int64, device=H_e.device)
    lengths = torch.zeros(B, many, dtype=torch.int64, device=H_e.device)
    going = torch.ones(B, many, dtype=torch.bool, device=H_e.device)
    for step in range(longest):
        x = x + network.order[step]
        for number, layer in enumerate(network.decoder_layers):
            # Samples are a dimension of their own for the decoder's keys, and queries of one scene for the encoder's.
            K, V = layer.self_attention.keys_values(x[:, :, None])
            if step:
                K, V = torch.cat([kept[number][0], K], -2), torch.cat([kept[number][1], V], -2)
                kept[number] = K, V
            else:
                kept.append((K, V))
            own = layer.self_attention(x[:, :, None], K, V)[:, :, 0]
            x = layer.rest(layer.norm1(x + own), memory[number])
        logits = network.logits(x, H_e).float()
        logits[..., stop + 1] = -torch.inf
        if step == 0:
            logits[..., stop] = -torch.inf
        if samples:
            chosen = torch.multinomial(logits.softmax(-1).flatten(0, 1), 1, generator=generator).reshape(B, many)
        else:
            chosen = logits.argmax(-1)
        going = going & (chosen != stop)
        if not bool(going.any()):
            break
        cells[:, :, step] = torch.where(going, chosen, 0)
        lengths += going
        x = network.fixation(cells[:, :, step], scenes)
    return Paths(cells.flatten(0, 1), lengths.flatten())
