"""Clinical time series: readers of two layouts, an hourly grid, a normaliser, and a cache of what they make."""

from common.data.clinical.hourly_grid import HourlyGrid, fill_forward, hours_since_observed, last_in_each_hour
from common.data.clinical.normaliser import Normaliser

__all__ = ["HourlyGrid", "Normaliser", "fill_forward", "hours_since_observed", "last_in_each_hour"]
