"""Network, losses, batches and augmentation against torchvision, PyTorch and loops."""

import numpy as np
import pytest
import torch
import torchvision
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms.functional import normalize

from common.errors import InputError
from papers.person_reid.augmentation import MEAN, STD, augmented, erased, normalised
from papers.person_reid.losses import batch_hard_triplet, smoothed_cross_entropy
from papers.person_reid.network import Backbone, ReidNetwork
from papers.person_reid.sampling import identity_batches
from papers.person_reid.training import Job, Schedule, bag_of_tricks, make_network


@pytest.mark.parametrize("depth", ["resnet18", "resnet50"])
def test_the_backbone_is_torchvisions_with_last_stride_1(depth):
    reference = getattr(torchvision.models, depth)(weights=None).eval()
    first = reference.layer4[0]
    (first.conv1 if depth == "resnet18" else first.conv2).stride = (1, 1)
    first.downsample[0].stride = (1, 1)
    network = ReidNetwork(Backbone(depth=depth, width=64, size=(64, 32)), {}, 7).eval()
    missing, unexpected = network.load_state_dict(reference.state_dict(), strict=False)
    assert sorted(unexpected) == ["fc.bias", "fc.weight"]
    assert all(key.split(".")[0] in ("neck", "classifier") for key in missing)
    x = torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        maps = network.maps(x)
        reference.fc = torch.nn.Identity()
        assert maps.shape == (2, 512 if depth == "resnet18" else 2048, 4, 2)
        torch.testing.assert_close(maps.mean(dim=(2, 3)), reference(x))
        torch.testing.assert_close(network(x), network.neck(reference(x)))


def test_the_neck_has_a_frozen_bias_and_the_losses_read_before_and_after_it():
    network = ReidNetwork(Backbone(depth="resnet18", width=8, size=(32, 16)), {}, 5)
    assert not network.neck.bias.requires_grad
    assert network.classifier.bias is None
    x = torch.randn(6, 3, 32, 16, generator=torch.Generator().manual_seed(0))
    network.eval()
    f, logits = network.for_training(x)
    torch.testing.assert_close(logits, network.classifier(network(x)))
    torch.testing.assert_close(network.neck(f), network(x))


