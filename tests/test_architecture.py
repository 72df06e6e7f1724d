"""The rules of the house, read off the source with `ast`: arrows, budgets, names, what may unpickle.

The tables at the top are the rules. A budget is raised for one place by an entry in its table, so that the
diff which needs it shows it.
"""

import ast
import importlib
import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "h3lab"

# ---- The rules --------------------------------------------------------------------------------------------

OUTER_FOLDERS = ("sources", "workers", "stores", "backends", "channels", "cluster", "ui", "frameworks")
# Programs over the package: they may import all of it, and nothing imports them.
PROGRAMS = ("__main__", "cli", "demos")
# The one core module that names the outer folders, and only as strings that are imported on first use.
WORLDS = "worlds"
# Values: numpy, the standard library and each other.
VALUES = ("errors", "brief", "memory", "batch", "records", "settings", "spec")

MODULE_LINES, FOLDER_MODULE_LINES, FUNCTION_LINES, PUBLIC_METHODS, PUBLIC_NAMES = 250, 300, 40, 12, 22
# Exceptions, each with a budget of its own
MODULE_LINES_OF: dict[str, int] = {"pipeline.py": 256}
FUNCTION_LINES_OF: dict[str, int] = {}  # "cluster/lab.py:Lab.train": 55
PUBLIC_METHODS_OF: dict[str, int] = {
    "feeds/feed.py:Feed": 13,  # its doors (arrays, frame, arrow, torch) and its report are of the contract
    "actor.py:Actor": 13,  # scikit-learn's verbs are eight of them; plan is of the contract
}

EMPTY_WORDS = re.compile(r"(Manager|Handler|Helper|Utils?)$")
# What `import h3lab` leaves alone: each costs from a tenth of a second to seconds, or is not installed.
HEAVY = (
    *("torch", "sklearn", "mxnet", "tensorflow", "bokeh", "ipywidgets", "ipyparallel", "kafka", "pandas"),
    *("pyarrow", "matplotlib"),
)
# Opens a pickle only after checking its signature; no other module opens one at all.
MAY_UNPICKLE = ("serial/signed.py",)
UNPICKLING = re.compile(
    r"(_?pickle|cloudpickle|dill|joblib)\.(load|loads|Unpickler|_loads?)"
    r"|multiprocessing\.reduction\.ForkingPickler\.loads?|marshal\.loads?|shelve\.open|pandas\.read_pickle"
)
# Where an import's name is not that of the package that brings it, and the package may be absent.
DISTRIBUTION_OF = {"mxnet": "mxnet", "sklearn": "scikit-learn", "kafka": "kafka-python", "IPython": "ipython"}

# Written in pieces, because this file is searched too.
REGISTRY_HOSTS = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("deb", "debian", "org"),
        ("maven", "org"),
        ("anaconda", "org"),
        ("download", "pytorch", "org"),
    )
]
MACHINE_FOLDERS = ("work", "root", "home")


# ---- Reading the source -----------------------------------------------------------------------------------


class Import(NamedTuple):
    """`module` imports `target` (a dotted name); `loads` tells whether importing the module does it."""

    module: str
    line: int
    target: str
    loads: bool

    def __str__(self) -> str:
        return f"{path_of(self.module)}:{self.line} imports {self.target}"


