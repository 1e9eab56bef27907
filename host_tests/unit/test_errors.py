from aziot.errors import AzureError, is_retriable


def test_throttling_and_server_faults_are_worth_retrying():
    for code in (403000, 429, 429001, 429002, 500, 500001, 503, 503001, 408):
        assert is_retriable(code), code


def test_other_answers_of_the_service_are_fatal():
    for code in (400, 400004, 400207, 403001, 401, 401002, 404201, 405, 409203, 412, 415):
        assert not is_retriable(code), code


def test_what_passes_by_itself():
    for code in (
        "timeout", "closed", "dns", "tcp", "ntp", "network", "connack-3", "tls", "tls-root", "tls-name", "tls-date",
        "tls-alert",
    ):  # fmt: skip
        assert is_retriable(code), code
    for code in ("connack-5", "cert-key", "clock", "config", "key", "disabled", "failed"):
        assert not is_retriable(code), code


def test_a_wait_that_the_service_asks_for_has_its_bounds():
    # 3,600 s: Retry-After of Azure services is seconds to minutes; RFC 9110 has seconds, whole and not negative
    for wait, seconds in (
        (7, 7), (0, 0), (150, 150), (3600, 3600), (10**9, 3600), (10**30, 3600), (-5, 0), (2.5, 3), ("12", 12),
        ("2.1", 3), ("soon", 0), ("Wed, 21 Oct 2026 07:28:00 GMT", 0), ("1e400", 0), ("nan", 0), (None, 0), ([], 0),
        ({}, 0), ("", 0), (float("inf"), 0),
    ):  # fmt: skip
        assert AzureError(429001, "x", "", wait).retry_after == seconds, wait


def test_text_names_step_code_and_tracking_id():
    e = AzureError(401002, "dps.register", "CA certificate not found.", 7, "a-1")
    assert str(e) == "dps.register 401002 tracking a-1 CA certificate not found."
    assert (e.code, e.step, e.retry_after, e.tracking_id, e.retriable) == (401002, "dps.register", 7, "a-1", False)
    assert str(AzureError("timeout", "hub.poll")) == "hub.poll timeout"
