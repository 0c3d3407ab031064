"""The rules between the rooms of the house hold. Two tables in ``docs/design.md`` state them, and are read here."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
LAYERS = ("model", "transforms", "pipelines")
DYNAMIC = ("import_module", "__import__")
IN_A_STRING = re.compile(rf"\b(?:from|import) ((?:{'|'.join(LAYERS)})(?:\.\w+)*)")
"""Matches code that is passed to another process."""


@dataclass(frozen=True)
class Room:
    """A row of the first table.

    Attributes:
        places: folders, which end in a slash, and single files.
        imports: the rooms that it may import from, in addition to itself.
    """

    places: tuple[str, ...]
    imports: frozenset[str]


@dataclass(frozen=True)
class House:
    """Both tables: the rooms by name, and the rooms in which each package from outside must not be loaded."""

    rooms: dict[str, Room]
    unloaded: dict[str, set[str]]

    def room_of(self, file: str) -> str:
        """Returns the room of a file. The innermost place wins: ``pipelines/terminal/`` before ``pipelines/``."""
        places = [(place, name) for name, room in self.rooms.items() for place in room.places if holds(place, file)]
        assert places, f"{file} has no room in docs/design.md"
        return max(places, key=lambda found: len(found[0]))[1]


def read_house(page: str) -> House:
    section = page.partition("## The house\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    rooms: dict[str, Room] = {}
    for name, places, _, imports in (row for row in rows if len(row) == 4 and "`" in row[1]):
        allowed = words(imports)
        for layer in {"all of model", "all of transforms"} & allowed:
            allowed |= {other for other, room in rooms.items() if room.places[0].startswith(layer.split()[-1])}
        allowed -= {"all of model", "all of transforms"}
        assert allowed <= set(rooms), f"{name} may import from {allowed - set(rooms)}, which is not above it"
        rooms[name] = Room(tuple(re.findall(r"`([^`]+)`", places)), frozenset(allowed))
    unloaded: dict[str, set[str]] = {}
    for packages, names in (row for row in rows if len(row) == 2):
        for package in re.findall(r"`([^`]+)`", packages):
            unloaded.setdefault(package, set()).update(words(names))
    assert {room for names in unloaded.values() for room in names} <= set(rooms)
    assert rooms
    assert unloaded
    return House(rooms, unloaded)


def holds(place: str, file: str) -> bool:
    return file.startswith(place) if place.endswith("/") else file == place


def words(cell: str) -> set[str]:
    return {word for word in cell.split(", ") if word not in ("", "–")}


def modules(root: Path) -> list[str]:
    found = [str(file.relative_to(root)) for layer in LAYERS for file in sorted((root / layer).rglob("*.py"))]
    assert found, f"{root} holds no modules"
    return found


@cache
def imports(root: Path, file: str, on_loading: bool = False) -> frozenset[str]:
    """Returns the dotted names that a file imports: all of them, or only those that loading it imports."""
    return frozenset(find_imports(root, file, on_loading))


def find_imports(root: Path, file: str, on_loading: bool) -> Iterator[str]:
    package = file.split("/")[:-1]
    for node in walk(ast.parse((root / file).read_text()), on_loading):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in DYNAMIC and node.args:
            yield beginning(node.args[0])
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from IN_A_STRING.findall(node.value)


def walk(tree: ast.AST, on_loading: bool) -> Iterator[ast.AST]:
    """Yields the nodes of a tree, except for code that runs only if the file is the main program."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "__main__" in ast.unparse(node.test):
            continue
        if on_loading and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if on_loading and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        yield from walk(node, on_loading)


def beginning(argument: ast.expr) -> str:
    """Returns the constant start of a module's name that is composed: ``f"pipelines.commands.{name}"``."""
    first = argument.values[0] if isinstance(argument, ast.JoinedStr) and argument.values else argument
    return str(first.value).rstrip(".") if isinstance(first, ast.Constant) else ""


def file_of(root: Path, name: str) -> str | None:
    """Returns the file of a module, or of the module that holds a name; None if it is not in this repository."""
    parts = name.split(".")
    while parts and parts[0] in LAYERS:
        path = "/".join(parts)
        for file in (f"{path}.py", f"{path}/__init__.py"):
            if (root / file).is_file():
                return file
        parts.pop()
    return None


def forbidden_imports(root: Path, house: House) -> list[str]:
    """Returns the imports within the repository that the first table does not allow."""
    found = []
    for file in modules(root):
        if file.endswith("/__init__.py"):
            continue
        room = house.room_of(file)
        for name in sorted(imports(root, file)):
            target = file_of(root, name)
            if target in (None, f"{str(target).split('/')[0]}/__init__.py"):
                continue
            other = house.room_of(target)
            if other != room and other not in house.rooms[room].imports:
                found.append(f"{file} ({room}) imports {name} ({other})")
    return found


def loaded_packages(root: Path, house: House) -> list[str]:
    """Returns the external packages that a room loads, directly or indirectly, although the second table forbids it."""
    found = []
    for file in modules(root):
        for package, names in house.unloaded.items():
            if file.count("/") > 0 and not file.endswith("/__init__.py") and house.room_of(file) in names:
                ways = [file, *closure(root, file)]
                found += [f"{file} loads {package} by {way}" for way in ways if takes(root, way, package, way != file)]
    return found


def takes(root: Path, file: str, package: str, on_loading: bool) -> bool:
    return any(name.split(".")[0] == package for name in imports(root, file, on_loading))