@cache
def modules() -> dict[str, Path]:
    """Dotted name, without `h3lab.`, of every module → its file; a package is named after its folder."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        found[re.sub(r"\.__init__$", "", name)] = path
    return found


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


def path_of(module: str) -> str:
    return str(modules()[module].relative_to(ROOT))


def program(module: str) -> bool:
    return module.split(".")[0] in PROGRAMS


def is_core(module: str) -> bool:
    """Root modules, and the rooms beside them that are no outside world, such as `feeds` and `testing`."""
    return module.split(".")[0] not in (*PROGRAMS, *OUTER_FOLDERS)


def folder_of(module: str) -> str | None:
    first = module.split(".")[0]
    return first if first in OUTER_FOLDERS else None


def visit_imports(node: ast.AST, loads: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, loads
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for part in child.body:
                yield from visit_imports(ast.Module([part], []), False)
            yield from visit_imports(ast.Module(child.orelse, []), loads)
        else:
            lazy = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from visit_imports(child, loads and not lazy)


def targets(module: str, node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        here = ["h3lab", *module.split(".")]
        is_package = modules()[module].name == "__init__.py"
        above = here[: len(here) - node.level + is_package] if module != "__init__" else ["h3lab"]
        base = ".".join([*above, *filter(None, [base])])
    # `from h3lab import errors` imports a module; `from h3lab.errors import H3Error` a name of one
    return [
        name if (name := f"{base}.{alias.name}").removeprefix("h3lab.") in modules() else base for alias in node.names
    ]


@cache
def imports() -> list[Import]:
    return [
        Import(module, node.lineno, target, loads)
        for module in modules()
        for node, loads in visit_imports(tree_of(module), True)
        for target in targets(module, node)
    ]


def inside(target: str) -> str | None:
    """The module of ours that `target` names, or None where it is a foreign one."""
    if target == "h3lab":
        return "__init__"
    return target.removeprefix("h3lab.") if target.startswith("h3lab.") else None


def ours() -> list[tuple[Import, str]]:
    return [(found, name) for found in imports() if (name := inside(found.target)) is not None]


def report(problems: list[str], rule: str) -> None:
    if problems:
        pytest.fail(f"{rule}\n  " + "\n  ".join(problems), pytrace=False)


# ---- Arrows -----------------------------------------------------------------------------------------------


def test_the_package_is_there():
    assert len(modules()) > 5
    assert any(found.module == "batch" for found in imports())


def test_core_imports_no_outer_folder():
    report(
        [str(found) for found, name in ours() if is_core(found.module) and folder_of(name)],
        "Arrows point inward: the core imports no outside world. Name it as a string in h3lab/worlds.py.",
    )


def test_folders_import_the_core_and_themselves():
    report(
        [
            str(found)
            for found, name in ours()
            if (here := folder_of(found.module)) and folder_of(name) not in (None, here)
        ],
        "An outside world imports the core and itself, never another one.",
    )


def test_nothing_imports_the_programs():
    report(
        [str(found) for found, name in ours() if program(name) and not program(found.module)],
        "Programs (" + ", ".join(PROGRAMS) + ") stand over the package; nothing in it imports them.",
    )


def test_modules_import_each_other_and_not_the_face():
    report(
        [str(found) for found, name in ours() if name == "__init__" and not program(found.module)],
        "Inside the package a name comes from its module (from h3lab.errors import …), not from the face.",
    )


def test_only_worlds_names_the_outer_folders():
    dotted = re.compile(rf"(h3lab)?\.?({'|'.join(OUTER_FOLDERS)})(\.\w+)+(:\w+)?")
    report(
        [
            f"{path_of(module)}:{node.lineno} has {node.value!r}"
            for module in modules()
            if is_core(module) and module not in (WORLDS, "__init__")
            for node in ast.walk(tree_of(module))
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and dotted.fullmatch(node.value)
        ],
        "The one core module that names the outer folders is h3lab/worlds.py.",
    )


def test_values_import_numpy_and_the_standard_library():
    report(
        [
            str(found)
            for found in imports()
            if found.module in VALUES
            and (top := found.target.split(".")[0]) != "numpy"
            and top not in sys.stdlib_module_names
            and inside(found.target) not in VALUES
        ],
        "Values (" + ", ".join(VALUES) + ") import numpy, the standard library and each other.",
    )


def test_core_modules_import_without_a_cycle():
    arrows: dict[str, dict[str, Import]] = {}
    for found, name in ours():
        if found.loads and is_core(found.module) and is_core(name) and name != found.module:
            arrows.setdefault(found.module, {})[name] = found
    done: set[str] = set()

    def walk(module: str, way: list[str]) -> None:
        if module in way:
            cycle = [*way[way.index(module) :], module]
            steps = [str(arrows[a][b]) for a, b in zip(cycle, cycle[1:], strict=False)]
            report(steps, "Core modules import each other in a circle: " + " → ".join(cycle))
        if module not in done:
            for target in arrows.get(module, {}):
                walk(target, [*way, module])
            done.add(module)

    for module in list(arrows):
        walk(module, [])


def test_every_foreign_import_is_declared():
    declared = declared_distributions()
    brings = importlib.metadata.packages_distributions()
    problems = []
    for found in imports():
        top = found.target.split(".")[0]
        if top in sys.stdlib_module_names or top == "h3lab":
            continue
        candidates = {normal(name) for name in brings.get(top, [DISTRIBUTION_OF.get(top, top)])}
        if not candidates & declared:
            problems.append(f"{found} (package {' or '.join(sorted(candidates))})")
    report(problems, "Not among the requirements or the extras of setup.py:")


def test_pins_suit_the_oldest_python():
    """Debian 12 has Python 3.11.2; a pin made on a newer 3.11 may ask for more, and nothing installs there."""
    lines = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines), "a line is name==version, without +local"
    problems = []
    for name, version in (line.split("==") for line in lines):
        try:
            needs = importlib.metadata.metadata(name).get("Requires-Python")
        except importlib.metadata.PackageNotFoundError:  # another system's, or not among these extras
            continue
        if needs and not SpecifierSet(needs).contains("3.11.2"):
            problems.append(f"constraints.txt pins {name}=={version}, which needs Python {needs}")
    report(problems, "Debian 12's Python 3.11.2 cannot install:")


def normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def declared_distributions() -> set[str]:
    tables = {
        ast.unparse(node.targets[0]): ast.literal_eval(node.value)
        for node in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("CORE", "EXTRAS")
    }
    lines = tables["CORE"] + [line for extra in tables["EXTRAS"].values() for line in extra]
    return {normal(re.match(r"[\w.-]+", line).group()) for line in lines}


def test_import_leaves_the_heavy_packages_alone():
    code = f"import sys, h3lab; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [], "`import h3lab` imports these; move the import to where it is first used"


# ---- The face ---------------------------------------------------------------------------------------------


def test_public_names_exist():
    face = importlib.import_module("h3lab")
    assert len(face.__all__) <= PUBLIC_NAMES, f"{len(face.__all__)} public names, at most {PUBLIC_NAMES}"
    assert len(set(face.__all__)) == len(face.__all__)
    problems = []
    for name in face.__all__:
        try:
            getattr(face, name)
        except (AttributeError, ImportError) as error:
            problems.append(f"{name}: {error}")
    report(problems, "In h3lab.__all__, but not there:")
    assert set(face.__all__) <= set(dir(face))


# ---- Budgets and names ------------------------------------------------------------------------------------


class Definition(NamedTuple):
    """A function or class with its dotted name inside its module."""

    module: str
    name: str
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

    @property
    def key(self) -> str:
        return f"{modules()[self.module].relative_to(PACKAGE)}:{self.name}"

    def __str__(self) -> str:
        return f"{path_of(self.module)}:{self.node.lineno} {self.name}"


def definitions() -> Iterator[Definition]:
    def walk(module: str, node: ast.AST, prefix: str) -> Iterator[Definition]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield Definition(module, prefix + child.name, child)
                yield from walk(module, child, f"{prefix}{child.name}.")
            else:
                yield from walk(module, child, prefix)

    for module in modules():
        yield from walk(module, tree_of(module), "")


def test_modules_keep_their_budget():
    problems = []
    for path in modules().values():
        name = str(path.relative_to(PACKAGE))
        budget = MODULE_LINES_OF.get(name, FOLDER_MODULE_LINES if "/" in name else MODULE_LINES)
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > budget:
            problems.append(f"h3lab/{name}:{budget} has {lines} lines, its budget is {budget}")
    report(problems, "One file, one noun. Split it, delete a line, or raise its budget in MODULE_LINES_OF.")


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring: what is said about it shall cost nothing."""
    lines = node.end_lineno - node.lineno + 1
    if ast.get_docstring(node) is not None:
        lines -= node.body[0].end_lineno - node.body[0].lineno + 1
    return lines


