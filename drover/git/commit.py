"""Takes what an attempt's directory holds as a tree, and makes the commit that says whose it is."""

from __future__ import annotations

import os
import re
from pathlib import Path

from drover.domain.errors import GitError
from drover.domain.models import Frozen
from drover.git.changes import GITLINK, Change, parse_raw
from drover.git.command import Place, join0, shown, split0
from drover.git.durable import on_disk
from drover.git.loose import write_loose
from drover.git.repo import Identity, Repo
from drover.git.scratch import says

SUBJECT_LENGTH = 72
TASK_TRAILER = "Drover-Task"
ATTEMPT_TRAILER = "Drover-Attempt"

_TASK_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
# C0 and C1 controls, line and paragraph separators, and the marks that turn the direction of text.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]+")
# A name or address from whose ends git would strip nothing, and that has nothing in it that git would leave out.
_PLAIN_NAME = re.compile(r"[^\x00-\x20.,:;<>\"\\']([^\x00-\x1f\x7f<>]*[^\x00-\x20\x7f.,:;<>\"\\'])?")
_UNREADABLE = re.compile(rb"^fatal: Unable to process path (.*?)\n?\Z", re.MULTILINE | re.DOTALL)
# Of a path too long for git the warning ends in the middle of it.
_CLOSED_DIRECTORY = re.compile(rb"^warning: could not open directory '(.*?)(?:': [^':]*)?$", re.MULTILINE)
_MOST_UNREADABLE = 50
_LONGEST_SHOWN = 120
_NO_FILTER = (b"unspecified", b"unset", b"set")
_SUBMODULE = "is a submodule, which drover leaves as it is"


class TakenTree(Frozen):
    """An attempt's directory as a tree. ``paths`` are those that differ from the base, in order.

    ``refused`` says what could not be taken as it is, one "path: why" each. It is never empty when
    something of the directory is missing from the tree, other than what is ignored.
    """

    tree: str
    paths: tuple[str, ...]
    refused: tuple[str, ...] = ()


async def take_tree(repo: Repo, worktree: Path, *, base: str, scratch: Path) -> TakenTree:
    """The directory's files, tracked by ``base`` or not ignored, as a tree in the repository's objects.

    The directory's own ``.git`` has no part in it: nothing in it is read, whatever the agent
    committed, staged or configured there. No filter runs. Symbolic links are taken as links.

    ``scratch`` is a directory of the caller's that keeps an index between calls, which makes the
    next one cheap; one call at a time may use it. The result does not depend on what is in it.

    Raises GitError when the directory is gone or is a symbolic link.
    """
    worktree, scratch = await on_disk(_prepare, worktree, scratch)
    place = (await repo.objects_place()).using(cwd=worktree, GIT_WORK_TREE=worktree, GIT_INDEX_FILE=scratch / "index")
    await _seed(place, base, scratch)
    others, refused = await _list_others(repo, place)
    changed = await _list_changed(place)
    # A path below what is now a symbolic link counts as gone here; update-index would stop at it.
    gone = [change.path for change in changed if change.is_gone]
    new = [*(change.path for change in changed if not change.is_gone), *others]
    tree = None if gone or refused else await repo.take_plainly(worktree, base, new)
    if tree is None:
        if gone:
            await place.git("update-index", "-z", "--force-remove", "--stdin", stdin=join0(gone))
        refused += await _add(place, new)
        tree = await place.line("write-tree")
    changes = await repo.changes(base, tree)
    refused += await _find_left_out(repo, place, {path for path, _ in refused}, others, changes, gone)
    refused += await _find_filtered(repo, place, base, changes)
    refused += [(change.path, _SUBMODULE) for change in changes if change.new_mode == GITLINK]
    refused += await _find_in_submodules(repo, worktree, base)
    return TakenTree(
        tree=tree,
        paths=tuple(shown(change.path) for change in changes),
        refused=tuple(f"{shown(path)}: {why}" for path, why in sorted(set(refused))),
    )


def _prepare(worktree: Path, scratch: Path) -> tuple[Path, Path]:
    """Both as absolute paths, the scratch directory ready."""
    if worktree.is_symlink():
        raise GitError(f"{worktree} has been replaced by a symbolic link")
    scratch.mkdir(parents=True, exist_ok=True)
    (scratch / "index.lock").unlink(missing_ok=True)  # of a git that was killed: the directory is the caller's alone
    return worktree.absolute(), scratch.absolute()


