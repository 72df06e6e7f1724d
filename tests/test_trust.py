"""What a saved estimator may consist of: the same bytes for the same object, and no code that came with a file."""

import functools
import io
import json
import pickle
import subprocess
import sys
import warnings
import zipfile

import numpy as np
import pytest
import skops.io
from sklearn.datasets import load_digits
from sklearn.ensemble import (
    BaggingClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    StackingClassifier,
)
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from h3lab.errors import DamagedData, ModelError, Untrusted
from h3lab.serial import trust

X, Y = load_digits(return_X_y=True)
X, Y = X[:200], Y[:200]

ESTIMATORS = {
    "tree": DecisionTreeClassifier(random_state=0),
    "forest": RandomForestClassifier(5, random_state=0),
    "boosting": GradientBoostingClassifier(n_estimators=2, random_state=0),
    "histograms": HistGradientBoostingClassifier(max_iter=3, random_state=0),
    "histograms of categories": HistGradientBoostingClassifier(max_iter=3, categorical_features=[3], random_state=0),
    "bag of columns": BaggingClassifier(n_estimators=4, max_features=0.5, random_state=0),
    "isolation": IsolationForest(n_estimators=5, max_features=0.3, random_state=0),
    "stack": StackingClassifier([("a", DecisionTreeClassifier(random_state=0))], LogisticRegression(max_iter=2000)),
    "neighbours": KNeighborsClassifier(algorithm="kd_tree"),
    "vectors": SVC(),
    "perceptron": MLPClassifier((8,), max_iter=3, random_state=0),
    "search": GridSearchCV(DecisionTreeClassifier(random_state=0), {"max_depth": [2, 4]}, scoring="accuracy", cv=2),
    "row": make_pipeline(SelectKBest(f_classif, k=20), RandomForestClassifier(5, random_state=0)),
}


@pytest.fixture(scope="module")
def fitted():
    found = {}
    for name, estimator in ESTIMATORS.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # constant columns, and few steps
            found[name] = estimator.fit(X, Y)
    return found


@pytest.mark.parametrize("name", ESTIMATORS)
def test_scikit_learns_estimators_come_back(name, fitted):
    estimator = fitted[name]
    again = trust.loads(trust.dumps(estimator))
    assert np.array_equal(again.predict(X), estimator.predict(X))


def test_the_same_object_gives_the_same_bytes_in_another_process():
    code = """
import hashlib, numpy as np
from sklearn.ensemble import RandomForestClassifier
from h3lab.serial import trust
x = np.random.default_rng(0).normal(size=(60, 4))
print(hashlib.sha256(trust.dumps(RandomForestClassifier(3, random_state=0).fit(x, x[:, 0] > 0))).hexdigest())
"""
    sums = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120).stdout
        for _ in range(2)
    }
    assert len(sums) == 1


def test_bytes_of_a_forest_hold_nothing_from_elsewhere_in_memory():
    """Records of nodes have gaps; what lies in them is whatever the memory held before."""
    forest = RandomForestClassifier(3, random_state=0).fit(X, Y)
    data = trust.dumps(forest)
    assert data == trust.dumps(trust.loads(data))
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        contents = [file.read(name) for name in file.namelist() if name.endswith(".npy")]
    records = 0
    for content in contents:
        array = np.load(io.BytesIO(content))
        if array.dtype.names:
            used = sum(array.dtype[name].itemsize for name in array.dtype.names)
            # the bytes of the file: NumPy itself leaves gaps alone where it copies
            raw = np.frombuffer(content[-array.nbytes :], np.uint8).reshape(len(array), array.dtype.itemsize)
            assert used < array.dtype.itemsize and not raw[:, used:].any()
            records += 1
    assert records == 3


def test_texts_that_look_like_skops_own_stay_as_they_are():
    tricky = make_pipeline(FunctionTransformer(kw_args={"__id__": 3, "file": "x.npy", "text": '"__id__": 99'}))
    again = trust.loads(trust.dumps(tricky))
    assert again[0].kw_args == tricky[0].kw_args


def own_function(x):
    return x + 1


