"""The files in `examples/` fit the schemas of those who read them, this project's commands, and each other."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from command_lines import parse

from pipelines.terminal.beam_flags import beam_options
from transforms.render.slices import parse_slice

EXAMPLES = Path(__file__).parents[1] / "examples"
DEPLOYMENT = {
    "": {"image", "flinkVersion", "serviceAccount", "flinkConfiguration", "jobManager", "taskManager"},
    "jobManager": {"replicas", "resource", "podTemplate"},
    "taskManager": {"replicas", "resource", "podTemplate"},
}
"""Fields of a FlinkDeployment's specification, from the reference of the operator."""


def read(name):
    return yaml.safe_load((EXAMPLES / "kubernetes" / name).read_text())


@pytest.fixture
def check():
    """Checks an object of Kubernetes strictly: unknown fields are errors."""
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    return lambda what: kubernetes_validate.validate(what, kubernetes_validate.latest_version(), strict=True)


def test_the_indexed_job_fits_the_schema(check):
    check(read("render-job.yaml"))


def test_a_field_that_kubernetes_does_not_know_is_found(check):
    job = read("render-job.yaml")
    job["spec"]["backoffLimitPerIndexes"] = 3
    with pytest.raises(Exception, match="backoffLimitPerIndexes"):
        check(job)


def test_the_pods_of_the_indexed_job_share_its_requests():
    job = read("render-job.yaml")["spec"]
    (container,) = job["template"]["spec"]["containers"]
    (rule,) = [rule for rule in job["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    assert rule["onExitCodes"]["containerName"] == container["name"]
    environment = {each["name"]: each["value"] for each in container["env"]}
    assert job["completionMode"] == "Indexed"
    assert job["completions"] == int(environment["JOB_COMPLETIONS"])
    slices = [
        parse_slice("auto", {**environment, "JOB_COMPLETION_INDEX": str(index)}) for index in range(job["completions"])
    ]
    assert [sum(each.holds(name) for each in slices) for name in ("a", "b", "c")] == [1, 1, 1]
    values = parse([*container["command"], *container["args"]])
    assert values["slice"] == "auto"
    assert values["requests"]
    assert values["out"]


def test_the_flink_cluster_fits_the_operator_and_its_pods_the_schema(check):
    cluster = read("flink-session.yaml")
    assert (cluster["apiVersion"], cluster["kind"]) == ("flink.apache.org/v1beta1", "FlinkDeployment")
    assert set(cluster["spec"]) <= DEPLOYMENT[""]
    for manager in ("jobManager", "taskManager"):
        assert set(cluster["spec"][manager]) <= DEPLOYMENT[manager]
        assert set(cluster["spec"][manager]["resource"]) == {"cpu", "memory"}
    pod = cluster["spec"]["taskManager"]["podTemplate"]
    check({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "worker"}, **pod})


def test_each_task_manager_has_a_pool_of_workers_with_a_core_for_each_slot():
    """Pools that TaskManagers share would hang, because each numbers its workers from 1."""
    specification = read("flink-session.yaml")["spec"]
    containers = {each["name"]: each for each in specification["taskManager"]["podTemplate"]["spec"]["containers"]}
    assert set(containers) == {"flink-main-container", "workers"}
    assert containers["workers"]["args"] == ["--worker_pool"]
    slots = specification["flinkConfiguration"]["taskmanager.numberOfTaskSlots"]
    assert containers["workers"]["resources"]["requests"]["cpu"] == slots
    version = specification["flinkVersion"].removeprefix("v").replace("_", ".")
    assert specification["image"].startswith(f"flink:{version}.")
    beam_options(["--runner=FlinkRunner", f"--flink_version={version}", "--flink_master=[local]"])  # Beam knows it


def test_the_slurm_script_runs_the_command_with_its_flags(tmp_path):
    """`infinitygan` is a program here that says what it was given."""
    script = EXAMPLES / "slurm" / "render.sbatch"
    fake = tmp_path / "venv" / "bin" / "infinitygan"
    fake.parent.mkdir(parents=True)
    fake.write_text('#!/bin/sh\nprintf "%s\\n" infinitygan "$@" "$OMP_NUM_THREADS"\n')
    fake.chmod(0o755)
    environment = {**os.environ, "VENV": str(tmp_path / "venv"), "SLURM_CPUS_PER_TASK": "4"}
    words = [script, "requests with spaces.csv", "/shared/out", "--format=tif"]
    *said, threads = subprocess.run(
        ["bash", *words], env=environment, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    values = parse(said)
    assert (values["requests"], values["out"], values["slice"]) == ("requests with spaces.csv", "/shared/out", "auto")
    assert threads == "4"


def test_the_slurm_script_asks_for_what_it_uses():
    text = (EXAMPLES / "slurm" / "render.sbatch").read_text()
    asked = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", text, re.MULTILINE))
    assert {"array", "cpus-per-task", "mem", "time", "output"} <= set(asked)
    assert re.fullmatch(r"0-[0-9]+", asked["array"])
