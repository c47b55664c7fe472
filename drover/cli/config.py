"""The settings: what is in force, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cyclopts import App

from drover.cli.options import NOTHING_SAID, Common
from drover.cli.output import Part, Styled
from drover.cli.session import environment, printer_of, project_around, settings_of
from drover.domain.quantities import format_duration, format_size

if TYPE_CHECKING:
    from drover.settings import Settings

config = App(
    name="config",
    help="""Show the settings and where each came from.

    A flag wins over the environment, that over .drover.toml of the repository, that over your own config file, and
    that over the default. What does not parse, is unknown or is out of range stops every command.
    """,
)


@config.command
def show(*, common: Common = NOTHING_SAID) -> None:
    """Print each setting with its value and where that came from. Secrets are not shown."""
    out = printer_of(common)
    settings = settings_of(project_around(common))
    values = _values(settings)
    if common.json:
        out.document({key: {"value": values[key], "source": settings.sources[key]} for key in settings.sources})
        return
    rows: list[tuple[Part, ...]] = []
    for key, source in settings.sources.items():
        rows.append((key, _shown(values[key]), Styled(source, "dim") if source == "default" else source))
    out.table(rows)
    for warning in settings.warnings:
        out.warning(warning)


@config.command
def path(*, common: Common = NOTHING_SAID) -> None:
    """Print where the settings files are, or would be: the repository's, then your own."""
    from drover.settings import user_file

    out = printer_of(common)
    project = project_around(common)
    files = {"project": project.config_file if project else None, "user": user_file(environment())}
    if common.json:
        out.document(
            {name: {"path": str(file), "exists": file.is_file()} if file else None for name, file in files.items()}
        )
        return
    for file in files.values():
        if file:
            out.line(str(file))
            if not file.is_file():
                out.note(f"there is no {file} yet")


def _values(settings: Settings) -> dict[str, object]:
    """Dotted keys as in ``settings.sources`` with values as a file would say them."""
    from drover.settings import redact

    values = _flat(settings.model_dump(by_alias=True, exclude={"sources", "warnings"}))
    for key, value in values.items():
        if key.endswith("timeout") and isinstance(value, int):
            values[key] = format_duration(value)
        elif key == "logs.limit" and isinstance(value, int):
            values[key] = format_size(value)
        elif key == "database_url" and isinstance(value, str):
            values[key] = redact(value)
        elif ".set." in key:
            values[key] = "***"  # may well be a key of the agent's
    return values


def _flat(table: dict[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in table.items():
        if isinstance(value, dict) and (value or key == "agents"):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _shown(value: object) -> str:
    if value is None or value == "":
        return "-"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
