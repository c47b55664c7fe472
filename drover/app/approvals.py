"""Approving what a repository wants to run: a hook in its own file is somebody's code until a person has seen it."""

from __future__ import annotations

from drover.domain.errors import NotApproved
from drover.engine.tools import Tools
from drover.settings import HookName, Project, digest_of

_KEY = "hooks_approved:"  # and the digest of the commands; the value is when


async def find_unapproved(tools: Tools, project: Project) -> dict[str, list[str]]:
    """Commands by hook, of the project's file alone; empty when they have been approved as they are now.

    Hooks in the user's own settings, in flags or in a program's arguments are the operator's own words.
    """
    commands = tools.settings.hooks.commands_from(tools.settings.sources, str(project.config_file))
    if not commands or await tools.store.workers.meta(_KEY + digest_of(commands)) is not None:
        return {}
    return commands


async def approve(tools: Tools, project: Project) -> None:
    """Record the approval of exactly these commands in the store."""
    commands = await find_unapproved(tools, project)
    if commands:
        await tools.store.workers.set_meta(_KEY + digest_of(commands), str(tools.clock.now()))


async def insist(tools: Tools, project: Project, *hooks: HookName) -> None:
    """Raise NotApproved when one of these hooks is set by the project's file and was not approved."""
    commands = await find_unapproved(tools, project)
    wanted = [f"{hook}: {command}" for hook in hooks for command in commands.get(hook, ())]
    if wanted:
        raise NotApproved(
            ".drover.toml wants to run commands that nobody has approved: " + "; ".join(wanted[:5]),
            hint="look at [hooks] there, then approve with: drover run --yes",
        )