async def _seed(place: Place, base: str, scratch: Path) -> None:
    """The index says what ``base`` says, and keeps what it knows of files that have not changed since."""
    if await on_disk(says, scratch, base):
        return
    knows = (scratch / "index").is_file()
    try:
        await place.git("read-tree", "--reset", base)
    except GitError:  # an index cut short by a power cut; it is only a cache
        knows = False
        (scratch / "index").unlink(missing_ok=True)
        await place.git("read-tree", base)
    if not knows:
        # Exit code 1: some files differ from the index, which is what we want to know.
        await place.git("update-index", "-q", "--refresh", ok=(0, 1), timeout_s=600)


async def _list_changed(place: Place) -> list[Change]:
    """Tracked files that are not what the index says, or look as if they were not.

    ``dirty`` keeps git from running ``git status`` inside of what the agent says is a submodule. The
    empty directory of a submodule may get lost; it is only gone when ``.gitmodules`` changed too.
    """
    changed = parse_raw((await place.git("diff-files", "--raw", "-z", "--ignore-submodules=dirty")).stdout)
    if any(change.path == b".gitmodules" for change in changed):
        return changed
    return [change for change in changed if not (change.is_gone and change.old_mode == GITLINK)]


async def _list_others(repo: Repo, place: Place) -> tuple[list[bytes], list[tuple[bytes, str]]]:
    """Files that are neither tracked nor ignored; and what of these cannot be taken."""
    done = await place.git("ls-files", "--others", "-z", *await repo.exclude_options(), timeout_s=600)
    paths = split0(done.stdout)
    refused = [(path, "is a git repository of its own") for path in paths if path.endswith(b"/")]
    closed = [(path[:_LONGEST_SHOWN], "cannot be read") for path in _CLOSED_DIRECTORY.findall(done.stderr)]
    return [path for path in paths if not path.endswith(b"/")], refused + closed


async def _add(place: Place, paths: list[bytes]) -> list[tuple[bytes, str]]:
    """Put files into the index as they are now; those that cannot be read are left out and returned."""
    left = dict.fromkeys(paths)
    refused: list[tuple[bytes, str]] = []
    while left:
        argv = ("update-index", "-z", "--add", "--remove", "--replace", "--stdin")
        done = await place.git(*argv, stdin=join0(list(left)), ok=(0, 128), timeout_s=600)
        if done.returncode == 0:
            break
        unreadable = [path for path in _UNREADABLE.findall(done.stderr) if path in left]
        refused += [(path, "cannot be read") for path in unreadable]
        if not unreadable or len(refused) > _MOST_UNREADABLE:
            text = shown(done.stderr).strip()
            raise GitError(f"the files cannot be taken: {text.splitlines()[-1]}", stderr=text)
        for path in unreadable:
            left.pop(path, None)
    return refused


async def _find_left_out(
    repo: Repo, place: Place, known: set[bytes], others: list[bytes], changes: list[Change], gone: list[bytes]
) -> list[tuple[bytes, str]]:
    """What is still not in the index: git silently ignores names that it could not check out everywhere.

    Where nothing went, a file can only have been left out if it is new to the base and not new in the tree.
    """
    new = {change.path for change in changes if change.is_new}
    left = [path for path in others if path not in new]
    if left or gone:
        left, _ = await _list_others(repo, place)
    return [(path, "is a name that git does not keep, or appeared just now") for path in left if path not in known]


async def _find_filtered(repo: Repo, place: Place, base: str, changes: list[Change]) -> list[tuple[bytes, str]]:
    """Changed files that belong to a content filter, such as LFS: their bytes are not what git should keep."""
    known = {change.old for change in changes}
    new = [change.path for change in changes if not change.is_gone and change.new not in known]
    if not new or not await repo.has_attributes(base, changes):
        return []
    done = await place.git("check-attr", "-z", "--cached", "--stdin", "filter", stdin=join0(new))
    items = split0(done.stdout)
    drivers = await repo.filter_drivers() if any(value not in _NO_FILTER for value in items[2::3]) else frozenset()
    return [
        (path, f"is kept by the filter {shown(value)}, which drover does not run on an agent's files")
        for path, value in zip(items[::3], items[2::3], strict=True)
        if shown(value) in drivers
    ]


async def _find_in_submodules(repo: Repo, worktree: Path, base: str) -> list[tuple[bytes, str]]:
    """Files put where a submodule belongs: git looks away from that whole directory."""
    layout = await repo.layout(base)
    return [(path, _SUBMODULE) for path in layout.gitlinks if await on_disk(_holds_files, worktree, path)]


