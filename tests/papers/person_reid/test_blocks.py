"""The attention blocks against loop-written equations in float64, and against timm's layers where it is installed."""

import importlib
import math

import numpy as np
import pytest
import torch
from torch import nn

from common.errors import InputError
from papers.person_reid.blocks import make_block
from papers.person_reid.cbam import CBAM
from papers.person_reid.channel_attention import ECA, SE, EffectiveSE, eca_kernel_size
from papers.person_reid.global_context import GlobalContext
from papers.person_reid.little import Little
from papers.person_reid.non_local import NonLocal
from papers.person_reid.relation_aware import RGA, RelationGate

B, C, H, W = 2, 16, 4, 3
NAMES = ["se", "ese", "eca", "cbam", "gc", "nl", "nl1", "rga_sc", "little", "little_c", "little_s", "little_mult"]


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def shaken(block):
    """The block in float64 and evaluation mode, with parameters and running statistics that no start has."""
    block = block.double().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in [*block.parameters(), *(x for x in block.buffers() if x.is_floating_point())]:
            tensor.add_(0.3 * torch.rand(tensor.shape, generator=generator, dtype=torch.float64) + 0.05)
    return block


def array(tensor):
    return tensor.detach().numpy()


def normed(norm, values, channel):
    """Batch normalisation of a number of one channel, in evaluation mode."""
    return (values - norm.running_mean[channel].item()) / math.sqrt(norm.running_var[channel].item() + norm.eps) * norm.weight[
        channel
    ].item() + norm.bias[channel].item()


@pytest.mark.parametrize("name", NAMES)
def test_a_block_keeps_the_shape_and_lets_gradients_through(name):
    block = make_block(name, C, H * W, 4).double()
    x = draw(B, C, H, W).requires_grad_()
    y = block(x)
    assert y.shape == x.shape
    y.square().sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert all(parameter.grad is not None for parameter in block.parameters())


@pytest.mark.parametrize("name", ["little", "little_c", "little_s", "nl", "nl1"])
def test_residual_blocks_start_as_the_identity(name):
    x = draw(B, C, H, W)
    torch.testing.assert_close(make_block(name, C, H * W, 4).double()(x), x, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["se", "ese", "eca", "cbam", "gc", "rga_sc", "little_mult"])
def test_other_blocks_do_not(name):
    x = draw(B, C, H, W)
    assert not torch.allclose(make_block(name, C, H * W, 4).double()(x), x)


@pytest.mark.parametrize(("channels", "k"), [(64, 3), (128, 5), (256, 5), (512, 5), (1024, 5), (2048, 7)])
def test_the_kernel_of_eca(channels, k):
    assert eca_kernel_size(channels) == k


def test_se_equals_its_equation():
    block, x = shaken(SE(C)), draw(B, C, H, W)
    z = array(x.mean(dim=(2, 3)))
    W1, b1, W2, b2 = (array(p).squeeze() for p in (block.fc1.weight, block.fc1.bias, block.fc2.weight, block.fc2.bias))
    expected = np.empty((B, C, H, W))
    for b in range(B):
        hidden = max(0.0, float(sum(W1[c] * z[b, c] for c in range(C)) + b1))  # C/16 is one channel
        for c in range(C):
            expected[b, c] = array(x)[b, c] * sigmoid(W2[c] * hidden + b2[c])
    np.testing.assert_allclose(array(block(x)), expected, rtol=1e-10)


def test_effective_se_equals_its_equation():
    block, x = shaken(EffectiveSE(C)), draw(B, C, H, W)
    z, weight, bias = array(x.mean(dim=(2, 3))), array(block.W.weight)[:, :, 0, 0], array(block.W.bias)
    for b in range(B):
        for c in range(C):
            gate = min(max((sum(weight[c, d] * z[b, d] for d in range(C)) + bias[c] + 3) / 6, 0), 1)
            np.testing.assert_allclose(array(block(x))[b, c], array(x)[b, c] * gate, rtol=1e-10)


