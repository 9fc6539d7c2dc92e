"""Backbones, the whole network, loss, recipe, training and prediction."""

import math
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy

from common.errors import ConfigError, DataError, InputError
from common.experiment import Context
from papers.sentence_attention.backbones import SOURCES, make_backbone, read_weights
from papers.sentence_attention.decoder import Decoder
from papers.sentence_attention.grounder import Grounder, Normalisation
from papers.sentence_attention.losses import cross_entropy_and_dice
from papers.sentence_attention.other_gates import Text
from papers.sentence_attention.rendering import mask_of
from papers.sentence_attention.subjects import Data, Sentences, painting_of
from papers.sentence_attention.training import Backbone, Fitting, GroundingRecipe, Plan, fit, make_grounder, predict
from papers.sentence_attention.variants import make_gates

DATA = Data(sprites="generated", seed=0, train_scenes=24, questions=2, test_scenes={"iid": 10})
FITTING = Fitting(
    learning_rate=1e-3,
    backbone_share=0.3,
    weight_decay=0.05,
    scenes=4,
    steps=3,
    warmup=0.3,
    dropout=0.5,
    precision="float32",
    normalisation="instance",
)
BACKBONE = Backbone(name="mobilenetv2_100", pretrained=False)


@pytest.fixture(scope="module")
def sentences():
    every = DATA.sentences("q")
    generator = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(len(every), 12, generator=generator), dim=1)
    tokens, present = torch.randn(len(every), 4, 12, generator=generator), torch.ones(len(every), 4, dtype=torch.bool)
    return Sentences({sentence: row for row, sentence in enumerate(every)}, vectors, tokens.half(), present)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny_grounder(normalisation: Normalisation = "instance", variant="sab"):
    torch.manual_seed(0)
    taps = make_backbone("mobilenetv2_100", pretrained=False)
    channels = taps.feature_info.channels()
    decoder = Decoder(channels, dropout=0.0, seed=0)
    return Grounder(
        taps, make_gates(variant, 12, channels), decoder, normalisation=normalisation, backbone_name="mobilenetv2_100"
    )  # fmt: skip


def test_taps_have_the_strides_of_the_paper():
    for name in SOURCES:
        info = make_backbone(name, pretrained=False).feature_info
        assert info.reduction() == [2, 4, 8, 16, 32]
    b7: Any = timm.create_model("tf_efficientnet_b7", features_only=True)
    assert b7.feature_info.channels() == [32, 48, 80, 224, 640]


def checkpoint(tmp_path, change=lambda state: state):
    whole = timm.create_model("mobilenetv2_100")
    state = {f"other.{i}.{key.rpartition('.')[2]}": x for i, (key, x) in enumerate(whole.state_dict().items())}
    path = tmp_path / "weights.pth"
    torch.save(change(state), path)
    return path, whole.state_dict()


def test_weights_are_matched_by_order_without_the_classifier(tmp_path):
    path, expected = checkpoint(tmp_path, lambda state: dict(list(state.items())[:-2]))
    found = read_weights(path, expected)
    assert list(found) == list(expected)[:-2]
    assert all(torch.equal(found[key], expected[key]) for key in found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: dict(list(s.items())[:-5]), "another network"),
        (lambda s: {**s, "more": torch.zeros(1)}, "another network"),
        (lambda s: dict(reversed(s.items())), "stands where"),
        (lambda s: {key.replace("running_var", "weight"): x for key, x in s.items()}, "stands where"),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path, change, message):
    path, expected = checkpoint(tmp_path, change)
    with pytest.raises(DataError, match=message):
        read_weights(path, expected)
    path.write_bytes(b"no checkpoint")
    with pytest.raises(DataError, match="no checkpoint"):
        read_weights(path, expected)


