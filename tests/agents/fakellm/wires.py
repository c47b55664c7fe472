"""The languages of the services: how each asks, answers, streams and refuses."""

from __future__ import annotations

import json
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import count
from typing import Any

from tests.agents.fakellm.plan import Answer, Message, Question, Tool, texts

READ, WRITTEN = 1000, 50  # tokens of every answer
PIECE = 64 * 1024  # of a long text, at most in one event

Body = dict[str, Any]
Frame = tuple[str | None, Any]  # the name of a server-sent event, and its data


class Wire(ABC):
    """One language."""

    @abstractmethod
    def read(self, body: Body, path: str) -> Question: ...

    @abstractmethod
    def whole(self, answer: Answer, question: Question) -> Body: ...

    @abstractmethod
    def frames(self, answer: Answer, question: Question) -> Iterator[Frame]: ...

    @abstractmethod
    def error(self, status: int, kind: str | None, message: str) -> Body: ...


class Anthropic(Wire):
    """POST …/v1/messages"""

    def read(self, body: Body, path: str) -> Question:
        messages = [Message("system", texts(body.get("system")))]
        for message in body["messages"]:
            parts = message["content"] if isinstance(message["content"], list) else []
            calls = tuple(part["id"] for part in parts if part.get("type") == "tool_use")
            messages.append(Message(message["role"], texts(message["content"]), calls))
        tools = {tool["name"]: Tool.of(tool.get("input_schema")) for tool in body.get("tools") or () if "name" in tool}
        return Question(tuple(messages), tools, bool(body.get("stream")), body["model"])

    def _blocks(self, answer: Answer) -> list[Body]:
        blocks: list[Body] = [{"type": "text", "text": answer.text}] if answer.text else []
        for call in answer.calls:
            blocks.append({"type": "tool_use", "id": f"toolu_{call.id}", "name": call.name, "input": call.input})
        return blocks

    def whole(self, answer: Answer, question: Question) -> Body:
        usage = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
        return {
            "id": f"msg_{_id()}", "type": "message", "role": "assistant", "model": question.model,
            "content": self._blocks(answer), "stop_reason": "tool_use" if answer.calls else "end_turn",
            "stop_sequence": None, "usage": {"input_tokens": READ, "output_tokens": WRITTEN, **usage},
        }  # fmt: skip

    def frames(self, answer: Answer, question: Question) -> Iterator[Frame]:
        whole = self.whole(answer, question)
        usage = {**whole["usage"], "output_tokens": 1}
        yield _named("message_start", message={**whole, "content": [], "stop_reason": None, "usage": usage})
        for index, block in enumerate(whole["content"]):
            is_text = block["type"] == "text"
            empty = {**block, "text": ""} if is_text else {**block, "input": {}}
            yield _named("content_block_start", index=index, content_block=empty)
            for piece in _pieces(block["text"] if is_text else json.dumps(block["input"])):
                delta = {"type": "text_delta", "text": piece}
                if not is_text:
                    delta = {"type": "input_json_delta", "partial_json": piece}
                yield _named("content_block_delta", index=index, delta=delta)
            yield _named("content_block_stop", index=index)
        ending = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
        yield _named("message_delta", delta=ending, usage={"output_tokens": WRITTEN})
        yield _named("message_stop")

    def error(self, status: int, kind: str | None, message: str) -> Body:
        kinds = {401: "authentication_error", 429: "rate_limit_error", 529: "overloaded_error"}
        error = {"type": kind or kinds.get(status, "api_error"), "message": message}
        return {"type": "error", "error": error, "request_id": f"req_{_id()}"}


