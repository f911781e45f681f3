"""`firstspin sagemaker …`: see whether a container keeps the contract, and ship a bundle."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from firstspin.cli import terminal
from firstspin.cloud.check import payloads as bodies
from firstspin.cloud.check import report
from firstspin.cloud.check import run as contract
from firstspin.cloud.check.payloads import REGISTRATIONS, Payloads
from firstspin.cloud.check.player import Target
from firstspin.cloud.package import ARCHIVE
from firstspin.cloud.package import package as pack

app = typer.Typer(
    name="firstspin sagemaker",
    help="See whether a container keeps SageMaker's contract, and ship a bundle there.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@app.command("check")
def check(
    command: Annotated[
        str, typer.Option(help="What starts the container; {root} is the folder for /opt/ml, {env} its variables.")
    ] = "",
    url: Annotated[str, typer.Option(help="Instead: a server that runs already, as in http://127.0.0.1:8080.")] = "",
    train: Annotated[Path | None, typer.Option(help="Folder for the channel `training`.")] = None,
    hyperparameter: Annotated[list[str] | None, typer.Option(help="NAME=VALUE for the training job; repeat.")] = None,
    model: Annotated[
        Path | None, typer.Option(help="Folder or tar.gz to serve; what the training left if not given.")
    ] = None,
    payload: Annotated[list[Path] | None, typer.Option(help="File with a body that must be answered; repeat.")] = None,
    content_type: Annotated[list[str] | None, typer.Option(help="The content type of each payload, in order.")] = None,
    port: Annotated[int, typer.Option(help="Where the container listens when nothing else is said.")] = 8080,
    as_json: AsJson = False,
) -> None:
    """Play SageMaker against a container: every fact of the contract that can be tested without AWS.

    The exit status is 1 where a required or expected fact is missed.
    """
    if bool(command) == bool(url):
        raise typer.BadParameter("either --command or --url is needed, and not both")
    target = Target(
        tuple(shlex.split(command)),
        url,
        environment=os.environ,
        model=model,
        training=train,
        hyperparameters=_pairs(hyperparameter or []),
        port=port,
    )
    asked = _payloads(payload or [], content_type or [])
    with terminal.progress("check") as progress:
        found = contract.check(target, payloads=asked, progress=lambda line: progress(line, 0.0))
    sys.stdout.write(report.as_json(found).decode() + "\n" if as_json else report.as_text(found) + "\n")
    sys.exit(report.exit_status(found))


@app.command("package")
def package(
    bundle: Annotated[Path, typer.Option(help="Folder written by `firstspin train`.")],
    out: Annotated[Path, typer.Option(help="Archive to write.")] = Path(ARCHIVE),
    as_json: AsJson = False,
) -> None:
    """Write a bundle as the model.tar.gz that SageMaker takes; the same bundle gives the same bytes."""
    packed = pack(bundle, out)
    if as_json:
        told = {"file": str(out), "bundle": packed.id, "sha256": packed.sha256, "bytes": packed.bytes}
        sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
        return
    terminal.out.print(f"Bundle {packed.id} is in {out}: {packed.bytes:,} bytes", markup=False)


def _pairs(told: list[str]) -> dict[str, str]:
    if wrong := [one for one in told if "=" not in one]:
        raise typer.BadParameter(f"{wrong[0]!r} is not NAME=VALUE")
    return dict(one.split("=", 1) for one in told)


def _payloads(files: list[Path], types: list[str]) -> Payloads:
    if len(files) != len(types):
        raise typer.BadParameter(f"{len(files)} --payload and {len(types)} --content-type: each needs the other")
    return Payloads(tuple(map(bodies.read, files, types))) if files else REGISTRATIONS


def main() -> None:
    """The command line."""
    terminal.run(app)
