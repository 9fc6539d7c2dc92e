"""OAT against PyTorch's own transformer layers, loop-written heads and tables in closed form."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from common.errors import InputError
from papers.oat.attention import MultiHeadAttention
from papers.oat.decoding import generate
from papers.oat.oat import OAT, DecoderLayer, EncoderLayer, ObjectAttention, Scenes, Sizes, Variant, initialise
from papers.oat.positional_encoding import (
    NORM,
    distance_table,
    encode_positions,
    exact_table,
    sinusoidal_table,
    target_similarity,
)

SIZES = Sizes(D=24, layers=2, heads=2, feed_forward=12, pointers=2, dropout=0.0)
GRID = (3, 4)


def network(variant=None, seed=0, **changes):
    torch.manual_seed(seed)
    table = exact_table(4, 4, 2.0).float()
    return initialise(OAT(GRID, SIZES, variant or Variant(), table, longest=9, **changes)).eval()


def scenes(count=3, features=0):
    generator = torch.Generator().manual_seed(5)
    of_objects = torch.randn(count, 12 if features else 0, features, generator=generator)
    return Scenes(torch.tensor([2, 11, 7][:count]), torch.tensor([0, 1, 1][:count]), of_objects)


@pytest.mark.parametrize("sigma", [1.5, 2.0, 2.5])
def test_the_optimised_table_reaches_the_exact_similarities(sigma):
    W = distance_table(6, 20, sigma, 4000).double()
    exact = exact_table(6, 20, sigma)
    unit = W / W.norm(dim=1, keepdim=True)
    torch.testing.assert_close(unit @ unit.T, target_similarity(6, sigma), atol=5e-3, rtol=0)
    torch.testing.assert_close(exact @ exact.T / NORM**2, target_similarity(6, sigma))
    assert W.norm(dim=1).tolist() == pytest.approx([NORM] * 6, rel=1e-2)


def test_similarities_by_hand():
    found = target_similarity(4, 2.0)[0].tolist()
    assert found == pytest.approx([1, math.exp(-1 / 8), math.exp(-1 / 2), math.exp(-9 / 8)])


def test_sinusoids_and_positions_by_hand():
    W = sinusoidal_table(3, 4)
    assert W[2].tolist() == pytest.approx([math.sin(2), math.sin(2 * 0.01), math.cos(2), math.cos(2 * 0.01)])
    found = encode_positions(W, torch.tensor(2), torch.tensor(0), torch.tensor(1), 10)
    torch.testing.assert_close(found, torch.cat([W[2], W[0], W[1]])[:10])


def copy_attention(ours: MultiHeadAttention, theirs: nn.MultiheadAttention) -> None:
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]))
        theirs.out_proj.load_state_dict(ours.out.state_dict())


def copy_rest(ours, theirs, norms):
    theirs.linear1.load_state_dict(ours.FFN[0].state_dict())
    theirs.linear2.load_state_dict(ours.FFN[3].state_dict())
    for number in range(1, norms + 1):
        getattr(theirs, f"norm{number}").load_state_dict(getattr(ours, f"norm{number}").state_dict())


def test_encoder_layer_is_pytorchs():
    torch.manual_seed(0)
    ours = EncoderLayer(SIZES).double()
    theirs = nn.TransformerEncoderLayer(24, 2, 12, dropout=0.0, batch_first=True).double()
    copy_attention(ours.attention, theirs.self_attn)
    copy_rest(ours, theirs, 2)
    x = torch.randn(3, 5, 24, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x))


def test_decoder_layer_is_pytorchs():
    torch.manual_seed(0)
    ours = DecoderLayer(SIZES).double()
    theirs = nn.TransformerDecoderLayer(24, 2, 12, dropout=0.0, batch_first=True).double()
    copy_attention(ours.self_attention, theirs.self_attn)
    copy_attention(ours.cross_attention, theirs.multihead_attn)
    copy_rest(ours, theirs, 3)
    x, memory = torch.randn(3, 4, 24, dtype=torch.float64), torch.randn(3, 7, 24, dtype=torch.float64)
    later = torch.ones(4, 4, dtype=torch.bool).triu(1)
    found = ours(x, ours.self_attention.keys_values(x), ours.cross_attention.keys_values(memory), later)
    torch.testing.assert_close(found, theirs(x, memory, tgt_mask=later))


def test_object_attention_by_loops():
    torch.manual_seed(0)
    head = ObjectAttention(SIZES).double()
    H_d, H_e = torch.randn(2, 3, 24, dtype=torch.float64), torch.randn(2, 5, 24, dtype=torch.float64)
    found = head(H_d, H_e)
    for b in range(2):
        for t in range(3):
            for s in range(6):
                value = head.w.bias[0]
                for h in range(2):
                    if s < 5:
                        dot = (head.W_d[h](H_d[b, t]) * head.W_e[h](H_e[b, s])).sum() / 24**0.5
                        value = value + head.w.weight[0, h] * dot
                torch.testing.assert_close(found[b, t, s], value)


@pytest.mark.parametrize(
    "variant",
    [Variant(), Variant(head="linear"), Variant(memory="image", head="linear"), Variant(appearance="identity"),
     Variant(appearance="features")],
    ids=["oat", "linear", "image", "identity", "features"],
)  # fmt: skip
def test_decoding_step_by_step_is_that_of_the_whole_sequence(variant):
    features = 5 if variant.appearance == "features" else 0
    net, searched = network(variant, features=features, identities=2), scenes(features=features)
    found = generate(net, searched, longest=8, samples=4, generator=torch.Generator().manual_seed(0))
    wide = Scenes(*(x.repeat_interleave(4, 0) for x in searched))
    logits = net(wide, found.objects)
    logits[..., net.stop + 1] = -torch.inf
    logits[:, 0, net.stop] = -torch.inf
    again = torch.Generator().manual_seed(0)
    for step in range(8):
        chosen = torch.multinomial(logits[:, step].softmax(-1), 1, generator=again)[:, 0]
        for row in range(12):
            if step < found.lengths[row]:
                assert chosen[row] == found.objects[row, step]
            elif step == found.lengths[row]:
                assert chosen[row] == net.stop


def test_the_first_step_never_stops_and_no_step_is_padding():
    net = network()
    with torch.no_grad():
        assert isinstance(net.head, ObjectAttention)
        net.head.w.bias.zero_()
        net.head.w.weight.zero_()  # all classes alike
    found = generate(net, scenes(), longest=5, samples=400, generator=torch.Generator().manual_seed(1))
    assert int(found.lengths.min()) >= 1
    assert int(found.objects.max()) < 12
    stopped = (found.lengths == 1).double().mean().item()
    assert stopped == pytest.approx(1 / 13, abs=0.03)


def test_later_fixations_change_nothing_before_them():
    net, searched = network(), scenes()
    one = torch.randint(0, 12, (3, 6), generator=torch.Generator().manual_seed(0))
    other = one.clone()
    other[:, 4:] = (other[:, 4:] + 1) % 12
    torch.testing.assert_close(net(searched, one)[:, :5], net(searched, other)[:, :5])


def test_the_target_is_told_by_its_token_and_by_flags():
    net, path = network(), torch.tensor([[3, 5]])
    here, there = (Scenes(torch.tensor([t]), torch.tensor([0]), torch.zeros(1, 0, 0)) for t in (5, 6))
    assert not torch.allclose(net.encode(here)[:, -1], net.encode(there)[:, -1])
    assert torch.equal(net.tokens(path, here)[:, 1], net.tokens(path, there)[:, 1])
    assert not torch.allclose(net.tokens(path, here)[:, 2], net.tokens(path, there)[:, 2])


def test_features_of_objects_move_with_their_places():
    net = network(Variant(appearance="features"), features=5)
    searched = scenes(1, features=5)
    changed = searched._replace(features=searched.features.clone())
    changed.features[0, 4] += 1
    a, b = (net.tokens(torch.tensor([[4, 6]]), s) for s in (searched, changed))
    assert not torch.allclose(a[:, 1], b[:, 1])
    assert torch.equal(a[:, 2], b[:, 2])


def test_what_is_wrong_is_named():
    table = exact_table(4, 4, 2.0).float()
    with pytest.raises(InputError, match="D is 26 and heads 2"):
        OAT(GRID, replace(SIZES, D=26), Variant(), table, longest=3)
    with pytest.raises(InputError, match=r"The table is \[4, 4\]; a grid of \(3, 5\) needs 5 rows"):
        OAT((3, 5), SIZES, Variant(), table, longest=3)
