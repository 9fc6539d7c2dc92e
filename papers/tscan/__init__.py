"""TSCAN: temporal-spatial correlation attention for clinical time series in intensive care."""
