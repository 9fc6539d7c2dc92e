"""The networks that are compared, by name: depth, block and layout, some of which the search has chosen."""

from collections.abc import Mapping
from typing import Literal

from common.configuration import Parameters
from common.errors import DataError
from common.records import RecordSet
from papers.person_reid.blocks import BlockName
from papers.person_reid.layouts import Layout, at_depth, last_of_stages, layout_of, positions
from papers.person_reid.network import BLOCKS, Backbone, Depth, Position

Placement = Literal["none", "all", "last_of_stages", "agw", "best"]


class Method(Parameters):
    """A network of a comparison.

    Attributes:
        block: which attention.
        layout: where: `none`; after `all` blocks; after the last block of each stage (`last_of_stages`, as RGA-SC); after the
            last two blocks of stage 2 and the last three of stage 3 (`agw`); or where the search found `best`.
        deeper: a deeper ResNet than the others'.
    """

    block: BlockName | None = None
    layout: Placement = "none"
    deeper: bool = False


DEEPER: Mapping[Depth, Depth] = {"resnet18": "resnet34", "resnet50": "resnet101"}


def chosen_layouts(search: RecordSet, role: str) -> list[Layout]:
    """The layouts that the search gave a role: `best`, `top` or `bottom`.

    Raises:
        DataError: its records hold none.
    """
    table = search.table()
    rows = table[(table["metric"] == "chosen") & (table["method"] == role)] if len(table) else table
    if rows.empty:
        raise DataError(f"The records of search choose no layout as {role!r}. Run papers.person_reid.search again.")
    return [layout_of(str(name)) for name in rows["layout"]]


def attention_of(method: Method, backbone: Backbone, best: Layout) -> dict[Position, BlockName]:
    """Where the blocks of a method stand in a backbone; `best` is a layout of two blocks a stage."""
    if method.block is None or method.layout == "none":
        return {}
    counts = BLOCKS[backbone.depth][1]
    layout: Layout
    if method.layout == "all":
        layout = frozenset(positions(backbone.depth))
    elif method.layout == "last_of_stages":
        layout = last_of_stages(backbone.depth)
    elif method.layout == "agw":
        layout = frozenset(
            (stage, block)
            for stage, last in ((2, 2), (3, 3))
            for block in range(max(counts[stage - 1] - last, 0) + 1, counts[stage - 1] + 1)
        )
    else:
        layout = at_depth(best, backbone.depth)
    return dict.fromkeys(sorted(layout), method.block)


def backbone_of(method: Method, backbone: Backbone) -> Backbone:
    """The method's ResNet."""
    return backbone.model_copy(update={"depth": DEEPER[backbone.depth]}) if method.deeper else backbone
