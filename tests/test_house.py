"""The rules of the house, checked on the source itself: who imports whom, what is shipped, how long things get."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"coolvid": ROOT / "coolvid", "coolvid_plugins": ROOT / "plugins", "coolvid_cli": ROOT / "cli"}
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60

ROOMS = {
    "picture", "media", "settings", "plugin", "codec", "bitstream", "decoding", "encoding", "study", "kernels",
}  # fmt: skip
FILES = {"api", "errors", "events", "files", "testing", "values"}

# Who imports whom, exactly: an import that is not here fails, and so does a permission that nobody uses. Everybody may
# import errors and values; what a room imports of itself is not listed.
ARROWS: dict[str, set[str]] = {
    "errors": set(),
    "values": set(),
    "files": set(),
    "kernels": set(),
    "picture": set(),
    "events": {"picture"},
    "media": {"picture", "files"},
    "codec": {"picture"},
    "plugin": {"codec"},
    "settings": {"plugin", "codec", "picture", "files"},
    "bitstream": {"codec", "picture", "kernels", "files"},
    "decoding": {"bitstream", "codec", "plugin", "picture", "kernels", "events"},
    "encoding": {"decoding", "bitstream", "codec", "plugin", "settings", "picture", "events", "kernels", "files"},
    "api": {"encoding", "decoding", "bitstream", "media", "settings", "picture", "events", "files"},
    "study": {"api", "decoding", "bitstream", "media", "settings", "codec", "picture", "events", "files"},
    "testing": {"encoding", "decoding", "plugin", "settings", "codec", "picture", "kernels"},
    "coolvid_plugins": {"plugin", "codec", "picture", "kernels"},
    "coolvid_cli": {"api", "study", "settings", "plugin", "picture", "events", "kernels", "files"},
}

# The same inside encoding, the only room with rooms of its own.
ENCODING: dict[str, set[str]] = {
    "objective": set(),
    "loss": {"objective"},
    "model": {"loss"},
    "threads": set(),
    "training": {"loss", "model", "objective", "threads"},
    "quantization": {"model", "objective"},
    "job": set(),
    "packing": {"job", "objective"},
    "candidates": {"job", "model", "objective", "packing", "quantization", "threads", "training"},
    "manager": {"candidates", "job", "objective", "threads"},
    "resume": set(),
    "targets": set(),
    "video": {"manager", "resume"},
    "pack": {"job", "model", "objective", "packing", "quantization"},
}

# Where torch may be imported when a module is loaded; elsewhere it is imported inside the function that needs it.
TORCH_ROOMS = ("coolvid.encoding", "coolvid.testing", "coolvid.plugin.conformance", "coolvid.plugin.agreement")
# Parts of encoding that api and the command line read without training anything.
TORCH_FREE = {
    "coolvid.encoding.__init__",
    "coolvid.encoding.resume",
    "coolvid.encoding.targets",
    "coolvid.encoding.video",
}
TORCH_PLUGINS = {
    "differentiable",
    "fused",
    "stateful",
    "pointwise",
    "quantizer",
    "distortion",
    "perceptual",
    "features",
}


def sources():
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = (package, *path.relative_to(folder).with_suffix("").parts)
            yield ".".join(parts), path


SOURCES = dict(sources())
TREES = {name: ast.parse(path.read_text(), str(path)) for name, path in SOURCES.items()}


def statements(tree, inside_functions):
    """Import statements that are executed: not those under `if TYPE_CHECKING`."""
    todo = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not inside_functions:
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        todo.extend(ast.iter_child_nodes(node))


def imported(name, *, inside_functions=True):
    """Absolute dotted names that a module imports; `from .a import b` in x.y is x.a.b."""
    for node in statements(TREES[name], inside_functions):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
            continue
        here = name.split(".")
        base = ".".join(here[: len(here) - node.level]) if node.level else ""
        module = ".".join(part for part in (base, node.module) if part)
        yield from (f"{module}.{alias.name}" for alias in node.names)


def rooms_imported(name):
    """Rooms of coolvid that a module imports; a public name of coolvid itself counts as api."""
    for target in imported(name):
        package, *rest = target.split(".")
        if package == "coolvid":
            yield rest[0] if rest and rest[0] in ROOMS | FILES else "api"


def room_of(name):
    package, room, *_ = name.split(".")
    return room if package == "coolvid" else package


def test_the_top_of_coolvid_is_ten_rooms_and_six_files():
    tops = {path.name for path in PACKAGES["coolvid"].iterdir() if not path.name.startswith("__")}
    assert tops == ROOMS | {f"{name}.py" for name in FILES} | {"py.typed"}


@pytest.mark.parametrize("room", sorted(ARROWS))
def test_a_room_imports_exactly_what_the_table_says(room):
    users = {}
    for name in SOURCES:
        if room_of(name) == room:
            for target in set(rooms_imported(name)) - {room, "errors", "values"}:
                users.setdefault(target, name)
    assert set(users) == ARROWS[room], users


def test_every_room_stands_in_the_table():
    assert {room_of(name) for name in SOURCES} - {"__init__", "__main__"} == set(ARROWS)


@pytest.mark.parametrize("table", [ARROWS, ENCODING], ids=["coolvid", "encoding"])
def test_arrows_have_no_circle(table):
    order = set()
    while len(order) < len(table):
        free = {room for room in table if room not in order and table[room] <= order}
        assert free, f"circle among {sorted(set(table) - order)}"
        order |= free


@pytest.mark.parametrize("part", sorted(ENCODING))
def test_parts_of_encoding_import_exactly_what_the_table_says(part):
    users = {}
    for name in SOURCES:
        if name.startswith("coolvid.encoding.") and name.split(".")[2] == part:
            targets = {t.split(".")[2] for t in imported(name) if t.startswith("coolvid.encoding.")}
            for target in targets & (set(ENCODING) - {part}):
                users.setdefault(target, name)
    assert set(users) == ENCODING[part], users


def test_nobody_imports_plugins_or_command_line():
    for name in SOURCES:
        own = name.split(".")[0]
        for target in imported(name):
            first = target.split(".")[0]
            assert first not in {"plugins", "cli", "coolvid_plugins", "coolvid_cli"} or first == own, (name, target)


@pytest.mark.parametrize(
    "package, may",
    [
        ("entrypoints", lambda name: name == "coolvid.plugin.registry"),
        ("click", lambda name: name.startswith("coolvid_cli.")),
        ("rich", lambda name: name.startswith("coolvid_cli.")),
        ("av", lambda name: name.startswith("coolvid.media.") or name == "coolvid.study.peers"),
    ],
)
def test_third_parties_stay_in_their_room(package, may):
    users = {name for name in SOURCES for target in imported(name) if target.split(".")[0] == package}
    assert users
    assert all(may(name) for name in users), users


def may_load_torch(name):
    package, *rest = name.split(".")
    if package == "coolvid_plugins":
        return rest[-1] in TORCH_PLUGINS
    return name.startswith(TORCH_ROOMS) and name not in TORCH_FREE


def test_torch_is_loaded_by_training_only():
    for name in SOURCES:
        targets = {t.split(".")[0] for t in imported(name, inside_functions=False)}
        assert "torch" not in targets or may_load_torch(name), f"{name} imports torch when it is loaded"


DECODING = """
import sys
import coolvid.decoding.schedule, coolvid.api
from coolvid.plugin.registry import load
for kind, name in (("arm", "mlp"), ("upsampling", "separable"), ("synthesis", "conv"), ("warper", "sinc")):
    load(kind, name)
