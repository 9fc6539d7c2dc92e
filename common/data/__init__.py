"""Data and weights: what exists (`registry`), how it gets here verified (`fetch`), and how texts are read (`texts`)."""
