"""What AWS Lambda imports: `firstspin.aws.lambda_handler.handler`. The gateway is made once a container."""

from __future__ import annotations

import os

from firstspin.aws.gateway import from_environment

handler = from_environment(os.environ)
