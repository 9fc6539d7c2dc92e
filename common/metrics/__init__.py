"""Metrics, one module a field."""
