"""Template of a paper folder: a small but complete reproduction. Copy it to add a paper."""
