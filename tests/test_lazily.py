from __future__ import annotations

import subprocess
import sys


def test_a_lazy_submodule_is_found_by_others_who_import_it() -> None:
    code = "from firstspin.lazily import lazily; lazily('xml.dom'); import xml; print(xml.dom.Node.ELEMENT_NODE)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "1"
