"""The landing ledger and the verdicts of tests on trees."""

from __future__ import annotations

from typing import NamedTuple

from drover.domain.clock import Clock
from drover.domain.errors import LeaseLost
from drover.domain.models import Claim, Landed, Landing, Proof
from drover.store.database import Database, Row, Transaction, Value
from drover.store.events import tell
from drover.store.rows import landing_of


class Unpublished(NamedTuple):
    """A task that has landed in the lane and is not in the target branch yet."""

    task_id: str
    epic_id: str | None
    attempt: int
    commit: str


class Landings:
    """Verbs of landing."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def intend(self, claim: Claim, *, target: str, old: str, commit: str, tree: str) -> None:
        """Record the intent to move the lane from ``old`` to ``commit``; only the holder of the claim may."""

        async def verb(tx: Transaction) -> None:
            now = self._clock.now()
            held = await tx.one(
                "lock_claim", id=claim.task_id, fence=claim.fence, worker_id=claim.worker_id, lease_now=tx.lease_now
            )
            if held is None:
                raise LeaseLost(f"{claim.task_id} is no longer held by {claim.worker_id} (fence {claim.fence})")
            await tx.run(
                "add_intent",
                task_id=claim.task_id,
                attempt=claim.task.attempt,
                fence=claim.fence,
                target=target,
                old_oid=old,
                commit_oid=commit,
                tree_oid=tree,
                now=now,
            )

        await self._database.write(verb)

    async def abandon(self, claim: Claim) -> None:
        """The intent came to nothing: the lane had moved."""

        async def verb(tx: Transaction) -> None:
            await tx.run("abandon_intent", task_id=claim.task_id, attempt=claim.task.attempt, fence=claim.fence)

        await self._database.write(verb)

    async def landed(self, claim: Claim, landed: Landed) -> None:
        """Record that the task's work is in the lane, once: its dependents' counters fall and they are woken."""

        async def verb(tx: Transaction) -> None:
            now = self._clock.now()
            await tx.one("share_graph")
            changed = await tx.run(
                "record_landed",
                id=claim.task_id,
                fence=claim.fence,
                worker_id=claim.worker_id,
                commit_oid=landed.commit,
                now=now,
            )
            if changed != 1:
                row = await tx.one("find_task", id=claim.task_id)
                if row is not None and row["landed_at"] is not None and row["fence"] == claim.fence:
                    return
                raise LeaseLost(f"{claim.task_id} is no longer held by {claim.worker_id} (fence {claim.fence})")
            await tx.run("close_intents", task_id=claim.task_id, commit_oid=landed.commit, now=now)
            task = claim.task
            data: dict[str, Value] = {
                "title": task.title,
                "commit": landed.commit,
                "target": landed.target,
                "found": int(landed.found),
            }
            await tell(
                tx,
                "task.landed",
                now,
                task_id=task.id,
                epic_id=task.epic_id,
                attempt=task.attempt,
                worker=claim.worker_id,
                data=data,
            )
            for row in await tx.all("lower_dependents", blocker_id=task.id):
                if row["open_blockers"] == 0 and row["state"] == "queued":
                    epic_id = str(row["epic_id"]) if row["epic_id"] is not None else None
                    await tell(tx, "task.ready", now, task_id=str(row["id"]), epic_id=epic_id, data={"after": task.id})
            tx.ring()

        await self._database.write(verb)

    async def published(self, tasks: list[Unpublished], target: str) -> None:
        """These tasks' commits are in the target branch now: those that only waited for it are completed."""

        async def verb(tx: Transaction) -> None:
            now = self._clock.now()
            for task in tasks:
                await tx.run("publish_landing", task_id=task.task_id, commit_oid=task.commit, now=now)
                if await tx.run("complete_published", id=task.task_id, now=now) == 1:
                    data: dict[str, Value] = {"commit": task.commit, "target": target}
                    await tell(
                        tx,
                        "task.completed",
                        now,
                        task_id=task.task_id,
                        epic_id=task.epic_id,
                        attempt=task.attempt,
                        data=data,
                    )
            tx.ring()

        await self._database.write(verb)

    async def describe_wait(self, task_ids: list[str], detail: str) -> None:
        """Say in words what unpublished tasks wait for."""

        async def verb(tx: Transaction) -> None:
            for id in task_ids:
                await tx.run("describe_wait", id=id, reason="publish", detail=detail)

        await self._database.write(verb)

    async def unpublished(self) -> list[Unpublished]:
        """Tasks that wait to be published, in the order they landed."""

        async def verb(tx: Transaction) -> list[Row]:
            return await tx.all("list_unpublished")

        return [
            Unpublished(
                str(r["id"]),
                str(r["epic_id"]) if r["epic_id"] is not None else None,
                int(r["attempt"] or 0),
                str(r["landed_commit"]),
            )
            for r in await self._database.read(verb)
        ]

    async def of_task(self, task_id: str) -> list[Landing]:
        """The ledger's rows of one task, oldest fence first."""

        async def verb(tx: Transaction) -> list[Row]:
            return await tx.all("list_landings", task_id=task_id)

        return [landing_of(row) for row in await self._database.read(verb)]

    async def open(self, target: str) -> list[Landing]:
        """Intents without an outcome, and landings that are not published."""

        async def verb(tx: Transaction) -> list[Row]:
            return await tx.all("list_open_landings", target=target)

        return [landing_of(row) for row in await self._database.read(verb)]

    # ------------------------------------------------------------ the lane of many hosts

    async def take_lane(self, target: str, holder: str, *, for_ms: int) -> bool:
        """Take the turn to land on a target, or keep it for longer; False while somebody else has it.

        It ends by itself after ``for_ms``, so a holder may find that others have landed meanwhile.
        """

        async def verb(tx: Transaction) -> bool:
            until = tx.lease_now + for_ms
            return await tx.run("take_lane", target=target, holder=holder, until=until, lease_now=tx.lease_now) == 1

        return await self._database.write(verb)

    async def leave_lane(self, target: str, holder: str) -> None:
        """Give the turn to land to whoever waits. Nothing happens when it is not the holder's any more."""

        async def verb(tx: Transaction) -> None:
            await tx.run("leave_lane", target=target, holder=holder)
            tx.ring()

        await self._database.write(verb)

    # ------------------------------------------------------------ proofs

    async def find_proof(self, tree: str, command: str) -> Proof | None:
        """What the command said of this very tree before, if it was asked."""

        async def verb(tx: Transaction) -> Row | None:
            return await tx.one("find_proof", tree_oid=tree, command=command)

        row = await self._database.read(verb)
        if row is None:
            return None
        return Proof(
            tree=tree,
            passed=bool(row["passed"]),
            mode="strict",
            command=command,
            exit_code=int(row["exit_code"]) if row["exit_code"] is not None else None,
            seconds=int(row["duration_ms"] or 0) / 1000,
            log=str(row["log"]) if row["log"] is not None else None,
            known=True,
            retries=int(row["retries"] or 0),
        )

    async def keep_proof(self, proof: Proof) -> None:
        """Remember a verdict on a tree."""

        async def verb(tx: Transaction) -> None:
            await tx.run(
                "add_proof",
                tree_oid=proof.tree,
                command=proof.command,
                passed=int(proof.passed),
                exit_code=proof.exit_code,
                duration_ms=int(proof.seconds * 1000),
                retries=proof.retries,
                log=proof.log,
                now=self._clock.now(),
            )

        await self._database.write(verb)