class OwnTransformer(FunctionTransformer):
    pass


def test_ones_own_types_are_named_and_asked_for():
    data = trust.dumps(make_pipeline(OwnTransformer(own_function), LogisticRegression()))
    with pytest.raises(Untrusted) as caught:
        trust.loads(data, what="student.h3")
    assert "student.h3 holds" in str(caught.value)
    assert "types=[OwnTransformer, own_function]" in str(caught.value)
    again = trust.loads(data, types=[OwnTransformer, own_function])
    assert type(again[0]) is OwnTransformer and again[0].func is own_function
    assert set(trust.types_in(again)) == {OwnTransformer, own_function}


def test_a_class_without_a_module_attribute_is_lent_a_name():
    """A notebook's class that came by value stands in no module; given as a type it is found all the same."""
    Hidden = type("Hidden", (FunctionTransformer,), {"__module__": __name__})
    globals()["Hidden"] = Hidden
    data = trust.dumps(Hidden())
    del globals()["Hidden"]
    assert type(trust.loads(data, types=[Hidden])) is Hidden
    assert "Hidden" not in globals()


def test_a_class_that_was_defined_again_is_not_taken_for_the_first():
    First = type("Again", (FunctionTransformer,), {"__module__": __name__})
    globals()["Again"] = First
    data = trust.dumps(First())
    globals()["Again"] = Second = type("Again", (FunctionTransformer,), {"__module__": __name__})
    assert type(trust.loads(data, types=[First])) is First
    assert globals().pop("Again") is Second


def test_code_that_came_with_a_file_is_refused(tmp_path):
    """scikit-learn has functions that run the source they are given; a worker could call one with each text it sees."""
    from sklearn.utils import _testing

    runs = _testing.assert_run_python_script_without_output
    trace = tmp_path / "ran"
    for worker in (
        FunctionTransformer(runs),
        FunctionTransformer(functools.partial(runs, f"open({str(trace)!r}, 'w')")),
    ):
        with pytest.raises(Untrusted, match="assert_run_python_script_without_output"):
            trust.loads(trust.dumps(worker)).transform("pass")
    assert not trace.exists()


@pytest.mark.parametrize(
    "name",
    [
        "sklearn.utils._testing.assert_run_python_script_without_output",
        "sklearn.datasets._base.load_files",
        "sklearn.externals._numpydoc.docscrape.NumpyDocString",
        "sklearn.tree.tests.test_tree.check_min_weight_fraction_leaf",
        "sklearn.ensemble._forest.Parallel",  # joblib's, imported there
        "sklearn.linear_model._base.numbers",
        "sklearn.linear_model.nothing.Nothing",
        "numpy.save",
        "numpy.lib.npyio.fromregex",
        "os.system",
        "builtins.eval",
        "subprocess.Popen",
        "operator.methodcaller",
    ],
)
def test_names_that_are_not_trusted(name):
    assert not trust.known(name)


@pytest.mark.parametrize(
    "name",
    [
        "sklearn.tree._tree.Tree",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.feature_selection._univariate_selection.f_classif",
        "numpy.float32",
        "numpy.log1p",
    ],
)
def test_names_that_are_trusted(name):
    assert trust.known(name)