def channel_gate(conv, z, c):
    """σ(conv1d_k(z)) at channel c, with zeros outside."""
    weight = array(conv.weight)[0, 0]
    k = len(weight)
    return sigmoid(sum(weight[j] * z[c + j - k // 2] for j in range(k) if 0 <= c + j - k // 2 < len(z)))


def test_eca_equals_its_equation():
    block, x = shaken(ECA(C)), draw(B, C, H, W)
    z = array(x.mean(dim=(2, 3)))
    for b in range(B):
        for c in range(C):
            np.testing.assert_allclose(array(block(x))[b, c], array(x)[b, c] * channel_gate(block.conv, z[b], c), rtol=1e-10)


def test_cbam_equals_its_equation():
    block, x = shaken(CBAM(C)), draw(B, C, H, W)
    W1, W2 = array(block.MLP[0].weight)[:, :, 0, 0], array(block.MLP[2].weight)[:, :, 0, 0]
    kernel = array(block.conv.weight)[0]
    for b in range(B):
        image = array(x)[b]

        def mlp(z):
            return W2 @ np.maximum(W1 @ z, 0)

        gated = image * sigmoid(mlp(image.mean(axis=(1, 2))) + mlp(image.max(axis=(1, 2))))[:, None, None]
        pooled = np.stack([gated.mean(axis=0), gated.max(axis=0)])
        for i in range(H):
            for j in range(W):
                total = sum(
                    kernel[m, di, dj] * pooled[m, i + di - 3, j + dj - 3]
                    for m in range(2)
                    for di in range(7)
                    for dj in range(7)
                    if 0 <= i + di - 3 < H and 0 <= j + dj - 3 < W
                )
                expected = gated[:, i, j] * sigmoid(normed(block.norm, total, 0))
                np.testing.assert_allclose(array(block(x))[b, :, i, j], expected, rtol=1e-9)


def test_global_context_equals_its_equation():
    block, x = shaken(GlobalContext(C)), draw(B, C, H, W)
    for b in range(B):
        nodes = array(x)[b].reshape(C, -1)
        scores = array(block.W_k.weight)[0, :, 0, 0] @ nodes + array(block.W_k.bias)
        a = np.exp(scores) / np.exp(scores).sum()
        context = sum(a[j] * nodes[:, j] for j in range(H * W))
        hidden = array(block.W_v1.weight) @ context + array(block.W_v1.bias)
        hidden = (hidden - hidden.mean()) / np.sqrt(hidden.var() + block.norm.eps) * array(block.norm.weight) + array(
            block.norm.bias
        )
        added = array(block.W_v2.weight) @ np.maximum(hidden, 0) + array(block.W_v2.bias)
        np.testing.assert_allclose(array(block(x))[b].reshape(C, -1), nodes + added[:, None], rtol=1e-9)


@pytest.mark.parametrize("inner", [None, 1])
def test_non_local_equals_its_equation(inner):
    block, x = shaken(NonLocal(C, inner)), draw(B, C, H, W)
    found = array(block(x)).reshape(B, C, -1)

    def project(layer, node):
        return array(layer.weight)[:, :, 0, 0] @ node + array(layer.bias)

    for b in range(B):
        nodes, N = array(x)[b].reshape(C, -1), H * W
        assert len(project(block.theta, nodes[:, 0])) == (inner or C // 2)
        for i in range(N):
            y = sum(
                project(block.theta, nodes[:, i]) @ project(block.phi, nodes[:, j]) / N * project(block.g, nodes[:, j])
                for j in range(N)
            )
            z = project(block.W, y)
            expected = [normed(block.norm, z[c], c) + nodes[c, i] for c in range(C)]
            np.testing.assert_allclose(found[b, :, i], expected, rtol=1e-9)


def embedded(layer, node):
    """e(·) of one node."""
    z = array(layer[0].weight)[:, :, 0] @ node
    return np.array([max(normed(layer[1], z[c], c), 0) for c in range(len(z))])


def relation_gates(gate: RelationGate, nodes):
    """a of nodes [d, n], node by node."""
    n = nodes.shape[1]
    theta, phi = ([embedded(layer, nodes[:, i]) for i in range(n)] for layer in (gate.theta, gate.phi))
    G = np.array([[theta[i] @ phi[j] for j in range(n)] for i in range(n)])
    found = []
    for i in range(n):
        R = embedded(gate.relations, np.concatenate([G[i, :], G[:, i]]))
        g = embedded(gate.own, nodes[:, i]).mean()
        hidden = embedded(gate.gate[0], np.concatenate([[g], R]))
        score = array(gate.gate[1].weight)[0, :, 0] @ hidden
        found.append(sigmoid(normed(gate.gate[2], score, 0)))
    return np.array(found)


def test_relation_aware_attention_equals_its_equations():
    block, x = shaken(RGA(C, H * W)), draw(B, C, H, W)
    found = array(block(x)).reshape(B, C, -1)
    for b in range(B):
        nodes = array(x)[b].reshape(C, -1)
        nodes = nodes * relation_gates(block.spatial, nodes)[None]
        nodes = nodes * relation_gates(block.channel, nodes.T)[:, None]
        np.testing.assert_allclose(found[b], nodes, rtol=1e-9)


def test_relation_aware_attention_refuses_another_size():
    with pytest.raises(InputError, match="made for 12 positions"):
        RGA(C, 12)(torch.zeros(1, C, 5, 3))


@pytest.mark.parametrize("parts", ["c", "s", "cs"])
@pytest.mark.parametrize("gate", ["residual", "mult"])
def test_little_equals_its_equation(parts, gate):
    block, x = shaken(Little(C, parts=parts, reduction=4, gate=gate)), draw(B, C, H, W)
    found = array(block(x))
    for b in range(B):
        image = array(x)[b]
        z = image.mean(axis=(1, 2))
        reduced = np.empty((C // 4, H, W))
        if block.spatial is not None:
            for r in range(C // 4):
                for i in range(H):
                    for j in range(W):
                        value = array(block.spatial[0].weight)[r, :, 0, 0] @ image[:, i, j]
                        reduced[r, i, j] = normed(block.spatial[1], value, r)
        for i in range(H):
            for j in range(W):
                s = 1.0
                if block.spatial is not None:
                    depthwise = array(block.spatial[2].weight)[:, 0]
                    hidden = np.array(
                        [
                            sum(
                                depthwise[r, di, dj] * reduced[r, i + di - 1, j + dj - 1]
                                for di in range(3)
                                for dj in range(3)
                                if 0 <= i + di - 1 < H and 0 <= j + dj - 1 < W
                            )
                            for r in range(C // 4)
                        ]
                    )
                    hidden = [max(normed(block.spatial[3], hidden[r], r), 0) for r in range(C // 4)]
                    s = sigmoid(array(block.spatial[5].weight)[0, :, 0, 0] @ hidden + array(block.spatial[5].bias)[0])
                for c in range(C):
                    gates = s * (channel_gate(block.channel, z, c) if block.channel is not None else 1.0)
                    factor = gates if gate == "mult" else 1 + float(array(block.alpha)) * (gates - 0.5)
                    assert found[b, c, i, j] == pytest.approx(image[c, i, j] * factor, rel=1e-9)


def test_little_refuses_a_reduction_that_leaves_no_channel():
    with pytest.raises(InputError, match="reduction is 16 at 8 channels"):
        Little(8)


def copied(source: nn.Module, target: nn.Module):
    """`target` with the parameters of `source`, in the order in which they are made."""
    target.double()  # before it takes the parameters, which are float64
    ours, theirs = list(source.state_dict().values()), target.state_dict()
    assert [x.numel() for x in ours] == [x.numel() for x in theirs.values()]
    target.load_state_dict({name: x.reshape(theirs[name].shape) for name, x in zip(theirs, ours, strict=True)})
    return target.eval()


@pytest.mark.parametrize("name", ["se", "ese", "eca", "cbam", "gc"])
def test_blocks_equal_timms(name):
    module = {"se": "squeeze_excite", "ese": "squeeze_excite", "eca": "eca", "cbam": "cbam", "gc": "global_context"}[name]
    layers = importlib.import_module(f"timm.layers.{module}")
    theirs = {
        "se": lambda: layers.SEModule(64, rd_ratio=1 / 16, rd_divisor=1),
        "ese": lambda: layers.EffectiveSEModule(64),
        "eca": lambda: layers.EcaModule(64),
        "cbam": lambda: layers.CbamModule(64),
        "gc": lambda: layers.GlobalContext(64, fuse_add=True, fuse_scale=False),
    }[name]()
    block, x = shaken(make_block(name, 64, H * W, 16)), draw(B, 64, H, W)
    if isinstance(block, GlobalContext):
        theirs.mlp_add.norm.eps = block.norm.eps
    torch.testing.assert_close(block(x), copied(block, theirs)(x))
