"""A torch Dataset or DataLoader is a source, and goes wherever data goes."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from h3lab import worlds
from h3lab.actor import Actor
from h3lab.backends._torch import TorchModel
from h3lab.errors import DataError, UsageError
from h3lab.feeds.feed import Feed
from h3lab.pipeline import Pipeline
from h3lab.preparing.prepare import prepare
from h3lab.preprocessor import Preprocessor
from h3lab.sources import datasets, read
from h3lab.training.loop import train

DIGITS, CLASSES = load_digits(return_X_y=True)
IMAGES = (DIGITS[:400] / 16).astype(np.float32).reshape(-1, 1, 8, 8)
LABELS = CLASSES[:400]


class Pictures(Dataset):
    """As people write them: a row is an image and its class; with a transform."""

    def __init__(self, transform=None):
        self.transform, self.asked = transform, []

    def __len__(self):
        return len(IMAGES)

    def __getitem__(self, index):
        self.asked.append(index)
        image = torch.from_numpy(IMAGES[index])
        return (image if self.transform is None else self.transform(image)), int(LABELS[index])


class Stream(IterableDataset):
    def __iter__(self):
        return iter(Pictures()[index] for index in range(300))


def convolutions(spec):
    assert spec.shape == (1, 8, 8)
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, spec.outputs))


def actor(**settings):
    return Actor("pictures", TorchModel(convolutions, lr=0.01), **{"epochs": 3, "batch_size": 50, **settings})


def timeless(records):
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


TENSORS = TensorDataset(torch.from_numpy(IMAGES), torch.from_numpy(LABELS))


@pytest.mark.parametrize(
    "data",
    [Pictures(), TENSORS, Subset(Pictures(), range(400)), DataLoader(Pictures(), batch_size=50, shuffle=True)],
    ids=["a class", "TensorDataset", "Subset", "DataLoader"],
)
def test_training_on_it_is_training_on_its_arrays(data):
    expected = timeless(train(actor(), (IMAGES, LABELS)))
    assert timeless(train(actor(), data)) == expected
    fitted = actor().fit(data)
    assert fitted.spec_.shape == (1, 8, 8) and fitted.spec_.labels == tuple(range(10))
    assert fitted.score(data) == fitted.score(IMAGES, LABELS) > 0.5
    np.testing.assert_array_equal(fitted.predict(data), fitted.predict(IMAGES))


def test_it_validates_too_and_words_stay_words():
    class Words(Pictures):
        def __getitem__(self, index):
            return IMAGES[index], "abcdefghij"[LABELS[index]]

    told = list(train(one := actor(validation=Subset(Words(), range(300, 400))), Subset(Words(), range(300))))
    assert told[-1]["val_accuracy"] > 0.4 and set(one.predict(IMAGES)) <= set("abcdefghij")


def test_its_source_keeps_images_through_a_pipeline():
    source = read(Pictures())
    assert source.columns == ["x", "y"] and len(source) == 400
    assert "a torch Pictures · 400 rows" in repr(source) and "1×8×8" in repr(source)
    pipeline = Pipeline(Preprocessor("image", "x"), label="y")
    feed = prepare(pipeline, source)
    assert feed.spec.shape == (1, 8, 8)
    np.testing.assert_array_equal(feed.arrays()[0], IMAGES)
    fitted = actor(epochs=2).fit(feed)
    assert fitted.score(Pictures()) == fitted.score(feed)
    train_rows, test_rows = source.split(test=0.25, seed=0)
    assert len(train_rows) + len(test_rows) == 400


def test_workers_take_images_as_rows_of_pixels():
    feed = prepare(Pipeline(Preprocessor("image", "x", StandardScaler()), label="y"), Pictures())
    expected = StandardScaler().fit_transform(IMAGES.reshape(-1, 64))
    np.testing.assert_allclose(feed.arrays()[0], expected, rtol=1e-5, atol=1e-5)
    linear = Actor("linear", LogisticRegression(max_iter=500)).fit(Pictures())
    assert linear.score(Pictures()) > 0.9


def test_parts_are_asked_for_one_by_one(monkeypatch):
    monkeypatch.setattr(datasets, "_PART_BYTES", 100 * 64 * 4)
    pictures = Pictures()
    source = read(pictures)
    parts = source.parts()
    assert [part.rows for part in parts] == [96, 96, 96, 96, 16] and set(pictures.asked) == {0}
    assert source.columns == ["x", "y"]
    pictures.asked.clear()
    table = source.read(parts[4], ["y"])
    assert table.column("y").to_pylist() == LABELS[384:].tolist() and pictures.asked == list(range(384, 400))


def test_rows_that_are_dicts_have_their_names_and_the_label_is_found_by_its_name():
    class Named(Dataset):
        def __len__(self):
            return 200

        def __getitem__(self, index):
            return {"pixels": IMAGES[index].ravel(), "row": index % 3, "label": int(LABELS[index])}

    source = read(Named())
    assert source.columns == [*(f"pixels{i}" for i in range(64)), "row", "label"]

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(64, 10)

        def forward(self, pixels, row):
            assert row.dtype == torch.int64
            return self.out(pixels)

    two = Actor("two", TorchModel(Two(), lr=0.05), epochs=10).fit(Named())
    assert two.spec_.blocks["row"].shape == (1,) and two.score(Named()) > 0.3

    class Unclear(Named):
        def __getitem__(self, index):
            return {**super().__getitem__(index), "y": 1}

    with pytest.raises(UsageError, match="columns pixels, row, label, y, and which of them is the label"):
        actor().fit(Unclear())


def test_a_stream_is_read_once_in_its_order():
    source = read(Stream())
    assert len(source) == 300 and source.first(3).column("y").to_pylist() == LABELS[:3].tolist()
    assert timeless(train(actor(), Stream())) == timeless(train(actor(), (IMAGES[:300], LABELS[:300])))
    loader = DataLoader(Stream(), batch_size=50)
    assert len(read(loader)) == 300


def test_an_endless_stream_and_too_many_rows_are_errors_before_the_memory_is_gone(monkeypatch):
    class Endless(IterableDataset):
        def __iter__(self):
            while True:
                yield IMAGES[0], 1

    monkeypatch.setattr(datasets, "free_memory", lambda: 10_000_000.0)
    with pytest.raises(DataError, match="or no end"):
        read(Endless()).first(1)
    monkeypatch.setattr(datasets, "free_memory", lambda: 100_000.0)
    with pytest.raises(DataError, match=r"lab\.prepare\(h3\.Pipeline"):
        actor().fit(Pictures())


# ---- What of a loader is used


def test_a_loaders_batches_are_not_used_and_that_is_said_once():
    loader = DataLoader(Pictures(), batch_size=32, drop_last=True)
    with pytest.warns(UserWarning, match="batch_size=32, shuffle=False, drop_last=True of the DataLoader are not used"):
        told = list(train(actor(epochs=1), loader))
    assert len(told) == 8
    list(train(actor(epochs=1, batch_size=32, validation=loader), DataLoader(Pictures(), batch_size=32, shuffle=True)))


def test_its_collate_function_is_used_where_it_keeps_rows():
    def halved(rows):
        images, labels = zip(*rows, strict=True)
        return torch.stack(images)[:, :, ::2, ::2], torch.tensor(labels) % 2

    source = read(DataLoader(Pictures(), batch_size=50, collate_fn=halved))
    images, labels = datasets.pair(source)
    assert images.shape == (400, 1, 4, 4) and set(labels) == {0, 1}
    with pytest.raises(DataError, match=r"collate_fn made 'x' of shape \(1, 8, 8\) of 1 rows|one row for each"):
        read(DataLoader(Pictures(), collate_fn=lambda rows: (torch.stack([r[0] for r in rows]).sum(0), 1))).first(1)


def test_a_sampler_of_some_rows_is_kept_and_others_are_refused_with_what_to_give():
    some = [5, 3, 9]
    source = read(DataLoader(Pictures(), sampler=SubsetRandomSampler(some)))
    assert source.first(9).column("y").to_pylist() == LABELS[[3, 5, 9]].tolist()
    weighted = WeightedRandomSampler(torch.ones(400), 400)
    drawn = RandomSampler(Pictures(), replacement=True)
    for sampler in (weighted, drawn):
        with pytest.raises(UsageError, match=f"has a {type(sampler).__name__}.*class_weight='balanced'"):
            read(DataLoader(Pictures(), sampler=sampler))
    with pytest.raises(UsageError, match="has a list.*its Dataset"):
        read(DataLoader(Pictures(), batch_sampler=[[0, 1], [2, 3]]))
    with pytest.raises(UsageError, match="batch_size=None"):
        read(DataLoader(Pictures(), batch_size=None))


# ---- What goes wrong


def test_random_transforms_are_told_of_because_rows_are_read_once():
    with pytest.warns(UserWarning, match="answers its first row differently each time"):
        list(train(actor(epochs=1), Pictures(lambda image: image + torch.rand(()))))


class Bad(Pictures):
    def __init__(self, row):
        super().__init__()
        self.row = row

    def __getitem__(self, index):
        return self.row(index)


@pytest.mark.parametrize(
    ("row", "error", "says"),
    [
        (lambda i: 1 // (7 - i), DataError, "row 7 of a torch Bad could not be read: ZeroDivisionError"),
        (lambda i: (torch.zeros(1 + i % 2), 0), DataError, "have different shapes"),
        (lambda i: (object(), 0), DataError, "are no numbers"),
        (lambda i: (1.0, 2, 3), UsageError, r"has 3 values .*expected \(x, y\), or a dict"),
    ],
)
def test_rows_that_cannot_be_columns_are_errors_that_name_them(row, error, says):
    with pytest.raises(error, match=says):
        datasets.pair(Bad(row))


def test_a_dataset_without_rows_or_length_says_so():
    class Endless(Dataset):
        def __getitem__(self, index):
            return 1.0, 1

    with pytest.raises(UsageError, match="has no length"):
        read(Endless())
    with pytest.raises(DataError, match="has no rows"):
        read(Subset(Pictures(), []))


def test_it_is_told_without_importing_torch():
    assert worlds.holds_examples(Pictures()) and worlds.holds_examples(DataLoader(Pictures()))
    assert worlds.holds_examples(read(Pictures()))
    assert not any(map(worlds.holds_examples, [(IMAGES, LABELS), IMAGES, Feed.of(IMAGES, LABELS), "a.parquet", None]))


def test_errors_of_many_rows_at_once_and_of_names_are_ours():
    class Several(Pictures):
        def __getitems__(self, numbers):
            raise OSError("the disk is away")

    with pytest.raises(
        DataError, match=r"rows from 0 on of a torch Several could not be read: OSError: the disk is aw"
    ):
        datasets.pair(Several())
    with pytest.raises(DataError, match="are dicts with different names"):
        datasets.pair(Bad(lambda i: {"ab"[i % 2]: 1.0}))


def test_types_that_numpy_does_not_have_are_read_as_float32():
    x, y = datasets.pair(Bad(lambda i: (torch.tensor([0.5, -2.0], dtype=torch.bfloat16), i)))
    assert x.dtype == np.float32 and (x == [0.5, -2.0]).all() and y[:2].tolist() == [0, 1]
