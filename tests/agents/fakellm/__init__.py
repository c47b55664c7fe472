"""A model server with a script in place of a model, so that the real agent CLIs work offline and predictably.

It speaks Anthropic's Messages, OpenAI's Chat Completions and Responses, and Gemini's generateContent. The plan
travels in the prompt, as JSON between ``<plan>`` and ``</plan>``: a list of turns, one model answer each.

    {"say": "text", "write": ["path", "content"], "sh": "command"}     text and at most one tool call
    {"sh": "npm run watch", "background": true}
    {"say_bytes": 3000000}             so much text
    {"delay_s": 1.5}                   before answering
    {"fault": {"status": 529, "times": 2, "kind": "overloaded_error", "message": "…", "headers": {…}, "body": {…}}}
    {"fault": {"limit": "five_hour", "reset_s": 20}}   an account's usage limit, as each service tells it
    {"hang": true}                     accept, and never answer

A turn without a tool call ends the agent's run. Which turn is next is worked out from the history that the
agent sends, never remembered: after a kill the plan goes on only for an agent that sent its history.
"""

from tests.agents.fakellm.server import FakeModel, Request

__all__ = ["FakeModel", "Request"]
