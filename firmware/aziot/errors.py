# The one exception that leaves this library, and the one place that decides what is worth retrying.

# Local conditions that can pass by themselves. Everything else local needs a person.
_PASSING = ("timeout", "closed", "dns", "tcp", "ntp", "network", "memory", "connack-3", "too-big", "platform")


def is_retriable(code):
    # Service codes carry the HTTP status in front (429001, 401002); 429 and 5xx are worth another try.
    # 403000 also means that roles or a namespace of DPS are not ready yet.
    if isinstance(code, int):
        status = code if code < 1000 else code // 1000
        return status == 429 or status == 408 or status >= 500 or code == 403000
    # A server that cannot be verified may be a captive portal, and anyone on the path can send a TLS alert.
    return code[:3] == "tls" or code in _PASSING


def seconds(wait):
    """What a service asks to wait, in whatever form -> whole seconds, at most an hour; 0 if it makes no sense."""
    try:
        return max(0, min(int(float(wait) + 0.9), 3600))
    except (ValueError, TypeError, OverflowError):
        return 0


class AzureError(Exception):
    """What failed and where.

    code: the service's number (401002) or a short word ("clock", "tls-root"); step: what was being done
    ("dps.register"); text: the service's or the runtime's own words; retriable: may pass by itself;
    retry_after: seconds the service asked to wait, at most an hour, 0 if it did not; tracking_id: the service's, or "".
    """

    def __init__(self, code, step, text="", retry_after=0, tracking_id=""):
        super().__init__(code)
        self.code = code
        self.step = step
        self.text = text
        self.retriable = is_retriable(code)
        self.retry_after = seconds(retry_after)
        self.tracking_id = tracking_id

    def __str__(self):
        tracking = "tracking %s " % self.tracking_id if self.tracking_id else ""
        return ("%s %s %s%s" % (self.step, self.code, tracking, self.text)).rstrip()
