from aziot.errors import AzureError, is_retriable


def test_throttling_and_server_faults_are_worth_retrying():
    for code in (429, 429001, 429002, 500, 500001, 503, 503001, 408):
        assert is_retriable(code), code


def test_other_answers_of_the_service_are_fatal():
    for code in (400, 400004, 400207, 401, 401002, 404201, 405, 409203, 412, 415):
        assert not is_retriable(code), code


def test_what_passes_by_itself():
    for code in ("timeout", "closed", "dns", "tcp", "ntp", "network", "connack-3"):
        assert is_retriable(code), code
    for code in ("tls-root", "tls-name", "connack-5", "cert-key", "clock", "config", "key", "disabled", "failed"):
        assert not is_retriable(code), code


def test_text_names_step_code_and_tracking_id():
    e = AzureError(401002, "dps.register", "CA certificate not found.", 7, "a-1")
    assert str(e) == "dps.register 401002 tracking a-1 CA certificate not found."
    assert (e.code, e.step, e.retry_after, e.tracking_id, e.retriable) == (401002, "dps.register", 7, "a-1", False)
    assert str(AzureError("timeout", "hub.poll")) == "hub.poll timeout"
