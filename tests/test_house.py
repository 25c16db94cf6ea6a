"""The rules of the house, checked on the source itself: who imports whom, what is shipped, how long things get."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = {"coolvid": ROOT / "coolvid", "coolvid_plugins": ROOT / "plugins", "coolvid_cli": ROOT / "cli"}
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60

# What everybody may import: names, values and integers without behaviour of their own.
GROUND = {"errors", "types", "architecture", "interfaces", "coded", "fixedpoint"}

# What each module or package of coolvid may import beside the ground, itself and third parties. Only downward.
ARROWS: dict[str, set[str]] = {
    "errors": set(),
    "types": set(),
    "architecture": set(),
    "coded": set(),
    "interfaces": set(),
    "fixedpoint": set(),
    "events": set(),
    "records": set(),
    "laplace": set(),
    "kernels": set(),
    "config": set(),
    "color": set(),
    "metrics": set(),
    "media": {"color"},
    "gop": {"config"},
    "settings": set(),
    "detail": set(),
    "presets": {"config", "detail", "settings"},
    "config_file": {"config", "presets", "settings"},
    "measured": set(),
    "targets": {"api", "config", "config_file", "events", "media", "presets"},
    "registry": set(),
    "modules": {"registry", "config"},
    "prior": set(),
    "networks": {"prior"},
    "bitstream": {"records", "laplace", "kernels", "networks"},
    "reconstruct": {"kernels", "laplace", "modules", "registry", "color"},
    "model": {"bitstream", "registry", "modules", "networks", "config", "laplace", "kernels", "color", "reconstruct"},
    "training": {"model", "config", "color", "metrics", "events", "registry", "kernels"},
    "quantization": {
        "model", "training", "config", "events", "metrics", "modules", "networks", "bitstream", "reconstruct",
    },
    "decoder": {"kernels", "bitstream", "reconstruct", "registry", "modules", "networks", "color", "gop", "events"},
    "inspection": {"bitstream", "decoder", "events", "networks", "reconstruct"},
    "reporting": {"bitstream", "decoder", "events", "inspection", "media", "metrics", "reconstruct"},
    "manager": {
        "training", "quantization", "bitstream", "decoder", "model", "gop", "config", "presets", "events", "metrics",
        "reconstruct", "modules", "networks", "kernels",
    },
    "api": {
        "manager", "decoder", "media", "bitstream", "gop", "config", "presets", "events", "metrics", "modules",
        "kernels", "resume",
    },
    "resume": {"bitstream", "config", "config_file", "gop"},
    "vmaf": {"media"},
    "curves": {"media", "metrics"},
    "peers": {"config", "media"},
    "comparison": {
        "api", "bitstream", "config", "curves", "decoder", "events", "media", "metrics", "peers", "vmaf",
    },
    "review": {"bitstream", "config", "decoder", "events", "media", "metrics"},
    "testing_tools": {"registry", "config"},
    "testing": {"testing_tools", "registry", "config"},
    "__init__": {"api", "reporting", "targets", "manager", "config", "presets", "events", "registry", "metrics",
                 "decoder", "media", "model", "training", "quantization", "gop"},
}  # fmt: skip
PLUGINS_MAY_IMPORT = GROUND | {"records", "laplace", "kernels", "config"}
CLI_MAY_IMPORT = {
    "",
    "comparison",
    "curves",
    "peers",
    "review",
    "events",
    "errors",
    "config",
    "config_file",
    "measured",
    "kernels",
    "presets",
    "registry",
    "types",
}

# Where torch may be imported when a module is loaded; elsewhere it is imported inside the function that needs it.
TORCH_ROOMS = {
    f"coolvid.{room}" for room in ("model", "training", "quantization", "manager", "testing", "testing_tools")
}
TORCH_PLUGINS = {"differentiable", "fused", "stateful", "pointwise", "quantizer", "distortion"}


def sources():
    for package, folder in ROOMS.items():
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


def rooms_of_coolvid(name):
    """First-level modules and packages of coolvid that a module imports; "" for a public name of coolvid itself."""
    for target in imported(name):
        parts = target.split(".")
        if parts[0] == "coolvid":
            is_room = len(parts) > 1 and (len(parts) > 2 or parts[1] in ARROWS)
            yield parts[1] if is_room else ""


CORE = [name for name in SOURCES if name.startswith("coolvid.")]


@pytest.mark.parametrize("name", CORE)
def test_core_modules_import_downward_only(name):
    room = name.split(".")[1]
    assert room in ARROWS, f"{room} has no place in the house; draw its arrows"
    above = set(rooms_of_coolvid(name)) - GROUND - ARROWS[room] - {room}
    assert not above, f"{name} imports {sorted(above)}; allowed: {sorted(ARROWS[room] | GROUND)}"


def test_arrows_have_no_circle():
    order = []
    while len(order) < len(ARROWS):
        free = [r for r in ARROWS if r not in order and ARROWS[r] <= set(order)]
        assert free, f"circle among {sorted(set(ARROWS) - set(order))}"
        order += free


@pytest.mark.parametrize("room", sorted(GROUND))
def test_the_ground_imports_only_ground(room):
    assert set(rooms_of_coolvid(f"coolvid.{room}")) <= GROUND


@pytest.mark.parametrize("name", [n for n in SOURCES if n.startswith("coolvid_plugins")])
def test_plugins_see_the_plugin_api_only(name):
    assert set(rooms_of_coolvid(name)) <= PLUGINS_MAY_IMPORT


@pytest.mark.parametrize("name", [n for n in SOURCES if n.startswith("coolvid_cli")])
def test_the_command_line_sees_public_names_only(name):
    assert set(rooms_of_coolvid(name)) <= CLI_MAY_IMPORT


def test_nobody_imports_plugins_or_command_line():
    for name in SOURCES:
        own = name.split(".")[0]
        for target in imported(name):
            first = target.split(".")[0]
            assert first not in {"plugins", "cli", "coolvid_plugins", "coolvid_cli"} or first == own, (name, target)


@pytest.mark.parametrize(
    "package, may",
    [
        ("entrypoints", lambda name: name == "coolvid.registry"),
        ("click", lambda name: name.startswith("coolvid_cli.")),
        ("rich", lambda name: name.startswith("coolvid_cli.")),
        ("av", lambda name: name.startswith("coolvid.media.") or name == "coolvid.peers"),
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
    return ".".join(name.split(".")[:2]) in TORCH_ROOMS


def test_torch_is_loaded_by_training_only():
    for name in SOURCES:
        targets = {t.split(".")[0] for t in imported(name, inside_functions=False)}
        assert "torch" not in targets or may_load_torch(name), f"{name} imports torch when it is loaded"


DECODING = """
import sys
import coolvid.decoder, coolvid.api
from coolvid.registry import load
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
