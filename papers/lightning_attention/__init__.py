"""Lightning Attention-2 and TransNormerLLM (arXiv 2401.04658, 2405.17381)."""
