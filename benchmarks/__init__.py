"""Speed of the kernels beside their peers: same inputs, same run, nothing reported that is not correct."""
