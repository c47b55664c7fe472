"""The loopback server of the scripted model."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.agents.fakellm.plan import answer, next_turn, plan_of, refusal, stream, texts


@dataclass(frozen=True)
class Request:
    """One question to the model. ``turn`` is -1 for side questions (titles, counts), which use up no turn."""

    n: int
    turn: int
    status: int
    messages: int
    roles: str  # of the history sent, a letter each: uaua…
    last: str  # the end of the last message
    key: str  # which credential came along: "key", "token" or ""


class FakeModel:
    """``with FakeModel(log) as model``: ``model.url`` is what ANTHROPIC_BASE_URL has to be. Every request is logged."""

    def __init__(self, log: Path | None = None) -> None:
        self.requests: list[Request] = []
        self.arrived = threading.Condition()
        self.closing = threading.Event()
        self._log = log
        self._faults: Counter[str] = Counter()
        self._lock = threading.Lock()
        model = self

        class Handler(_Handler):
            owner = model

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FakeModel:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def turns(self) -> list[int]:
        """Of all requests that used one up, faults included."""
        return [request.turn for request in self.requests if request.turn >= 0]

    def wait_for_turn(self, turn: int, timeout_s: float = 30.0) -> None:
        """Block until a request for that turn has come."""
        with self.arrived:
            if not self.arrived.wait_for(lambda: turn in self.turns, timeout_s):
                raise TimeoutError(f"no request for turn {turn}; there were {self.turns}")

    def fails(self, plan: str, turn: int, times: int) -> bool:
        """Whether a fault that strikes ``times`` times (-1: always) strikes now."""
        with self._lock:
            self._faults[f"{turn} {plan}"] += 1
            return times < 0 or self._faults[f"{turn} {plan}"] <= times

    def record(self, **facts: Any) -> None:
        with self.arrived:
            request = Request(n=len(self.requests), **facts)
            self.requests.append(request)
            if self._log is not None:
                with self._log.open("a") as file:
                    file.write(json.dumps(asdict(request)) + "\n")
            self.arrived.notify_all()


class _Handler(BaseHTTPRequestHandler):
    owner: FakeModel
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Not on the terminal."""

    def do_HEAD(self) -> None:
        self._reply(200, {}, b"")

    def do_GET(self) -> None:
        self._reply(200, {}, b"{}")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
        if not self.path.split("?")[0].endswith("/v1/messages"):
            self._reply(200, {}, json.dumps({"input_tokens": 1000}).encode())
            return
        messages, model = body["messages"], body["model"]
        plan = plan_of(messages)
        turn = next_turn(messages, plan) if body.get("tools") else -1
        planned = plan[turn] if 0 <= turn < len(plan) else {}
        fault = planned.get("fault")
        struck = bool(fault) and self.owner.fails(json.dumps(plan), turn, fault.get("times", 1))
        status, headers, refused = refusal(fault) if struck else (200, {}, b"")
        self._record(turn, status, messages)
        time.sleep(planned.get("delay_s", 0))
        if planned.get("hang"):
            self.owner.closing.wait()
            self.close_connection = True
        elif struck:
            self._reply(status, headers, refused)
        else:
            blocks = answer(planned, turn)
            if body.get("stream"):
                self._reply(200, {"content-type": "text/event-stream"}, b"".join(stream(blocks, model)))
            else:
                self._reply(200, {}, json.dumps(_whole(blocks, model)).encode())

    def _record(self, turn: int, status: int, messages: list[dict[str, Any]]) -> None:
        key = "key" if self.headers.get("x-api-key") else "token" if self.headers.get("authorization") else ""
        self.owner.record(
            turn=turn,
            status=status,
            messages=len(messages),
            roles="".join(message["role"][0] for message in messages),
            last=texts(messages[-1])[-200:],
            key=key,
        )

    def _reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
        try:
            self.send_response(status)
            for name, value in ({"content-type": "application/json"} | headers).items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):  # the agent was killed meanwhile
            self.close_connection = True


def _whole(blocks: list[dict[str, Any]], model: str) -> dict[str, Any]:
    """The answer to a question that did not ask for a stream."""
    usage = {"input_tokens": 10, "output_tokens": 5}
    return {
        "id": "msg_whole", "type": "message", "role": "assistant", "model": model, "content": blocks,
        "stop_reason": "end_turn", "stop_sequence": None, "usage": usage,
    }  # fmt: skip
