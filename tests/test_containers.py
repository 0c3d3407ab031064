"""Images of workers are pinned, run without root, and get all that they need; CI runs `containers/install.sh`."""

import fnmatch
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
DOCKERFILES = sorted((REPOSITORY / "containers").glob("Dockerfile*"))
PINNED = re.compile(r"[a-z0-9./_-]+:[0-9]+\.[0-9]+\.[0-9]+[a-z0-9.-]*")


def instructions(dockerfile):
    """Returns the instructions of a Dockerfile as lists of words."""
    lines = [line for line in dockerfile.read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [shlex.split(line) for line in joined.splitlines() if line]


def values(dockerfile, name):
    return [words[1:] for words in instructions(dockerfile) if words[0] == name]


def is_sent(path):
    """Tells whether docker sends a file to the build, by the last line of .dockerignore that names it or a parent."""
    sent = True
    for line in (REPOSITORY / ".dockerignore").read_text().split():
        pattern = line.removeprefix("!").replace("**/", "*")
        if any(fnmatch.fnmatch(str(part), pattern) for part in (path, *path.parents[:-1])):
            sent = line.startswith("!")
    return sent


@pytest.fixture(params=DOCKERFILES, ids=lambda path: path.name)
def dockerfile(request):
    return request.param


def test_there_is_one_with_and_one_without_a_gpu():
    assert [path.name for path in DOCKERFILES] == ["Dockerfile", "Dockerfile.gpu"]
    kinds = [re.findall(r"install\.sh (\w+)", path.read_text()) for path in DOCKERFILES]
    assert kinds == [["cpu"], ["gpu"]]


def test_bases_are_pinned_and_beam_is_the_version_that_is_installed(dockerfile):
    bases = [words[0] for words in values(dockerfile, "FROM")]
    assert all(PINNED.fullmatch(base) for base in bases), bases
    (beam,) = re.findall(r"^apache-beam==(\S+)$", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)
    python = re.fullmatch(r"python:(3\.[0-9]+)\.[0-9]+-slim-bookworm", bases[-1])[1]
    assert bases[:-1] == [f"apache/beam_python{python}_sdk:{beam}"]


def test_workers_are_not_root_and_start_with_beams_program(dockerfile):
    words = instructions(dockerfile)
    names = [each[0] for each in words]
    ((user,),) = values(dockerfile, "USER")
    assert user.isdigit()
    assert int(user) > 0
    assert f"--uid {user} " in dockerfile.read_text()
    assert names.index("USER") > max(place for place, name in enumerate(names) if name in ("RUN", "COPY"))
    assert ["COPY", "--from=beam", "/opt/apache/beam", "/opt/apache/beam"] in words
    assert dockerfile.read_text().splitlines()[-1] == 'ENTRYPOINT ["/opt/apache/beam/boot"]'


def test_the_build_gets_all_files_that_the_installation_needs(dockerfile):
    """The package with its weights, and everything that a step names by its path in the source."""
    tracked = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a checkout")
    packages = [
        line for line in tracked.stdout.splitlines() if line.split("/")[0] in ("model", "pipelines", "transforms")
    ]
    named = re.findall(r"/tmp/source/([\w./-]+)", dockerfile.read_text())
    assert named == ["containers/install.sh"]
    assert os.access(REPOSITORY / named[0], os.X_OK)
    for name in (*packages, *named, "pyproject.toml", "setup.py", "constraints.txt", "README.md", "LICENSE"):
        assert is_sent(Path(name)), name
    assert "model/weights/small.safetensors" in packages
    for name in ("samples/ATTRIBUTION.md", ".venv/bin/python", ".git/config", "model/__pycache__/version.pyc"):
        assert not is_sent(Path(name)), name


@pytest.mark.parametrize("words", [["tpu", "venv"], ["cpu"]])
def test_the_script_refuses_other_words(words, tmp_path):
    script = REPOSITORY / "containers" / "install.sh"
    ended = subprocess.run([script, *words], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode != 0
    assert not list(tmp_path.iterdir())