def test_brought_weights_are_safetensors_with_timms_names(tmp_path):
    torch.manual_seed(1)
    whole = timm.create_model("mobilenetv2_100")
    save_file(whole.state_dict(), tmp_path / "good.safetensors")
    network = make_backbone("mobilenetv2_100", pretrained=True, weights=tmp_path / "good.safetensors")
    assert torch.equal(network.state_dict()["conv_stem.weight"], whole.state_dict()["conv_stem.weight"])
    save_file({"conv_stem.weight": torch.zeros(1)}, tmp_path / "poor.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    for name, message in (("poor", "lack"), ("bad", "damaged"), ("absent", "no safetensors")):
        with pytest.raises(DataError, match=message):
            make_backbone("mobilenetv2_100", pretrained=True, weights=tmp_path / f"{name}.safetensors")


def test_unknown_backbones_and_those_without_weights_are_named():
    with pytest.raises(ConfigError, match="'efficientnet_b99'"):
        make_backbone("efficientnet_b99", pretrained=False)
    with pytest.raises(ConfigError, match="tf_efficientnet_b0"):
        make_backbone("tf_efficientnet_b0", pretrained=True)


def test_registered_weights_recognise_nothing_in_noise_but_load_into_the_taps():
    try:
        network = make_backbone("tf_efficientnet_lite0", pretrained=True)
    except DataError as error:
        pytest.skip(f"the weights cannot be had here: {error}")
    fresh = make_backbone("tf_efficientnet_lite0", pretrained=False)
    found = network.state_dict()
    assert set(found) == set(fresh.state_dict())
    assert all(x.isfinite().all() for x in found.values())
    assert (found["bn1.running_var"] != 1).all()


def test_several_sentences_of_an_image_are_as_many_images():
    network = tiny_grounder().eval()
    images = torch.randint(0, 256, (2, 3, 64, 48), dtype=torch.uint8)
    vectors = torch.randn(6, 12)
    with torch.inference_mode():
        together = network(images, Text(vectors))
        apart = network(images.repeat_interleave(3, 0), Text(vectors))
    assert together.shape == (6, 2, 64, 48)
    assert together.dtype == torch.float32
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="5 sentences for 2 images"):
        network(images, Text(vectors[:5]))