def test_nothing_is_unpickled():
    """An audit hook sees every global that any unpickler looks up; it stays for the life of its process."""
    code = """
import sys
import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.neural_network import MLPClassifier
from h3lab.serial import trust
x = np.random.default_rng(0).normal(size=(60, 4))
models = (HistGradientBoostingClassifier(max_iter=2), MLPClassifier((4,), max_iter=2000))
kept = [trust.dumps(model.fit(x, x[:, 0] > 0)) for model in models]
def hook(event, arguments):
    if event == "pickle.find_class":
        raise SystemExit(f"unpickled {arguments}")
sys.addaudithook(hook)
for data in kept:
    trust.loads(data)
import pickle
try:
    pickle.loads(pickle.dumps(np.float64(1.0)))
except SystemExit:
    print("the hook works")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.stdout.strip() == "the hook works", run.stderr


def test_pickles_and_rubbish_are_damaged_data():
    for data in (pickle.dumps(LogisticRegression()), b"", b"PK\x03\x04 no", trust.dumps(LogisticRegression())[:-40]):
        with pytest.raises(DamagedData, match="skops"):
            trust.loads(data)


def test_what_cannot_be_written_is_said():
    with pytest.raises(ModelError, match="the worker cannot be saved.*lambda"):
        trust.dumps(FunctionTransformer(lambda x: x), "the worker")
    with open(__file__) as file, pytest.raises(ModelError, match="the worker cannot be saved: .*open files"):
        trust.dumps(FunctionTransformer(kw_args={"x": file}), "the worker")


def test_local_functions_go_between_those_who_have_them():
    """A snapshot is opened by the run that wrote it, which has the function itself."""
    here = FunctionTransformer(lambda x: x + 1)
    data = trust.dumps(here, lent=True)
    assert trust.loads(data, types=[here.func]).func is here.func
    both = make_pipeline(here, FunctionTransformer(lambda x: x + 2))
    with pytest.raises(ModelError, match="lambda"):  # the same name for two
        trust.dumps(both, lent=True)


def rewritten(data, change):
    """skops bytes with one array changed: ``change(array)`` returns a new one, or None."""
    out = io.BytesIO()
    hits = 0
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith(".npy"):
                changed = change(np.load(io.BytesIO(content)))
                if changed is not None:
                    buffer = io.BytesIO()
                    np.save(buffer, changed)
                    content, hits = buffer.getvalue(), hits + 1
            new.writestr(name, content)
    assert hits
    return out.getvalue()


def set_field(field, value):
    def change(array):
        if not array.dtype.names or field not in array.dtype.names:
            return None
        array = array.copy()
        array[field][0] = value
        return array

    return change


@pytest.mark.parametrize(
    "name, field, value",
    [
        ("tree", "left_child", 10**7),
        ("tree", "left_child", 0),  # its own child: a walk without an end
        ("tree", "right_child", -7),
        ("tree", "feature", 10**6),
        ("tree", "feature", -5),
        ("forest", "feature", 64),
        ("boosting", "right_child", 10**9),
        ("bag of columns", "feature", 40),
        ("histograms", "left", 4 * 10**9),
        ("histograms", "right", 0),
        ("histograms", "feature_idx", 10**6),
        ("histograms", "feature_idx", -1),
        ("histograms of categories", "bitset_idx", 10**5),
    ],
)
def test_trees_whose_nodes_lead_astray_are_refused(name, field, value, fitted):
    """scikit-learn follows them without a look, and reads memory that is not the tree's."""

    def change(array):
        changed = set_field(field, value)(array)
        if changed is not None and field == "bitset_idx":
            changed["is_categorical"][0] = 1
        return changed

    with pytest.raises(DamagedData, match="contradict"):
        trust.loads(rewritten(trust.dumps(fitted[name]), change))


def test_a_tree_that_counts_more_nodes_than_it_has_is_cut_to_them(fitted):
    data = trust.dumps(fitted["tree"])
    with zipfile.ZipFile(io.BytesIO(data)) as old:
        files = {name: old.read(name) for name in old.namelist()}
    schema = json.loads(files["schema.json"])
    state = schema["content"]["content"]["tree_"]["content"]["content"]
    state["node_count"]["content"] = "100000"
    files["schema.json"] = json.dumps(schema).encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as new:
        for name, content in files.items():
            new.writestr(name, content)
    again = trust.loads(out.getvalue())
    assert again.tree_.node_count == again.tree_.capacity == fitted["tree"].tree_.node_count
    assert np.array_equal(again.predict(X), fitted["tree"].predict(X))


def test_a_cache_folder_named_by_a_file_is_not_used(tmp_path):
    """joblib unpickles what lies in a cache."""
    row = Pipeline([("model", LogisticRegression())], memory=str(tmp_path))
    assert trust.loads(trust.dumps(row)).memory is None
    assert skops.io.loads(skops.io.dumps(row)).memory == str(tmp_path)