def _holds_files(worktree: Path, path: bytes) -> bool:
    directory = worktree / os.fsdecode(path)
    return directory.is_dir() and not directory.is_symlink() and any(directory.iterdir())


async def make_commit(
    repo: Repo, *, tree: str, parents: tuple[str, ...], message: str, identity: Identity, at_ms: int
) -> str:
    """The id of the commit. The same arguments make the same commit, so making it again is finding it.

    It is in no ref yet and not forced to the disk: :meth:`Repo.update_refs` does both.
    """
    text = message.encode("utf-8", "replace")
    oid = await _write_plain(repo, tree, parents, text, identity, at_ms) or await _commit_tree(
        repo, tree, parents, text, identity, at_ms
    )
    repo.ancestry.note_made(oid, tree, parents, message)
    return oid


async def _write_plain(
    repo: Repo, tree: str, parents: tuple[str, ...], text: bytes, identity: Identity, at_ms: int
) -> str | None:
    """The commit without git; None where git would have something to check or to put right."""
    known = repo.has_loose(tree) and all(repo.ancestry.made(parent) for parent in parents)
    plain = _PLAIN_NAME.fullmatch(identity.name) and _PLAIN_NAME.fullmatch(identity.email)
    if not (known and plain and len({*parents}) == len(parents)) or b"\0" in text or repo.shares_objects():
        return None
    who = f"{identity.name} <{identity.email}> {at_ms // 1000} +0000"
    head = [f"tree {tree}", *(f"parent {parent}" for parent in parents), f"author {who}", f"committer {who}"]
    content = "".join(f"{line}\n" for line in (*head, "")).encode() + text
    try:
        return await on_disk(write_loose, repo.objects_dir, "commit", content, repo.object_format)
    except PermissionError:
        return None  # git says what is wrong


async def _commit_tree(
    repo: Repo, tree: str, parents: tuple[str, ...], text: bytes, identity: Identity, at_ms: int
) -> str:
    when = f"@{at_ms // 1000} +0000"
    place = (await repo.objects_place()).using(
        "i18n.commitEncoding=UTF-8",
        GIT_AUTHOR_NAME=identity.name,
        GIT_AUTHOR_EMAIL=identity.email,
        GIT_AUTHOR_DATE=when,
        GIT_COMMITTER_NAME=identity.name,
        GIT_COMMITTER_EMAIL=identity.email,
        GIT_COMMITTER_DATE=when,
    )
    options = [word for parent in parents for word in ("-p", parent)]
    return await place.line("commit-tree", tree, *options, "-F", "-", stdin=text)


def task_message(title: str, task_id: str, attempt: int, *, body: str = "") -> str:
    """A task's commit message: a subject from the title, and trailers that nothing in it can imitate.

    The trailers are the last paragraph, which is the only one git reads trailers from.
    """
    if not _TASK_ID.match(task_id):
        raise GitError(f"{task_id!r} cannot be the id of a task")
    whole = _subject(title) or f"Task {task_id}"
    subject = whole
    if len(whole) > SUBJECT_LENGTH:
        cut = whole[: SUBJECT_LENGTH - 1]
        subject = (cut.rsplit(" ", 1)[0] if " " in cut[SUBJECT_LENGTH // 2 :] else cut).rstrip() + "…"
    paragraphs = [subject, whole if subject != whole else "", _body(body)]
    paragraphs.append(f"{TASK_TRAILER}: {task_id}\n{ATTEMPT_TRAILER}: {attempt}")
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph) + "\n"


def _subject(title: str) -> str:
    """One line. "Task: " stands before what a later `git commit --amend` or `rebase` would take for an order."""
    line = " ".join(_CONTROLS.sub(" ", title).split())
    orders = ("#", "-", "fixup!", "squash!", "amend!")
    return f"Task: {line}" if line.startswith(orders) else line


def _body(text: str) -> str:
    """Free text without control characters, comment lines or lines that look like drover's trailers."""
    lines = []
    for line in text.splitlines():
        clean = _CONTROLS.sub(" ", line).rstrip()
        imitates = clean.lstrip().lower().startswith((TASK_TRAILER.lower(), ATTEMPT_TRAILER.lower()))
        lines.append(f"> {clean}" if imitates or clean.startswith("#") else clean)
    return "\n".join(lines).strip()
