"""Runs network-config-analyzer's command line once for each file of policies, with its own interpreter.

    python oracle_driver.py FOLDER

FOLDER has namespaces.json, pods.json and one *.policies.json for each question; the answer to each is
written beside it, as *.answer. A forked process per question spares the start and keeps the program's
global tables apart.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pathlib
import sys
import traceback


def answer(folder: pathlib.Path, policies: pathlib.Path, output: pathlib.Path) -> int:
    """Ask for the connectivity of every pair of pods and blocks of addresses, without summing up."""
    command_line = importlib.import_module("nca.nca_cli")
    arguments = ["-n", str(folder / "namespaces.json"), "-p", str(folder / "pods.json")]
    arguments += ["--connectivity", str(policies), "-o", "txt_no_fw_rules", "--output_endpoints", "pods"]
    with open(output, "w") as handle, contextlib.redirect_stdout(handle):
        return int(command_line.nca_main([*arguments, "--print_ipv6"]))


def main(folder: pathlib.Path) -> int:
    importlib.import_module("nca.nca_cli")
    failures = 0
    for policies in sorted(folder.glob("*.policies.json")):
        output = folder / policies.name.replace(".policies.json", ".answer")
        child = os.fork()
        if child == 0:
            status = 70
            try:
                status = answer(folder, policies, output)
            except BaseException:
                traceback.print_exc()
            os._exit(status)
        failures += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1])))
