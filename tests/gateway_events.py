"""What Lambda is given: events of API Gateway, in both shapes, and of a load balancer."""

from __future__ import annotations

import base64
from typing import Any

BODY = '{"age": 31, "gender": "female", "genres": ["Rock"]}'


def rest(body: str = BODY, **changed: Any) -> dict[str, Any]:
    """An event of a REST API (payload 1.0)."""
    headers = {"Content-Type": "application/json"}
    return {"httpMethod": "POST", "path": "/prod/invocations", "headers": headers, "body": body} | changed


def http_api(body: str = BODY) -> dict[str, Any]:
    """An event of an HTTP API (payload 2.0), its body in base64."""
    return {
        "version": "2.0",
        "rawPath": "/invocations",
        "requestContext": {"http": {"method": "POST"}},
        "headers": {"content-type": "application/json"},
        "body": base64.b64encode(body.encode()).decode(),
        "isBase64Encoded": True,
    }


def balancer(body: str = BODY, content_type: str = "application/json") -> dict[str, Any]:
    """An event of a load balancer that lists the values of each header."""
    return {
        "requestContext": {"elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:eu-central-1:1:targetgroup/g/1"}},
        "httpMethod": "POST",
        "path": "/invocations",
        "multiValueHeaders": {"content-type": [content_type], "accept": []},
        "body": body,
        "isBase64Encoded": False,
    }


def of_user(user: str) -> dict[str, Any]:
    return rest(headers={"Content-Type": "application/json", "X-Firstspin-User": user})
