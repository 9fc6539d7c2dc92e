"""One package per reproduced paper. Papers import from `common`, never from each other."""
