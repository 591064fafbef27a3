"""Findings for machines: JSON with every verdict, and JUnit with one test case for each series."""

from __future__ import annotations

import re
from statistics import median
from typing import Any
from xml.etree import ElementTree

import msgspec

from bench.attest import elsewhere_text
from bench.nightly.history import Annotation, Night, sweep_of
from bench.nightly.judging import VERDICTS, Judged
from bench.nightly.night import Findings
from bench.nightly.summary import Failure, changes, failures, headline, label, labels, note, usual
from bench.reports.metrics import headline as headline_key
from bench.reports.render import plain_text

SCHEMA, SCHEMA_VERSION = "bench.nightly", "1.0"

_KINDS = {"regression": "failure", "too-little-data": "skipped", "quarantined": "skipped"}
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render_json(findings: Findings, exit_code: int) -> str:
    """One object on one line; ratios are tonight / usual, and of pairs new / last good."""
    names = labels(findings.judged)
    told = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "at_utc": findings.at_utc,
        "plan": str(findings.plan.path),
        "exit_code": exit_code,
        "verdict": next((v for v in VERDICTS if any(each.verdict == v for each in findings.judged)), None),
        "headline": headline(findings),
        "series": [_series(names[each.series.key], each) for each in findings.judged],
        "incidents": [
            {"host_id": each.host_id, "ratio": each.ratio, "moved": each.moved, "of": each.of}
            for each in findings.incidents
        ],
        "failed": [_failure(each) for each in failures(findings)],
        "errors": [
            {"entry": entry.title, "where": entry.where, "exit_code": error.exit_code, "what": str(error)}
            for entry, error in findings.errors
        ],
    }
    return msgspec.json.encode(told).decode()


def render_junit(findings: Findings) -> str:
    """XML for whatever reads test reports: a confirmed regression is a failure, what failed or is invalid an error.

    No verdict and quarantined is skipped; every other verdict but quiet stands in a case that passed.
    """
    suite = ElementTree.Element("testsuite", name="bench nightly", timestamp=findings.at_utc[:19])
    names = labels(findings.judged)
    for judged in findings.judged:
        case = _case(suite, judged.series.tonight.newest.identity.backend, names[judged.series.key])
        told = _xml(f"{judged.verdict}: {note(judged)}".rstrip(": "))
        if kind := _KINDS.get(judged.verdict):
            ElementTree.SubElement(case, kind, message=told)
        elif judged.verdict != "quiet":
            ElementTree.SubElement(case, "system-out").text = told
    for number, failure in enumerate(failures(findings), 1):
        first = failure.first
        case = _case(suite, first.identity.backend, f"{label(first)} {first.status} {number}")
        kind = "skipped" if failure.quarantined else "error"
        ElementTree.SubElement(case, kind, message=_xml(failure.reason))
    for entry, error in findings.errors:
        case = _case(suite, "not executed", entry.title)
        ElementTree.SubElement(case, "error", message=_xml(str(error)))
    suite.set("tests", str(len(suite)))
    for name, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(name, str(len(suite.findall(f"*/{kind}"))))
    ElementTree.indent(suite)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


def _series(name: str, judged: Judged) -> dict[str, Any]:
    series, record = judged.series, judged.series.tonight.newest
    _, changed = changes(judged)
    return {
        "series": name,
        "verdict": judged.verdict,
        "figure": headline_key(record.identity.workload),
        "tonight": series.tonight.value,
        "usual": usual(judged),
        "ratio": judged.ratio,
        "nights": len(series.nights),
        "launches": len(series.tonight.records),
        "pairs": list(judged.pairs),
        "pairs_ratio": median(judged.pairs) if judged.pairs else None,
        "why": judged.why,
        "elsewhere": elsewhere_text(record.facts) if record.facts else None,
        "covariates_changed": {key: list(values) for key, values in changed.items()},
        "last_good": _night(judged.good),
        "quarantine": _annotation(series.quarantine),
        "acknowledged": _annotation(series.acknowledged),
        "series_key": record.series_key,
        "precision_key": record.precision_key,
        "host_id": record.identity.host_id,
        "record_ids": [each.record_id for each in series.tonight.records],
    }


def _night(night: Night | None) -> dict[str, Any] | None:
    if night is None:
        return None
    ids = [record.record_id for record in night.records]
    return {"sweep_id": sweep_of(night.newest), "value": night.value, "record_ids": ids}


def _annotation(said: Annotation | None) -> dict[str, Any] | None:
    if said is None:
        return None
    return {"id": said.id, "reason": said.reason, "author": said.author, "until_utc": said.until_utc}


def _failure(failure: Failure) -> dict[str, Any]:
    first = failure.first
    return {
        "case": label(first),
        "status": first.status,
        "quarantined": failure.quarantined,
        "what": failure.reason,
        "remedy": first.reason.remedy if first.reason else None,
        "record_ids": [record.record_id for record in failure.records],
    }


def _case(suite: ElementTree.Element, classname: str, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", classname=_xml(classname), name=_xml(name))


def _xml(text: str) -> str:
    """Without what no XML may hold; the library escapes the rest."""
    return _NOT_XML.sub("", plain_text(text))
