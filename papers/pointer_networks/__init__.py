"""Pointer Networks (Vinyals, Fortunato and Jaitly, 2015)."""
