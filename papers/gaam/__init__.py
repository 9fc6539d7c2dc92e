"""GAAM (Ioannides, Chadha and Elkins, arXiv 2401.11143): a Gaussian gate over the layers of a frozen encoder."""
