"""`firstspin sagemaker check`: whether a container keeps SageMaker's contract."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from firstspin.cli import terminal
from firstspin.cli.options import AsJson, named_values
from firstspin.tools.sagemaker_check import payloads as bodies
from firstspin.tools.sagemaker_check import report
from firstspin.tools.sagemaker_check import run as contract
from firstspin.tools.sagemaker_check.payloads import REGISTRATIONS, Payloads
from firstspin.tools.sagemaker_check.player import Target


def check(
    command: Annotated[
        str, typer.Option(help="Command that starts the container; {root}, {env} and {name} as above.")
    ] = "",
    url: Annotated[str, typer.Option(help="Instead: URL of a running server, as in http://127.0.0.1:8080.")] = "",
    train: Annotated[Path | None, typer.Option(help="Folder for the channel `training`.")] = None,
    channel: Annotated[
        list[str] | None, typer.Option(help="NAME=FOLDER for a channel of another name; repeat.")
    ] = None,
    hyperparameter: Annotated[list[str] | None, typer.Option(help="NAME=VALUE for the training job; repeat.")] = None,
    model: Annotated[
        Path | None, typer.Option(help="Folder or tar.gz to serve; default: the output of the training job.")
    ] = None,
    inspected: Annotated[
        Path | None, typer.Option("--inspect", help="Output of `docker image inspect IMAGE`, as a file.")
    ] = None,
    payload: Annotated[list[Path] | None, typer.Option(help="File with a valid request body; repeat.")] = None,
    content_type: Annotated[list[str] | None, typer.Option(help="The content type of each payload, in order.")] = None,
    port: Annotated[int, typer.Option(help="Default port of the container.", min=1, max=65535)] = 8080,
    as_json: AsJson = False,
) -> None:
    """Simulate SageMaker against a container: test every fact of its contract that is testable without AWS.

    Placeholders for a container engine: {root} is the folder for /opt/ml, {env} a file of environment variables, {name}
    the name by which a container that ignores SIGTERM is removed:
    docker run --rm --name {name} --network host -v {root}:/opt/ml --env-file {env} IMAGE

    The exit status is 1 where a required or expected fact is missed.
    """
    target = Target(
        _words(command, url),
        url,
        environment=os.environ,
        model=model,
        channels=_channels(train, channel or []),
        hyperparameters=named_values(hyperparameter or []),
        port=port,
        inspected=inspected,
    )
    payloads = _payloads(payload or [], content_type or [])
    with terminal.progress("check") as progress:
        results = contract.check(target, payloads=payloads, progress=lambda line: progress(line, 0.0))
    sys.stdout.write(report.as_json(results).decode() + "\n" if as_json else report.as_text(results) + "\n")
    if not as_json:
        passed = report.exit_status(results) == 0
        endpoint = f"firstspin sagemaker load-test --url {url or 'URL'}"
        terminal.next_step(endpoint if passed else "mend what is missed, and run this again")
    if results.left:
        left = f"{results.left} was not removed: the container wrote files there that this user can't remove"
        terminal.err.print(left)
    sys.exit(report.exit_status(results))


def _words(command: str, url: str) -> tuple[str, ...]:
    """The words of the container's command; none where the URL of a running server is given instead."""
    if bool(command) == bool(url):
        raise typer.BadParameter("either --command or --url is needed, and not both")
    try:
        return tuple(shlex.split(command))
    except ValueError as problem:
        raise typer.BadParameter(f"--command: {problem}") from None


def _channels(train: Path | None, named_channels: list[str]) -> dict[str, Path]:
    named = [*([f"training={train}"] if train else []), *named_channels]
    channels = named_values(named)
    if len(channels) < len(named):
        raise typer.BadParameter("a channel is given twice")
    if empty := [name for name, folder in channels.items() if not folder]:
        raise typer.BadParameter(f"the channel {empty[0]!r} has no folder")
    return {name: Path(folder) for name, folder in channels.items()}


def _payloads(files: list[Path], types: list[str]) -> Payloads:
    if len(files) != len(types):
        raise typer.BadParameter(f"{len(files)} --payload and {len(types)} --content-type: each needs the other")
    return Payloads(tuple(map(bodies.read, files, types))) if files else REGISTRATIONS
