"""The operator's repository, which is the repository of record: its refs, its identity, its objects."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
from anyio import Path as AsyncPath
from anyio import to_thread

from drover.domain.errors import GitError
from drover.domain.ids import new_token
from drover.domain.models import Frozen
from drover.git.ancestry import KEPT, Ancestry, Layout
from drover.git.changes import GITLINK, Change, changes_between
from drover.git.command import SETTINGS, Place, operator_environment, our_environment, shown, split0
from drover.git.durable import Anchors, on_disk, sync_objects, sync_path, sync_refs
from drover.git.loose import object_id
from drover.git.merging import merge_plainly
from drover.git.ref_writers import RefWriters
from drover.git.refs import NotPlain, RefFiles, read_head_file
from drover.git.taking import MOST_FILES, Taker
from drover.git.trees import NotLoose, Trees
from drover.process import QUESTION_BYTES

_DIFFS_KEPT, _DIFF_KEPT = 64, 1000  # how many, and the most paths of one
_LAYOUTS_KEPT = 64
OLDEST_GIT = (2, 38)  # merge-tree --write-tree
_TELLS_MODES = re.compile(r"^\s*filemode = true$", re.MULTILINE)  # this file system knows which file is a program
_ALL_FSYNCED = ("core.fsync=all",)
_IDENT = re.compile(r"^(.*) <([^<>]*)> \d+ [+-]\d{4}$")
_BAD_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(/|$)|[./]$|^[/.-]")


class Identity(Frozen):
    """Who a commit is by."""

    name: str
    email: str


class RefChange(Frozen):
    """One ref's move. None stands for "no such ref": ``old=None`` creates, ``new=None`` deletes."""

    ref: str
    new: str | None
    old: str | None


class RefMoved(GitError):
    """A ref was not where it had to be; nothing was changed."""

    code = "ref_moved"

    def __init__(self, ref: str, *, expected: str | None, found: str | None) -> None:
        super().__init__(f"{ref} is at {(found or 'nothing')[:12]}, not at {(expected or 'nothing')[:12]}")
        self.ref = ref
        self.expected = expected
        self.found = found


