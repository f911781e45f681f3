"""The extra fields of a bundle: the Lambda checks each request against the bundle in its zip."""

from __future__ import annotations

from firstspin.records import InputError
from firstspin.serving.bundle import Manifest


def must_accept(accepted: Manifest, candidate: Manifest, where: str) -> None:
    """Raises InputError where a bundle has other extra fields than the Lambda accepts, which checks every request.

    `accepted` is the manifest of the bundle in its zip, or of the one in service; `where` names it in the message.
    """
    if candidate.extra == accepted.extra:
        return
    new, old = (", ".join(f"{name} ({kind})" for name, kind in one.extra.items()) for one in (candidate, accepted))
    raise InputError(
        f"the bundle's extra fields are {new or 'none'}, and those of {where} {old or 'none'}: the Lambda would refuse "
        "requests. Deploy a zip with the new bundle first, and name it with --zip; --other-fields promotes without"
    )