def test_functions_keep_their_budget():
    problems = []
    for found in definitions():
        if isinstance(found.node, ast.ClassDef):
            continue
        budget = FUNCTION_LINES_OF.get(found.key, FUNCTION_LINES)
        if length(found.node) > budget:
            problems.append(f"{found} has {length(found.node)} lines, its budget is {budget}")
    report(problems, "A function says one thing. Split it, or raise its budget in FUNCTION_LINES_OF.")


def public_methods(node: ast.ClassDef) -> set[str]:
    def is_property(method: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
        names = [ast.unparse(decorator) for decorator in method.decorator_list]
        return any(re.search(r"property$|\.(setter|getter|deleter)$", name) for name in names)

    return {
        child.name
        for child in node.body
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        and not child.name.startswith("_")
        and not is_property(child)
    }


def test_classes_keep_their_budget():
    problems = []
    for found in definitions():
        if not isinstance(found.node, ast.ClassDef):
            continue
        methods = public_methods(found.node)
        budget = PUBLIC_METHODS_OF.get(found.key, PUBLIC_METHODS)
        if len(methods) > budget:
            problems.append(f"{found} has {len(methods)} public methods, its budget is {budget}: {sorted(methods)}")
    report(
        problems,
        "An object has parts; verbs over it are functions. Or raise its budget in PUBLIC_METHODS_OF.",
    )


def test_exceptions_to_budgets_are_needed():
    """An exception that nothing needs any more is deleted, and one that names nothing was misspelt."""
    found = {definition.key: definition.node for definition in definitions()}
    files = {str(path.relative_to(PACKAGE)): path for path in modules().values()}
    problems = [
        *(f"MODULE_LINES_OF[{key!r}]" for key in MODULE_LINES_OF if key not in files),
        *(f"FUNCTION_LINES_OF[{key!r}]" for key in FUNCTION_LINES_OF if key not in found),
        *(f"PUBLIC_METHODS_OF[{key!r}]" for key in PUBLIC_METHODS_OF if key not in found),
        *(
            f"FUNCTION_LINES_OF[{key!r}]: {length(node)} lines are within the common budget"
            for key in FUNCTION_LINES_OF
            if (node := found.get(key)) and length(node) <= FUNCTION_LINES
        ),
        *(
            f"PUBLIC_METHODS_OF[{key!r}]: {len(public_methods(node))} are within the common budget"
            for key in PUBLIC_METHODS_OF
            if (node := found.get(key)) and len(public_methods(node)) <= PUBLIC_METHODS
        ),
    ]
    report(problems, "Exceptions that no code needs:")


def test_names_are_nouns_of_the_subject():
    problems = [
        f"{found}: which data does it own?"
        for found in definitions()
        if isinstance(found.node, ast.ClassDef) and EMPTY_WORDS.search(found.name.split(".")[-1])
    ]
    problems += [
        f"{path.relative_to(ROOT)}: a function without a home stands beside its user"
        for folder in (PACKAGE, ROOT / "tests", ROOT / "benchmarks")
        for path in sorted(folder.rglob("*.py"))
        if path.stem in ("utils", "util", "helpers", "helper", "misc")
    ]
    report(problems, "Names that say nothing:")


# ---- Pickle -----------------------------------------------------------------------------------------------


def spelled_out(tree: ast.Module) -> dict[str, str]:
    """Local name → what it was imported as: {"np": "numpy", "loads": "pickle.loads"}."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update({alias.asname: alias.name for alias in node.names if alias.asname})
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    return names


def keyword(call: ast.Call, name: str) -> str | None:
    return next((ast.unparse(item.value) for item in call.keywords if item.arg == name), None)


def unpickling(tree: ast.Module) -> Iterator[tuple[int, str]]:
    names = spelled_out(tree)

    def full(node: ast.expr) -> str:
        first, *rest = ast.unparse(node).split(".")
        return ".".join([names.get(first, first), *rest])

    for node in ast.walk(tree):
        # a name alone is enough: `map(pickle.loads, …)` opens pickles too
        if isinstance(node, ast.Attribute | ast.Name) and UNPICKLING.fullmatch(full(node)):
            yield node.lineno, full(node)
        if isinstance(node, ast.Call):
            if full(node.func) == "torch.load" and keyword(node, "weights_only") != "True":
                yield node.lineno, "torch.load without weights_only=True"
            if keyword(node, "allow_pickle") not in (None, "False"):
                yield node.lineno, f"{full(node.func)}(allow_pickle={keyword(node, 'allow_pickle')})"


def test_nothing_is_unpickled():
    report(
        [
            f"{path_of(module)}:{line} {what}"
            for module, path in modules().items()
            if str(path.relative_to(PACKAGE)) not in MAY_UNPICKLE
            for line, what in unpickling(tree_of(module))
        ],
        "Only h3lab/serial/signed.py opens a pickle, after checking its signature:",
    )


def test_the_search_for_pickles_finds_them():
    source = """
import pickle as p, numpy as np, torch
from cloudpickle import loads
p.load(f); loads(b); map(p.loads, x); np.load(f, allow_pickle=True); torch.load(f, weights_only=False)
torch.load(f)
np.load(f); torch.load(f, weights_only=True); json.loads(s); p.dumps(o)
"""
    assert sorted(line for line, _ in unpickling(ast.parse(source))) == [4, 4, 4, 4, 4, 5]


# ---- The pages --------------------------------------------------------------------------------------------


@cache
def files() -> list[Path]:
    """What belongs to the repository, and what is about to; a distribution without git has everything."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        skipped = re.compile(r"\..*|__pycache__|build|dist|.*\.egg-info")
        found = (path for path in ROOT.rglob("*") if path.is_file())
        return sorted(p for p in found if not any(map(skipped.fullmatch, p.relative_to(ROOT).parts)))
    return sorted(path for name in set(listing.split("\0")) if name and (path := ROOT / name).is_file())


def annotated_tree() -> dict[str, int]:
    """Path named in README's tree → its line. A line is names, two spaces or more, and what they are."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    begin, end = lines.index("<!-- tree -->"), lines.index("<!-- /tree -->")
    named: dict[str, int] = {}
    above: list[tuple[int, str]] = []
    for number, line in enumerate(lines[begin + 1 : end], begin + 2):
        if not line.strip() or line.startswith("```"):
            continue
        indent = len(line) - len(line.lstrip())
        above = [(depth, folder) for depth, folder in above if depth < indent]
        entries = re.split(r"\s{2,}", line.strip())[0].split(" ")
        for entry in entries:
            named["".join(folder for _, folder in above) + entry] = number
        if entries[-1].endswith("/"):
            above.append((indent, entries[-1]))
    return named


def test_readme_names_what_is_on_disk():
    problems = []
    for name, line in annotated_tree().items():
        path = ROOT / name
        if not path.exists():
            problems.append(f"README.md:{line} names {name}, which is not there")
        elif path.is_dir() != name.endswith("/"):
            problems.append(f"README.md:{line} names {name}: a folder, and only a folder, ends in /")
    report(problems, "README's tree and the disk differ:")


def test_readme_names_everything_of_the_house():
    named = set(annotated_tree())
    expected = set()
    for path in files():
        parts = path.relative_to(ROOT).parts
        if parts[0].startswith("."):
            continue
        expected.add(parts[0] + "/" * (len(parts) > 1))
        if parts[0] == "h3lab" and (len(parts) > 2 or path.suffix == ".py"):
            expected.add("h3lab/" + parts[1] + "/" * (len(parts) > 2))
    missing = sorted(expected - named)
    report([f"{name} is not in README's tree" for name in missing], "README's tree and the disk differ:")


def text_lines() -> Iterator[tuple[str, str]]:
    """Where, and what, for every line of every text file of the repository."""
    for path in files():
        data = path.read_bytes()
        if b"\0" in data[:8192]:
            continue
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            yield f"{path.relative_to(ROOT)}:{number}", line


def test_no_file_names_a_registry_or_a_machine():
    hosts = re.compile("|".join(re.escape(host) for host in REGISTRY_HOSTS))
    folders = re.compile(rf"(?<![\w.\-/}})\]]){'/'}({'|'.join(MACHINE_FOLDERS)})(?![\w\-.])")
    problems = []
    for where, line in text_lines():
        for pattern, what in ((hosts, "names a registry's host"), (folders, "has a path of one machine")):
            if found := pattern.search(line):
                start = max(0, found.start() - 30)
                problems.append(f"{where} {what}: …{line[start : found.end() + 30].strip()}…")
    report(problems, "The repository works on any machine:")
