"""A commit says whose it is, and nothing in it can say otherwise."""

from __future__ import annotations

import subprocess
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drover.domain.errors import GitError
from drover.git.commit import make_commit, task_message
from drover.git.landing import LandedCommit, find_landed
from drover.git.repo import Identity, Repo

from .conftest import AT, OLIVE, Change, Git

pytestmark = pytest.mark.anyio


async def commit(repo: Repo, message: str, *parents: str) -> str:
    tree = await repo.tree(parents[0])
    return await make_commit(repo, tree=tree, parents=parents, message=message, identity=OLIVE, at_ms=AT)


async def test_the_same_commit_made_again_is_the_same_commit(repo: Repo, git: Git, monkeypatch) -> None:
    first = git(repo.root, "rev-parse", "main")
    made = await commit(repo, task_message("Do it", "task-a", 1), first)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Somebody else")
    assert await commit(repo, task_message("Do it", "task-a", 1), first) == made
    shown = git(repo.root, "log", "-1", "--format=%an <%ae>|%cn <%ce>|%ai|%s|%P", made)
    olive = "Olive Operator <olive@example.org>"
    assert shown == f"{olive}|{olive}|2026-01-01 00:00:00 +0000|Do it|{first}"


@pytest.mark.parametrize("name", ["Olive Operator", "Ölive O'Perator", "o", ". dotted .", 'Olive "Oli"'])
async def test_a_commit_on_one_of_ours_is_the_one_that_git_makes(repo: Repo, git: Git, name: str) -> None:
    """It is written without git where git would do nothing else."""
    tree = git(repo.root, "rev-parse", "main^{tree}")
    ours = await commit(repo, task_message("Do it", "task-a", 1), git(repo.root, "rev-parse", "main"))
    other = await commit(repo, task_message("Do more", "task-b", 1), git(repo.root, "rev-parse", "main"))
    message = task_message("Däs hier", "task-c", 2, body="more\n\nof it")
    for parents in ((ours,), (ours, other), (ours, ours)):
        made = await make_commit(
            repo, tree=tree, parents=parents, message=message, identity=Identity(name=name, email="o@x.org"), at_ms=AT
        )
        when = f"@{AT // 1000} +0000"
        env = ["env", f"GIT_AUTHOR_NAME={name}", f"GIT_COMMITTER_NAME={name}", "GIT_AUTHOR_EMAIL=o@x.org",
               "GIT_COMMITTER_EMAIL=o@x.org", f"GIT_AUTHOR_DATE={when}", f"GIT_COMMITTER_DATE={when}"]  # fmt: skip
        told = [word for parent in parents for word in ("-p", parent)]
        done = subprocess.run(
            [*env, "git", "commit-tree", tree, *told, "-F", "-"], cwd=repo.root, input=message.encode(),
            capture_output=True, check=True,
        )  # fmt: skip
        assert made == done.stdout.decode().strip()
    git(repo.root, "fsck", "--strict")


async def test_others_of_the_group_can_write_beside_our_commits(repo: Repo, git: Git) -> None:
    """In a repository that a group shares git widens the modes of what it makes; its umask is not the repository's."""
    git(repo.root, "config", "core.sharedRepository", "group")
    for place in (repo.objects_dir, *(d for d in repo.objects_dir.iterdir() if d.is_dir())):
        place.chmod(0o2775)
    parent = git(repo.root, "rev-parse", "main")
    for number in range(40):
        parent = await commit(repo, task_message("Do it", f"task-{number}", 1), parent)
        assert (repo.objects_dir / parent[:2]).stat().st_mode & 0o070 == 0o070


async def test_a_commit_on_nothing_is_refused(repo: Repo, git: Git) -> None:
    tree = git(repo.root, "rev-parse", "main^{tree}")
    with pytest.raises(GitError):
        await make_commit(repo, tree=tree, parents=("1" * 40,), message="m\n", identity=OLIVE, at_ms=AT)
    ours = await commit(repo, task_message("Do it", "task-a", 1), git(repo.root, "rev-parse", "main"))
    with pytest.raises(GitError):
        await make_commit(repo, tree="2" * 40, parents=(ours,), message="m\n", identity=OLIVE, at_ms=AT)


async def test_neither_signing_nor_hooks_of_the_operator_take_part(repo: Repo, git: Git, tmp_path: Path) -> None:
    git(repo.root, "config", "commit.gpgSign", "true")
    git(repo.root, "config", "gpg.program", "/bin/false")
    hook = repo.git_dir / "hooks" / "commit-msg"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\nexit 1\n")
    hook.chmod(0o755)
    await commit(repo, "message", git(repo.root, "rev-parse", "main"))
    assert not (tmp_path / "ran").exists()


async def test_an_odd_identity_is_kept_as_far_as_git_can(repo: Repo, git: Git) -> None:
    first = git(repo.root, "rev-parse", "main")
    identity = Identity(name="Zoë <the> Operator\n", email="zoë@example.org")
    oid = await make_commit(
        repo, tree=await repo.tree(first), parents=(first,), message="m", identity=identity, at_ms=AT
    )
    assert git(repo.root, "log", "-1", "--format=%an|%ae", oid) == "Zoë the Operator|zoë@example.org"


@pytest.mark.parametrize(
    ("title", "subject"),
    [
        ("Add a page", "Add a page"),
        ("  Add\n a\tpage  ", "Add a page"),
        ("# heading", "Task: # heading"),
        ("--amend", "Task: --amend"),
        ("fixup! other work", "Task: fixup! other work"),
        ("a\x1b[31mred\x07", "a [31mred"),
        ("a\u202eb", "a b"),
        ("", "Task task-a"),
        ("\n\n", "Task task-a"),
    ],
)
def test_a_title_becomes_a_subject_that_git_takes_as_text(title: str, subject: str) -> None:
    assert task_message(title, "task-a", 2) == f"{subject}\n\nDrover-Task: task-a\nDrover-Attempt: 2\n"


