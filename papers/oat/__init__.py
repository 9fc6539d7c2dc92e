"""OAT: object-level attention transformer for gaze scanpath prediction (Fang et al., ECCV 2024)."""
