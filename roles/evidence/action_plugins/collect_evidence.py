"""Ask the host, but say ourselves who was asked what: a host does not choose its name, nor what its roles own."""

from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs the module of the same name and puts the controller's own words in its answer."""

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Return the module's result, its `host` and `subjects` being the inventory's."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        result.update(self._execute_module(task_vars=task_vars))
        if isinstance(result.get("hikeshi"), dict):
            result["hikeshi"] |= {
                "host": task_vars["inventory_hostname"],
                "subjects": self._task.args.get("subjects") or [],
            }
        return result
