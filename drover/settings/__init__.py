"""The one settings object, where each of its values came from, and the project it belongs to."""

from __future__ import annotations

from drover.settings.model import (
    AgentTable,
    LandingTable,
    LogsTable,
    ProjectTable,
    Settings,
    VerifyTable,
)
from drover.settings.project import Project, find_project, get_project, write_project_file
from drover.settings.sources import load, user_file
from drover.settings.urls import redact

__all__ = [
    "AgentTable",
    "LandingTable",
    "LogsTable",
    "Project",
    "ProjectTable",
    "Settings",
    "VerifyTable",
    "find_project",
    "get_project",
    "load",
    "redact",
    "user_file",
    "write_project_file",
]
