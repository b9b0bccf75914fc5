"""What runs where, and how little it may do: compose files and Kubernetes manifests."""

from pathlib import Path
from typing import Any

import pytest
import yaml

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
APPLICATION = {"setup", "web", "worker-io", "worker-train", "beat"}
MANIFESTS = [
    manifest
    for path in sorted((DEPLOY / "k8s").glob("*.yaml"))
    for manifest in yaml.safe_load_all(path.read_text())
]
PODS = {
    m["metadata"]["name"]: m["spec"]["template"]["spec"] for m in MANIFESTS if "template" in m.get("spec", {})
}


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - {"pgadmin"}))
def test_a_container_may_write_to_its_volumes_only_and_gain_nothing(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_has_limits_and_a_pinned_image(name: str) -> None:
    limits = SERVICES[name]["deploy"]["resources"]["limits"]
    assert {"cpus", "memory"} <= set(limits)
    if name not in APPLICATION:
        _, _, tag = SERVICES[name]["image"].partition(":")
        assert tag[0].isdigit() or tag.startswith(("v", "RELEASE."))
        assert "@sha256:" in tag or name == "nginx", (
            "whose tag is built anew with the fixes of its distribution"
        )


def test_the_image_runs_as_nobody_in_particular() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("USER")] == ["USER 10001:10001"]
    assert all(pod["securityContext"]["runAsNonRoot"] for pod in PODS.values())


def test_secrets_are_files() -> None:
    for name in APPLICATION:
        given = SERVICES[name]["environment"]
        for variable in ("SECRET_KEY", "DATABASE_URL", "REDIS_URL", "S3_ACCESS_KEY", "S3_SECRET_KEY"):
            assert given[f"{variable}_FILE"].startswith("/run/secrets/")
            assert variable not in given
    assert all(set(secret) == {"file"} for secret in COMPOSE["secrets"].values())


def test_there_is_one_beat_and_a_worker_for_each_queue() -> None:
    assert SERVICES["beat"]["deploy"]["replicas"] == 1
    queues = {name: command_option(name, "--queues") for name in ("worker-io", "worker-train")}
    assert queues == {"worker-io": "celery", "worker-train": "training"}
    (beat,) = [m["spec"] for m in MANIFESTS if m["kind"] == "Deployment" and m["metadata"]["name"] == "beat"]
    assert (beat["replicas"], beat["strategy"]["type"]) == (1, "Recreate")


def command_option(service: str, option: str) -> str:
    command = SERVICES[service]["command"]
    return command[command.index(option) + 1]


@pytest.mark.parametrize("name", PODS)
def test_a_pod_is_as_confined_as_a_container_of_compose(name: str) -> None:
    for container in PODS[name]["containers"]:
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]


def test_the_commands_are_the_same_everywhere() -> None:
    for name in APPLICATION - {"web"}:
        (container,) = PODS[name]["containers"]
        assert container["command"] == SERVICES[name]["command"]


def test_web_scales_by_its_queue_and_never_goes_altogether() -> None:
    (scaler,) = [m["spec"] for m in MANIFESTS if m["kind"] == "HorizontalPodAutoscaler"]
    assert scaler["scaleTargetRef"]["name"] == "web"
    assert [metric["pods"]["metric"]["name"] for metric in scaler["metrics"]] == ["captioner_queue_depth"]
    assert scaler["minReplicas"] >= 2
    kept = {m["metadata"]["name"] for m in MANIFESTS if m["kind"] == "PodDisruptionBudget"}
    assert {"web", "nginx", "pgbouncer"} <= kept


def test_every_pod_has_a_policy_of_whom_it_may_talk_to() -> None:
    policies = [m["spec"]["podSelector"] for m in MANIFESTS if m["kind"] == "NetworkPolicy"]
    assert {} in policies, "nobody by default"
    named = {policy["matchLabels"]["component"] for policy in policies if "matchLabels" in policy}
    for policy in policies:
        named |= {name for rule in policy.get("matchExpressions", []) for name in rule["values"]}
    assert named >= PODS.keys()
