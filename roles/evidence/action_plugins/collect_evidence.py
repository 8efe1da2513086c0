"""Ask the host, but say ourselves who was asked what: a host does not choose its name, nor what its roles own."""

import json
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs the module of the same name and puts the controller's own words in its answer.

    With `exchange`, a private folder on the controller, the host is also asked for more: what to ask with (ask.json) is
    read there, and the answer is written there, HOST.json: {state, programs}. So neither the key nor the texts of files
    and jobs pass through what Ansible prints, keeps or hands on. In ask.json stand `state` (key, texts, known: host →
    digests), null where the host's whole state is not asked for, and `programs`, name → the text of a program of
    another role that tells more when it is told to `collect`, and changes nothing.
    """

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Return the module's result, its `host` and `subjects` being the inventory's."""
        host, subjects = task_vars["inventory_hostname"], self._task.args.get("subjects") or []
        arguments = {**self._task.args}
        exchange = arguments.pop("exchange", "")
        if exchange:
            asked = json.loads((Path(exchange) / "ask.json").read_text(encoding="utf-8"))
            arguments["programs"] = asked["programs"]
            if state := asked["state"]:
                arguments["state"] = {
                    "key": state["key"],
                    "texts": state["texts"],
                    "known": state["known"].get(host, []),
                    "roots": sorted({root for subject in subjects for root in subject.get("roots") or []}),
                }
        result: dict[str, Any] = super().run(tmp, task_vars)
        result.update(self._execute_module(module_args=arguments, task_vars=task_vars))
        result.pop("invocation", None)
        if not isinstance(result.get("hikeshi"), dict) and not (result.get("failed") or result.get("unreachable")):
            # Else the site would be judged without this host, and be found healthy.
            result |= {"failed": True, "msg": "the host answered without any evidence"}
        if isinstance(result.get("hikeshi"), dict):
            more = {name: result["hikeshi"].pop(name, None) for name in ("state", "programs")}
            if exchange:
                (Path(exchange) / f"{host}.json").write_text(json.dumps(more), encoding="utf-8")
            result["hikeshi"] |= {"host": host, "subjects": subjects}
        return result
