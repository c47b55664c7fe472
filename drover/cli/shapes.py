"""The JSON that programs read: every shape in one place, its keys fixed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from drover.domain.states import TERMINAL, State

if TYPE_CHECKING:
    from drover.app import (
        AgentRow,
        Check,
        Drover,
        InboxItem,
        Recap,
        RecapTask,
        ResumeItem,
        StatusReport,
        TaskDetails,
        TreeNode,
        WorktreeRow,
    )
    from drover.domain.budget import Line
    from drover.domain.models import Attempt, Cost, Epic, Event, RunReport, StepRecord, Task, Word
    from drover.domain.plans import Plan

Shape = dict[str, object]


def task_json(task: Task, drover: Drover, *, branch: str | None = None) -> Shape:
    """A task of ``drover``'s, whose setting stands in where the task names no number of attempts of its own."""
    worktree = drover.places.worktree(task.id)
    return {
        "id": task.id,
        "title": task.title,
        "description": task.description,
        "epic_id": task.epic_id,
        "parent_id": task.parent_id,
        "status": str(task.status),
        "stranded": task.stranded,
        "reason": task.reason,
        "detail": task.detail,
        "until": _time(task.due_at),
        "priority": task.priority,
        "blocked_by": list(task.blocked_by),
        "blocks": list(task.blocks),
        "attempts": attempts_used(task),
        "max_attempts": task.max_attempts if task.max_attempts is not None else drover.settings.max_attempts,
        "executions": task.executions,
        "interruptions": task.interruptions,
        "labels": list(task.labels),
        "type": task.type,
        "key": task.key,
        "agent": task.agent,
        "test_mode": task.test_mode,
        "test_scope": task.test_scope,
        "test_command": task.test_command,
        "timeout_seconds": task.timeout_ms / 1000 if task.timeout_ms is not None else None,
        "created_at": _time(task.created_at),
        "updated_at": _time(task.updated_at),
        "started_at": _time(task.started_at),
        "completed_at": _time(task.completed_at),
        "last_error": last_error_json(task),
        "branch": branch,
        "worktree": str(worktree) if worktree.is_dir() else None,
        "landed_commit": task.landed_commit,
    }


def plan_json(plan: Plan) -> Shape:
    """A plan, whole."""
    return {
        "id": plan.id,
        "task_id": plan.task_id,
        "title": plan.task_title,
        "status": plan.status,
        "revision": plan.revision,
        "parent_plan_id": plan.parent_id,
        "feedback": plan.feedback,
        "created_at": _time(plan.created_at),
        "decided_at": _time(plan.decided_at),
        "decided_by": plan.decided_by,
        **plan.draft.model_dump(mode="json"),
    }


def attempts_used(task: Task) -> int:
    """The failed executions of this generation, and the one that is running or has succeeded."""
    succeeding = task.executing or task.state is State.COMPLETED or task.landed_commit is not None
    return task.failures + (1 if succeeding else 0)


def last_error_json(task: Task) -> Shape | None:
    error = task.error
    if error is None:
        return None
    return {"class": error.error_class, "message": error.message, "what_to_do": error.what_to_do}


def details_json(details: TaskDetails, drover: Drover) -> Shape:
    """``info --json``: the task and everything around it."""
    return {
        **task_json(details.task, drover, branch=details.branch),
        "attempts_log": [attempt_json(attempt) for attempt in details.attempts],
        "steps": steps_json(details.task, details.steps),
        "landings": [
            {
                "attempt": landing.attempt,
                "target": landing.target,
                "commit": landing.commit,
                "state": landing.state,
                "landed_at": _time(landing.landed_at),
            }
            for landing in details.landings
        ],
        "words": [word_json(word) for word in details.words],
        "logs": [str(path) for path in details.log_paths],
        "events": [event_json(event) for event in details.events],
    }


def word_json(word: Word) -> Shape:
    """What a person said to a task's agent; ``told_at`` is null as long as that does not have it."""
    return {
        "number": word.number,
        "task_id": word.task_id,
        "kind": word.kind,
        "text": word.text,
        "question": word.question,
        "by": word.said_by,
        "said_at": _time(word.said_at),
        "told_at": _time(word.told_at),
        "told_how": word.told_how,
    }