def closure(root: Path, file: str) -> set[str]:
    """Returns the other files of the repository that loading a file loads."""
    seen, left = {file}, [file, *packages_of(file)]
    while left:
        for name in imports(root, left.pop(), on_loading=True):
            target = file_of(root, name)
            new = {target, *packages_of(target)} - seen if target else set()
            seen |= new
            left += new
    return seen - {file}


def packages_of(file: str) -> list[str]:
    """Returns the packages that are loaded before a module."""
    parts = file.split("/")
    return ["/".join([*parts[:depth], "__init__.py"]) for depth in range(1, len(parts))]


@pytest.fixture(scope="module")
def house() -> House:
    return read_house((REPOSITORY / "docs" / "design.md").read_text())


def test_rooms_import_only_what_they_may(house):
    assert forbidden_imports(REPOSITORY, house) == []


def test_heavy_packages_are_loaded_only_where_they_are_needed(house):
    assert loaded_packages(REPOSITORY, house) == []


def test_every_place_of_the_map_exists(house):
    for room in house.rooms.values():
        assert all((REPOSITORY / place).exists() for place in room.places), room


def test_packages_hold_a_docstring_and_nothing_else():
    """So a module of a room is loaded without the others. A layer may make settings before torch and Arrow."""
    packages = [file for file in modules(REPOSITORY) if file.endswith("__init__.py")]
    assert {file.split("/")[0] for file in packages} == set(LAYERS)
    for file in packages:
        tree = ast.parse((REPOSITORY / file).read_text())
        assert ast.get_docstring(tree), file
        set_up = (
            {"model", "model.memory.use_systems_pool", "model.threads.spin_briefly"} if file.count("/") == 1 else set()
        )
        assert len(tree.body) == 1 or imports(REPOSITORY, file) <= set_up, file
    folders = {(REPOSITORY / file).parent for file in modules(REPOSITORY)}
    assert all((folder / "__init__.py").exists() for folder in folders)


# The same checks on a made-up house, with one rule broken at a time.

PAGE = """
## The house

| Room | Files | What is there | Imports |
|---|---|---|---|
| basics | `model/errors.py` | errors | – |
| world | `model/world/` | worlds | basics |
| storage | `transforms/storage/` | files | basics |
| render | `transforms/render/` | the job | storage, all of model |
| jobs | `pipelines/` | what commands do | all of model, all of transforms |
| terminal | `pipelines/terminal/` | tables | jobs |

| Package | Not loaded by |
|---|---|
| `torch` | storage, terminal |

## Something else
"""
FILES = {
    "model/errors.py": "",
    "model/world/world.py": "import torch\nfrom model.errors import InputError",
    "transforms/storage/files.py": "from model import errors",
    "transforms/render/tiles.py": "from transforms.storage.files import join\nfrom model.world import world",
    "pipelines/render.py": "import transforms.render.tiles\nif __name__ == '__main__':\n    import pipelines.terminal",
    "pipelines/terminal/show.py": "def show():\n    from pipelines.render import tiles",
}


@pytest.fixture
def tree(tmp_path):
    for file, source in FILES.items():
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        for folder in path.relative_to(tmp_path).parents[:-1]:
            (tmp_path / folder / "__init__.py").write_text('"""A room."""\n')
    return tmp_path


def test_a_house_in_order_passes(tree):
    house = read_house(PAGE)
    assert forbidden_imports(tree, house) == []
    assert loaded_packages(tree, house) == []


@pytest.mark.parametrize(
    "line",
    [
        "from transforms.render.tiles import Tile",
        "from transforms.render import tiles",
        "import transforms.render.tiles as tiles",
        "from ..render import tiles",
        "from ..render.tiles import Tile",
        "def late():\n    from transforms.render import tiles",
        "if TYPE_CHECKING:\n    from transforms.render.tiles import Tile",
        "tiles = import_module('transforms.render.tiles')",
        "tiles = importlib.import_module(f'transforms.render.{name}')",
        "CODE = 'from transforms.render.tiles import Tile; Tile()'",
    ],
)
def test_an_import_against_the_rules_is_found(tree, line):
    (tree / "transforms/storage/files.py").write_text(f"{line}\n")
    (found,) = forbidden_imports(tree, read_house(PAGE))
    assert found.startswith("transforms/storage/files.py (storage) imports transforms.render")


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("transforms/storage/files.py", "import torch"),
        ("transforms/storage/files.py", "def late():\n    from torch import nn"),
        ("model/errors.py", "import torch.nn"),
        ("pipelines/terminal/show.py", "import pipelines.render"),
    ],
)
def test_a_package_that_is_loaded_against_the_rules_is_found(tree, file, source):
    (tree / file).write_text(source)
    assert loaded_packages(tree, read_house(PAGE))


def test_a_file_without_a_room_is_found(tree):
    (tree / "transforms/tiles.py").write_text("")
    with pytest.raises(AssertionError, match=r"transforms/tiles.py has no room"):
        forbidden_imports(tree, read_house(PAGE))


def test_a_rule_that_makes_a_circle_is_refused():
    with pytest.raises(AssertionError, match="storage may import from"):
        read_house(PAGE.replace("| files | basics |", "| files | basics, render |"))


def test_a_tree_without_modules_is_no_success(tmp_path):
    with pytest.raises(AssertionError, match="holds no modules"):
        forbidden_imports(tmp_path, read_house(PAGE))