print("torch" in sys.modules)
"""


def test_decoding_and_its_plugins_do_not_load_torch():
    result = subprocess.run([sys.executable, "-P", "-c", DECODING], capture_output=True, text=True, timeout=60)
    assert result.stdout == "False\n", result.stderr


def test_nothing_prints_outside_the_command_line():
    for name, tree in TREES.items():
        if not name.startswith("coolvid_cli"):
            calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
            assert not [c.lineno for c in calls if c.func.id in ("print", "pprint", "breakpoint")], name


@pytest.mark.parametrize("name", SOURCES)
def test_files_and_functions_stay_readable(name):
    tree = TREES[name]
    assert len(SOURCES[name].read_text().splitlines()) <= MAX_FILE_LINES
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            n_lines = (node.end_lineno or 0) - node.lineno + 1
            assert n_lines <= MAX_FUNCTION_LINES, f"{name}.{node.name} has {n_lines} lines"


@pytest.mark.parametrize("name", [n for n, t in TREES.items() if t.body])
def test_every_file_says_what_it_is(name):
    assert ast.get_docstring(TREES[name]), f"{name} has no docstring"


def test_the_package_list_is_what_lies_on_disk():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    on_disk = {n.removesuffix(".__init__") for n in SOURCES if n.endswith(".__init__")}
    assert sorted(listed) == sorted(on_disk)
    without = {n.rpartition(".")[0] for n in SOURCES} - on_disk
    assert not without, f"folders of Python files without __init__.py: {sorted(without)}"


def test_every_entry_point_leads_somewhere():
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    for targets in groups.values():
        for target in targets.values():
            module, _, attribute = target.partition(":")
            names = {n.name for n in TREES[module].body if isinstance(n, ast.ClassDef)}
            assert attribute in names, target
