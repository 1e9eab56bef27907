# The device twin: questions to it, and the changes of its desired properties. Loaded when an application asks for it.
from .clock import due, left
from .cloud import loads
from .errors import AzureError


class Twin:
    """The twin of one Session's device; it outlives the connection."""

    desired = None  # the handler
    version = None  # of the desired properties that the application knows; None: it shall hear of all
    rid = ""  # of the last question
    stale = False  # desired properties may have changed unheard

    def __init__(self, cloud):
        self.cloud = cloud
        self.session = cloud.session
        self.document = {}  # those properties

    def hear(self, topic, body):
        # From within MQTT, an answer -> whether its topic is of the right form.
        try:
            _, _, _, status, query = str(topic, "utf-8").split("/")
            pairs = query[1:].split("&")
            if self.rid in pairs:
                pairs.remove(self.rid)
                self.answer = int(status), pairs, body
            return True
        except ValueError:
            return False

    def on_desired(self, handler):
        self.desired = handler
        self.version = None
        self.stale = True
        self.cloud.want("$iothub/twin/PATCH/properties/desired/#")
        self.refresh()

    def ask(self, what, body):
        """A question to the twin -> its version, and the answer as bytes."""
        session = self.session
        self.cloud.want("$iothub/twin/res/#")
        session.stream.step = "hub.twin"
        self.rid = "$rid=%d" % due(0)
        self.answer = None
        session.mqtt.publish("$iothub/twin/%s/?%s" % (what, self.rid), body)
        end = due(session.device.identity.timeout * 1000)
        while not self.answer:
            if left(end) <= 0:
                raise AzureError("timeout", "hub.twin")
            session.mqtt.wait(max(1, left(end)))
        status, pairs, body = self.answer
        if status > 299:
            from .faults import refusal

            raise refusal("hub.twin", status, _json(body))
        try:
            return int(pairs[0][9:]) if pairs else 0, body  # $version=
        except ValueError:
            raise AzureError("protocol", "hub.twin")

    def get(self):
        body = self.ask("GET", b"")[1]
        if body is not None:
            try:
                twin = loads(body)
                twin["desired"]["$version"] + 0
                return twin
            except (ValueError, KeyError, TypeError):
                raise AzureError("protocol", "hub.twin")
            except MemoryError:
                self.session._skip(len(body))
                body = None
        raise AzureError("too-big", "hub.twin")

    def refresh(self):
        # What has changed since the application last heard of it, by comparison: also what was deleted. Desired
        # properties for which there is no room are left alone until they change.
        self.stale = False
        first = self.version is None
        try:
            document = self.get()["desired"]
            version = document.pop("$version")
            patch = _difference(self.document, document, first)
        except (AzureError, MemoryError) as e:
            if isinstance(e, AzureError) and e.code != "too-big":
                raise
            document = patch = self.version = None  # whatever comes next is news
            self.document = {}
            return
        self.document, self.version = document, version
        if patch or first:
            self.cloud.call(self.desired, patch, version)

    def patch(self, body):
        patch = loads(body) if body else None
        if not isinstance(patch, dict):
            self.stale = True
            return
        version = patch.pop("$version")
        if self.stale or self.version is None or version != self.version + 1:
            # One is missing; an older one is no news.
            self.stale = self.stale or self.version is None or version > self.version
        else:
            _merge(self.document, patch)
            self.version = version
            self.cloud.call(self.desired, patch, version)


def _json(body):
    try:
        return loads(body)
    except (ValueError, TypeError):
        return None


def _merge(document, patch):
    for name, value in patch.items():
        if value is None:
            document.pop(name, None)
        elif isinstance(value, dict) and isinstance(document.get(name), dict):
            _merge(document[name], value)
        else:
            document[name] = value


def _difference(old, new, whole):
    # The patch that makes new of old, or of whatever there is.
    patch = {name: None for name in old if name not in new}
    for name, value in new.items():
        before = old.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            value = _difference(before, value, whole)
            if value or whole:
                patch[name] = value
        elif whole or value != before:
            patch[name] = value
    return patch
