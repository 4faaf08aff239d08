"""The sentences at the end of a rollout."""

from __future__ import annotations

from serving.fleet.cli.command import RolloutReport


def report_lines(report: RolloutReport) -> list[str]:
    from conf.errors import INTERRUPTED

    what = f"{report.model}/{report.version}"
    before = f" (before: {report.model}/{report.previous})" if report.previous else ""
    warning = [f"warning: {report.warning}"] if report.warning else []
    if report.exit_code == INTERRUPTED:
        lines = [f"{what} was stopped; everything is as it was before. {report.outcome.reason}"]
        return [*lines, *warning]
    lines = {
        "done": [
            f"{what} is in production{before}: {len(report.hosts)} hosts in {report.seconds} s."
        ],
        "unchanged": [f"no change: {report.outcome.reason}."],
        "refused": [f"{what} was not activated on any host. {report.outcome.reason}"],
        "rolled-back": [
            f"{what} failed and everything is as it was before. {report.outcome.reason}",
            "See fab status; then release a better version.",
        ],
        "manual-intervention": [
            f"{what} failed, and not every host could be brought back. {report.outcome.reason}",
            *(f"{host}: {reason}" for host, reason in report.outcome.stuck.items()),
            f"Mend the host, then run fab rollback --model {report.model}, which tries again.",
        ],
        "prepared": [
            f"{what} is loaded and proven on {', '.join(report.hosts)}; no request moved."
        ],
        "incomplete": [
            f"{what}: not everything is done. {report.outcome.reason}".rstrip(),
            *(f"{place}: {reason}" for place, reason in report.outcome.stuck.items()),
            "See fab status for what is left.",
        ],
    }[report.outcome.kind]
    return [*lines, *warning]
