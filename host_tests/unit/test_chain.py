from binascii import a2b_base64

import vectors
from aziot import chain, clock
from check import raises

CSR = a2b_base64(vectors.P384_CSR)
LEAF, INTERMEDIATE, ROOT = vectors.P384_LEAF, vectors.INTERMEDIATE, vectors.ROOT


def pick(certificates, now=1800000000, name="contoso-0001", csr=CSR):
    real, clock.require = clock.require, lambda: now
    try:
        return chain.pick(certificates, csr, name)
    finally:
        clock.require = real


def test_the_leaf_is_found_wherever_it_stands():
    for certificates in (
        [LEAF, INTERMEDIATE, ROOT],
        [ROOT, INTERMEDIATE, LEAF],
        [INTERMEDIATE, LEAF, ROOT],
        [INTERMEDIATE, LEAF],
    ):
        leaf, kept = pick(certificates)
        assert leaf.subject == "contoso-0001" and kept == [LEAF, INTERMEDIATE]


def test_a_leaf_alone_and_with_strangers():
    assert pick([LEAF])[1] == [LEAF]
    assert pick([LEAF, ROOT])[1] == [LEAF]
    # What does not lead up from the leaf is of no use to anybody.
    assert pick([vectors.OTHER_LEAF, LEAF, INTERMEDIATE, ROOT])[1] == [LEAF, INTERMEDIATE]


def test_four_certificates_in_any_order():
    deep = [vectors.DEEP_LEAF, vectors.SECOND, INTERMEDIATE, ROOT]
    csr = a2b_base64(vectors.DEEP_CSR)
    for a in range(4):
        for b in range(4):
            for c in range(4):
                if len({a, b, c}) == 3:
                    order = [deep[a], deep[b], deep[c], deep[6 - a - b - c]]
                    assert pick(order, csr=csr)[1] == deep[:3], (a, b, c)


def test_each_key_type():
    for kind in ("P384", "P256", "RSA"):
        text = getattr(vectors, kind + "_LEAF")
        assert pick([text], csr=a2b_base64(getattr(vectors, kind + "_CSR")))[1] == [text]


def test_not_ours():
    raises("cert-key", pick, [vectors.P256_LEAF, INTERMEDIATE, ROOT])
    raises("cert-key", pick, [])
    raises("cert-name", pick, [LEAF], 1800000000, "contoso-0002")
    assert pick([LEAF], name="CONTOSO-0001")  # registration ids are case-insensitive
    raises("cert-date", pick, [LEAF], 2398377599)
    assert pick([LEAF], 2398377598)
    raises("cert-date", pick, [LEAF], 1767225600 - 301)
    assert pick([LEAF], 1767225600 - 299)  # clocks differ a little


def test_not_certificates():
    for bad in (["!!!!"], [""], ["QUJD"], [LEAF[:100]], [None], [7], [{}], "text", {"a": 1}, 7):
        raises("cert-form", pick, bad)
