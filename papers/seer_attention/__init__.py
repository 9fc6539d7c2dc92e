"""SeerAttention: a learned gate that predicts which blocks attention needs."""
