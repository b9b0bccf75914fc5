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


def test_each_alert_leads_to_its_page() -> None:
    for rule in ALERTS:
        assert rule["annotations"]["runbook"] == f"deploy/RUNBOOK.md#{rule['alert'].lower()}"
