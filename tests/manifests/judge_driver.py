"""Runs in the judges' own environment: Argo CD's script in Lua 5.1 and Flux' expressions in CEL, on objects.

Reads {"lua": script, "cel": {name: expression}, "objects": [...]} and writes one {"argocd": {...}, "flux": name} or
{"error": text} for each object.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import celpy  # type: ignore[import-not-found]  # lives in the judges' environment only
from lupa import lua51  # type: ignore[import-untyped]

#: What Argo CD opens for a script (util/lua/lua.go): base, table, and os without files and processes.
_BASE = [
    *(
        "_VERSION",
        "assert",
        "error",
        "getmetatable",
        "ipairs",
        "next",
        "pairs",
        "pcall",
        "rawequal",
        "rawget",
    ),
    *("rawset", "select", "setmetatable", "tonumber", "tostring", "type", "unpack", "xpcall"),
]


def in_lua(script: str, body: dict[str, Any]) -> dict[str, Any]:
    """Health by the script; the runtime is new each time, as in Argo CD."""
    runtime = lua51.LuaRuntime(unpack_returned_tuples=True, register_eval=False, register_builtins=False)
    names = runtime.table_from([*_BASE, "table", "os"])
    restrict = runtime.eval(
        """function(names, obj)
          local allowed = {}
          for i = 1, #names do allowed[names[i]] = _G[names[i]] end
          allowed.os = { time = os.time, date = os.date, clock = os.clock, difftime = os.difftime }
          allowed._G, allowed.obj = allowed, obj
          return allowed
        end"""
    )
    run = runtime.eval(
        """function(text, environment)
          local script, wrong = loadstring(text)
          if script == nil then error(wrong) end
          setfenv(script, environment)
          return script()
        end"""
    )
    result = run(script, restrict(names, runtime.table_from(body, recursive=True)))
    return {str(key): value for key, value in result.items()}


def in_cel(programs: dict[str, celpy.Runner], body: dict[str, Any]) -> str:
    """Name of the first expression that is true, in Flux' order; an error counts as not yet."""
    activation = {key: celpy.json_to_cel(value) for key, value in body.items()}
    for name in ("inProgress", "failed", "current"):
        try:
            if name in programs and programs[name].evaluate(activation):
                return name
        except celpy.CELEvalError:
            break
    return "inProgress"


def main() -> None:
    """One answer for each object."""
    asked = json.load(sys.stdin)
    environment = celpy.Environment()
    programs = {name: environment.program(environment.compile(text)) for name, text in asked["cel"].items()}
    answers: list[dict[str, Any]] = []
    for body in asked["objects"]:
        try:
            answers.append({"argocd": in_lua(asked["lua"], body), "flux": in_cel(programs, body)})
        except lua51.LuaError as error:
            answers.append({"error": str(error)})
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
