"""Amp, headless: `amp -x --stream-json`, from its documentation alone.

It works only with its own service, so drover has never seen it at work: `drover doctor` calls it
unverified. Its threads are named by the service and continued with `amp threads continue`.
"""

from __future__ import annotations

from typing import ClassVar

from drover.agents.base import AgentJob
from drover.agents.claude_like import ClaudeLikeReading
from drover.agents.program import Ended, Start
from drover.agents.talk import PROXIES, Env, Modes, Talker
from drover.domain.models import Usage


class Amp(Talker[ClaudeLikeReading]):
    """Amp. ``[agents.amp] permissions``: bypass (the default) or allow-list. It chooses its models by itself."""

    name = "amp"
    package = "@sourcegraph/amp"
    verified = ""
    sign_in = ("AMP_API_KEY",)
    sign_in_advice = "sign in: run `amp login` once, or set AMP_API_KEY"
    env_names = (*sign_in, "AMP_URL", "AMP_SETTINGS_FILE", *PROXIES)
    modes: ClassVar[Modes] = {
        "bypass": (("--dangerously-allow-all",), "may run any command and change any file that you may"),
        "allow-list": ((), "may use only the tools that its settings allow"),
    }
    own_env: ClassVar[Env] = {"AMP_SKIP_UPDATE_CHECK": "1"}
    forgets = ("Thread not found", "thread not found", "No thread found")

    def command(self, job: AgentJob, start: Start) -> tuple[str, ...]:
        settings = job.settings
        thread = ("threads", "continue", start.session_id or "") if start.continues else ()
        stream = ("--execute", "--stream-json", "--no-notifications", "--no-ide")
        return (*self.program(settings), *thread, *stream, *self.allowed(settings), *settings.args)

    def read(self) -> ClaudeLikeReading:
        return ClaudeLikeReading()

    def usage(self, job: AgentJob, ended: Ended[ClaudeLikeReading]) -> Usage:
        return ended.reading.usage()
