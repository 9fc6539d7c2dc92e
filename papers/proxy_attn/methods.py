"""The method and its variants as families: one selector for each value of the threshold."""

from common.selector_comparison import Family, baseline_families
from papers.proxy_attn.proxy_attn import ProxyAttention


def compared_families(block_size: int, groups: int, minimum_budget: int = 0) -> dict[str, Family]:
    """The baselines of every paper, and the method by gamma.

    - `proxy_attn`: the method without its minimum budget, which would be all of a short context;
    - `proxy_attn_minimum`: with it, as in the paper.

    Args:
        block_size: b.
        groups: g, the number of proxy heads.
        minimum_budget: tokens, of `proxy_attn_minimum`.
    """

    def proxy(minimum: int) -> Family:
        return lambda gamma: ProxyAttention(block_size=block_size, gamma=gamma, groups=groups, minimum_budget=minimum)

    return {
        **baseline_families(block_size),
        "proxy_attn": proxy(0),
        "proxy_attn_minimum": proxy(minimum_budget),
    }


def ablated_families(block_size: int, groups: int, more_groups: int) -> dict[str, Family]:
    """The method and what it is without one of its parts, all without a minimum budget.

    - `proxy_attn`: the method, by gamma;
    - `mean_pooled`: proxy scores pooled over blocks by their mean, by gamma;
    - `fixed_budget`: one budget for all heads, a share of the blocks;
    - `more_proxies`: more proxy heads, by gamma;
    - `row_share`: the budget is a share of the blocks that a row has, by gamma.

    Args:
        block_size: b.
        groups: g, the number of proxy heads.
        more_groups: that of `more_proxies`.
    """

    def method(**settings) -> ProxyAttention:
        return ProxyAttention(**{"block_size": block_size, "groups": groups, "minimum_budget": 0, **settings})

    return {
        "proxy_attn": lambda gamma: method(gamma=gamma),
        "mean_pooled": lambda gamma: method(gamma=gamma, pooling="mean"),
        "fixed_budget": lambda share: method(fixed_budget=share),
        "more_proxies": lambda gamma: method(gamma=gamma, groups=more_groups),
        "row_share": lambda gamma: method(gamma=gamma, budget="row_share"),
    }
