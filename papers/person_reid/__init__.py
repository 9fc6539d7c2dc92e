"""A little bit attention for person re-identification (Eisenbach et al., ICRA 2023), with a reconstructed block."""
