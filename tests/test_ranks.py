"""Two processes that train one actor together end where one process ends."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from h3lab.actor import Actor
from h3lab.backends._torch import TorchModel
from h3lab.feeds.feed import Feed
from h3lab.training.loop import train
from h3lab.transfer import Distill

# 61 rows in batches of 20: the last batch has one row, so one of the ranks has none.
ROWS, BATCH = 61, 20
CASES = ["plain", "pieces", "taught", "own loss"]


def network(spec):
    return nn.Sequential(nn.Linear(spec.features, 8), nn.ReLU(), nn.Linear(8, spec.outputs))


def feed():
    generator = np.random.default_rng(0)
    codes = np.arange(ROWS) % 3
    x = (generator.normal(size=(ROWS, 5)) + codes[:, None]).astype(np.float32)
    return Feed.of(x, codes, weight=generator.uniform(0.5, 2, ROWS))


def teacher(rows):
    return np.full((len(rows), 3), 1 / 3)


def trained(case, rank=0, ranks=1):
    accumulate = 2 if case == "pieces" else 1
    loss = nn.CrossEntropyLoss() if case == "own loss" else None
    actor = Actor("shared", TorchModel(network, lr=0.05, accumulate=accumulate, loss=loss), batch_size=BATCH, epochs=4)
    rows = feed()
    if case == "own loss":  # which returns one number, that weights cannot enter
        rows = Feed.of(*rows.arrays())
    transfer = Distill(teacher, soft=0.3) if case == "taught" else None
    records = list(train(actor, rows, transfer=transfer, rank=rank, ranks=ranks))
    return actor.model_.parameters(), np.array([[r["loss"], r["accuracy"]] for r in records])


def main(folder, rank):
    store = torch.distributed.FileStore(f"{folder}/store", 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    for case in CASES:
        parameters, metrics = trained(case, rank, 2)
        np.savez(f"{folder}/{case} {rank}.npz", metrics=metrics, **parameters)
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    ranks = [subprocess.Popen([sys.executable, __file__, str(folder), rank]) for rank in ("0", "1")]
    assert [rank.wait(timeout=240) for rank in ranks] == [0, 0]
    return folder


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_agree_with_each_other_and_with_one_process(case, results):
    one, two = (dict(np.load(results / f"{case} {rank}.npz")) for rank in (0, 1))
    for name, value in one.items():
        assert np.array_equal(value, two[name]), name
    parameters, metrics = trained(case)
    np.testing.assert_allclose(one.pop("metrics"), metrics, atol=1e-5)
    for name, value in parameters.items():
        np.testing.assert_allclose(one[name], value, atol=1e-5)


def test_ranks_do_not_drop_the_same_units_out():
    from h3lab.backends._torch_state import Randomness

    streams = [Randomness(3, torch.device("cpu")) for _ in range(4)]
    drawn = []
    for rank, stream in enumerate(streams):
        stream.fork(rank)
        with stream:
            drawn.append(torch.rand(1).item())
    assert len(set(drawn)) == 4


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
