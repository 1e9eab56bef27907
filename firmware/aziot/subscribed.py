# A note on flash of what the Hub's session has subscribed, so that a restart need not subscribe again.


def read(session):
    # The filters that the Hub's session is known to have.
    try:
        with open(session.device.identity.root + "subscribed") as f:
            first, *names = f.read().split("\n")
        return names if first == _whose(session) and names and names.pop() == "." else []
    except (OSError, ValueError):
        return []


def write(session, names):
    try:
        with open(session.device.identity.root + "subscribed", "w") as f:
            if names:
                f.write("\n".join([_whose(session)] + names + ["."]))
    except OSError:  # nowhere to write: every connection subscribes
        pass


def _whose(session):
    return session.record.hub + " " + session.record.device_id
