"""Count on a host by the role's own program; what is asked and answered goes past what Ansible prints and templates."""

import json
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

PROGRAM = Path(__file__).parents[1] / "files" / "count.py"


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs the module of the same name with the program's text, so that counting needs nothing installed.

    `exchange` is a private folder on the controller: ask.json has the key of the digests and the words for each host,
    HOST.json gets the host's partial. Paths and clients in it are hostile: no variable ever holds them.
    """

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Return how many bytes the host's partial has."""
        host, exchange = task_vars["inventory_hostname"], Path(self._task.args["exchange"])
        asked = json.loads((exchange / "ask.json").read_text(encoding="utf-8"))
        result: dict[str, Any] = super().run(tmp, task_vars)
        words = asked["hosts"].get(host)
        if not words:
            return {**result, "skipped": True}
        arguments = {"program": PROGRAM.read_text(encoding="utf-8"), "words": words, "key": asked["key"]}
        result.update(self._execute_module(module_args=arguments, task_vars=task_vars))
        result.pop("invocation", None)
        answer = (result.pop("hikeshi", None) or {}).get("answer")
        if answer is None and not (result.get("failed") or result.get("unreachable")):
            result |= {"failed": True, "msg": "the host answered nothing"}
        if answer is not None:
            (exchange / f"{host}.json").write_text(json.dumps(answer), encoding="utf-8")
            result["hikeshi"] = {"host": host, "size": len(answer.get("partial", ""))}
        return result
