"""What `deploy/` runs: the containers of its manifests, each with its command and settings."""

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from msgspec import Struct

from tests.support.server import ROOT

DEPLOY = ROOT / "deploy"
BASE = DEPLOY / "kubernetes" / "base"
PRODUCTION = DEPLOY / "kubernetes" / "production"

SECRETS = {
    "database-url": "postgresql://ledger:x@postgres/ledger",
    "intake-database-url": "postgresql://intake:x@postgres/ledger",
    "webhook-tokens": "a-token-that-nobody-guesses-1",
    "admin-key": "a-key-that-nobody-guesses-2",
    "alert-urls": "json://example.org",
}
"""The keys of the Secret that docs/running.md makes, with values."""


class Run(Struct, frozen=True):
    """A command of Ledger as a file of `deploy/` starts it."""

    name: str
    words: list[str]
    settings: dict[str, str]


def documents(path: Path) -> list[dict[str, Any]]:
    """Return the documents of one YAML file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def resources() -> Iterator[dict[str, Any]]:
    """Give the resources of the base, as they are in its files."""
    for path in sorted(BASE.glob("*.yaml")):
        if path.name != "kustomization.yaml":
            yield from documents(path)


def rendered(folder: Path) -> list[dict[str, Any]] | None:
    """Return what Kustomize makes of a folder; None where there is no Kustomize."""
    for command in (["kustomize", "build"], ["kubectl", "kustomize"]):
        if shutil.which(command[0]):
            done = subprocess.run(
                [*command, str(folder)], capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            return [document for document in yaml.safe_load_all(done.stdout) if document]
    return None


def pod_of(resource: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the specification of the pods that a resource makes."""
    spec: Any = resource.get("spec", {})
    if resource["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    pod = spec.get("template", {}).get("spec")
    return pod if isinstance(pod, dict) else None


def runs_of(resource_list: list[dict[str, Any]]) -> Iterator[Run]:
    """Give what the containers of resources run."""
    shared = {
        name: str(value)
        for resource in resource_list
        if resource["kind"] == "ConfigMap"
        for name, value in resource["data"].items()
    }
    for resource in resource_list:
        for container in (pod_of(resource) or {}).get("containers", []):
            settings = {
                one["name"]: one.get("value") or SECRETS[one["valueFrom"]["secretKeyRef"]["key"]]
                for one in container["env"]
            }
            yield Run(resource["metadata"]["name"], container["args"], {**shared, **settings})


def services_of_compose() -> dict[str, dict[str, Any]]:
    """Return the services of the file for one machine."""
    [document] = documents(DEPLOY / "compose.yaml")
    services: dict[str, dict[str, Any]] = document["services"]
    return services
