"""The face: names that lead, and words for those that do not exist."""

import subprocess
import sys

import pytest

import h3lab as h3
from h3lab.errors import MissingExtra


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("trian", "train"), ("attatch", "attach"), ("Preproccesor", "Preprocessor")],
)
def test_an_unknown_name_of_the_face_lists_the_known_ones_and_the_closest(wrong, meant):
    with pytest.raises(AttributeError, match=rf"no '{wrong}'\. Did you mean h3\.{meant}\? It has: Actor, .*, watch\."):
        getattr(h3, wrong)
    assert not hasattr(h3, "_ipython_display_"), "what a notebook asks every object for is no misspelt name"


def test_a_name_whose_library_is_missing_gives_its_pip_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # Python's own way to say that a module is not there
    monkeypatch.delitem(sys.modules, "h3lab.backends._torch", raising=False)
    monkeypatch.delitem(vars(h3), "TorchModel", raising=False)
    with pytest.raises(MissingExtra, match=r"h3\.TorchModel needs it\. Install it with: pip install torch"):
        h3.TorchModel  # noqa: B018


def test_the_face_shows_public_names_alone():
    code = "import h3lab as h3; h3.train, h3.Lab, h3.demo; print(*dir(h3))"
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert names == sorted(h3.__all__) and len(names) <= 22
