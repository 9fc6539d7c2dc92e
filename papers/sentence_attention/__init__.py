"""Sentence Attention Blocks for Answer Grounding (Khoshsirat and Kambhamettu, ICCV 2023)."""
