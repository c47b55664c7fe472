"""What an agent needs a person for: a question, or a permission that it was denied, parks its task and is answered."""

from __future__ import annotations

import pytest

from drover.domain.states import State
from tests.engine.places import Site

pytestmark = pytest.mark.anyio

# Claude Code in three sentences: denied a tool at first, it goes on once it is told that it may.
AGENT = """\
test "$1" = --version && echo 2.1.330 && exit 0
read -r prompt
printf '%s\\n' "$prompt" >> {top}/prompts
echo '{{"type":"system","subtype":"init","session_id":"one"}}'
case "$prompt" in *"You may now"*) echo done > a.txt; denied=;; *) denied='{{"tool_name":"Bash"}}';; esac
echo '{{"type":"result","subtype":"success","is_error":false,"result":"Well.","permission_denials":['$denied']}}'
"""


async def test_a_denied_permission_waits_for_a_person_and_uses_up_nothing(site: Site) -> None:
    site.says(AGENT.format(top=site.top))
    async with site.open(**{"agents.claude.path": str(site.agent)}) as drover:
        task = await drover.add("Needs a tool", agent="claude")
        other = await drover.add("Needs none", agent="scripted")
        report = await drover.run(workers=1)
        assert report.needs_person == (task.id,)
        assert report.completed == (other.id,)  # the worker was free for it
        parked = await drover.task(task.id)
        assert (parked.state, parked.reason, parked.failures) == (State.WAITING, "question", 0)
        assert parked.detail == "it was not allowed to use Bash"
        (item,) = await drover.inbox()
        assert (item.kind, item.says) == ("question", "it was not allowed to use Bash")
        await drover.answer(task.id, "You may now.")
        assert (await drover.run()).completed == (task.id,)
        attempts = await drover.store.claims.attempts(task.id)
    assert [(one.outcome, one.resumed) for one in attempts] == [("permission", "fresh"), ("done", "continued")]
    assert "interrupted" not in (site.top / "prompts").read_text()
