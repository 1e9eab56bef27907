# DPS API 2021-11-01-preview, where certificates travel as PEM text under other names. Loaded only when configured.
from binascii import b2a_base64


def add_csr(body, csr):
    """Put a CSR (DER bytes) into the body of a registration."""
    body["clientCertificateCsr"] = _PEM % b2a_base64(csr).decode()


def read_chain(state):
    """Give registrationState (dict) today's issuedCertificateChain: a list of base64 DER, leaf first."""
    pem = state.get("issuedClientCertificate") if isinstance(state, dict) else None
    if isinstance(pem, str):
        parts = pem.split("-----BEGIN CERTIFICATE-----")[1:]
        state["issuedCertificateChain"] = ["".join(part.split("-----END")[0].split()) for part in parts]


_PEM = "-----BEGIN CERTIFICATE REQUEST-----\n%s-----END CERTIFICATE REQUEST-----\n"