@pytest.mark.parametrize("block", ["little", "nl"])
def test_a_network_with_residual_attention_starts_as_the_plain_one(block):
    backbone = Backbone(depth="resnet18", width=8, size=(32, 16), reduction=4)
    plain, attentive = (make_network(Job("x", backbone, places, 3), 5) for places in ({}, {(1, 2): block, (4, 1): block}))
    x = torch.randn(4, 3, 32, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(attentive(x), plain(x), rtol=0, atol=1e-4)  # other strides, other kernels
    assert list(attentive.attention) == ["1_2", "4_1"]


def test_attention_comes_after_its_block():
    backbone = Backbone(depth="resnet18", width=8, size=(32, 16), reduction=4)
    network = make_network(Job("x", backbone, {(2, 1): "se"}, 0), 5).eval()
    x = torch.randn(2, 3, 32, 16, generator=torch.Generator().manual_seed(0))
    y = functional.max_pool2d(torch.relu(network.bn1(network.conv1(x))), 3, stride=2, padding=1)
    y = network.get_submodule("layer2.0")(network.get_submodule("layer1")(y))
    y = network.get_submodule("layer2.1")(network.attention["2_1"](y))
    y = network.get_submodule("layer4")(network.get_submodule("layer3")(y))
    torch.testing.assert_close(network.maps(x), y)


def test_positions_and_sizes_are_checked():
    backbone = Backbone(depth="resnet18", width=8, size=(32, 16), reduction=4)
    with pytest.raises(InputError, match=r"no position \(3, 3\)"):
        ReidNetwork(backbone, {(3, 3): "se"}, 5)
    with pytest.raises(InputError, match="multiples of 16"):
        ReidNetwork(backbone.model_copy(update={"size": (40, 16)}), {}, 5)


def test_smoothed_cross_entropy_equals_a_loop_and_pytorch():
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([0, 4, 2, 2, 1, 3])
    total = 0.0
    for row, label in zip(logits.softmax(dim=1).tolist(), labels.tolist(), strict=True):
        total -= sum((0.9 if k == label else 0.1 / 4) * np.log(p) for k, p in enumerate(row)) / 6
    assert smoothed_cross_entropy(logits, labels).item() == pytest.approx(total)
    # PyTorch shares ε among all K classes: ε/(K - 1) for the others is its ε K/(K - 1).
    expected = functional.cross_entropy(logits, labels, label_smoothing=0.1 * 5 / 4)
    torch.testing.assert_close(smoothed_cross_entropy(logits, labels), expected)
    with pytest.raises(InputError, match="at least two identities"):
        smoothed_cross_entropy(logits[:, :1], labels)


def test_batch_hard_triplet_equals_a_loop():
    f = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = [0, 0, 1, 1, 1, 2]
    losses = []
    for i in range(6):
        distance = [float((f[i] - f[j]).norm()) for j in range(6)]
        farthest = max(distance[j] for j in range(6) if labels[j] == labels[i])
        nearest = min(distance[j] for j in range(6) if labels[j] != labels[i])
        losses.append(max(0.0, farthest - nearest + 0.3))
    found = batch_hard_triplet(f, torch.tensor(labels))
    assert found.item() == pytest.approx(np.mean(losses), abs=1e-6)
    f.requires_grad_()
    batch_hard_triplet(f, torch.tensor(labels)).backward()
    assert f.grad is not None
    assert torch.isfinite(f.grad).all()  # the distance of an image to itself is 0


def test_batches_hold_p_identities_with_k_images_each():
    identities = np.array([3] * 5 + [4] * 2 + [8] * 6 + [9] * 4 + [11] * 4)
    batches = identity_batches(identities, 2, 4, 50, seed=0)
    assert batches.shape == (50, 8)
    for batch in batches:
        of_batch = identities[batch].reshape(2, 4)
        assert (of_batch == of_batch[:, :1]).all()
        assert of_batch[0, 0] != of_batch[1, 0]
        for own, rows in zip(of_batch[:, 0], batch.reshape(2, 4), strict=True):
            if own != 4:  # which has two images alone
                assert len(set(rows)) == 4
    counts = np.array([(identities[batches] == identity).sum() / 4 for identity in (3, 4, 8, 9, 11)])
    assert (abs(counts - 20) <= 5).all()  # each time round, one of the five is left out at random
    np.testing.assert_array_equal(batches, identity_batches(identities, 2, 4, 50, seed=0))
    assert not np.array_equal(batches, identity_batches(identities, 2, 4, 50, seed=1))


@pytest.mark.parametrize("wrong", [{"P": 6}, {"K": 0}, {"steps": 0}])
def test_batches_that_cannot_be_are_refused(wrong):
    with pytest.raises(InputError, match="a batch takes P different ones"):
        identity_batches(np.arange(1, 6), **{"P": 2, "K": 2, "steps": 1, "seed": 0, **wrong})


def test_normalised_equals_torchvisions():
    images = torch.randint(0, 256, (2, 3, 8, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    expected = normalize(images.float() / 255, list(MEAN), list(STD))
    torch.testing.assert_close(normalised(images), expected)


def test_augmented_images_are_crops_of_padded_ones_flipped_or_not_with_the_mean_where_erased():
    B, H, W, padding = 40, 16, 8, 2
    images = torch.randint(1, 256, (B, 3, H, W), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    std, mean = torch.tensor(STD)[:, None, None], torch.tensor(MEAN)[:, None, None]
    seed = torch.tensor(7)
    found = (augmented(images, seed, padding) * std + mean) * 255
    padded = functional.pad(images, [padding] * 4).float()
    flips, erasures, shifts = 0, 0, set()
    for b in range(B):
        filled = ((found[b] - 255 * mean).abs() < 1e-2).all(dim=0)
        matches = []
        for down in range(2 * padding + 1):
            for along in range(2 * padding + 1):
                crop = padded[b, :, down : down + H, along : along + W]
                for flipped in (False, True):
                    expected = crop.flip(-1) if flipped else crop
                    if ((found[b] - expected).abs() < 1e-2).all(dim=0).logical_or(filled).all():
                        matches.append((down, along, flipped))
        assert len(matches) == 1
        shifts.add(matches[0][:2])
        flips += matches[0][2]
        erasures += bool(filled.any())
    assert 8 <= flips <= 32
    assert 8 <= erasures <= 32
    assert len(shifts) > 8
    torch.testing.assert_close(augmented(images, seed, padding), augmented(images, seed, padding), rtol=0, atol=0)
    assert not torch.equal(augmented(images, torch.tensor(8), padding), augmented(images, seed, padding))


def test_erased_rectangles_have_the_areas_and_ratios_of_random_erasing():
    mask = erased(2000, 64, 32, torch.tensor(0))
    happens = mask.flatten(1).any(dim=1)
    assert abs(happens.float().mean().item() - 0.5) < 0.05
    for one in mask[happens][:200]:
        rows, columns = one.any(dim=1).sum().item(), one.any(dim=0).sum().item()
        assert one.sum() == rows * columns  # a rectangle
        assert 0.01 < rows * columns / 2048 < 0.36
        assert 0.2 < rows / columns < 4.5
    share = mask[happens].float().mean(dim=0)
    assert share.min() > 0  # every pixel is erased at times


SCHEDULE = Schedule(
    steps=1, P=2, K=2, learning_rate=1e-3, warm_up=0.0, milestones=(0.5,), weight_decay=0.0, epsilon=0.1, margin=0.3, padding=2,
    precision="float32", side_by_side=1,
)  # fmt: skip
SMALL = Backbone(depth="resnet18", width=8, size=(32, 16), reduction=4)


def batch_of_four():
    pixels = torch.randint(0, 256, (6, 3, 32, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    return pixels, labels, (torch.tensor([[5, 4, 0, 1]]), torch.tensor([11]))


def test_the_loss_is_both_losses_of_the_augmented_images():
    pixels, labels, batch = batch_of_four()
    network = make_network(Job("x", SMALL, {(2, 2): "little"}, 0), 3).eval()
    f, logits = network.for_training(augmented(pixels[[5, 4, 0, 1]], torch.tensor(11), 2))
    target = torch.tensor([2, 2, 0, 0])
    expected = smoothed_cross_entropy(logits, target) + batch_hard_triplet(f, target)
    torch.testing.assert_close(bag_of_tricks(pixels, labels, SCHEDULE)(network, batch), expected)


class Operations(TorchDispatchMode):
    """Notes the names of all operations."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("block", ["se", "ese", "eca", "cbam", "gc", "nl", "rga_sc", "little"])
def test_a_step_may_be_captured_in_a_cuda_graph(block):
    """No number is read back from the device, no shape depends on values, no constant is made on the CPU."""
    pixels, labels, batch = batch_of_four()
    network = make_network(Job("x", SMALL, {(1, 2): block, (3, 1): block}, 0), 3)
    loss = bag_of_tricks(pixels, labels, SCHEDULE)
    with Operations() as operations:
        loss(network, batch).backward()
    refused = ("lift_fresh", "_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero")
    assert not [name for name in operations.names if any(word in name for word in refused)]
    with Operations() as operations:  # what it would find
        assert torch.tensor([1.0]) + torch.ones(2)[torch.tensor([True, False])].item() == 2
    assert len([name for name in operations.names if any(word in name for word in refused)]) >= 2
