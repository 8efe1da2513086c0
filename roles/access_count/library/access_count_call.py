#!/usr/bin/python
"""Run the program that counts accesses, whose text comes with the call, and hand its partial over."""

import base64

from ansible.module_utils.basic import AnsibleModule

PYTHON = "/usr/bin/python3"
MOST = 64 << 20  # bytes of a partial that go through a module's answer


def main():
    """Count, and answer with the partial."""
    module = AnsibleModule(
        argument_spec={
            "program": {"type": "str", "required": True},
            "words": {"type": "list", "elements": "str", "required": True},
            "key": {"type": "str", "required": True, "no_log": True},
        },
        supports_check_mode=True,  # reading changes nothing but what it remembers of having read
    )
    status, told, errors = module.run_command(
        [PYTHON, "-", *module.params["words"]],
        data=module.params["program"],
        environ_update={"HIKESHI_COUNT_KEY": module.params["key"]},
        encoding=None,
    )
    if status:
        module.fail_json(msg=errors.decode("utf-8", "replace").strip() or f"counting ended with status {status}")
    if len(told) > MOST:
        module.fail_json(
            msg=f"what was counted takes {len(told)} bytes, more than {MOST}: count a shorter time (--since), or copy "
            "the logs and count them with hikeshi count FILE…"
        )
    module.exit_json(changed=False, hikeshi={"answer": {"partial": base64.b64encode(told).decode()}})


if __name__ == "__main__":
    main()
