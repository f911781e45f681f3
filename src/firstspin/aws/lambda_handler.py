"""What AWS Lambda imports: `firstspin.aws.lambda_handler.handler`.

The gateway is made once a container, with its connection to SageMaker open before the first request.
"""

from __future__ import annotations

import os

from firstspin.aws.front.gateway import from_environment

handler = from_environment(os.environ)
handler.warm()
