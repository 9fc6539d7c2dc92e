"""The classic multiple-instance sets and Fashion-MNIST, where the mirror has them; unknown names."""

import numpy as np
import pytest

from common.data.fashion_mnist import CLASSES, load_fashion_mnist
from common.data.fetch import status
from common.data.mil_classic import load_mil_classic
from common.errors import DataError

# bags, positive bags, instances, features, smallest and largest bag: as the literature describes them.
PUBLISHED = {
    "musk1": (92, 47, 476, 166, 2, 40),
    "musk2": (102, 39, 6598, 166, 1, 1044),
    "elephant": (200, 100, 1391, 230, 2, 13),
    "ucsb_breast": (58, 26, 2002, 708, 21, 40),
}


def needs(dataset):
    if any(file.state != "ready" for file in status(dataset)):
        pytest.skip(f"{dataset} is not on this machine")


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_classic_sets_are_as_published(name):
    needs("mil-classic")
    bags = load_mil_classic(name)
    found = (len(bags), int(bags.labels.sum()), *bags.instances.shape, int(bags.sizes.min()), int(bags.sizes.max()))
    assert found == PUBLISHED[name]
    assert set(bags.labels.tolist()) == {0, 1}


def test_fashion_mnist():
    needs("fashion-mnist")
    for images, each in zip(load_fashion_mnist(), (1200, 300), strict=True):
        assert images.pixels.shape == (10 * each, 28, 28)
        assert np.bincount(images.classes).tolist() == [each] * len(CLASSES)


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(DataError, match="did you mean 'elephant'"):
        load_mil_classic("elefant")
