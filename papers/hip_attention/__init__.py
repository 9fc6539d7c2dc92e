"""HiP Attention: hierarchically pruned attention."""
