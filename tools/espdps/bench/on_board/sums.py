# One sum of a board's, for callgrind to count. BENCH_SUM says which; "" is a run that does all but the sum.
import sys

from uos import getenv

sys.path.insert(0, getenv("BENCH_LIBRARY"))
what = getenv("BENCH_SUM")
root = getenv("BENCH_UNIT")
KEY = "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXowMTIzNDU2Nzg5QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo="
from aziot import chain, keys, sas, x509  # noqa: E402

try:
    import hmac_on_sha256 as their_hmac  # noqa: E402
except ImportError:
    their_hmac = None
with open(root + "answer.json", "rb") as f:
    answer = f.read()
with open(root + "device.csr", "rb") as f:
    csr = f.read()
name = "bench-sums"

if what == "key":
    keys.derive_device_key(KEY, name)
elif what == "token":
    sas.dps_token("0ne00ABCDEF", name, KEY, 1800000000)
elif what == "chain":
    texts = chain.loads(answer, "registrationState", "issuedCertificateChain")
    x509.pick(texts["registrationState"]["issuedCertificateChain"], csr, name)
elif what == "json":
    import json

    texts = json.loads(answer)
    x509.pick(texts["registrationState"]["issuedCertificateChain"], csr, name)
elif what == "adafruit":
    from binascii import a2b_base64, b2a_base64

    b2a_base64(their_hmac.new_hmac(a2b_base64(KEY), msg=name.encode()).digest())
