"""The loopback server of the scripted model."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.agents.fakellm.faults import refusal
from tests.agents.fakellm.plan import Message, answer, next_turn, plan_of
from tests.agents.fakellm.wires import Frame, wire_of

KEYS = ("x-api-key", "x-goog-api-key", "api-key")


@dataclass(frozen=True)
class Request:
    """One question to the model. ``turn`` is -1 for side questions (titles, counts), which use up no turn."""

    n: int
    turn: int
    status: int
    messages: int
    roles: str  # of the history sent, a letter each: uaua…
    last: str  # the end of the last user's message
    key: str  # which credential came along: "key", "token" or ""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # the agent was killed meanwhile
            super().handle_error(request, client_address)


class FakeModel:
    """``with FakeModel(log) as model``: ``model.url`` is the base URL for an agent. Every request is logged.

    ``well`` false: faults of the plans strike as planned; once true, none does. ``port``: where to listen,
    for a service that was not there at first.
    """

    def __init__(self, log: Path | None = None, port: int = 0) -> None:
        self.requests: list[Request] = []
        self.arrived = threading.Condition()
        self.closing = threading.Event()
        self.well = False
        self._log = log
        self._faults: Counter[str] = Counter()
        self._resets: dict[str, float] = {}
        self._lock = threading.Lock()
        model = self

        class Handler(_Handler):
            owner = model

        self._server = _Server(("127.0.0.1", port), Handler)
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

    def strikes(self, where: str, fault: dict[str, Any]) -> bool:
        """Whether a fault that strikes ``times`` times (-1: always) strikes now; a limit only until its end."""
        times = fault.get("times", 1)
        with self._lock:
            self._faults[where] += 1
            over = "limit" in fault and time.time() >= self._reset(where, fault)
            return not self.well and not over and (times < 0 or self._faults[where] <= times)

    def _reset(self, where: str, fault: dict[str, Any]) -> float:
        """When a limit ends, counted from its first refusal."""
        fault["reset"] = self._resets.setdefault(where, int(time.time() + fault.get("reset_s", 3600)))
        return float(fault["reset"])

    def record(self, **facts: Any) -> None:
        with self.arrived:
            request = Request(n=len(self.requests), **facts)
            self.requests.append(request)
            if self._log is not None:
                with self._log.open("a") as file:
                    file.write(json.dumps(asdict(request)) + "\n")
            self.arrived.notify_all()


def hold_port() -> socket.socket:
    """A port that is nobody else's while the socket is open, and on which nobody listens."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


class _Handler(BaseHTTPRequestHandler):
    owner: FakeModel
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Not on the terminal."""

    def do_HEAD(self) -> None:
        self._reply(200, {}, b"")

    def do_GET(self) -> None:
        models = [{"id": "fake-model", "object": "model", "owned_by": "rig"}]
        self._reply(200, {}, json.dumps({"object": "list", "data": models, "models": []}).encode())

    def do_POST(self) -> None:
        body, wire = json.loads(self._body() or b"{}"), wire_of(self.path)
        if wire is None:
            self._reply(200, {}, json.dumps({"input_tokens": 1000, "totalTokens": 1000}).encode())
            return
        question = wire.read(body, self.path.partition("?")[0])
        plan = plan_of(question.messages)
        turn = next_turn(question.messages, plan) if question.tools else -1
        planned = plan[turn] if 0 <= turn < len(plan) else {}
        fault = planned.get("fault")
        struck = bool(fault) and self.owner.strikes(f"{turn} {json.dumps(plan)}", fault)
        status, headers, refused = refusal(fault, wire) if struck else (200, {}, b"")
        self._record(turn, status, question.messages)
        time.sleep(planned.get("delay_s", 0))
        if planned.get("hang") and not self.owner.well:
            self.owner.closing.wait()
            self.close_connection = True
        elif struck:
            self._reply(status, headers, refused)
        else:
            told = answer(planned, turn, question)
            if question.stream:
                events = b"".join(_events(wire.frames(told, question)))
                self._reply(200, {"content-type": "text/event-stream"}, events)
            else:
                self._reply(200, {}, json.dumps(wire.whole(told, question)).encode())

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        whole = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def _record(self, turn: int, status: int, messages: Sequence[Message]) -> None:
        named = any(self.headers.get(name) for name in KEYS)
        told = [message for message in messages if message.role != "system"]
        asked = [message.text for message in told if message.role == "user" and message.text]
        self.owner.record(
            turn=turn,
            status=status,
            messages=len(told),
            roles="".join(message.role[0] for message in told),
            last=asked[-1][-4000:] if asked else "",
            key="key" if named else "token" if self.headers.get("authorization") else "",
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


def _events(frames: Iterator[Frame]) -> Iterator[bytes]:
    for name, data in frames:
        head = f"event: {name}\n" if name else ""
        yield f"{head}data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode()
