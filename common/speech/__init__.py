"""Speech: recordings to features, and pretrained encoders of them."""