class Chat(Wire):
    """POST …/chat/completions"""

    def read(self, body: Body, path: str) -> Question:
        messages = []
        for message in body["messages"]:
            role = {"developer": "system"}.get(message["role"], message["role"])
            calls = tuple(call["id"] for call in message.get("tool_calls") or ())
            messages.append(Message(role, texts(message.get("content")), calls))
        functions = [tool["function"] for tool in body.get("tools") or () if "function" in tool]
        tools = {function["name"]: Tool.of(function.get("parameters")) for function in functions}
        return Question(tuple(messages), tools, bool(body.get("stream")), body["model"])

    def _calls(self, answer: Answer) -> list[Body]:
        return [
            {
                "id": f"call_{call.id}", "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.input)},
            }
            for call in answer.calls
        ]  # fmt: skip

    def _base(self, question: Question, object: str) -> Body:
        return {"id": f"chatcmpl-{_id()}", "object": object, "created": int(time.time()), "model": question.model}

    def whole(self, answer: Answer, question: Question) -> Body:
        message: Body = {"role": "assistant", "content": answer.text or None}
        if answer.calls:
            message["tool_calls"] = self._calls(answer)
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if answer.calls else "stop"}
        return {**self._base(question, "chat.completion"), "choices": [choice], "usage": self._usage()}

    def frames(self, answer: Answer, question: Question) -> Iterator[Frame]:
        base = self._base(question, "chat.completion.chunk")

        def chunk(delta: Body, why: str | None = None) -> Frame:
            return None, {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": why}]}

        yield chunk({"role": "assistant", "content": ""})
        for piece in _pieces(answer.text):
            yield chunk({"content": piece})
        for index, call in enumerate(self._calls(answer)):
            yield chunk({"tool_calls": [{"index": index, **call}]})
        yield chunk({}, "tool_calls" if answer.calls else "stop")
        yield None, {**base, "choices": [], "usage": self._usage()}
        yield None, "[DONE]"

    def _usage(self) -> Body:
        return {"prompt_tokens": READ, "completion_tokens": WRITTEN, "total_tokens": READ + WRITTEN}

    def error(self, status: int, kind: str | None, message: str) -> Body:
        kinds = {401: "invalid_api_key", 429: "rate_limit_exceeded", 529: "overloaded"}
        kind = kind or kinds.get(status, "server_error")
        return {"error": {"message": message, "type": kind, "param": None, "code": kind}}


class Responses(Wire):
    """POST …/responses"""

    def read(self, body: Body, path: str) -> Question:
        messages = [Message("system", body.get("instructions") or "")]
        given = body["input"]
        for item in [{"role": "user", "content": given}] if isinstance(given, str) else given:
            kind = item.get("type", "message")
            if kind == "message":
                role = {"developer": "system"}.get(item["role"], item["role"])
                messages.append(Message(role, texts(item.get("content"))))
            elif kind.endswith("_call"):
                messages.append(Message("assistant", calls=(item.get("call_id") or "",)))
            elif kind.endswith("_output"):
                messages.append(Message("tool", texts(item.get("output"))))
        tools = {tool["name"]: Tool.of(tool.get("parameters")) for tool in body.get("tools") or () if "name" in tool}
        return Question(tuple(messages), tools, bool(body.get("stream")), body["model"])

    def _items(self, answer: Answer) -> list[Body]:
        items: list[Body] = []
        if answer.text:
            part = {"type": "output_text", "text": answer.text, "annotations": []}
            message = {"type": "message", "id": f"msg_{_id()}", "role": "assistant", "content": [part]}
            items.append({**message, "status": "completed"})
        for call in answer.calls:
            given = {"call_id": f"call_{call.id}", "name": call.name, "arguments": json.dumps(call.input)}
            items.append({"type": "function_call", "id": f"fc_{_id()}", "status": "completed", **given})
        return items

    def whole(self, answer: Answer, question: Question) -> Body:
        return self._envelope(question, f"resp_{_id()}", self._items(answer))

    def _envelope(self, question: Question, id: str, items: list[Body] | None) -> Body:
        """The response as it stands; without items, before it began."""
        usage = {
            "input_tokens": READ, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": WRITTEN,
            "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": READ + WRITTEN,
        }  # fmt: skip
        return {
            "id": id, "object": "response", "created_at": int(time.time()), "model": question.model,
            "status": "in_progress" if items is None else "completed", "output": items or [], "error": None,
            "parallel_tool_calls": False, "tool_choice": "auto", "tools": [], "incomplete_details": None,
            "instructions": None, "metadata": {}, "usage": None if items is None else usage,
        }  # fmt: skip

    def frames(self, answer: Answer, question: Question) -> Iterator[Frame]:
        id, items, numbers = f"resp_{_id()}", self._items(answer), count()

        def event(name: str, **facts: Any) -> Frame:
            return _named(name, sequence_number=next(numbers), **facts)

        yield event("response.created", response=self._envelope(question, id, None))
        for index, item in enumerate(items):
            place = {"item_id": item["id"], "output_index": index}
            if item["type"] == "message":
                begun = {**item, "status": "in_progress", "content": []}
                yield event("response.output_item.added", output_index=index, item=begun)
                for piece in _pieces(answer.text):
                    yield event("response.output_text.delta", **place, content_index=0, delta=piece)
                yield event("response.output_text.done", **place, content_index=0, text=answer.text)
            else:
                begun = {**item, "status": "in_progress", "arguments": ""}
                yield event("response.output_item.added", output_index=index, item=begun)
                yield event("response.function_call_arguments.done", **place, arguments=item["arguments"])
            yield event("response.output_item.done", output_index=index, item=item)
        yield event("response.completed", response=self._envelope(question, id, items))

    def error(self, status: int, kind: str | None, message: str) -> Body:
        return Chat().error(status, kind, message)


class Gemini(Wire):
    """POST …/models/NAME:generateContent, or :streamGenerateContent"""

    def read(self, body: Body, path: str) -> Question:
        messages = [Message("system", texts((body.get("systemInstruction") or {}).get("parts")))]
        for content in body["contents"]:
            parts = content.get("parts") or []
            calls = tuple(part["functionCall"].get("id") or "" for part in parts if "functionCall" in part)
            role = "assistant" if content.get("role") == "model" else "user"
            messages.append(Message(role, texts(parts), calls))
        declared = [one for tool in body.get("tools") or () for one in tool.get("functionDeclarations") or ()]
        schemas = {one["name"]: one.get("parametersJsonSchema") or one.get("parameters") for one in declared}
        tools = {name: Tool.of(schema) for name, schema in schemas.items()}
        model = path.rpartition("/")[2].partition(":")[0]
        return Question(tuple(messages), tools, ":stream" in path, model)

    def _envelope(self, parts: list[Body], question: Question, why: str | None) -> Body:
        candidate = {"content": {"role": "model", "parts": parts}, "finishReason": why, "index": 0}
        usage = {"promptTokenCount": READ, "candidatesTokenCount": WRITTEN, "totalTokenCount": READ + WRITTEN}
        return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": question.model, "responseId": _id()}

    def _calls(self, answer: Answer) -> list[Body]:
        return [
            {"functionCall": {"id": f"fc_{call.id}", "name": call.name, "args": call.input}} for call in answer.calls
        ]

    def whole(self, answer: Answer, question: Question) -> Body:
        said = [{"text": answer.text}] if answer.text else []
        return self._envelope([*said, *self._calls(answer)], question, "STOP")

    def frames(self, answer: Answer, question: Question) -> Iterator[Frame]:
        *before, last = [[{"text": piece}] for piece in _pieces(answer.text)] or [[]]
        for parts in before:
            yield None, self._envelope(parts, question, None)
        yield None, self._envelope([*last, *self._calls(answer)], question, "STOP")

    def error(self, status: int, kind: str | None, message: str) -> Body:
        kinds = {401: "UNAUTHENTICATED", 429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 529: "UNAVAILABLE"}
        return {"error": {"code": status, "message": message, "status": kind or kinds.get(status, "UNKNOWN")}}


def wire_of(path: str) -> Wire | None:
    """The language of a request to that path; None for one that asks no model."""
    path = path.partition("?")[0]
    if path.endswith("/v1/messages"):
        return Anthropic()
    if path.endswith("/chat/completions"):
        return Chat()
    if path.endswith("/responses"):
        return Responses()
    return Gemini() if path.endswith((":generateContent", ":streamGenerateContent")) else None


def _named(name: str, **facts: Any) -> Frame:
    return name, {"type": name, **facts}


def _pieces(text: str) -> list[str]:
    return [text[start : start + PIECE] for start in range(0, len(text), PIECE)]


def _id() -> str:
    return uuid.uuid4().hex[:20]
