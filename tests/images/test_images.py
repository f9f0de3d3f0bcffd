"""The Dockerfile's installations, and the Kubernetes resources: `scripts/images` runs these."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from oss_eval.config.perf_task import PerfTask
from tests.helpers.commands import ROOT

DOCKERFILE = ROOT / "Dockerfile"
DEPLOY = ROOT / "deploy"
CONSTRAINTS = (ROOT / "constraints.txt").read_text()
MOST_MB = 460
"""Of site-packages in the image `load`, bytecode included. pyarrow has 180 of them, scipy 140, numpy 75."""


@pytest.fixture(autouse=True)
def _asked_for() -> None:
    if os.environ.get("OSS_EVAL_IMAGES") != "required":
        pytest.skip("installs 400 MB and needs kubernetes-validate: scripts/images runs it")


def stages() -> dict[str, list[str]]:
    """The instructions of each stage of the Dockerfile."""
    found: dict[str, list[str]] = {}
    for line in DOCKERFILE.read_text().splitlines():
        if line.startswith("FROM "):
            name = line.rpartition(" AS ")[2]
            found[name] = []
        elif line and not line.startswith("#"):
            found[name].append(line)
    return found


def carry_out(stage: str, folder: Path, source: Path) -> Path:
    """The `RUN pip` lines of a stage in a virtual environment of its own; returns it. Folders of the image are below
    `folder`."""
    venv = folder / stage
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    (folder / "requirements").mkdir(exist_ok=True)
    for file in (ROOT / "constraints.txt", DEPLOY / "load.txt"):
        shutil.copy(file, folder / "requirements")
    for line in stages()[stage]:
        if line.startswith("RUN pip "):
            command = re.sub(r"(?<=[\s'])/(wheels|requirements)", f"{folder}/\\1", line.removeprefix("RUN "))
            env = {**os.environ, "PATH": f"{venv}/bin:{os.environ['PATH']}", "VIRTUAL_ENV": str(venv)}
            subprocess.run(["bash", "-c", command], check=True, cwd=source, env=env)
    return venv


def _ignored(folder: str, names: list[str]) -> set[str]:
    """What .dockerignore keeps out: without `**/` only at the root."""
    patterns = (ROOT / ".dockerignore").read_text().split()
    anywhere = [pattern.removeprefix("**/") for pattern in patterns if pattern.startswith("**/")]
    here = [pattern for pattern in patterns if not pattern.startswith("**/")] if Path(folder) == ROOT else []
    return {name for name in names if any(fnmatch(name, pattern) for pattern in [*anywhere, *here])}


def size_mb(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def test_the_image_for_load_runs_a_sweep(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT, source, ignore=_ignored)
    carry_out("build", tmp_path, source)
    venv = carry_out("load", tmp_path, source)
    [packages] = venv.glob("lib/python*/site-packages")
    installed = {path.name.partition("-")[0].lower().replace("_", "-") for path in packages.glob("*.dist-info")}
    wanted = {line.strip() for line in (DEPLOY / "load.txt").read_text().splitlines() if not line.startswith("#")}
    assert installed - {"pip", "setuptools"} == wanted | {"oss-eval"}, "that list and nothing else"
    for name in ("pip", "setuptools"):
        for folder in packages.glob(f"{name}*"):
            shutil.rmtree(folder)
    size = size_mb(packages)
    print(f"\nsite-packages of the image `load`: {size:.0f} MB")
    assert size <= MOST_MB
    words = "perf --url sim://gpt-oss-20b-h20?speed=20 --parallel 2 8 --number 40 --max-tokens 20".split()
    done = subprocess.run(
        [str(venv / "bin" / "oss-eval"), *words], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "Concurrency" in done.stdout
    assert "Traceback" not in done.stderr
    [run] = (tmp_path / "results").iterdir()
    shown = subprocess.run(
        [str(venv / "bin" / "oss-eval"), "fsck", run.name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert shown.stdout == f"{run.name}: clean\n"


def test_the_full_image_can_be_resolved(tmp_path: Path) -> None:
    """All that it installs agrees with constraints.txt. It is not installed: 2 GB."""
    [line] = [line for line in stages()["full"] if line.startswith("RUN pip ")]
    assert "/wheels/oss_eval-*.whl" in line
    requirements = [word for word in shlex.split(line) if not word.startswith("/") and word not in ("RUN", "pip")]
    extra = [word for word in requirements if word not in ("install", "--no-cache-dir", "-c")]
    done = subprocess.run(
        [sys.executable, "-m", "uv", "pip", "install", "--dry-run", "--target", str(tmp_path / "t"), "-c",
         str(ROOT / "constraints.txt"), str(ROOT), *extra],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert " + ray==" in done.stderr
    assert " + gradio==" in done.stderr


def resource(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text())
    return found


def test_the_job_is_one_of_kubernetes() -> None:
    import kubernetes_validate

    job = resource("job.yaml")
    for version in ("1.31", kubernetes_validate.latest_version()):
        kubernetes_validate.validate(job, version, strict=True)
    wrong = resource("job.yaml")
    wrong["spec"]["template"]["spec"]["restartPolicies"] = "Never"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.31", strict=True)


@pytest.mark.skipif("KUBERAY_CRD" not in os.environ, reason="KUBERAY_CRD names no ray.io_rayjobs.yaml of KubeRay")
def test_the_ray_job_is_one_of_kuberay() -> None:
    from jsonschema import Draft202012Validator

    crd = yaml.safe_load(Path(os.environ["KUBERAY_CRD"]).read_text())
    [schema] = [v["schema"]["openAPIV3Schema"] for v in crd["spec"]["versions"] if v["name"] == "v1"]
    check = Draft202012Validator(closed(schema))
    assert not list(check.iter_errors(resource("rayjob.yaml")))
    wrong = resource("rayjob.yaml")
    wrong["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["replica"] = 4
    assert list(check.iter_errors(wrong))


def closed(schema: Any) -> Any:
    """The schema with unknown keys refused, as the API server warns of them."""
    if isinstance(schema, dict):
        found = {key: closed(value) for key, value in schema.items()}
        if "properties" in found and "additionalProperties" not in found and found["properties"]:
            preserved = found.get("x-kubernetes-preserve-unknown-fields")
            found["additionalProperties"] = bool(preserved)
        return found
    return [closed(value) for value in schema] if isinstance(schema, list) else schema


def test_both_run_commands_that_there_are() -> None:
    """Their flags are checked by the command's own parser."""
    from oss_eval.cli.parser import parse

    [container] = resource("job.yaml")["spec"]["template"]["spec"]["containers"]
    ray = resource("rayjob.yaml")["spec"]
    for words in (container["args"], shlex.split(ray["entrypoint"])[1:]):
        arguments = vars(parse(words))
        task = PerfTask(**{key: arguments[key] for key in ("url", "parallel", "workers") if key in arguments})
        assert task.parallel
    assert task.worker_count == 4 * ray["rayClusterSpec"]["workerGroupSpecs"][0]["replicas"], "one a core"
    cores = ray["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["resources"]
    assert cores["limits"]["cpu"] == "4"
    assert f"\nray=={ray['rayClusterSpec']['rayVersion']}\n" in CONSTRAINTS