def test_images_are_normalised_by_themselves_in_training_and_by_running_statistics_afterwards():
    network = tiny_grounder()
    images = torch.randint(0, 256, (3, 3, 32, 32), generator=torch.Generator().manual_seed(0)).float()
    found = network.normalise(images)
    mean = images.mean((2, 3), keepdim=True)
    deviation = (images.var((2, 3), keepdim=True, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(found, (images - mean) / deviation, rtol=1e-4, atol=1e-4)
    network.eval()
    assert not torch.allclose(network.normalise(images), found, atol=0.1)
    fixed = tiny_grounder("imagenet").normalise(images)
    torch.testing.assert_close(fixed[:, 0], (images[:, 0] - 123.675) / 58.395)


def test_the_loss_is_cross_entropy_and_dice_written_as_loops():
    generator = torch.Generator().manual_seed(0)
    logits, target = torch.randn(3, 2, 4, 5, generator=generator), torch.rand(3, 4, 5, generator=generator) < 0.4
    valid = torch.rand(3, 4, 5, generator=generator) < 0.8
    for kept in (None, valid):
        use = torch.ones_like(valid) if kept is None else kept
        entropies, dices = [], []
        for b in range(3):
            overlap = sizes = 0.0
            for y in range(4):
                for x in range(5):
                    if not use[b, y, x]:
                        continue
                    z0, z1 = logits[b, :, y, x].double().tolist()
                    p = math.exp(z1) / (math.exp(z0) + math.exp(z1))
                    g = float(target[b, y, x])
                    entropies.append(-math.log(p if g else 1 - p))
                    overlap += p * g
                    sizes += p + g
            dices.append(1 - (2 * overlap + 1) / (sizes + 1))
        wanted = sum(entropies) / len(entropies) + sum(dices) / 3
        assert float(cross_entropy_and_dice(logits, target, kept)) == pytest.approx(wanted, rel=1e-5)
    plain = cross_entropy(logits, target.long())
    dice = cross_entropy_and_dice(logits, target) - plain
    assert 0 < dice < 1
    with pytest.raises(InputError, match="logits are"):
        cross_entropy_and_dice(logits, target[:, :3])


def recipe(**change):
    given = {"learning_rate": 0.1, "batch_size": 2, "warmup_steps": 2, "final_factor": 1e-3, "weight_decay": 0.05, **change}
    return GroundingRecipe(optimiser="adamw", **given)


def test_the_rate_rises_and_falls_as_a_polynomial():
    rates = [recipe().rate(step, 10) for step in range(10)]
    assert rates[:2] == pytest.approx([0.05, 0.1])
    assert rates[2:] == pytest.approx([0.1 * (1 - k / 8) ** 0.9 for k in range(8)])
    assert recipe().rate(10, 10) == pytest.approx(1e-4)


def test_the_backbone_learns_at_its_share_of_the_rate_also_after_a_resume():
    def stepped(share, resume):
        network = tiny_grounder()
        rate = torch.tensor(0.01)
        optimiser = recipe(backbone_share=share).make_optimiser(network, rate)
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter)
        if resume:
            optimiser.load_state_dict(optimiser.state_dict())
        before = {name: x.detach().clone() for name, x in network.named_parameters()}
        optimiser.step()
        return {name: (before[name] - x.detach()) for name, x in network.named_parameters()}, before

    for resume in (False, True):
        moved, before = stepped(0.25, resume)
        for name, change in moved.items():
            rate = 0.0025 if name.startswith("backbone") else 0.01
            wanted = rate * (torch.ones_like(change) + 0.05 * before[name])  # Adam's first step is 1, and the decay
            torch.testing.assert_close(change, wanted, rtol=1e-3, atol=1e-6)


def trained(sentences, variant="sab", seeds=(0,), **change):
    plan = Plan(variant, BACKBONE, FITTING.model_copy(update=change), seeds)
    painting = painting_of(DATA, "train", 32, "cpu")
    numbers = sentences.numbers(DATA.scenes("train"), "q")
    networks = fit(plan, painting, numbers, sentences, Context("cpu", "test"))
    return plan, networks


def test_training_is_the_same_twice_and_differs_by_seed(sentences):
    _, (first, other) = trained(sentences, seeds=(0, 1))
    _, (second,) = trained(sentences)
    for (name, a), b, c in zip(
        first.state_dict().items(), second.state_dict().values(), other.state_dict().values(), strict=True
    ):  # fmt: skip
        assert torch.equal(a, b), name
        if name.endswith("select.weight"):
            assert not torch.equal(a, c)
    assert not first.training


def test_training_lowers_the_loss(sentences):
    def loss(network):
        painting, scenes = painting_of(DATA, "train", 32, "cpu"), DATA.scenes("train")
        network.train()
        with torch.no_grad():
            logits = network(painting.images, sentences.text(sentences.numbers(scenes, "q").flatten(), tokens=False))
        masks = mask_of(painting.slots[:, None], painting.targets).flatten(0, 1)
        return float(cross_entropy_and_dice(logits, masks))

    _, (network,) = trained(sentences, steps=25)
    assert loss(network) < loss(make_grounder("sab", BACKBONE, FITTING, 12, 0)) - 0.05


def test_prediction_counts_pixels_and_keeps_masks(sentences, monkeypatch):
    plan, (network,) = trained(sentences, variant="cross_attention")
    painting = painting_of(DATA, "iid", 32, "cpu")
    numbers = sentences.numbers(DATA.scenes("iid"), "q")
    whole = predict(network, painting, numbers, sentences, plan, keep=7)
    monkeypatch.setattr("papers.sentence_attention.training.PREDICTED", 4)
    parts = predict(network, painting, numbers, sentences, plan, keep=7)
    assert torch.equal(whole.masks, parts.masks)
    assert torch.equal(whole.counts.intersection, parts.counts.intersection)
    assert whole.masks.shape == (7, 32, 32)
    true = mask_of(painting.slots, painting.targets[:, 0])[:7]
    assert torch.equal(whole.counts.union[:7], (whole.masks | true).sum((1, 2)))
    assert torch.equal(whole.counts.intersection[:7], (whole.masks & true).sum((1, 2)))


def test_logits_are_float32_where_the_rest_is_computed_in_halves():
    network = tiny_grounder()
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8), Text(torch.randn(4, 12)))
    assert logits.dtype == torch.float32
    cross_entropy_and_dice(logits, torch.rand(4, 32, 32) < 0.3).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
