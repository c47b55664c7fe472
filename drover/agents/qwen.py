"""Qwen Code, headless: its session's id chosen by us, its events in Claude Code's shape.

Facts observed with 0.24.4, which needs node 22. A session continues only in the directory it began in.
Left to itself it sleeps a long limit out in silence. Told that nobody attends it, it tries as long, but says so
on its standard error every half minute.
"""

from __future__ import annotations

import json
import re
import uuid
from typing import ClassVar

from drover.agents.base import AgentJob
from drover.agents.claude_like import ClaudeLikeReading
from drover.agents.program import Ended, Start
from drover.agents.session_files import SessionHome
from drover.agents.talk import PROXIES, Env, Modes, Talker
from drover.domain.models import Usage

_CAPACITY = re.compile(r"Waiting for API capacity\.\.\. attempt (\d+), retry in \d+s")


class QwenReading(ClaudeLikeReading):
    """The state of one run of Qwen Code."""

    def complaint(self, text: str) -> None:
        """Whoever waits that long waits in vain: at the first try because the service asked for it, else for ever."""
        if waits := _CAPACITY.search(text):
            self.in_vain = True
            self.failed(f"{'rate limit' if waits[1] == '1' else 'overloaded'}: {text}")


class Qwen(Talker[QwenReading]):
    """Qwen Code. ``[agents.qwen] permissions``: bypass (the default), accept-edits or allow-list."""

    name = "qwen"
    package = "@qwen-code/qwen-code"
    verified = "0.24.4"
    sign_in = ("OPENAI_API_KEY", "DASHSCOPE_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY")
    sign_in_advice = "sign in: run `qwen` once, or set OPENAI_API_KEY and OPENAI_BASE_URL"
    env_names = (*sign_in, "OPENAI_BASE_URL", "OPENAI_MODEL", "QWEN_HOME", *PROXIES)
    modes: ClassVar[Modes] = {
        "bypass": (("--yolo",), "may run any command and change any file that you may"),
        "accept-edits": (("--approval-mode", "auto-edit"), "may change files in the clone; commands are refused"),
        "allow-list": (("--approval-mode", "default"), "may use only the tools that its settings allow"),
    }
    own_env: ClassVar[Env] = {
        "QWEN_CODE_SUPPRESS_YOLO_WARNING": "1",
        "QWEN_CODE_NO_RELAUNCH": "true",
        "QWEN_CODE_UNATTENDED_RETRY": "1",
    }
    sessions = SessionHome("QWEN_HOME", ".qwen", "projects/*/chats/{id}.jsonl")
    forgets = ("No saved session found with ID",)

    def command(self, job: AgentJob, start: Start) -> tuple[str, ...]:
        settings = job.settings
        session = ("--resume" if start.continues else "--session-id", start.session_id or str(uuid.uuid4()))
        model = ("--model", settings.model) if settings.model else ()
        sign_in = ("--auth-type", "openai") if "OPENAI_API_KEY" in job.env else ()
        stream = ("--output-format", "stream-json")
        return (*self.program(settings), *sign_in, *stream, *self.allowed(settings), *model, *session, *settings.args)

    def environment(self, job: AgentJob) -> dict[str, str]:
        """With defaults of our own below the operator's settings: a memory agent would go on after the run's end."""
        memory = {"enableManagedAutoMemory": False, "enableManagedAutoDream": False, "enableAutoSkill": False}
        path = job.log_dir / "qwen-defaults.json"
        path.write_text(json.dumps({"general": {"enableAutoUpdate": False}, "memory": memory}))
        return super().environment(job) | {"QWEN_CODE_SYSTEM_DEFAULTS_PATH": str(path)}

    def new_session(self) -> str:
        return str(uuid.uuid4())

    def read(self) -> QwenReading:
        return QwenReading()

    def usage(self, job: AgentJob, ended: Ended[QwenReading]) -> Usage:
        return ended.reading.usage()
