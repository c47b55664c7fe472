"""What can stand between drover and a Postgres: a wire that is cut, and a pooler that shares sessions."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from tests.ports import hold_port

Cut = Literal["before", "after", "hang"]


class Wire:
    """Forwards bytes to a server, and can be cut in every way a network can."""

    def __init__(self, target: int) -> None:
        self.target = target
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._moving = asyncio.Event()
        self._moving.set()
        self.port = hold_port()
        self.connections = 0
        self.commits = 0
        self.cut_at: tuple[int, Cut] | None = None
        self.answered = asyncio.Event()  # a COMMIT whose answer was dropped

    async def accept(self) -> None:
        """Let clients in, on the port of before."""
        self._server = await asyncio.start_server(self._meet, "127.0.0.1", self.port, reuse_address=True)

    async def refuse(self) -> None:
        """Close every connection, and let nobody in."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self.hang_up()

    async def hang_up(self) -> None:
        """Close every connection that there is."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def freeze(self) -> None:
        """Forward nothing more, and say nothing about it."""
        self._moving.clear()

    def thaw(self) -> None:
        self._moving.set()

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        with contextlib.suppress(asyncio.CancelledError):
            await self._forward(reader, writer)
        self._tasks.discard(task)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.target)
        deaf = asyncio.Event()

        async def answers() -> None:
            while data := await server_reader.read(65_536):
                await self._moving.wait()
                if deaf.is_set():
                    self.answered.set()
                    return
                writer.write(data)
            writer.close()

        back = asyncio.create_task(answers())
        try:
            while data := await reader.read(65_536):
                await self._moving.wait()
                cut = self._cut(data)
                if cut == "before":
                    return
                if cut is not None:
                    deaf.set()
                server_writer.write(data)
                if cut == "after":
                    return
        except ConnectionError:
            pass
        finally:
            if deaf.is_set():  # a busy server may take longer than the client waits, and commits all the same
                await asyncio.wait([back])
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)
            for end in (writer, server_writer):
                end.transport.abort()

    def _cut(self, data: bytes) -> Cut | None:
        if b"COMMIT\0" not in data:
            return None
        self.commits += 1
        return self.cut_at[1] if self.cut_at is not None and self.commits == self.cut_at[0] else None


@asynccontextmanager
async def wire(target: int) -> AsyncIterator[Wire]:
    found = Wire(target)
    await found.accept()
    try:
        yield found
    finally:
        found.thaw()
        await found.refuse()


class Pooler:
    """A pooler of Postgres sessions: one for each connection, or one that all share between transactions."""

    def __init__(self, target: int, database: str, *, shared: bool) -> None:
        self._target, self._database, self._shared = target, database, shared
        self._session: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._turn = asyncio.Lock()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self._settings = b""

    async def __aenter__(self) -> int:
        self._server = await asyncio.start_server(self._meet, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.append(writer)
        with contextlib.suppress(asyncio.CancelledError, asyncio.IncompleteReadError, ConnectionError):
            await self._serve(reader, writer)
        writer.transport.abort()
        self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = struct.unpack("!I", await reader.readexactly(4))[0]
        startup = await reader.readexactly(size - 4)
        if not self._shared or self._session is None:
            session = await self._log_in(startup)
            self._session = self._session or session
        mine = self._session if self._shared else session
        assert mine is not None
        key = b"K" + struct.pack("!III", 12, 1, secrets.randbits(31))  # a pooler's own key, of no server process
        writer.write(b"R" + struct.pack("!II", 8, 0) + self._settings + key + b"Z" + struct.pack("!Ic", 5, b"I"))
        asked = asyncio.create_task(_message(reader))
        while True:
            await asyncio.wait([asked])
            async with self._turn if self._shared else contextlib.nullcontext():
                asked = await self._transaction(asked, reader, writer, mine)

    async def _transaction(
        self,
        asked: asyncio.Task[bytes],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        session: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> asyncio.Task[bytes]:
        """Everything up to the moment at which the server is idle again; the client's next message is on its way."""
        answered = asyncio.create_task(_message(session[0]))
        try:
            while True:
                await asyncio.wait([asked, answered], return_when=asyncio.FIRST_COMPLETED)
                if answered.done():
                    answer = answered.result()
                    writer.write(answer)
                    if answer[:1] == b"Z" and answer[5:6] == b"I":
                        return asked
                    answered = asyncio.create_task(_message(session[0]))
                if asked.done():
                    message = asked.result()
                    if message[:1] == b"X":
                        raise ConnectionResetError
                    session[1].write(message)
                    asked = asyncio.create_task(_message(reader))
        finally:
            answered.cancel()
            await asyncio.gather(answered, return_exceptions=True)

    async def _log_in(self, startup: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers.append(writer)
        writer.write(struct.pack("!I", len(startup) + 4) + startup)
        settings = b""
        while (answer := await _message(reader))[:1] != b"Z":
            assert answer[:1] != b"E", answer
            settings += answer if answer[:1] == b"S" else b""
        self._settings = settings
        return reader, writer


async def _message(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(5)
    return head + await reader.readexactly(struct.unpack("!I", head[1:])[0] - 4)