def inbox_json(items: Sequence[InboxItem]) -> list[Shape]:
    return [
        {
            "task_id": item.task_id,
            "title": item.title,
            "kind": item.kind,
            "says": item.says,
            "since": _time(item.since),
            "command": item.command,
        }
        for item in items
    ]


def recap_json(recap: Recap) -> Shape:
    return {
        "since": _time(recap.since),
        "until": _time(recap.until),
        "landed": [_recap_task_json(task) for task in recap.landed],
        "failed": [_recap_task_json(task) for task in recap.failed],
        "needs_you": inbox_json(recap.needs),
        "orders": [
            {"at": _time(order.at), "task_id": order.task_id, "what": order.what, "by": order.by, "why": order.why}
            for order in recap.orders
        ],
        "happened": dict(recap.happened),
        "by_status": dict(recap.by_status),
        "tokens": recap.tokens,
        "cost_usd": recap.cost_usd,
    }


def _recap_task_json(task: RecapTask) -> Shape:
    return {
        "task_id": task.task_id,
        "title": task.title,
        "at": _time(task.at),
        "says": task.says,
        "paths": task.paths,
        "decisions": list(task.decisions),
    }


def attempt_json(attempt: Attempt) -> Shape:
    return {
        "attempt": attempt.attempt,
        "worker": attempt.worker_id,
        "host": attempt.host,
        "pid": attempt.pid,
        "agent": attempt.agent,
        "purpose": attempt.purpose,
        "started_at": _time(attempt.started_at),
        "ended_at": _time(attempt.ended_at),
        "outcome": attempt.outcome,
        "error": attempt.error,
        "resumed": attempt.resumed,
        "origin": attempt.origin,
        "session_id": attempt.session_id,
        "model": attempt.usage.model or None,
        "turns": attempt.usage.turns,
        "input_tokens": attempt.usage.input_tokens,
        "output_tokens": attempt.usage.output_tokens,
        "tokens": attempt.usage.tokens,
        "cost_usd": attempt.usage.cost_usd,
        "words": attempt.words,
        "log": attempt.log,
    }


def steps_json(task: Task, steps: Sequence[StepRecord]) -> list[Shape]:
    """The steps of the current attempt: those on record with their results, then those still to come."""
    done: list[Shape] = [
        {
            "name": step.name,
            "state": "completed",
            "attempt": step.attempt,
            "started_at": _time(step.started_at),
            "finished_at": _time(step.finished_at),
            "result": json.loads(step.result),
        }
        for step in steps
    ]
    if task.state in TERMINAL:
        return done
    names = [name for name in _steps_of_a_life() if name not in {step.name for step in steps}]
    now = "running" if task.state is State.RUNNING else "pending"
    unknown: Shape = {"attempt": task.attempt, "started_at": None, "finished_at": None, "result": None}
    coming: list[Shape] = [
        {"name": name, "state": "pending" if at else now, **unknown} for at, name in enumerate(names)
    ]
    return done + coming


def event_json(event: Event) -> Shape:
    return {
        "seq": event.seq,
        "type": event.type,
        "at": _time(event.at),
        "task_id": event.task_id,
        "epic_id": event.epic_id,
        "attempt": event.attempt,
        "worker": event.worker,
        "host": event.host,
        "data": dict(event.data),
    }


def epic_json(epic: Epic) -> Shape:
    return {
        "id": epic.id,
        "title": epic.title,
        "description": epic.description,
        "state": epic.state,
        "total": epic.total,
        "completed": epic.completed,
        "created_at": _time(epic.created_at),
        "closed_at": _time(epic.closed_at),
    }


