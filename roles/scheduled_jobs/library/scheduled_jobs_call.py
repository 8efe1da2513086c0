#!/usr/bin/python
"""Call the program that holds jobs, whose text comes with the call: what is asked needs nothing installed."""

from ansible.module_utils.basic import AnsibleModule

PYTHON = "/usr/bin/python3"
REFUSED = 2  # some of it was refused, and each answer says what


def main():
    """Make one call after the other; an answer that is none ends it."""
    module = AnsibleModule(
        argument_spec={
            "program": {"type": "str", "required": True},
            "calls": {"type": "list", "elements": "list", "required": True},
        },
        supports_check_mode=True,
    )
    answers = []
    for words in module.params["calls"]:
        more = ["--check"] if module.check_mode and words[0] != "collect" else []
        status, told, errors = module.run_command([PYTHON, "-", *words, *more], data=module.params["program"])
        if not told.strip():
            refused = "jobs refused: " if status == REFUSED else ""
            module.fail_json(msg=f"{refused}{errors.strip() or f'jobs {words[0]} ended with status {status}'}")
        answers.append(module.from_json(told))
    module.exit_json(changed=any(answer.get("changed") for answer in answers), hikeshi={"answers": answers})


if __name__ == "__main__":
    main()
