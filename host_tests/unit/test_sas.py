import vectors
from aziot.sas import dps_token, hub_token, quote


def test_dps_token_as_openssl_signs_it():
    assert dps_token("0ne00C0FFEE", "contoso-0001", vectors.DEVICE_KEY, 1900000000) == vectors.DPS_TOKEN


def test_hub_token_as_openssl_signs_it():
    assert hub_token("contoso.azure-devices.net", "contoso-0001", vectors.DEVICE_KEY, 1900000000) == vectors.HUB_TOKEN


def test_quote_leaves_only_unreserved_characters():
    # RFC 3986, 2.3; a space is %20 and not +
    assert quote("azAZ09-._~") == "azAZ09-._~"
    assert quote("a/b:c d+e=f&g") == "a%2Fb%3Ac%20d%2Be%3Df%26g"
    assert quote("\u00e9\u20ac") == "%C3%A9%E2%82%AC"
    assert quote("") == ""
