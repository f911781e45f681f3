"""settings.toml -> cdk.out: two CloudFormation templates without assets, so that neither CDK's command line nor its
bootstrap is needed to deploy them. Nothing is looked up in an account, nor anywhere else."""

from __future__ import annotations

import sys
from pathlib import Path

from aws_cdk import App, BootstraplessSynthesizer, Environment, Tags
from firstspin_aws.ground import Ground
from firstspin_aws.serving import Serving
from firstspin_aws.settings import Settings, SettingsError, read_settings

HERE = Path(__file__).parent


def build(settings: Settings, out: Path) -> tuple[Ground, Serving]:
    """Both stacks, written to a folder."""
    strict = {"@aws-cdk/core:validateAgainstDefaultRules": True}
    app = App(outdir=str(out), analytics_reporting=False, context=strict)
    place = Environment(region=settings.region)
    ground = Ground(app, settings, env=place, synthesizer=BootstraplessSynthesizer())
    serving = Serving(app, settings, ground, env=place, synthesizer=BootstraplessSynthesizer())
    Tags.of(app).add("project", settings.name)
    app.synth()
    return ground, serving


if __name__ == "__main__":
    try:
        build(read_settings(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "settings.toml"), HERE / "cdk.out")
    except SettingsError as problem:
        sys.exit(str(problem))
