"""What holds for the repository as a whole: packaging, pins, layers, docstrings, no hosts."""

import ast
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import sim

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MODULES = sorted((ROOT / "sim").rglob("*.py"))
PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;]+)(?: ; (?P<marker>.+))?")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> set[str]:
    """The names of all modules that a file imports, at its top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    return names


def output(*command: str) -> str:
    """What a command prints, or nothing if it is missing or fails."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout if done.returncode == 0 else ""


# ------------------------------------------------------------------------------------------ hosts


def package_hosts() -> set[str]:
    """Hosts of package indexes: the public ones, and those this machine is set up with."""
    pythonhosted, npm = "pythonhosted", "npmjs"
    hosts = {"pypi" + ".org", pythonhosted + ".org", npm + ".org"}
    told = output(sys.executable, "-m", "pip", "config", "list")
    told += output("npm", "config", "get", "registry")
    for place in re.findall(r"https?://([^/\s'\"]+)", told):
        host = place.rpartition("@")[2].lower()
        # A loopback name alone says nothing, with its port it does.
        bare = host.partition(":")[0]
        if bare not in ("localhost", "127.0.0.1") or host != bare:
            hosts.add(host)
    return hosts


def repository_files() -> list[Path]:
    """Tracked files, and new ones that are not ignored."""
    listed = output("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if not listed:
        pytest.skip("not a git work tree")
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def test_no_file_names_a_package_index():
    needles = [host.encode() for host in package_hosts()]
    found = [
        str(path.relative_to(ROOT))
        for path in repository_files()
        if any(needle in path.read_bytes().lower() for needle in needles)
    ]
    assert found == []


# --------------------------------------------------------------------------------------- packaging


def test_version_stands_in_one_place():
    assert "version" in PYPROJECT["project"]["dynamic"]
    assert Version(sim.__version__).release >= (0, 1, 0)
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(rf"^version: {re.escape(sim.__version__)}$", citation, re.MULTILINE)


def requirements() -> list[str]:
    project = PYPROJECT["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    return [*PYPROJECT["build-system"]["requires"], *project["dependencies"], *extras]


@pytest.mark.parametrize("line", requirements())
def test_dependencies_have_a_lower_bound_and_nothing_else(line):
    requirement = Requirement(line)
    assert requirement.url is None
    assert [part.operator for part in requirement.specifier] == [">="]


def pins() -> dict[str, list[re.Match[str]]]:
    found: dict[str, list[re.Match[str]]] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        match = PIN.fullmatch(line)
        assert match, f"not 'name==version' or 'name==version ; marker': {line}"
        assert "*" not in match["version"], line
        found.setdefault(canonicalize_name(match["name"]), []).append(match)
    return found


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_constraints_are_exact_and_one_per_package(python):
    here = {"python_version": python, "python_full_version": python + ".0"}
    for name, lines in pins().items():
        valid = [m for m in lines if m["marker"] is None or Marker(m["marker"]).evaluate(here)]
        assert len(valid) == 1, f"{name} on Python {python}"


def test_constraints_allow_what_pyproject_asks_for():
    pinned = pins()
    for line in requirements():
        requirement = Requirement(line)
        for match in pinned[canonicalize_name(requirement.name)]:
            assert requirement.specifier.contains(match["version"]), line


def test_constraints_cover_everything_that_gets_installed():
    """Follow the requirements of what is installed: each must be pinned."""
    pinned, seen = pins(), set()
    todo = [Requirement(line) for line in requirements()]
    while todo:
        requirement = todo.pop()
        extras = requirement.extras or {""}
        key = (canonicalize_name(requirement.name), frozenset(extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            needs = importlib.metadata.requires(requirement.name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # an extra that is not installed here
        assert key[0] in pinned, f"{requirement.name} is installed but not in constraints.txt"
        for need in map(Requirement, needs):
            if need.marker is None or any(need.marker.evaluate({"extra": e}) for e in extras):
                todo.append(need)


def test_presets_are_packed_into_the_wheel():
    wheel = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"] == {
        "presets": "sim/presets",
        "validation": "sim/validation",
    }


def test_a_wheel_holds_all_that_is_read(tmp_path):
    """Not only modules: an installed package has no repository beside it."""
    pytest.importorskip("hatchling")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.iterdir()
    packed = set(zipfile.ZipFile(wheel).namelist())
    tracked = {path.relative_to(ROOT).as_posix() for path in repository_files()}
    there = {name for name in tracked if name.startswith("sim/")}
    there |= {f"sim/{name}" for name in tracked if name.startswith(("presets/", "validation/"))}
    assert "sim/py.typed" in there
    assert there <= packed
    others = {name for name in packed - there if ".dist-info/" not in name}
    assert others == set()


# ----------------------------------------------------------------------------------- source of sim/


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_module_says_what_it_is(path):
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring, f"{path.relative_to(ROOT)} has no docstring"


def test_only_plots_import_matplotlib():
    users = {
        module_name(path)
        for path in MODULES
        if any(name.partition(".")[0] == "matplotlib" for name in imported(path))
    }
    assert {name for name in users if not name.startswith("sim.analysis.plot")} <= {
        "sim.analysis.style"
    }


def test_private_numba_flag_is_used_in_one_place():
    users = {
        module_name(path)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.keyword) and node.arg == "_nrt")
        or (isinstance(node, ast.Constant) and node.value == "_nrt")
    }
    assert users <= {"sim.jit"}


def test_each_module_has_a_layer():
    """The check of import directions is silent about modules it does not list."""
    contracts = PYPROJECT["tool"]["importlinter"]["contracts"]
    rows = contracts[0]["layers"]
    listed = {name.strip(" ()") for row in rows for name in re.split(r"[|:]", row)}
    for path in MODULES:
        name = module_name(path)
        below_a_listed = any(f"{name}.".startswith(f"{layer}.") for layer in listed)
        above_a_listed = any(layer.startswith(f"{name}.") for layer in listed)
        if path.name == "__init__.py":
            assert below_a_listed or above_a_listed or name == "sim", name
        else:
            assert below_a_listed, f"{name} is in no layer of [tool.importlinter] in pyproject.toml"


# ------------------------------------------------------------------------------------ command line


def test_command_line_answers():
    done = subprocess.run(
        [sys.executable, "-m", "sim", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "vhost-scsi-sim" in done.stdout


def test_command_is_installed_under_its_name():
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="vhost-scsi-sim")
    assert entry.value == "sim.__main__:main"
