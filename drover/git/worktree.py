"""Private clones: one directory for one attempt, with a ``.git`` that belongs to nobody else.

A clone borrows the repository's objects and has none of its configuration, hooks, refs or stash, and
no remote: what is done in it by habit (``git push``, ``git gc``, ``git config``) stays in it.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from contextlib import suppress
from functools import partial
from pathlib import Path

from drover.domain.errors import GitError
from drover.domain.ids import new_token
from drover.git import reuse as directories
from drover.git.command import Place, our_environment, split0
from drover.git.durable import on_disk
from drover.git.include import copy_included
from drover.git.removing import remove_tree
from drover.git.repo import Identity, Repo, check_ref
from drover.git.scratch import hand_over

log = logging.getLogger(__name__)

_MAKING = re.compile(r"^\.(.+)\.(making|removing)-[a-z0-9]+$")
_CHECKOUT_S = 1800.0


async def ensure_worktree(
    repo: Repo,
    path: Path,
    base: str,
    *,
    tree: str | None = None,
    branch: str | None = None,
    scratch: Path | None = None,
    reuse: Path | None = None,
) -> bool:
    """A private clone at ``path`` with ``base`` checked out; True when it was there already.

    One that is there keeps every file; only a ``.git`` that has gone is made anew, for without it
    the agent's git would find the operator's repository above. Otherwise HEAD is at ``base`` on
    ``branch`` (default ``drover/<name of the directory>``), the index says ``base``, and the files
    are ``tree`` where it is given, with the operator's files that ``.worktreeinclude`` lists. It is
    built beside its place and renamed into it: what is found is whole.

    A directory in ``reuse`` (see :mod:`drover.git.reuse`) is taken where there is one. ``scratch`` gets the
    index of a clone made now, with which :func:`take_tree` begins.
    """
    whole, has_files = await on_disk(_look, path)
    if whole:
        return True
    branch = branch or f"drover/{path.name}"
    if has_files:
        draft = await on_disk(_open_draft, path)
        place = await _make_git_dir(repo, draft, branch, base)
        await place.git("read-tree", base)
        await on_disk(_put_git_dir, draft, path)
        return True
    draft, place = await _check_out(repo, path, branch, base, tree or base, reuse)
    if tree is not None:
        await place.git("read-tree", "--reset", base)
    if scratch is not None:
        await on_disk(hand_over, draft / ".git" / "index", scratch, base)
    await copy_included(repo, draft)
    await on_disk(draft.rename, path)
    return False


async def _check_out(
    repo: Repo, path: Path, branch: str, base: str, tree: str, reuse: Path | None
) -> tuple[Path, Place]:
    """A draft with the files of ``tree``: of a kept directory, or from nothing when there is none to be used."""
    if reuse is not None and not (await repo.layout(base)).gitlinks:
        draft, index = await on_disk(_take_kept, path, reuse)
        if index is not None:
            try:
                place = await _make_git_dir(repo, draft, branch, base, index)
                await directories.freshen(repo, place, base, tree)
            except (GitError, OSError) as trouble:
                log.warning("a kept directory could not be used: %s", trouble)
            else:
                return draft, place
    draft = await on_disk(_open_draft, path)
    place = await _make_git_dir(repo, draft, branch, base)
    workers = f"checkout.workers={min(4, os.cpu_count() or 1)}"
    await place.using(workers).git("read-tree", "--reset", "-u", tree, timeout_s=_CHECKOUT_S)
    return draft, place


async def rebase_worktree(repo: Repo, path: Path, base: str, *, tree: str | None = None) -> None:
    """Bring a clone onto a new base: HEAD and index say ``base``, the files are ``tree`` (default ``base``) exactly.

    Files that are in neither are removed, ignored ones and git repositories inside stay. Whatever is
    not in a commit is lost: save a snapshot first. The clone gets a new ``.git``, because the old one
    is the agent's and not to be trusted with a command; the agent's own local commits go with it.
    """
    if not await on_disk(_has_files, path):
        raise GitError(f"there is no worktree at {path}")
    draft = await on_disk(_open_draft, path)
    place = await _make_git_dir(repo, draft, f"drover/{path.name}", base)
    place = place.using(cwd=path, GIT_WORK_TREE=draft.with_name(path.name))
    wanted = tree or base
    await place.git("read-tree", wanted)
    await place.git("update-index", "-q", "--refresh", ok=(0, 1), timeout_s=_CHECKOUT_S)
    await place.git("read-tree", "--reset", "-u", wanted, timeout_s=_CHECKOUT_S)
    done = await place.git("ls-files", "--others", "-z", *await repo.exclude_options())
    others = [os.fsdecode(name) for name in split0(done.stdout) if not name.endswith(b"/")]
    await on_disk(_remove_files, path, others)
    if wanted != base:
        await place.git("read-tree", "--reset", base)
    await on_disk(_put_git_dir, draft, path)


async def remove_worktree(path: Path) -> None:
    """Remove the directory and everything in it, links as links; nothing happens when it is not there.

    It is moved aside first: a crash leaves no half of it under its name.
    """
    await on_disk(_remove_aside, path)


def list_worktrees(directory: Path) -> tuple[Path, ...]:
    """The worktrees in a directory, by name."""
    if not directory.is_dir():
        return ()
    return tuple(sorted(path for path in directory.iterdir() if path.is_dir() and not path.name.startswith(".")))


async def clear_leftovers(directory: Path) -> int:
    """Remove what killed calls have left beside the worktrees; how many. Only while nobody makes or removes one."""
    return await on_disk(_clear_leftovers, directory)


# ---------------------------------------------------------------- making


async def _make_git_dir(repo: Repo, draft: Path, branch: str, base: str, index: Path | None = None) -> Place:
    """A clone without files in ``draft``, HEAD on ``branch`` at ``base``; an ``index`` moves into it."""
    ref = check_ref(f"refs/heads/{branch}")
    git_dir = draft / ".git"
    place = Place(draft, our_environment())
    identity = await repo.identity()
    cast = None if repo.mould is None else (repo.mould, ref, base)
    if cast is None:
        await place.git("init", "-q", "--template=", "-b", branch, f"--object-format={repo.object_format}", str(draft))
        repo.mould = await on_disk(_take_mould, git_dir)
    await on_disk(partial(_furnish, repo, git_dir, identity, cast, index))
    place = place.using(GIT_DIR=git_dir, GIT_WORK_TREE=draft)
    if not (git_dir / ref).is_file():
        await place.git("update-ref", "-m", "drover: base of this attempt", ref, base)
    attributes = repo.git_dir / "info" / "attributes"
    return place.using(f"core.attributesFile={attributes}")


def _take_mould(git_dir: Path) -> str | None:
    """The configuration that ``git init`` has written here; None when it keeps refs in another way than files."""
    plain = (git_dir / "refs" / "heads").is_dir() and not (git_dir / "reftable").exists()
    return (git_dir / "config").read_text() if plain else None


def _cast(git_dir: Path, config: str, ref: str, base: str) -> None:
    """What ``git init`` makes, with the branch at ``base``."""
    for name in ("objects/info", "objects/pack", "refs/heads", "refs/tags"):
        (git_dir / name).mkdir(parents=True)
    (git_dir / "config").write_text(config)
    (git_dir / ref).parent.mkdir(parents=True, exist_ok=True)
    (git_dir / ref).write_text(f"{base}\n")
    (git_dir / "HEAD").write_text(f"ref: {ref}\n")


def _furnish(
    repo: Repo, git_dir: Path, identity: Identity, cast: tuple[str, str, str] | None, index: Path | None
) -> None:
    """What a clone has of its own; ``cast`` is what :func:`_cast` makes it of, where git has not made it."""
    if cast is not None:
        _cast(git_dir, *cast)
    (git_dir / "objects" / "info").mkdir(exist_ok=True)
    (git_dir / "objects" / "info" / "alternates").write_text(f"{repo.objects_dir}\n")
    info = git_dir / "info"
    info.mkdir(exist_ok=True)
    for source in (repo.git_dir / "shallow", repo.git_dir / "info" / "exclude", repo.git_dir / "info" / "attributes"):
        if source.is_file():
            shutil.copyfile(source, git_dir / source.relative_to(repo.git_dir))
    # The agent commits as the operator, without their signing key, which may ask for a passphrase.
    with (git_dir / "config").open("a") as config:
        config.write(
            f"[user]\n\tname = {_quoted(identity.name)}\n\temail = {_quoted(identity.email)}\n"
            "[commit]\n\tgpgSign = false\n[tag]\n\tgpgSign = false\n[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n"
        )
    if index is not None:
        index.replace(git_dir / "index")
        remove_tree(index.parent)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") + '"'


def _open_draft(path: Path) -> Path:
    """A fresh directory beside ``path``; drafts of calls that were killed go."""
    draft = _draft_path(path)
    draft.mkdir()
    return draft


def _draft_path(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in _leftovers(path.parent, path.name):
        remove_tree(leftover)
    return path.absolute().with_name(f".{path.name}.making-{new_token()}")


def _take_kept(path: Path, reuse: Path) -> tuple[Path, Path | None]:
    """A draft for ``path``, and the index of the kept directory that it is now, if there was one."""
    draft = _draft_path(path)
    return draft, directories.take(reuse, draft)


def _look(path: Path) -> tuple[bool, bool]:
    """Whether a whole clone is there; whether there are files at all."""
    return _is_whole(path), _has_files(path)


def _is_whole(path: Path) -> bool:
    if path.is_symlink():
        raise GitError(f"{path} has been replaced by a symbolic link", hint="remove the link")
    return (path / ".git").exists() and _has_files(path)


def _has_files(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and any(path.iterdir())


def _put_git_dir(draft: Path, path: Path) -> None:
    """Replace the ``.git`` of ``path`` by the draft's. A kill in between leaves none, which ensure_worktree mends."""
    old = path / ".git"
    if old.is_symlink() or old.exists():
        old.rename(draft / "old")
    (draft / ".git").rename(old)
    remove_tree(draft)


# ---------------------------------------------------------------- removing


def _remove_files(top: Path, names: list[str]) -> None:
    """Remove files below ``top``, and directories that this leaves empty."""
    for name in names:
        path = top / name
        path.unlink(missing_ok=True)
        for parent in path.parents:
            if parent == top:
                break
            with suppress(OSError):  # not empty
                parent.rmdir()


def _remove_aside(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
        return
    aside = path.absolute().with_name(f".{path.name}.removing-{new_token()}")
    with suppress(FileNotFoundError):
        path.rename(aside)
        remove_tree(aside)
    for leftover in _leftovers(path.parent, path.name):
        remove_tree(leftover)


def _leftovers(directory: Path, name: str | None = None) -> list[Path]:
    if not directory.is_dir():
        return []
    matches = ((path, _MAKING.match(path.name)) for path in directory.iterdir())
    return [path for path, match in matches if match and name in (None, match[1])]


def _clear_leftovers(directory: Path) -> int:
    leftovers = _leftovers(directory)
    for leftover in leftovers:
        remove_tree(leftover)
    return len(leftovers)
