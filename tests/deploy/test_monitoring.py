"""Whoever an alert wakes up finds its page."""

import re
from pathlib import Path

import yaml

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
RUNBOOK = (DEPLOY / "RUNBOOK.md").read_text()
ALERTS = [
    rule
    for group in yaml.safe_load((DEPLOY / "monitoring/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]


def test_each_alert_has_a_page_of_its_name_and_each_page_an_alert() -> None:
    (pages,) = re.findall(r"^## Alerts\n(.*?)^## ", RUNBOOK, re.MULTILINE | re.DOTALL)
    assert re.findall(r"^### (\w+)$", pages, re.MULTILINE) == [rule["alert"] for rule in ALERTS]


def test_prometheus_of_a_cluster_finds_the_web_pods_and_shows_them_the_token() -> None:
    (job,) = yaml.safe_load((DEPLOY / "monitoring/prometheus.kubernetes.yml").read_text())["scrape_configs"]
    web = next(yaml.safe_load_all((DEPLOY / "k8s/web.yaml").read_text()))["spec"]["template"]
    (pods,) = job["kubernetes_sd_configs"]
    assert (
        dict(pair.split("=") for pair in pods["selectors"][0]["label"].split(","))
        == web["metadata"]["labels"]
    )
    assert "annotations" not in web["metadata"], "which have no token"
    namespace = yaml.safe_load((DEPLOY / "k8s/kustomization.yaml").read_text())["namespace"]
    assert pods["namespaces"]["names"] == [namespace]
    kept = job["relabel_configs"][0]["regex"]
    assert kept in [port["name"] for port in web["spec"]["containers"][0]["ports"]]
    (on_one_machine,) = yaml.safe_load((DEPLOY / "monitoring/prometheus.yml").read_text())["scrape_configs"]
    assert job["job_name"] == on_one_machine["job_name"], "which the alerts go by"
    assert job["authorization"]["credentials_file"].endswith("/metrics_token")


def test_each_alert_leads_to_its_page() -> None:
    for rule in ALERTS:
        assert rule["annotations"]["runbook"] == f"deploy/RUNBOOK.md#{rule['alert'].lower()}"
