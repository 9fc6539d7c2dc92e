"""Claims on the parts: maximum pooling, budgets by head, and the number of proxy heads, at equal density.

Rows as of `compare_coverage` (`density`, `coverage`, `coverage_at_density`), and `coverage_gain`: `coverage_at_density` of one
method minus that `than` another has, by `density`, and by `sparsity` = 1 - density.
"""

from common.experiment import Context, Measurement, main
from common.selector_comparison import CoverageSettings, compare_coverage
from papers.proxy_attn.methods import ablated_families

METHOD = "proxy_attn"


class Settings(CoverageSettings):
    """Axes and parameters of `config.yaml`, beyond those of every comparison.

    Attributes:
        groups: g, the number of proxy heads.
        more_groups: the number of proxy heads of the variant `more_proxies`.
    """

    groups: int
    more_groups: int


def add_gains(measurement: Measurement) -> None:
    """Add the gain of the method over every variant, where both have been measured at a density in a window."""
    covered = {
        (row.method, row.setting["density"], row.setting["window"]): row.value
        for row in measurement.rows
        if row.metric == "coverage_at_density"
    }
    for (other, density, window), value in covered.items():
        ours = covered.get((METHOD, density, window))
        if other != METHOD and ours is not None:
            setting = {"than": other, "density": density, "sparsity": round(1 - float(density), 6), "window": window}
            measurement.add("coverage_gain", ours - value, method=METHOD, **setting)


def run(settings: Settings, context: Context) -> Measurement:
    """Coverage against density of the method and its variants, over windows of a text."""
    families = ablated_families(settings.block_size, settings.groups, settings.more_groups)
    measurement = compare_coverage(settings, families, context)
    add_gains(measurement)
    return measurement


if __name__ == "__main__":
    main(run, Settings)
