"""The one settings object, where each of its values came from, and the project it belongs to."""

from __future__ import annotations

from drover.settings.hooks import HOOKS, HookCommand, HookName, HooksTable, Stage, digest_of
from drover.settings.model import (
    AgentTable,
    BackpressureTable,
    BudgetTable,
    BuildingTable,
    DiskTable,
    LandingTable,
    LogsTable,
    PlanningTable,
    PoolTable,
    ProjectTable,
    RefinementTable,
    Settings,
    VerifyTable,
    WorkerTable,
)
from drover.settings.project import Project, find_project, get_project, write_project_file
from drover.settings.sources import load, user_file
from drover.settings.urls import redact

__all__ = [
    "HOOKS",
    "AgentTable",
    "BackpressureTable",
    "BudgetTable",
    "BuildingTable",
    "DiskTable",
    "HookCommand",
    "HookName",
    "HooksTable",
    "LandingTable",
    "LogsTable",
    "PlanningTable",
    "PoolTable",
    "Project",
    "ProjectTable",
    "RefinementTable",
    "Settings",
    "Stage",
    "VerifyTable",
    "WorkerTable",
    "digest_of",
    "find_project",
    "get_project",
    "load",
    "redact",
    "user_file",
    "write_project_file",
]