class Repo:
    """A repository with a checkout. Made by :meth:`find`; holds nothing open but within :meth:`keeping_writers`."""

    def __init__(self, *, root: Path, git_dir: Path, checkout_dir: Path, object_format: str) -> None:
        self.root = root  # top of the operator's checkout
        self.git_dir = git_dir  # the common directory: objects, refs, configuration
        self.checkout_dir = checkout_dir  # git's directory of this checkout: HEAD, index
        self.object_format = object_format
        self.state_dir = git_dir / "drover"  # drover's own files of this repository
        self.objects_dir = git_dir / "objects"
        self._identity: Identity | None = None
        self._excludes: tuple[Path, ...] | None = None
        self._filters: frozenset[str] | None = None
        self._layouts: dict[str, Layout] = {}  # by commit
        self._changes: dict[tuple[str, str], list[Change]] = {}
        self._refs = RefFiles(git_dir)
        self._writers: RefWriters | None = None
        self._trees = Trees(self.objects_dir, object_format)
        self._synced: set[str] = set()  # trees of which every object is known to be on the disk
        self._anchors = Anchors()
        self._durable: dict[str, str] = {}  # where refs were when last forced to the disk
        self.ancestry = Ancestry()
        self.mould: str | None = None  # the configuration of a clone, as this git writes it
        self.was_blocked = False  # by an operator's checkout, when last published

    @classmethod
    async def find(cls, path: Path) -> Repo:
        """The repository whose checkout holds ``path``. Raises GitError, with a hint, when there is none to use."""
        if not await AsyncPath(path).is_dir():
            raise GitError(f"{path} is not a directory")
        place = Place(path, operator_environment(), SETTINGS)
        await _check_version(place)
        questions = ("--is-inside-work-tree", "--git-common-dir", "--absolute-git-dir", "--show-object-format")
        done = await place.git("rev-parse", "--path-format=absolute", *questions, ok=(0, 128))
        if done.returncode:
            stderr = done.stderr.decode("utf-8", "replace").strip()
            unsafe = "dubious ownership" in stderr
            hint = stderr.splitlines()[-1].strip() if unsafe else "run `git init` here, or go to the repository"
            raise GitError(f"{path} is not in a git repository", hint=hint, returncode=128, stderr=stderr)
        inside, common, own, object_format = os.fsdecode(done.stdout).splitlines()
        if inside != "true":
            raise GitError(
                f"{path} is not in a checkout: the repository is bare, or this is inside of .git",
                hint="drover works in a checkout: `git clone` the repository and run drover there",
            )
        root = os.fsdecode((await place.git("rev-parse", "--show-toplevel")).stdout).rstrip("\n")
        return cls(root=Path(root), git_dir=Path(common), checkout_dir=Path(own), object_format=object_format)

    def blob_id(self, content: bytes) -> str:
        """The id that git gives to a blob of this content."""
        return object_id("blob", content, self.object_format)

    def has_loose(self, oid: str) -> bool:
        """Whether an object is there in a file of its own."""
        return (self.objects_dir / oid[:2] / oid[2:]).is_file()

    def shares_objects(self) -> bool:
        """Whether a group writes objects here (``git init --shared``): git knows which modes that takes."""
        shared = stat.S_IWGRP | stat.S_ISGID
        return self.objects_dir.stat().st_mode & shared == shared

    async def ensure_blob(self, content: bytes) -> str:
        """The id of a blob that is among the repository's objects now; found or made."""
        oid = self.blob_id(content)
        if not self.has_loose(oid):
            await (await self.objects_place()).line("hash-object", "-w", "--stdin", stdin=content)
        return oid

    @property
    def zero(self) -> str:
        """The object id that stands for nothing."""
        return "0" * (64 if self.object_format == "sha256" else 40)

    # ------------------------------------------------------------ places

    @property
    def refs_place(self) -> Place:
        """For reading and moving refs: the repository's own configuration, nobody's programs."""
        return Place(self.git_dir, {**our_environment(), "GIT_DIR": str(self.git_dir)})

    def operators_place(self, checkout: Path | None = None) -> Place:
        """For work in the operator's own checkout, with the operator's configuration and filters.

        Hooks stay off: they are written for a person's commands, may ask questions, and a landing is
        none of these commands.
        """
        return Place(checkout or self.root, operator_environment(), SETTINGS)

    async def objects_place(self) -> Place:
        """For reading and making objects: the repository's objects under a configuration of drover's own.

        Neither the operator's configuration (filters, merge drivers, textconv) nor attributes in the
        trees have a say here. Only ``info/attributes`` of the operator does, which no commit can change.
        """
        control = self.state_dir / "control"
        if not (control / "HEAD").is_file():
            await self._make_control(control)
        env = {**our_environment(), "GIT_DIR": str(control), "GIT_OBJECT_DIRECTORY": str(self.objects_dir)}
        if (shallow := self.git_dir / "shallow").is_file():
            env["GIT_SHALLOW_FILE"] = str(shallow)
        place = Place(control, env)
        attributes = self.git_dir / "info" / "attributes"
        return place.using(f"core.attributesFile={attributes}") if attributes.is_file() else place

    async def _make_control(self, control: Path) -> None:
        """A repository without objects, refs, hooks or templates. Renamed into place: never half there."""
        self.state_dir.mkdir(exist_ok=True)
        draft = self.state_dir / f"control.{new_token()}"
        place = Place(self.state_dir, our_environment())
        shared = ["--shared=group"] if self.shares_objects() else []
        await place.git(
            "init", "-q", "--bare", "--template=", "-b", "drover", f"--object-format={self.object_format}", *shared,
            str(draft),
        )  # fmt: skip
        try:
            draft.rename(control)
        except OSError:  # another process was faster
            shutil.rmtree(draft)
            if not (control / "HEAD").is_file():
                raise

    # ------------------------------------------------------------ reading

    async def head_branch(self) -> str | None:
        """The branch checked out at ``root``, also when it has no commit yet; None when HEAD is detached."""
        ref = await self.head_ref(self.checkout_dir) or ""
        return ref.removeprefix("refs/heads/") if ref.startswith("refs/heads/") else None

    async def head_ref(self, checkout_dir: Path) -> str | None:
        """The ref that HEAD of a checkout (by git's own directory for it) names; None when it is detached."""
        if (ref := read_head_file(checkout_dir)) is not None:
            return ref
        place = self.refs_place.using(GIT_DIR=checkout_dir)
        return await place.line("symbolic-ref", "-q", "HEAD", ok=(0, 1)) or None

    async def resolve(self, rev: str) -> str | None:
        """The full id of the commit ``rev`` names; None when it names none."""
        if rev.startswith("refs/") and not _BAD_REF.search(rev) and (await self.read_refs([rev]))[rev] is None:
            return None
        if self.ancestry.made(rev) is not None:
            return rev
        return await self._parse(f"{rev}^{{commit}}")

    async def tree(self, rev: str) -> str:
        """The id of a commit's (or tree's) tree. Raises GitError when there is none."""
        if (made := self.ancestry.made(rev)) is not None:
            return made.tree
        oid = await self._parse(f"{rev}^{{tree}}")
        if oid is None:
            raise GitError(f"{rev} names no tree")
        return oid

    async def _parse(self, rev: str) -> str | None:
        place = self.refs_place.using(GIT_DIR=self.checkout_dir)
        oid = await place.line("rev-parse", "--verify", "-q", "--end-of-options", rev, ok=(0, 1, 128))
        return oid or None

    async def is_ancestor(self, ancestor: str, descendant: str) -> bool:
        """Whether ``descendant`` contains ``ancestor``; a commit contains itself. Both are full ids."""
        known = self.ancestry.contains(descendant, ancestor)
        if known is not None:
            return known
        done = await self.refs_place.git("merge-base", "--is-ancestor", ancestor, descendant, ok=(0, 1))
        if done.returncode == 0:
            self.ancestry.note_contains(descendant, ancestor)
        return done.returncode == 0

    async def read_refs(self, refs: Collection[str]) -> dict[str, str | None]:
        """Where each of these refs is; None for one that is not there."""
        try:
            return {ref: self._refs.read(ref) for ref in refs}
        except NotPlain:
            listing = await self.list_refs(*refs)
            return {ref: listing.get(ref) for ref in refs}

    async def list_refs(self, *patterns: str) -> dict[str, str]:
        """Every ref that is one of ``patterns`` or below it, ordered by name."""
        place = self.refs_place
        text = await place.line("for-each-ref", "--format=%(objectname) %(refname)", *patterns)
        return {ref: oid for oid, ref in (line.split(" ", 1) for line in text.splitlines())}

    async def identity(self) -> Identity:
        """The operator's, from their own configuration. Raises GitError with a hint when it is not set."""
        if self._identity is None:
            place = self.operators_place().using("user.useConfigOnly=true")
            text = await place.line("var", "GIT_COMMITTER_IDENT", ok=(0, 128))
            match = _IDENT.match(text)
            if match is None or not match[1]:
                hint = 'git config user.name "Your Name" and git config user.email you@example.org'
                raise GitError("git does not know whose commits these will be", hint=hint)
            self._identity = Identity(name=match[1], email=match[2])
        return self._identity

    async def exclude_options(self) -> tuple[str, ...]:
        """``ls-files`` options for what this operator ignores: in-tree, ``info/exclude`` and their own file."""
        if self._excludes is None:
            place = self.operators_place()
            own = await place.line("config", "--type=path", "--get", "core.excludesFile", ok=(0, 1))
            config_home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
            self._excludes = (self.git_dir / "info" / "exclude", Path(own or f"{config_home}/git/ignore"))
        files = (f"--exclude-from={path}" for path in self._excludes if path.is_file())
        return ("--exclude-per-directory=.gitignore", *files)

    async def filter_drivers(self) -> frozenset[str]:
        """The names of the content filters the operator has configured, and ``lfs``, which a repository implies."""
        if self._filters is None:
            pattern = r"^filter\..*\.(clean|smudge|process)$"
            text = await self.operators_place().line("config", "--name-only", "--get-regexp", pattern, ok=(0, 1))
            names = (line.split(".", 1)[1].rsplit(".", 1)[0] for line in text.splitlines())
            self._filters = frozenset({*names, "lfs"})
        return self._filters

    async def changes(self, old: str, new: str) -> list[Change]:
        """Every path that differs between two trees or commits (full ids), ordered by path."""
        trees = [made.tree if (made := self.ancestry.made(oid)) else oid for oid in (old, new)]
        found = self._changes.get((trees[0], trees[1]))
        if found is None:
            try:
                found = await on_disk(self._trees.changes, self._tree_known(old), self._tree_known(new))
            except NotLoose:
                found = await changes_between(await self.objects_place(), old, new)
            if len(self._changes) >= _DIFFS_KEPT:
                self._changes.clear()
            if len(found) <= _DIFF_KEPT:
                self._changes[trees[0], trees[1]] = found
        return found

    async def merge_plainly(self, *, ours: str, theirs: str) -> str | None:
        """The tree that two commits merge to, where neither git nor anybody has to be asked; None elsewhere."""
        base = self.ancestry.fork(ours, theirs)
        if base is None or self.shares_objects():
            return None
        try:
            return await on_disk(self._merge_plainly, base, ours, theirs)
        except (NotLoose, PermissionError):
            return None

    def _merge_plainly(self, base: str, ours: str, theirs: str) -> str:
        trees = [self._tree_known(commit) for commit in (base, ours, theirs)]
        return merge_plainly(
            self._trees, self.objects_dir, self.object_format, base=trees[0], ours=trees[1], theirs=trees[2]
        )

    async def take_plainly(self, worktree: Path, base: str, paths: Sequence[bytes]) -> str | None:
        """The tree of commit ``base`` with these files of a directory; None where git has something to look at."""
        config = self.state_dir / "control" / "config"
        if not paths or len(paths) > MOST_FILES or self.shares_objects() or await self.has_attributes(base, []):
            return None
        try:
            if not _TELLS_MODES.search(config.read_text()):
                return None
            taker = Taker(self._trees, self.objects_dir, self.object_format, worktree)
            return await on_disk(lambda: taker.take(self._tree_known(base), paths))
        except (NotLoose, OSError):
            return None

    async def has_attributes(self, base: str, changes: Sequence[Change]) -> bool:
        """Whether any attribute may apply to a path in ``base`` with these changes."""
        own = (self.git_dir / "info" / "attributes").is_file()
        return own or any(_is_attributes(c.path) for c in changes) or (await self.layout(base)).attributes

    async def layout(self, commit: str) -> Layout:
        """What of a commit's tree matters to every task on it. Asked of the whole tree, or known from its parent."""
        if commit not in self._layouts:
            done = await (await self.objects_place()).git("ls-tree", "-r", "-z", "--full-tree", commit)
            entries = [entry.split(b"\t", 1) for entry in split0(done.stdout)]
            gitlinks = tuple(path for head, path in entries if head.startswith(GITLINK.encode()))
            directories = _directories(path for _, path in entries)
            self._keep_layout(commit, Layout(gitlinks, any(_is_attributes(path) for _, path in entries), directories))
        return self._layouts[commit]

    def pass_on_layout(self, old: str, new: str, changes: Sequence[Change]) -> None:
        """Commit ``new`` is ``old`` with these changes."""
        layout = self._layouts.get(old)
        plain = not any(GITLINK in (c.old_mode, c.new_mode) or _is_attributes(c.path) for c in changes)
        if layout is None or not plain or any(c.is_gone for c in changes):  # with its last file a directory goes
            return
        new_ones = _directories(c.path for c in changes if c.is_new) - layout.directories
        self._keep_layout(new, layout._replace(directories=layout.directories | new_ones) if new_ones else layout)

    def _keep_layout(self, commit: str, layout: Layout) -> None:
        if len(self._layouts) >= _LAYOUTS_KEPT:
            self._layouts.clear()
        self._layouts[commit] = layout

    # ------------------------------------------------------------ moving refs

    async def update_refs(
        self,
        changes: Sequence[RefChange],
        *,
        verify: Mapping[str, str] | None = None,
        durable: bool = True,
        since: Sequence[str] = (),
        reason: str = "drover",
    ) -> None:
        """Move refs in one transaction, each by compare-and-swap; ``verify`` names refs that have to stay.

        With ``durable`` it returns when the new values, and the objects they name that neither the
        old values nor ``since`` reach, would survive a power cut; without any of those, only the
        named objects themselves. ``reason`` goes into the reflogs.

        The transaction is not atomic against a kill between two of its renames: several refs in one
        call are a check, not a proof that all or none moved.

        Raises RefMoved when a ref was elsewhere (nothing moved), GitError when one is locked.
        """
        verify = verify or {}
        for ref in (*(change.ref for change in changes), *verify):
            check_ref(ref)
        if durable:
            await self._sync_new_objects(changes, since)
        transaction = self._transaction(changes, verify)
        if self._writers is not None and durable and len(transaction) <= QUESTION_BYTES:
            done = await self._writers.move(transaction, reason, then=partial(self._sync_moved, changes))
        else:
            place = self.refs_place.using(*(_ALL_FSYNCED if durable else ()))
            done = await place.git("update-ref", "-m", reason, "--stdin", "-z", stdin=transaction, ok=(0, 128))
            if durable and done.returncode == 0:
                await on_disk(self._sync_moved, changes)
        if done.returncode:
            await self._explain_refusal(changes, verify, done.stderr)

    def _sync_moved(self, changes: Sequence[RefChange]) -> None:
        if any(change.new is None for change in changes):
            self._anchors.clear()  # git removes directories that this leaves empty
            sync_path(self.git_dir)  # for packed-refs
        sync_refs(self.git_dir, [change.ref for change in changes], self._anchors)
        if len(self._durable) >= KEPT:
            self._durable.clear()
        self._durable.update({change.ref: change.new for change in changes if change.new is not None})

    async def sync_refs(self, refs: Sequence[str]) -> None:
        """Force to the disk where these refs are now, for a move that may have been made by a call that was killed."""
        here = await self.read_refs(refs)
        if all(oid is not None and self._durable.get(ref) == oid for ref, oid in here.items()):
            return
        await on_disk(sync_refs, self.git_dir, refs, self._anchors)

    @asynccontextmanager
    async def keeping_writers(self) -> AsyncGenerator[None]:
        """For as long as many refs are moved: the gits that do it are kept."""
        writers = self._writers = self._writers or RefWriters(self.refs_place.using(*_ALL_FSYNCED))
        writers.users += 1
        try:
            yield
        finally:
            writers.users -= 1
            if not writers.users:
                self._writers = None
                with anyio.CancelScope(shield=True):
                    await to_thread.run_sync(writers.end_idle, 0.0)

    async def end_idle_writers(self, after_s: float) -> None:
        """To be called now and then while writers are kept: what they know of the configuration gets old."""
        if self._writers is not None:
            await to_thread.run_sync(self._writers.end_idle, after_s)

    def _transaction(self, changes: Sequence[RefChange], verify: Mapping[str, str]) -> bytes:
        lines = ["start"]
        lines += [f"verify {ref}\0{oid}" for ref, oid in verify.items()]
        for change in changes:
            if change.new is None:
                lines.append(f"delete {change.ref}\0{change.old or self.zero}")
            else:
                lines.append(f"update {change.ref}\0{change.new}\0{change.old or self.zero}")
        return "".join(line + "\0" for line in (*lines, "prepare", "commit")).encode()

    async def _sync_new_objects(self, changes: Sequence[RefChange], since: Sequence[str]) -> None:
        oids = [change.new for change in changes if change.new is not None and change.new not in since]
        known = [*since, *(change.old for change in changes if change.old not in (None, self.zero))]
        made = [self.ancestry.made(oid) for oid in oids]
        if oids and known and not all(m and m.tree in self._synced and {*m.parents} <= {*known} for m in made):
            try:
                await on_disk(self._sync_new_with, oids, known)
                oids = []
            except NotLoose:
                revs = "".join([*(f"{oid}\n" for oid in oids), *(f"^{oid}\n" for oid in known)])
                place = await self.objects_place()
                text = await place.line("rev-list", "--objects", "--no-object-names", "--stdin", stdin=revs.encode())
                oids = text.split()
        if oids:
            await on_disk(partial(sync_objects, self.objects_dir, oids, self._anchors))
        if known:  # without, only the named objects were forced
            if len(self._synced) >= KEPT:
                self._synced.clear()
            self._synced.update(m.tree for m in made if m)

    def _sync_new_with(self, oids: Sequence[str], known: Sequence[str]) -> None:
        """Force the commits, and what of their trees their first parents, which are known, do not have.

        That may be more than what no known commit has, and never less. Raises NotLoose, with nothing done.
        """
        found = [*oids]
        for oid in oids:
            made = self.ancestry.made(oid)
            if made is None or not made.parents or not {*made.parents} <= {*known}:
                raise NotLoose
            found += self._trees.new_objects(self._tree_known(made.parents[0]), made.tree)
        sync_objects(self.objects_dir, found, self._anchors)

    def _tree_known(self, commit: str) -> str:
        """The tree of a commit, or itself when it is a tree. Raises NotLoose."""
        made = self.ancestry.made(commit)
        return made.tree if made else self._trees.tree_of(commit)

    async def _explain_refusal(self, changes: Sequence[RefChange], verify: Mapping[str, str], stderr: bytes) -> None:
        expected = {**verify, **{change.ref: change.old for change in changes}}
        found = await self.read_refs(list(expected))
        for ref, oid in expected.items():
            if found[ref] != (None if oid == self.zero else oid):
                raise RefMoved(ref, expected=oid, found=found[ref])
        text = shown(stderr).strip()
        hint = "another git is at work, or one was killed: `drover doctor` looks" if ".lock'" in text else None
        reason = text.split("\n", 1)[0]
        raise GitError(f"the refs were not moved: {reason}", hint=hint, returncode=128, stderr=text)


def check_ref(name: str) -> str:
    """``name`` when git can use it as (part of) a ref's name. Raises GitError otherwise."""
    if not name or _BAD_REF.search(name) or name == "@":
        raise GitError(f"{name!r} cannot be the name of a ref")
    return name


def _directories(paths: Iterable[bytes]) -> frozenset[bytes]:
    """Every directory that one of these files is in."""
    found: set[bytes] = set()
    for path in paths:
        directory = path.rpartition(b"/")[0]
        while directory and directory not in found:
            found.add(directory)
            directory = directory.rpartition(b"/")[0]
    return frozenset(found)


def _is_attributes(path: bytes) -> bool:
    return path.rpartition(b"/")[2] == b".gitattributes"


async def _check_version(place: Place) -> None:
    text = await place.line("version")
    match = re.search(r"(\d+)\.(\d+)", text)
    if match is None or (int(match[1]), int(match[2])) < OLDEST_GIT:
        raise GitError(f"{text} is too old", hint="drover needs git 2.38 or newer")
