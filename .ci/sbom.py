"""What is installed here, as a CycloneDX bill of materials on stdout: `python sbom.py > sbom.cdx.json`."""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import Distribution, distributions


def component(found: Distribution) -> dict[str, object]:
    """One package; its licence where it names one."""
    name = re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower()
    licence = found.metadata.get("License-Expression")
    purl = f"pkg:pypi/{name}@{found.version}"
    told: dict[str, object] = {"type": "library", "bom-ref": purl, "name": name, "version": found.version, "purl": purl}
    return told | ({"licenses": [{"expression": licence}]} if licence else {})


def main() -> None:
    components = {str(one["purl"]): one for one in map(component, distributions())}
    runtime = {"type": "platform", "name": "cpython", "version": sys.version.split()[0]}
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": "firstspin"}},
        "components": [runtime, *(components[purl] for purl in sorted(components))],
    }
    sys.stdout.write(json.dumps(bill, indent=1) + "\n")


if __name__ == "__main__":
    main()
