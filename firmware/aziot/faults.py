# What an exception or a refusal means. Loaded only when something has failed, so a board that is well pays nothing.
import errno

from umqtt.simple import MQTTException

from .errors import AzureError

# mbedTLS's words for a certificate that does not hold, in the order in which they matter
_UNVERIFIED = (("trusted CA", "tls-root"), ("(CN)", "tls-name"), ("validity", "tls-date"))


def fault(e, stream):
    """The AzureError for whatever was raised while stream was in use, by MQTT, TLS, a socket or name resolution."""
    number = e.args[0] if e.args else None
    text = str(e)
    if isinstance(e, AzureError):
        return e
    if isinstance(e, MQTTException):
        code = "suback" if number == 0x80 else "connack-%d" % number
        text = ""
    elif isinstance(e, (AssertionError, IndexError)):  # umqtt.simple's check of what the server sent
        code = "protocol"
    elif isinstance(e, OSError) and isinstance(number, int):
        code = _os_error(number, stream.link)
    elif not isinstance(e, ValueError):
        code = "platform"  # a fault of ours or of MicroPython
        text = "%s: %s" % (type(e).__name__, text)
    else:
        code = "tls"
        for words, short in _UNVERIFIED:
            if words in text:
                code = short
                break
    return AzureError(code, stream.step, text.strip())


# mbedTLS's codes for memory: of PEM, X.509, DHM, PK, ECP, MD, CIPHER, SSL; and of MPI and ASN.1, which can be added to
# the code of another part.
_HIGH = (0x1180, 0x2880, 0x3400, 0x3F80, 0x4D80, 0x5180, 0x6180, 0x7F00)
_LOW = (0x10, 0x6A)


def _os_error(number, connected):
    if connected and number < 0 and (-number & 0x7F80 in _HIGH or -number & 0x7F in _LOW):
        return "memory"
    if connected and -1000 < number < 0:
        number = -number  # what the stream had told mbedTLS
    if number == errno.ENOMEM:
        return "memory"
    if number == errno.ETIMEDOUT:
        return "timeout"
    if not connected:
        return "dns" if number < 0 else "tcp"
    if number == -30592:  # MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE
        return "tls-alert"
    if number < -9999 and number not in (-29312, -30848):  # mbedTLS, but neither end of file nor close notify
        return "tls"
    return "closed"


def wifi(status):
    """What WLAN.status() means on ESP32: reasons of ESP-IDF (wifi_err_reason_t), and MicroPython's from 1000 on."""
    words = {
        15: "wrong password",
        200: "signal lost",
        201: "no network of this name found",
        202: "wrong password",
        203: "refused by the access point",
        204: "wrong password",
        210: "no network of this name with a known security",
        211: "the network's security is too weak",
        212: "the signal is too weak",
        1001: "no answer",
    }
    return "Wi-Fi status %s: %s" % (status, words.get(status, "not connected"))


def refusal(step, status, answer, retry_after=0):
    """The AzureError for an answer of DPS or IoT Hub (status of its topic; whatever its JSON was, or None) that is not
    good."""
    if not isinstance(answer, dict):
        answer = {}
    tracking_id = answer.get("trackingId")
    text = ""
    if status < 300:  # of DPS
        name = answer.get("status")
        state = answer.get("registrationState")
        answer = state if isinstance(state, dict) else {}
        if name in ("failed", "disabled"):  # these come with 200
            status = name
        else:
            status = "protocol"
            text = str(name)
        profile = answer.get("connectionProfile") or "classic"
        if name == "assigned" and str(profile).lower() != "classic":
            status = "profile"
            text = str(profile)
    code = answer.get("errorCode")
    if code == 403000:  # it takes minutes until roles or a namespace are ready
        retry_after = retry_after or 120
    return AzureError(
        code if isinstance(code, int) and code else status,
        step,
        answer.get("message") or answer.get("errorMessage") or text,
        answer.get("retryAfter") or retry_after,
        tracking_id or "",
    )
