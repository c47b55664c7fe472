"""What can happen to an agent, one function each: it makes it happen, and looks at what came of it.

A cell raises Wrong when drover did not do what it promises; what it returns says what happened, in a few words.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.agents.rig import Real
from tests.conformance.scene import Facts, Scene, Wrong

# Slow only the first time: an agent that forgets the call it was killed in makes it again. The grandchild in a
# session of its own is what a signal to the agent's group does not reach.
SLOW = {"sh": "test -e started || { echo > started; setsid sleep 300 & sleep 300; }; echo SLEPT"}
ONE, TWO = {"write": ["one.txt", "1\n"]}, {"write": ["two.txt", "2\n"]}
DONE = {"say": "All done."}
KEPT, FLOOD = 1 << 20, 30_000_000  # bytes of a log; bytes that a tool prints
# Within these seconds it has begun its first tool, also on a busy machine.
START_S = {"claude": 12, "codex": 12, "copilot": 20, "gemini": 25, "qwen": 30, "opencode": 45}
# While it sleeps after a refusal it says that there was one, and not which.
UNTOLD = {"opencode": "overloaded"}
TELLS_NO_TOKENS = {"copilot"}  # of a provider of one's own


def see(found: Any, what: str) -> None:
    if not found:
        raise Wrong(what)


def run(real: Real, place: Path) -> str:
    with Scene(real, place) as scene:
        scene.add({"say": "Working.", **ONE}, {"sh": "echo $DROVER_TASK_ID > id.txt"}, DONE)
        see(scene.run().end() == 0, "the run did not end with 0")
        facts = scene.info()
        attempt = facts["attempts_log"][-1]
        see({"one.txt", "id.txt"} <= set(scene.landed()), f"what landed: {scene.landed()}")
        see(scene.served.turns == [0, 1, 2], f"the model was asked for turns {scene.served.turns}")
        see(attempt["session_id"], "no session is on record")
        see(attempt["tokens"] or real.agent.name in TELLS_NO_TOKENS, "no tokens are on record")
        tokens = f"{attempt['tokens']:,} tokens" if attempt["tokens"] else "tells no tokens"
        return f"landed; 3 turns, {tokens}"


def kill_of_the_agent(real: Real, place: Path) -> str:
    with Scene(real, place) as scene:
        scene.add(ONE, SLOW, TWO, DONE)
        run = scene.run()
        scene.in_the_slow_tool(run)
        os.kill(scene.agent_pid(), signal.SIGKILL)
        run.until("the next attempt", lambda: run.events("task.retrying"))
        see(run.end() == 0, f"the run did not end with 0; {run.said}")
        first, second = scene.info()["attempts_log"]
        see(first["outcome"] == "crashed", f"the kill was recorded as {first['outcome']}")
        return f"crashed, tried again by itself; {_went_on(scene, first, second)}"


def kill_of_drover(real: Real, place: Path) -> str:
    with Scene(real, place) as scene:
        scene.add(ONE, SLOW, TWO, DONE)
        run = scene.run()
        scene.in_the_slow_tool(run)
        see(scene.alive > 2, "the agent was not at work")
        run.process.kill()
        gone_s = scene.none_alive()
        see(scene.run("resume").end() == 0, "resume did not end with 0")
        facts = scene.info()
        first, second = facts["attempts_log"]
        see(facts["attempts"] == 1, f"it used up {facts['attempts']} attempts")
        return f"none left after {gone_s:.1f} s; {_went_on(scene, first, second)}"


def control_c(real: Real, place: Path) -> str:
    with Scene(real, place) as scene:
        scene.add(ONE, SLOW, TWO, DONE)
        run = scene.run()
        clone = scene.in_the_slow_tool(run)
        run.process.send_signal(signal.SIGINT)
        code = run.end(30)
        see(code == 130, f"it ended with {code}; {run.said}")
        see(not scene.alive, f"{scene.alive} processes are alive after it")
        see((clone / "one.txt").exists(), "its work in progress is gone")
        see(scene.run("resume").end() == 0, "resume did not end with 0")
        facts = scene.info()
        first, second = facts["attempts_log"]
        see(facts["attempts"] == 1, f"it used up {facts['attempts']} attempts")
        return f"130, none left; {_went_on(scene, first, second)}"


def rate_limit(real: Real, place: Path) -> str:
    headers = {"retry-after": 3600}
    fault = {"status": 429, "message": "slow down", "headers": headers, "times": -1}
    return _waits(real, place, fault, "rate_limited", heals=True)


def usage_limit(real: Real, place: Path) -> str:
    return _waits(real, place, {"limit": "five_hour", "reset_s": 15, "times": -1}, "usage_limit", heals=False)


def overload(real: Real, place: Path) -> str:
    return _waits(real, place, {"status": 529, "message": "Overloaded", "times": -1}, "overloaded", heals=True)


def _waits(real: Real, place: Path, fault: Facts, reason: str, *, heals: bool) -> str:
    """The task waits, and uses up no attempt; where it wakes soon, it then goes on and lands.

    ``heals``: the service does, as soon as the task waits; else it does when it said that it would.
    """
    account = {}
    if real.agent.name == "claude" and "limit" in fault:  # only a subscriber has such limits
        account = {"ANTHROPIC_API_KEY": "", "CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-dummy"}
    haste = {} if heals and fault["status"] == 529 else {"DROVER_STALL_TIMEOUT": "45s"}
    with Scene(real, place, **haste, **account) as scene:
        scene.add(ONE, {"fault": fault, "say": "All done."})
        run = scene.run()
        seen = run.until("it waits", lambda: run.events("task.waiting") or run.events("task.completed"))[0]
        if seen["type"] == "task.completed":
            see(run.end() == 0, f"the run did not end with 0; {run.said}")
            see(scene.info()["attempts"] == 1, "it used up an attempt")
            return "sat out by the agent itself, landed; no attempt used"
        waits = seen["data"]
        see(
            waits["reason"] in {reason, UNTOLD.get(real.agent.name)},
            f"it waits for {waits['reason']}: {waits.get('detail', '')[:200]}",
        )
        scene.served.well = heals
        facts = scene.info()
        told = _minutes(facts)
        if told is not None and told > 3:
            run.process.send_signal(signal.SIGINT)
            see(run.end(30) == 130, "Ctrl+C did not end the wait")
            facts = scene.info()
            see((facts["status"], facts["attempts"]) == ("waiting", 0), f"{facts['status']}, {facts['attempts']} used")
            return f"waiting: {waits['reason']}, {told:.0f} min; no attempt used"
        see(run.end() == 0, f"it did not land after the wait; {run.said}")
        facts = scene.info()
        see(facts["attempts"] == 1, f"it used up {facts['attempts']} attempts")
        how = _how(facts["attempts_log"][-1])
        times = len(facts["attempts_log"]) - 1
        return (
            f"waiting: {waits['reason']}{f', {times} times' if times > 1 else ''}, then landed ({how}); no attempt used"
        )


def refused_key(real: Real, place: Path) -> str:
    with Scene(real, place) as scene:
        scene.add({"fault": {"status": 401, "message": "invalid api key", "times": -1}, "say": "x"})
        code = scene.run().end()
        facts = scene.info()
        error = facts["last_error"]
        see(code == 3, f"the run ended with {code}")
        see(error["class"] == "auth", f"it ended as {error['class']}: {error['message'][:200]}")
        see("sign in" in error["what_to_do"], f"the advice: {error['what_to_do']}")
        return "failed: auth, not tried again; says how to sign in"


def network_down(real: Real, place: Path) -> str:
    with Scene(real, place, reachable=False) as scene:
        scene.add(ONE, DONE)
        run = scene.run()
        waits = run.until("it waits", lambda: run.events("task.waiting"))[0]["data"]
        see(waits["reason"] == "overloaded", f"it waits for {waits['reason']}: {waits.get('detail', '')[:200]}")
        scene.serve()
        see(run.end() == 0, f"it did not land when the network was back; {run.said}")
        facts = scene.info()
        see(facts["attempts"] == 1, f"it used up {facts['attempts']} attempts")
        return "waiting: overloaded; landed when the network was back; no attempt used"


def timeout(real: Real, place: Path) -> str:
    with Scene(real, place, DROVER_TASK_TIMEOUT=f"{START_S[real.agent.name]}s") as scene:
        scene.add(SLOW, DONE, attempts=1)
        return _ends_as(scene, "timeout")


def stall(real: Real, place: Path) -> str:
    with Scene(real, place, DROVER_STALL_TIMEOUT="5s") as scene:
        scene.add(ONE, {"hang": True}, attempts=1)
        return _ends_as(scene, "stalled")


def _ends_as(scene: Scene, outcome: str) -> str:
    run = scene.run()
    see(run.end() == 3, "the run did not end with 3")
    facts = scene.info()
    found = facts["last_error"]["class"]
    see(found == outcome, f"it ended as {found}: {facts['last_error']['message'][:200]}")
    see(not scene.alive, f"{scene.alive} processes are alive after it")
    return f"failed: {outcome}; none left"


def flood(real: Real, place: Path) -> str:
    with Scene(real, place, settings=f'[logs]\nlimit = "{KEPT}B"\n') as scene:
        shell = {"sh": f"yes flood | head -c {FLOOD}; yes flood | head -c {FLOOD} >&2"}
        scene.add(shell, {"say_bytes": 3_000_000, **ONE}, DONE)
        run = scene.run()
        see(run.end() == 0, f"the run did not end with 0; {run.said}")
        see("one.txt" in scene.landed(), "it did not land")
        logs = sum(path.stat().st_size for path in Path(scene.info()["attempts_log"][-1]["log"]).iterdir())
        see(logs < 3 * KEPT, f"{logs} bytes of logs are kept")
        see(run.peak_kib < 200 * 1024, f"drover used {run.peak_kib // 1024} MiB")
        return f"landed; {logs / 1e6:.1f} MB of logs kept, drover {run.peak_kib // 1024} MiB at most"


def resume(real: Real, place: Path) -> str:
    """It ended well, the tests failed on its work: the session that was over goes on with what they said."""
    with Scene(
        real, place, settings='[verify]\ncommand = "test -e two.txt || { echo two is missing; exit 1; }"\n'
    ) as scene:
        scene.add(ONE, DONE, TWO, {"say": "Now it is there."})
        see(scene.run().end() == 0, "the run did not end with 0")
        first, second = scene.info()["attempts_log"]
        asked = [request.last for request in scene.served.requests if request.turn == 2]
        see(asked and "two is missing" in asked[0], "it was not told what the tests said")
        return f"told what the tests said; {_went_on(scene, first, second)}"


def _went_on(scene: Scene, first: Facts, second: Facts) -> str:
    """The same session went on to the end, and the model was sent what had been done."""
    see({"one.txt", "two.txt"} <= set(scene.landed()), f"what landed: {scene.landed()}")
    see(second["resumed"] == "continued", f"the second execution is recorded as {second['resumed']}")
    see(first["session_id"] == second["session_id"], "the session is another one")
    turns = scene.served.turns
    see(turns.count(0) == 1, f"the model was asked for turns {turns}: it did not see the history")
    return "same session continued, landed"


def _how(attempt: Facts) -> str:
    return {"continued": "same session", "fresh": "new session"}.get(attempt["resumed"], str(attempt["resumed"]))


def _minutes(facts: Facts) -> float | None:
    """How long the wait still is; None when it is over."""
    if facts.get("until") is None:
        return None
    until = datetime.fromisoformat(facts["until"])
    return (until - datetime.now(UTC)).total_seconds() / 60


Cell = Callable[[Real, Path], str]
CELLS: dict[str, Cell] = {
    "run": run,
    "kill -9 of the agent": kill_of_the_agent,
    "kill -9 of drover": kill_of_drover,
    "Ctrl+C": control_c,
    "429 with retry-after": rate_limit,
    "usage limit": usage_limit,
    "529": overload,
    "401": refused_key,
    "network down": network_down,
    "timeout": timeout,
    "stall": stall,
    "flood": flood,
    "resume": resume,
}
