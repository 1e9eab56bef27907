"""The SDKs' end of the dialogue with sdk.py: a step is a JSON line on stdin, a result or what came by itself one on stdout.

Nothing of esp-dps may be used here, and no key may be printed.
"""

import json
import sys
import threading

_OUT = threading.Lock()


def say(**item):
    with _OUT:
        print(json.dumps(item), flush=True)


def main(subject):
    """Each step is a method of ``subject``; it ends with stdin."""
    for line in sys.stdin:
        step = json.loads(line)
        try:
            say(result=getattr(subject, step.pop("do"))(**step))
        except Exception as error:  # any of the SDK's, for the test to judge
            text = str(error) if error.__cause__ is None else f"{error} / {error.__cause__}"
            response = getattr(error, "response", None)
            say(error=type(error).__name__, text=text, status=getattr(response, "status_code", None))
