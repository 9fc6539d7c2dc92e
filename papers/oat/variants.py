"""OAT and what is compared with it, by name."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from papers.oat.oat import Variant

OBJECTS = Variant()


@dataclass(frozen=True)
class Named:
    """A variant of the network with its table of positions.

    Attributes:
        network: what is built.
        positions: which table.
        sigma: of the distance-based table.
    """

    network: Variant = OBJECTS
    positions: Literal["distance", "sinusoidal"] = "distance"
    sigma: float = 2.0


VARIANTS = MappingProxyType(
    {
        "oat": Named(),
        "linear_head": Named(Variant(head="linear")),
        "sinusoidal": Named(positions="sinusoidal"),
        "sigma_1.5": Named(sigma=1.5),
        "sigma_2.5": Named(sigma=2.5),
        "target_identity": Named(Variant(appearance="identity")),
        "image_level": Named(Variant(head="linear", memory="image")),
    }
)
"""`image_level`: a decoder that reads one vector for the whole scene and speaks of cells, in place of objects."""
