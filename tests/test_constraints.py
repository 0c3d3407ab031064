"""The exact versions in ``constraints.txt`` fit each other on every Python that the project promises.

The metadata of the installed packages state the requirements for other versions of Python, so nothing is downloaded.
"""

import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = "infinitygan"
CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"


def pins(environment):
    """Returns the version of each package on a Python."""
    found = {}
    for line in CONSTRAINTS.read_text().splitlines():
        if line.startswith("#"):
            continue
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            name = canonicalize_name(requirement.name)
            assert name not in found, line
            (version,) = requirement.specifier
            assert version.operator == "==", line
            found[name] = version.version
    return found


def required(name, version, extras, environment):
    """Returns a package's requirements on a Python; empty if this version is not the installed one."""
    for line in declared(extras) if name == PROJECT else installed(name, version):
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({**environment, "extra": extra}) for extra in (*extras, "")):
            yield requirement


def declared(extras):
    """Yields what this project requires, by pyproject.toml."""
    project = tomllib.loads((CONSTRAINTS.parent / "pyproject.toml").read_text())["project"]
    yield from project["dependencies"]
    for extra in extras:
        yield from project["optional-dependencies"][extra]


def installed(name, version):
    """Returns what a package requires, by its metadata."""
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return []
    return found.requires or [] if version == Version(found.version).public else []


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_every_package_has_a_version_that_the_others_accept(python):
    environment = {**default_environment(), "python_version": python, "python_full_version": f"{python}.0"}
    versions = pins(environment)
    seen, ahead = set(), [(PROJECT, ("dev", "s3", "dataflow"))]
    while ahead:
        name, extras = ahead.pop()
        for requirement in required(name, versions.get(name), extras, environment):
            needed = canonicalize_name(requirement.name)
            assert needed in versions, f"{name} requires {requirement}"
            assert requirement.specifier.contains(versions[needed], prereleases=True), f"{name} requires {requirement}"
            step = needed, tuple(sorted(requirement.extras))
            if step not in seen:
                seen.add(step)
                ahead.append(step)
    assert len(seen) > 100
