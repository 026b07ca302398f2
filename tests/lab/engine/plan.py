"""The whole life of one run of the stand-in as far as it is known when it begins. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lab.engine import arguments as command_line
from lab.engine import corpus, failures, startup
from lab.engine.arguments import Arguments, Refused
from lab.engine.corpus import Recorded
from lab.engine.failures import Failure
from lab.engine.script import Script
from lab.engine.startup import Said

#: A flag that no release knows.
_UNKNOWN_FLAG = "--no-such-flag"


@dataclass(frozen=True)
class Plan:
    """What will come.

    Attributes:
        arguments: None: the command line was refused.
        up: seconds until it serves; None: never.
        ends: seconds until the start has failed; None: it does not fail.
        failure: how it fails.
        said: what is said until then.
    """

    arguments: Arguments | None
    up: float | None
    ends: float | None
    failure: Failure | None
    said: tuple[Said, ...]

    def log(self, age: float) -> list[str]:
        """The lines of the first `age` seconds."""
        return startup.until(self.said, age)


def make(
    argv: Sequence[str],
    environment: Mapping[str, str],
    script: Script,
    *,
    total: float,
    began: float,
) -> Plan:
    """The plan of one run.

    Args:
        argv: of `vllm serve`, from the model on.
        environment: the variables of the container.
        script: what else it is to do.
        total: seconds of a start without peculiarities.
        began: in seconds since 1970.
    """
    begins, seconds = script.begins(total), script.seconds(total)
    if script.fail and (recorded := corpus.find(script.fail)):
        return _recorded(recorded, begins["up"])
    try:
        refused = [_UNKNOWN_FLAG] if script.fail == "BadFlag" else []
        arguments = command_line.parse([*argv, *refused], environment)
    except Refused as error:
        # The first thing after the imports.
        after = seconds["import"] / 2
        failure = Failure("import", "", (), error.exit_code, "Error" if error.exit_code else "Completed")
        return Plan(None, None, after, failure, (Said(after, str(error).rstrip("\n")),))
    said = startup.log(arguments, script, total, began)
    name = script.fail or failures.inherent(arguments, script, environment)
    if name is not None:
        failure = failures.FAILURES[name]
        after = begins[failure.phase] + seconds[failure.phase] * 0.9
        lines = failures.lines(failure, arguments, script, began + after)
        kept = itertools.takewhile(lambda one: one.after < after, said)
        return Plan(arguments, None, after, failure, (*kept, *(Said(after, line) for line in lines)))
    if script.hang is not None:
        after = begins[script.hang] + seconds[script.hang] / 2
        return Plan(arguments, None, None, None, tuple(one for one in said if one.after <= after))
    return Plan(arguments, begins["up"], None, None, tuple(said))


def of_container(container: Mapping[str, Any], script: Script, *, total: float, began: float) -> Plan:
    """The plan of a container of a pod, with its arguments and plain variables."""
    # The kubelet would put variables in place of $(NAME); $$ is how a manifest says $.
    argv = [argument.replace("$$", "$") for argument in container.get("args") or ()]
    environment = {one["name"]: one["value"] for one in container.get("env") or () if "value" in one}
    return make(argv, environment, script, total=total, began=began)


def _recorded(found: Recorded, ends: float) -> Plan:
    """A start that says what another one said."""
    count = len(found.lines)
    said = (Said(ends * number / count, line) for number, line in enumerate(found.lines))
    failure = Failure("serve", "", (), found.exit_code, found.reason)
    return Plan(None, None, ends, failure, tuple(said))