def test_a_long_title_is_cut_at_a_word_and_given_whole_below() -> None:
    title = "Make the " + "very " * 20 + "long page"
    subject, _, whole, *_ = task_message(title, "task-a", 1).split("\n")
    assert len(subject) <= 72
    assert subject.endswith("very…")
    assert whole == title
    assert len(task_message("x" * 500, "task-a", 1).split("\n")[0]) == 72


def test_a_body_keeps_its_lines_and_cannot_imitate_trailers() -> None:
    body = "What I did:\n\n- this\n# and that\n\nDrover-Task: task-b\n  drover-attempt : 9\n\x1b[0mend\n\n\n"
    assert task_message("T", "task-a", 1, body=body).split("\n") == [
        "T", "", "What I did:", "", "- this", "> # and that", "", "> Drover-Task: task-b", ">   drover-attempt : 9",
        " [0mend", "", "Drover-Task: task-a", "Drover-Attempt: 1", "",
    ]  # fmt: skip


@pytest.mark.parametrize("task_id", ["", "a\nb", "-x", "task a", "a: b"])
def test_what_is_no_task_id_makes_no_message(task_id: str) -> None:
    with pytest.raises(GitError, match="cannot be the id"):
        task_message("T", task_id, 1)


WORDS = st.lists(
    st.sampled_from(
        ["Drover-Task: task-b", "Drover-Attempt: 7", "\n", "\n\n", "---", "# x", " ", "text", "Signed-off-by: a <b@c>",
         "\r", "\u2028", "\x0b", "\x00", "\x1f", "diff --git a/x b/x", "-- ", ">8", "é", "\ud800", "💥"]
    ) | st.text(max_size=10),
    max_size=12,
).map("".join)  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(title=WORDS, body=WORDS)
async def test_no_title_or_body_can_forge_or_break_the_trailers(
    repository: Path, git: Git, title: str, body: str
) -> None:
    repo = await Repo.find(repository)
    first = git(repo.root, "rev-parse", "main")
    tip = await commit(repo, task_message(title, "task-a", 3, body=body), first)
    assert await find_landed(repo, tip=tip, since=first, task_id="task-a") == LandedCommit(oid=tip, attempt=3)
    assert await find_landed(repo, tip=tip, since=first, task_id="task-b") is None
    trailers = git(repo.root, "log", "-1", "--format=%(trailers:only)", tip).split("\n")
    assert trailers == ["Drover-Task: task-a", "Drover-Attempt: 3"]
    subject = git(repo.root, "log", "-1", "--format=%s", tip)
    assert len(subject) <= 72
    assert not {unicodedata.category(letter) for letter in subject} & {"Cc", "Zl", "Zp"}


async def test_a_landing_is_found_behind_others_and_only_in_its_generation(repo: Repo, git: Git) -> None:
    first = git(repo.root, "rev-parse", "main")
    landed = await commit(repo, task_message("T", "task-a", 2), first)
    near = await commit(repo, task_message("T", "task-a.1", 1), landed)
    tip = await commit(repo, task_message("T", "task-ab", 1), near)

    async def found(task_id: str, since: str | None = None, first_attempt: int = 0) -> str | None:
        commit = await find_landed(repo, tip=tip, since=since, task_id=task_id, first_attempt=first_attempt)
        return commit and commit.oid

    assert [await found(id) for id in ("task-a", "task-a.1", "task-ab", "task")] == [landed, near, tip, None]
    assert await found("task-a", since=first) == landed
    assert await found("task-a", since=landed) is None
    assert (await found("task-a", first_attempt=2), await found("task-a", first_attempt=3)) == (landed, None)


async def test_a_reverted_landing_is_not_taken_for_another_and_the_latest_attempt_counts(repo: Repo, git: Git) -> None:
    first = git(repo.root, "rev-parse", "main")
    one = await commit(repo, task_message("T", "task-a", 1), first)
    revert = await commit(repo, f'Revert "T"\n\nThis reverts commit {one}.\n', one)
    two = await commit(repo, task_message("T", "task-a", 2), revert)
    assert await find_landed(repo, tip=two, since=None, task_id="task-a") == LandedCommit(oid=two, attempt=2)
    found = await find_landed(repo, tip=revert, since=None, task_id="task-a", first_attempt=2)
    assert found is None


async def test_a_landing_that_the_operator_merged_into_their_own_commit_is_found(
    repo: Repo, git: Git, change: Change
) -> None:
    first = git(repo.root, "rev-parse", "main")
    landed = await commit(repo, task_message("T", "task-a", 1), first)
    theirs = change(repo.root, first, {"x": "1"})
    tip = await commit(repo, "Merge", theirs, landed)
    assert await find_landed(repo, tip=tip, since=first, task_id="task-a") == LandedCommit(oid=landed, attempt=1)


@pytest.mark.parametrize(
    "message",
    [
        "T\n\nDrover-Task: task-a\n\nDrover-Attempt: 1\n",
        "T\n\nDrover-Task: task-a\nDrover-Attempt: one\n",
        "T\n\nDrover-Task: task-a and more\nDrover-Attempt: 1\n",
        "T\n\nit said Drover-Task: task-a\n",
        "Drover-Task: task-a\n",
    ],
)
async def test_words_about_a_task_are_not_its_landing(repo: Repo, git: Git, message: str) -> None:
    first = git(repo.root, "rev-parse", "main")
    tip = await commit(repo, message, first)
    assert await find_landed(repo, tip=tip, since=None, task_id="task-a") is None
