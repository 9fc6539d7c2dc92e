"""A regression small enough to train in a test: two buckets of vectors of different length, read by an LSTM."""

import torch
from torch import nn
from torch.nn.functional import mse_loss

from common.training import Recipe, Replica

SGD = Recipe(optimiser="sgd", learning_rate=0.5, batch_size=4, clip_norm=0.1, schedule="cosine", warmup_steps=3)
ADAM = Recipe(optimiser="adam", learning_rate=0.01, batch_size=8, clip_norm=None)


class Reader(nn.Module):
    """Reads [B, length, 1] and predicts one number [B]."""

    def __init__(self, seed):
        super().__init__()
        self.lstm = nn.LSTM(1, 6, batch_first=True)
        self.head = nn.Linear(6, 1)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-0.5, 0.5, generator=generator)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])[:, 0]


def loss(network, batch):
    """Mean squared error."""
    x, y = batch
    return mse_loss(network(x).float(), y)


def buckets(device="cpu"):
    """Length -> (vectors, their sums)."""
    generator = torch.Generator().manual_seed(0)
    data = {length: torch.rand(count, length, 1, generator=generator) for length, count in ((3, 20), (5, 13))}
    return {length: (x.to(device), x.sum((1, 2)).to(device)) for length, x in data.items()}


def replica(name="sgd", recipe=SGD, *, seed=0, order_seed=0, steps=25, data=None, device="cpu", curve_steps=(), parallel=None):
    """A replica of the problem."""
    return Replica(
        name,
        Reader(seed).to(device),
        recipe,
        loss=loss,
        buckets=data or buckets(device),
        steps=steps,
        order_seed=order_seed,
        curve_steps=curve_steps,
        parallel=parallel,
    )


def parameters_of(replica):
    """Copies of the parameters, by name, on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in replica.network.state_dict().items()}


def same(first, second):
    """Whether two dictionaries of tensors are equal bit by bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
