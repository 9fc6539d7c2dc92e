"""ACMIL (Zhang et al., ECCV 2024, arXiv 2311.07125) and the multiple-instance methods that it is compared with."""
