"""The review of plans on a terminal: read with j and k, decide with a key. Each decision is committed at once."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen, Screen
from textual.widgets import Footer, Header, Input, Label, ListItem, ListView, Static

from drover.cli.text import clean, clean_block
from drover.domain.errors import DroverError
from drover.domain.plans import Plan, PlanError, read_plan

if TYPE_CHECKING:
    from drover.app import Drover

HELP = """\
j k ↓ ↑   the next plan, the one before; in a plan: down, up
enter     open the plan
a         approve it: its task is built
r         reject it: say what is wrong, and an agent plans the task again
e         edit it in $EDITOR before you decide
?         this page
esc       back
q         leave; what you have decided stays decided"""


async def review_plans(drover: Drover, *, statuses: Collection[str], epic: str | None) -> list[tuple[str, str, str]]:
    """Show the plans until the person leaves; what was decided, as verb, plan and title of the task."""
    review = Review(drover, statuses=statuses, epic=epic)
    await review.run_async()
    return review.decided


class Review(App[None]):
    """The list of plans."""

    TITLE = "drover: plans"
    CSS = "#words { padding: 1 2; } Feedback { align: center middle; } Feedback > * { width: 80%; }"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "down", "down"),
        Binding("k", "up", "up"),
        Binding("a", "approve", "approve"),
        Binding("r", "reject", "reject"),
        Binding("e", "edit", "edit"),
        Binding("question_mark", "explain", "help"),
        Binding("q", "quit", "leave"),
    ]

    def __init__(self, drover: Drover, *, statuses: Collection[str], epic: str | None) -> None:
        super().__init__()
        self.drover = drover
        self.statuses = statuses
        self.epic = epic
        self.plans: list[Plan] = []
        self.decided: list[tuple[str, str, str]] = []

    def compose(self) -> ComposeResult:
        yield Header()
        yield ListView(id="plans")
        yield Static(id="empty")
        yield Footer()

    async def on_mount(self) -> None:
        await self.look()

    async def look(self) -> None:
        """Read the plans anew and show them, the same one lit as before where it is still there."""
        view = self.query_one("#plans", ListView)
        at = view.index or 0
        self.plans = await self.drover.plans(statuses=self.statuses, epic=self.epic)
        await view.clear()
        await view.extend(ListItem(Label(_line(plan))) for plan in self.plans)
        view.index = min(at, len(self.plans) - 1) if self.plans else None
        view.focus()
        self.query_one("#empty", Static).update("" if self.plans else "No plan waits to be judged.")

    @property
    def lit(self) -> Plan | None:
        """The plan that a key is about."""
        if isinstance(self.screen, Reading):
            return self.screen.plan
        at = self.query_one("#plans", ListView).index
        return self.plans[at] if at is not None and at < len(self.plans) else None

    def on_list_view_selected(self, _: ListView.Selected) -> None:
        if self.lit is not None:
            self.push_screen(Reading(self.lit))

    # ------------------------------------------------------------ keys

    def action_down(self) -> None:
        self._move(1)

    def action_up(self) -> None:
        self._move(-1)

    def _move(self, by: int) -> None:
        if isinstance(self.screen, Reading):
            self.screen.query_one(VerticalScroll).scroll_relative(y=3 * by)
            return
        view = self.query_one("#plans", ListView)
        view.action_cursor_down() if by > 0 else view.action_cursor_up()

    def action_explain(self) -> None:
        self.push_screen(Page(Text(HELP)))

    async def action_approve(self) -> None:
        if (plan := self.lit) is not None:
            try:
                await self.drover.approve_plan(plan.id)
            except DroverError as trouble:
                self.notify(clean(trouble.message), severity="error")
            else:
                self.decided.append(("approved", plan.id, plan.task_title))
            await self._back()

    def action_reject(self) -> None:
        plan = self.lit
        if plan is None:
            return

        async def send_back(feedback: str | None) -> None:
            if not feedback:
                return
            try:
                await self.drover.reject_plan(plan.id, feedback)
            except DroverError as trouble:
                self.notify(clean(trouble.message), severity="error")
            else:
                self.decided.append(("rejected", plan.id, plan.task_title))
            await self._back()

        self.push_screen(Feedback(plan), send_back)

    async def action_edit(self) -> None:
        plan = self.lit
        if plan is None:
            return
        with self.suspend():
            text = _edited(json.dumps(plan.draft.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n")
        try:
            draft = read_plan(text, max_steps=self.drover.settings.planning.max_steps)
            await self.drover.edit_plan(plan.id, draft)
        except (PlanError, DroverError) as trouble:
            self.notify(f"not changed: {clean(str(trouble))}", severity="error")
            return
        if draft != plan.draft:
            self.decided.append(("edited", plan.id, plan.task_title))
        if isinstance(self.screen, Reading):
            self.pop_screen()
            self.push_screen(Reading(await self.drover.plan(plan.id)))
        await self.look()

    async def _back(self) -> None:
        while len(self.screen_stack) > 1:
            self.pop_screen()
        await self.look()


class Page(ModalScreen[None]):
    """A page of text that any of the ways back leaves."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,question_mark,q", "dismiss", "back")]

    def __init__(self, text: Text) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield Static(self._text, id="words")
        yield Footer()


class Reading(Screen[None]):
    """One plan, whole. The keys of the list decide on it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "app.pop_screen", "back")]

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan

    def compose(self) -> ComposeResult:
        yield Header()
        with VerticalScroll():
            yield Static(_whole(self.plan), id="words")
        yield Footer()


class Feedback(ModalScreen[str | None]):
    """Asks what is wrong with a plan; None when the person goes back."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "back")]

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self._plan = plan

    def compose(self) -> ComposeResult:
        yield Label(f"What is wrong with {self._plan.id}? The agent reads it. Enter sends, Esc goes back.")
        yield Input(id="feedback")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value.strip() or None)


def _line(plan: Plan) -> Text:
    revision = f"  revision {plan.revision}" if plan.revision > 1 else ""
    return Text(
        f"{plan.id}  {plan.status:<9}  {plan.draft.complexity:<6}  {len(plan.draft.steps):>2} steps  "
        f"{clean(plan.task_title)}{revision}"
    )


def _whole(plan: Plan) -> Text:
    draft, text = plan.draft, Text()
    text.append(f"{plan.id}  {clean(plan.task_title)}\n", "bold")
    text.append(f"{plan.task_id}, {plan.status}, revision {plan.revision}, complexity {draft.complexity}\n\n", "dim")
    if plan.feedback:
        text.append(f"What was wrong with it: {clean_block(plan.feedback)}\n\n", "yellow")
    text.append(clean_block(draft.summary) + "\n\n")
    for number, step in enumerate(draft.steps, 1):
        text.append(f"{number:>3}. {clean(step.title)}\n", "bold")
        for said in (step.description, f"files: {', '.join(step.files)}" if step.files else "",
                     f"done when: {step.verification}" if step.verification else ""):  # fmt: skip
            text.append("".join(f"     {line}\n" for line in clean_block(said).splitlines()))
    for verb, files in (("create", draft.files_to_create), ("change", draft.files_to_modify)):
        for file in files:
            text.append(f"\n{verb}  {clean(file.path)}  {clean(file.reason)}")
    for risk in draft.risk_factors:
        text.append(f"\nrisk  {clean(risk)}", "yellow")
    return text


def _edited(text: str) -> str:
    """What the person's editor leaves of the text."""
    editor = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    with tempfile.NamedTemporaryFile("w+", suffix=".json", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        subprocess.run([*editor, file.name], check=False)
        return Path(file.name).read_text(encoding="utf-8")