def status_json(report: StatusReport) -> Shape:
    return {
        "total": report.total,
        "by_status": {str(status): count for status, count in report.by_status.items()},
        "progress": report.progress,
        "running": [
            {
                "task_id": running.task_id,
                "title": running.title,
                "step": running.step,
                "worker": running.worker,
                "host": running.host,
                "since": _time(running.since),
                "last_alive": _time(running.last_alive),
            }
            for running in report.running
        ],
        "needs_attention": [{"task_id": item.task_id, "reason": item.reason} for item in report.needs_attention],
        "epics": [
            {"id": epic.id, "title": epic.title, "total": epic.total, "completed": epic.completed}
            for epic in report.epics
        ],
        "tokens": report.tokens,
        "cost_usd": report.cost_usd,
        "notes": list(report.notes),
    }


def tree_json(nodes: Sequence[TreeNode], drover: Drover) -> list[Shape]:
    """``status --tree --json``: epics with their tasks, then ``{"epic": null}`` with the tasks of none."""
    return [
        {
            "epic": epic_json(node.epic) if node.epic else None,
            "tasks": [_branch_json(child, drover) for child in node.children],
        }
        for node in nodes
    ]


def _branch_json(node: TreeNode, drover: Drover) -> Shape:
    task = task_json(node.task, drover) if node.task else {}
    children = [_branch_json(child, drover) for child in node.children]
    return {**task, "waits_for": list(node.waits_for), "children": children}


def run_finished_json(report: RunReport) -> Shape:
    """The last line of ``run --json``."""
    return {
        "type": "run.finished",
        "data": {
            "completed": len(report.completed),
            "failed": len(report.failed),
            "cancelled": len(report.cancelled),
            "stranded": len(report.stranded),
            "needs_person": len(report.needs_person),
            "kept": report.kept,
            "continued": report.continued,
            "redone": report.redone,
            "seconds": report.seconds,
            "cost_usd": report.cost_usd,
            "tokens": report.tokens,
            "over_budget": report.over_budget or None,
            "exit_code": report.exit_code,
            "tasks": {
                "completed": list(report.completed),
                "failed": list(report.failed),
                "cancelled": list(report.cancelled),
                "stranded": list(report.stranded),
                "needs_person": list(report.needs_person),
            },
        },
    }


def cost_json(by: str, costs: Sequence[Cost], lines: Sequence[Line]) -> Shape:
    """``cost --json``: what was used, its sum, and the limits that are set."""
    return {
        "by": by,
        "rows": [{"id": cost.id or None, "title": cost.title or None, **_used_json([cost])} for cost in costs],
        "total": _used_json(costs),
        "budget": [
            {
                "scope": line.scope,
                "id": line.id,
                "limit_usd": line.limit / 1e6,
                "spent_usd": line.spent / 1e6,
                "reserved_usd": line.reserved / 1e6,
            }
            for line in lines
        ],
    }


def _used_json(costs: Sequence[Cost]) -> Shape:
    return {
        "executions": sum(cost.executions for cost in costs),
        "input_tokens": sum(cost.input_tokens for cost in costs),
        "output_tokens": sum(cost.output_tokens for cost in costs),
        "tokens": sum(cost.tokens for cost in costs),
        "cost_usd": sum(cost.cost_microusd for cost in costs) / 1e6,
    }


def resume_json(items: Sequence[ResumeItem]) -> list[Shape]:
    return [
        {"task_id": item.task_id, "title": item.title, "decision": item.decision, "reason": item.reason}
        for item in items
    ]


def worktree_json(row: WorktreeRow) -> Shape:
    return {
        "path": str(row.path),
        "task_id": row.task_id,
        "status": row.status,
        "why": row.why,
        "bytes": row.bytes,
        "removable": row.removable,
        "proof": row.proof,
    }


def agent_json(row: AgentRow) -> Shape:
    return {
        "type": row.type,
        "fallback": row.fallback,
        "limited_until": _time(row.until),
        "reason": row.reason,
        "detail": row.detail,
        "waiting": row.waiting,
    }


def check_json(check: Check) -> Shape:
    return {"name": check.name, "level": check.level, "message": check.message, "fix": check.fix}


def _steps_of_a_life() -> Sequence[str]:
    from drover.domain.models import STEPS

    return STEPS


def _time(at: int | None) -> str | None:
    from drover.domain.clock import rfc3339

    return rfc3339(at)
