"""Events in the shape of Claude Code's, as Qwen Code and Amp print them."""

from __future__ import annotations

from drover.agents.stream import Json
from drover.agents.talk import Talk
from drover.domain.models import Usage


class ClaudeLikeReading(Talk):
    """The state of one run. Tokens are those of its messages: what a result tells is of the whole session."""

    def event(self, event: Json) -> None:
        kind = event.text("type")
        self.session_id = event.text("session_id") or self.session_id
        if kind == "system" and event.text("subtype") == "init":
            self.model = event.text("model")
        elif kind == "system" and event.text("subtype") == "retry":
            self.failed(event.text("data", "reason"))
        elif kind == "assistant" and not event.text("parent_tool_use_id"):
            self._message(event.get("message"))
        elif kind == "result":
            self._result(event)

    def _message(self, message: Json) -> None:
        words = "\n".join(part.text("text") for part in message.items("content") if part.text("text"))
        self.words = words or self.words
        self.model = self.model or message.text("model")
        usage = message.get("usage")
        read, written = usage.count("input_tokens"), usage.count("output_tokens")
        self.input_tokens += read
        self.output_tokens += written
        self.turns += bool(read or written)  # one answer comes in several events, its usage with the last

    def _result(self, event: Json) -> None:
        self.words = event.text("result") or self.words
        self.denied += [denial.text("tool_name") or "a tool" for denial in event.items("permission_denials")]
        if event.text("subtype") == "success" and not event.true("is_error"):
            self.succeeded()
        else:
            why = event.text("error", "message") or event.text("error") or event.text("result")
            self.failed(why or event.text("subtype"))

    def usage(self) -> Usage:
        return Usage(
            input_tokens=self.input_tokens, output_tokens=self.output_tokens, turns=self.turns, model=self.model
        )
