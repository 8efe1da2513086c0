"""Ask the program that holds jobs on a host; what is asked and answered goes past what Ansible prints and templates."""

import json
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

PROGRAM = Path(__file__).parents[1] / "files" / "jobs.py"


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs the module of the same name with the role's own program.

    `exchange` is a private folder on the controller: ask.json says what each host is asked (host → list of calls, each
    a list of words), HOST.json what it answered. Names and bodies of jobs are hostile: no variable ever holds them, or
    Ansible would read them as templates; and bodies may hold secrets, which no event may carry.
    """

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Return whether something was changed, and how many calls were answered."""
        host, exchange = task_vars["inventory_hostname"], Path(self._task.args["exchange"])
        calls = json.loads((exchange / "ask.json").read_text(encoding="utf-8")).get(host, [])
        result: dict[str, Any] = super().run(tmp, task_vars)
        if not calls:
            return {**result, "skipped": True}
        arguments = {"program": PROGRAM.read_text(encoding="utf-8"), "calls": calls}
        result.update(self._execute_module(module_args=arguments, task_vars=task_vars))
        result.pop("invocation", None)
        answers = (result.pop("hikeshi", None) or {}).get("answers")
        if answers is None and not (result.get("failed") or result.get("unreachable")):
            result |= {"failed": True, "msg": "the host answered nothing"}
        if answers is not None:
            (exchange / f"{host}.json").write_text(json.dumps(answers), encoding="utf-8")
            result["hikeshi"] = {"host": host, "answered": len(answers)}
        return result
