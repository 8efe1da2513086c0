#!/usr/bin/python
"""Take one step of the gate by its program on the host, and tell the controller what stands then."""

from ansible.module_utils.basic import AnsibleModule

TIMED = ("drain", "block", "renew")
REFUSED = 2


def main():
    """Run the program once."""
    module = AnsibleModule(
        argument_spec={
            "program": {"type": "path", "required": True},
            "step": {
                "type": "str",
                "required": True,
                "choices": ["install", "status", "drain", "block", "renew", "unblock", "undrain"],
            },
            "seconds": {"type": "str", "default": ""},
            "about": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    step, seconds = module.params["step"], module.params["seconds"]
    words = [module.params["program"], step]
    if step in TIMED:
        # A drain never lasts for ever: it is one step of a closing.
        words += [] if step == "drain" and seconds == "never" else [seconds]
    if module.check_mode and step != "status":
        words.append("--check")
    status, told, errors = module.run_command(words)
    if status:
        refused = "gate refused: " if status == REFUSED else ""
        module.fail_json(msg=f"{refused}{errors.strip() or told.strip() or f'gate {step} ended with status {status}'}")
    seen = module.from_json(told)
    module.exit_json(changed=bool(seen.pop("changed", False)), hikeshi={"gate": seen, "about": module.params["about"]})


if __name__ == "__main__":
    main()
